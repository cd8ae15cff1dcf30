"""Twins: pictures that were saved again, so that their bytes differ and their pixels hardly do."""

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import adaptive_avg_pool2d

from mrl_search.images.look import SAME, likeness, look_of
from mrl_search.training.pixels import Pixels
from mrl_search.vectors import blocks

__all__ = ["twins_of"]

THUMBNAIL = 8  # pixels a side
NEAR = 4.0  # root mean square of the difference of thumbnails, of 255, up to which two are compared


def twins_of(pixels: Pixels) -> dict[str, str]:
    """The content hash of each picture that a picture before it shows, too: to the hash of that.

    Thumbnails find pairs, a second look decides. Pictures of the same bytes are no twins.
    """
    images, hashes = pixels.images, pixels.hashes
    small = np.concatenate([
        adaptive_avg_pool2d(images[rows].float(), THUMBNAIL).flatten(1).numpy()
        for rows in blocks(len(images), 3 * images.shape[-1] ** 2)
    ])  # fmt: skip
    small -= small.mean(axis=0)
    squares = np.square(small).sum(axis=1)
    most = NEAR**2 * small.shape[1]
    found: dict[str, str] = {}
    for rows in blocks(len(small), len(small)):
        distance = squares[rows, None] + squares - 2 * small[rows] @ small.T
        for later, first in np.argwhere(distance <= most) + [rows.start, 0]:
            a, b = hashes[first], hashes[later]
            if first < later and a != b and b not in found and _same(images, first, later):
                found[b] = found.get(a, a)
    return found


def _same(images: torch.Tensor, first: int, second: int) -> bool:
    looks = (look_of(Image.fromarray(images[i].permute(1, 2, 0).numpy())) for i in (first, second))
    return likeness(*looks) >= SAME
