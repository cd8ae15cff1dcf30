"""What an encoder is, and the values it is made of. Imports neither torch nor a model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, runtime_checkable

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from mrl_search.errors import ModelError, require
from mrl_search.images.decode import decode, square

__all__ = [
    "Access", "Encoder", "LinearHeads", "Offer", "Preprocessing", "TextEncoder", "fingerprint",
]  # fmt: skip

INTERPOLATIONS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
FITS = ("squash", "cover", "contain")
WIDEST = 32  # sides: of a longer picture, only the middle is resized


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a picture becomes the input of a network.

    Attributes:
        size: side of the square input, in pixels.
        fit: `squash` the picture to a square; or resize its shorter side (`cover`) or its longer
            side (`contain`), and keep the centre or fill up the rest.
        resize: side in pixels before a central square of `size` is cut, as torchvision, timm and
            open_clip do it, to the last pixel; 0: squash to `size`, large JPEGs from a reduced one.
        fill: of the rest, for `contain`: a value of each channel, from 0 to 255.
        interpolation: `bilinear`, `bicubic` or `lanczos`.
        mean: of each channel, from 0 to 1; subtracted from the pixels.
        std: of each channel; the difference is divided by it.
        mirror: the network embeds the mean of the picture and its mirror image.
    """

    size: int
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    mirror: bool = False
    fit: str = "squash"
    resize: int = 0
    fill: tuple[int, int, int] = (0, 0, 0)

    def __post_init__(self) -> None:
        require(self.size > 0, f"size is {self.size}; it must be positive.")
        message = f"fit is {self.fit!r}; it must be one of {', '.join(FITS)}."
        require(self.fit in FITS, message)
        message = f"resize is {self.resize}; it must be positive for the fit {self.fit}."
        require(self.resize > 0 or (self.resize == 0 and self.fit == "squash"), message)
        require(
            self.interpolation in INTERPOLATIONS,
            f"interpolation is {self.interpolation!r}; it must be one of"
            f" {', '.join(INTERPOLATIONS)}.",
        )

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """The (size, size, 3) uint8 pixels of an RGB image, before `mean` and `std`."""
        resampling = INTERPOLATIONS[self.interpolation]
        if not self.resize:
            return square(image, self.size, resampling)
        short, long = min(image.size), max(image.size)
        if long > WIDEST * short and self.fit == "cover":
            image, long = _centre(image, WIDEST * short, self.fill, grow=False), WIDEST * short
        if self.fit == "squash":
            size = self.resize, self.resize
        elif self.fit == "cover":
            other = int(self.resize * long / short)
            wide = image.size[0] > image.size[1]
            size = (other, self.resize) if wide else (self.resize, other)
        else:
            width, height = (max(1, round(side / (long / self.resize))) for side in image.size)
            size = width, height
        if image.size != size:
            image = image.resize(size, resampling)
        return np.asarray(_centre(image, self.size, self.fill))

    def decode(self, data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Decode an image file to pixels, and the (width, height) of the whole image.

        Raises:
            BrokenImage: the file cannot be decoded.
        """
        image, original = decode(data, None if self.resize else self.size)
        return self.pixels(image), original


def _centre(
    image: Image.Image, side: int, fill: tuple[int, int, int], grow: bool = True
) -> Image.Image:
    """The central square of `side` pixels; smaller pictures are padded if they may grow."""
    width, height = image.size
    if grow and min(width, height) < side:
        padded = Image.new("RGB", (max(side, width), max(side, height)), fill)
        padded.paste(image, (max(0, side - width) // 2, max(0, side - height) // 2))
        image, (width, height) = padded, padded.size
    left, top = (max(0, round((length - side) / 2)) for length in (width, height))
    return image.crop((left, top, min(width, left + side), min(height, top + side)))


@dataclass(frozen=True, slots=True)
class Offer:
    """Weights that are not on this machine.

    Attributes:
        model: whose they are.
        source: where they come from, such as a repository or an address.
        licence: as their library states it; empty where it does not.
        nbytes: about how many bytes they take; 0 where that is unknown.
        place: where a user can put them by hand.
    """

    model: str
    source: str
    licence: str
    nbytes: int
    place: str

    def __str__(self) -> str:
        licence = self.licence or "not stated by the library"
        size = f"about {self.nbytes / 1e6:,.0f} MB" if self.nbytes else "size unknown"
        return f"{self.model}: {size} from {self.source}; licence: {licence}"


@dataclass(frozen=True, slots=True)
class Access:
    """What opening an encoder may do.

    Attributes:
        fetch: whether weights may be downloaded. A name that only stands in an index is data, so
            it starts no download.
        device: `auto`, `cpu`, `cuda`, `mps`, or another name that torch takes.
        ask: whether to download what is offered; None downloads it.
    """

    fetch: bool = True
    device: str = "auto"
    ask: Callable[[Offer], bool] | None = None

    def permit(self, offer: Offer) -> None:
        """Return if the offer may be downloaded.

        Raises:
            ModelError: it may not.
        """
        hint = f"Put them into {offer.place}, or name the file: --model {offer.model}@FILE"
        if not self.fetch:
            message = f"The weights of {offer.model} are not on this machine."
            download = f"To download them, name the model without --offline: --model {offer.model}"
            raise ModelError(message, f"{download}\n{hint}")
        if self.ask and not self.ask(offer):
            message = f"The weights of {offer.model} were not downloaded."
            raise ModelError(message, f"To agree to the download: --yes\n{hint}")


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
    """Turns pictures into vectors. A joint model also has `encode_text` (see `TextEncoder`).

    Attributes:
        model: the name that `load_encoder` opens it by.
        name: a short name for people.
        fingerprint: of everything that changes a vector. Never compare vectors of two encoders.
        dims: prefix lengths, ascending; the last one is the whole vector.
        preprocessing: turns a picture into the pixels that `encode` takes.
        heads: classifiers on the prefixes; empty where the model has none.
        training: how it was trained: recipe, pictures, metrics; empty where that is unknown.
        axes: along which an index stores its vectors by default (`mrl_search.axes`); `none` for
            vectors that are nested already.
        device: where it runs, such as `cpu`.
    """

    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    heads: LinearHeads
    training: Mapping[str, Any]
    axes: str
    device: Any

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, size, size, 3) pixels: (n, dim) float32, not normalised.

        The norm of a row is part of what a linear head takes.
        """
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """A joint model of pictures and words, whose vectors can be compared."""

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts: (n, dim) float32, not normalised."""
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
