"""Changed copies of images, the queries of instance recall: can a search find the original of a picture that was altered?"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mrl_search.models.torchvision_import import import_torchvision

__all__ = ["HARD", "PROTOCOLS", "STANDARD", "CopyProtocol", "changed_copy"]

KERNEL, SIGMA = 5, (0.1, 2.0)  # of the blur, in pixels: torchvision's usual deviations


@dataclass(frozen=True, slots=True)
class CopyProtocol:
    """How a copy is changed, in the order of what happens to it.

    Attributes:
        area: share of the area that the crop keeps, from and to.
        aspect: width over height of the crop, from and to.
        flip: probability of a horizontal flip.
        jitter: of the colours, as in torchvision.
        rotate: before the crop, at most so many degrees either way; corners that open up are black.
        blur: last but one, whether to blur by a Gaussian of 5x5 pixels with a deviation of 0.1 to 2.
        quality: of a JPEG that the copy is saved as in the end; 0: it is not.
    """

    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: float
    jitter: tuple[float, float, float, float]
    rotate: float = 0.0
    blur: bool = False
    quality: int = 0


STANDARD = CopyProtocol(area=(0.5, 0.9), aspect=(0.8, 1.25), flip=0.5, jitter=(0.3, 0.3, 0.3, 0.02))
HARD = CopyProtocol(
    area=(0.25, 0.5), aspect=(0.75, 4 / 3), flip=0.5, jitter=(0.5, 0.5, 0.5, 0.05), rotate=20.0, blur=True, quality=30,
)  # fmt: skip
PROTOCOLS = {"standard": STANDARD, "hard": HARD}


def changed_copy(image: Image.Image, side: int, seed: int, protocol: CopyProtocol = STANDARD) -> NDArray[np.uint8]:
    """A changed copy of `image`, squashed to (side, side, 3) uint8; the same seed gives the same copy."""
    v2 = import_torchvision("torchvision.transforms.v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        turn = [v2.RandomRotation(protocol.rotate, v2.InterpolationMode.BILINEAR)] if protocol.rotate else []
        crop = v2.RandomResizedCrop(side, scale=protocol.area, ratio=protocol.aspect)
        blur = [v2.GaussianBlur(KERNEL, SIGMA)] if protocol.blur else []
        changes = [*turn, crop, v2.RandomHorizontalFlip(protocol.flip), v2.ColorJitter(*protocol.jitter), *blur]
        copy: Image.Image = v2.Compose(changes)(image)
    if protocol.quality:
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=protocol.quality)
        copy = Image.open(file)
    return np.asarray(copy)
