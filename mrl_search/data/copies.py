"""Changed copies of images, the queries of instance recall: can a search find the original of a picture that was altered?"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mrl_search.models.torchvision_import import import_torchvision

__all__ = ["STANDARD", "CopyProtocol", "changed_copy"]


@dataclass(frozen=True, slots=True)
class CopyProtocol:
    """How a copy is changed: share of the area kept by the crop, its aspect, flip probability, and colour jitter as in torchvision."""

    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: float
    jitter: tuple[float, float, float, float]


STANDARD = CopyProtocol(area=(0.5, 0.9), aspect=(0.8, 1.25), flip=0.5, jitter=(0.3, 0.3, 0.3, 0.02))


def changed_copy(image: Image.Image, side: int, seed: int, protocol: CopyProtocol = STANDARD) -> NDArray[np.uint8]:
    """A changed copy of `image`, squashed to (side, side, 3) uint8; the same seed gives the same copy."""
    v2 = import_torchvision("torchvision.transforms.v2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        crop = v2.RandomResizedCrop(side, scale=protocol.area, ratio=protocol.aspect)
        return np.asarray(v2.Compose([crop, v2.RandomHorizontalFlip(protocol.flip), v2.ColorJitter(*protocol.jitter)])(image))
