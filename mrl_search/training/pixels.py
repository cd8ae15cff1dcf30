"""A source decoded once into memory: what a training run draws its views from."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mrl_search.encoders.base import Preprocessing
from mrl_search.errors import DataError, Skipped
from mrl_search.images.reading import read_pictures
from mrl_search.images.sources import Source

__all__ = ["Pixels", "load_pixels"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded pictures, aligned: `images` (n, 3, side, side) uint8, `labels` (None where unknown), `hashes` of the files' bytes.

    `rows` are their positions in the source, `skipped` the others.
    """

    images: Tensor
    labels: list[str | None]
    hashes: list[str]
    skipped: list[Skipped]
    rows: list[int]


def load_pixels(
    source: Source, side: int, min_side: int = 0, progress: Callable[[int, int], None] | None = None
) -> Pixels:
    """Decode all of `source` into memory, 3 x side² bytes an image; `progress` is called with images done and in all.

    Raises:
        DataError: not one image can be read.
    """
    total = len(source.paths)
    images = np.empty((total, side, side, 3), dtype=np.uint8)
    labels: list[str | None] = []
    hashes: list[str] = []
    rows: list[int] = []
    skipped: list[Skipped] = []
    for done, picture in enumerate(read_pictures(source, Preprocessing(side).decode, min_side=min_side), 1):
        if isinstance(picture, Skipped):
            skipped.append(picture)
        else:
            images[len(labels)] = picture.pixels
            labels.append(picture.label)
            hashes.append(picture.hash)
            rows.append(picture.row)
        if progress and (done % 64 == 0 or done == total):
            progress(done, total)
    if not labels:
        raise DataError(
            f"No image of {source.name} can be used; the first: {skipped[0].path}: {skipped[0].reason}.",
            "Look at the files, or lower data.min_side.",
        )
    return Pixels(
        torch.from_numpy(images[: len(labels)]).permute(0, 3, 1, 2), labels, hashes, skipped, rows
    )
