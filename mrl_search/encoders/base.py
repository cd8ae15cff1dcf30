"""What an encoder is, and the values it is made of. Imports neither torch nor a model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from mrl_search.errors import require
from mrl_search.images.decode import decode, square

__all__ = ["Encoder", "LinearHeads", "Preprocessing", "fingerprint"]

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    Attributes:
        size: side of the square input, in pixels.
        crop: share of the shorter side that a central square keeps. None squashes the whole
            picture to a square, so that a search sees all of it.
        interpolation: `bilinear`, `bicubic` or `lanczos`.
        mean: of each channel, from 0 to 1; subtracted from the pixels.
        std: of each channel; the difference is divided by it.
        mirror: the network embeds the mean of the picture and its mirror image.
    """

    size: int
    crop: float | None = None
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = False

    def __post_init__(self) -> None:
        require(self.size > 0, f"size is {self.size}; it must be positive.")
        message = f"crop is {self.crop}; it must be a share over 0 and up to 1, or None."
        require(self.crop is None or 0 < self.crop <= 1, message)
        require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation is {self.interpolation!r}; it must be one of"
            f" {', '.join(INTERPOLATIONS)}.",
        )

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The (size, size, 3) uint8 pixels of an RGB image, before `mean` and `std`."""
        resampling = INTERPOLATIONS[self.interpolation]
        if self.crop is None:
            return square(image, self.size, resampling)
        side = self.crop * min(image.size)
        left, top = ((length - side) / 2 for length in image.size)
        return square(image, self.size, resampling, (left, top, left + side, top + side))

    def decode(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode an image file to pixels, and the (width, height) of the whole image.

        Raises:
            BrokenImage: the file cannot be decoded.
        """
        image, original = decode(data, round(self.size / (self.crop or 1)))
        return self.pixels(image), original


@dataclass(frozen=True, eq=False, slots=True)
class LinearHeads:
    """A linear classifier on each prefix of an embedding.

    Attributes:
        classes: class names, in the order of the rows of the weights; empty without heads.
        weights: by prefix length, a weight (classes, dims) and a bias (classes,), float32.
        unit: the heads take prefixes of norm 1, as cosine heads do; else raw prefixes.
    """

    classes: tuple[str, ...] = ()
    weights: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(
        default_factory=dict
    )
    unit: bool = False


class Encoder(Protocol):
    """Turns pictures into vectors.

    Attributes:
        model: the name that `load_encoder` opens it by.
        name: a short name for people.
        fingerprint: of everything that changes a vector. Never compare vectors of two encoders.
        dims: prefix lengths, ascending; the last one is the whole vector.
        preprocessing: turns a picture into the pixels that `encode` takes.
        heads: classifiers on the prefixes; empty where the model has none.
        training: how it was trained: recipe, pictures, metrics; empty where that is unknown.
    """

    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    heads: LinearHeads
    training: Mapping[str, Any]

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, size, size, 3) pixels: (n, dim) float32, not normalised.

        The norm of a row is part of what a linear head takes.
        """
        ...


def fingerprint(weights: str, preprocessing: Preprocessing, implied: Preprocessing) -> str:
    """The fingerprint of an encoder, 32 hex digits.

    Args:
        weights: a fingerprint of the weights, which also covers `implied`.
        preprocessing: of the encoder.
        implied: the preprocessing that these weights are used with where nothing is changed.

    Returns:
        `weights` itself where nothing is changed, so that older indexes still open.
    """
    values = ((f.name, getattr(preprocessing, f.name)) for f in fields(Preprocessing))
    changes = {name: value for name, value in values if value != getattr(implied, name)}
    return xxhash.xxh3_128_hexdigest(f"{weights} {changes}".encode()) if changes else weights
