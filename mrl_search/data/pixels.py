"""A source decoded once into memory: what a training run draws its views from."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mrl_search.data.reading import read_pictures
from mrl_search.data.sources import Source
from mrl_search.errors import DataError, Skipped

__all__ = ["Pixels", "load_pixels"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded pictures, aligned: `images` (n, 3, side, side) uint8, `labels` (None where unknown), `hashes` of the files' bytes.

    `rows` are their positions in the source, `paths` their paths (empty: unknown), `skipped` the others.
    """

    images: Tensor
    labels: list[str | None]
    hashes: list[str]
    skipped: list[Skipped]
    rows: list[int]
    paths: list[str] = field(default_factory=list)


def load_pixels(source: Source, side: int, min_side: int = 0, progress: Callable[[int, int], None] | None = None) -> Pixels:
    """Decode all of `source` into memory, 3 x side² bytes an image; `progress` is called with images done and in all.

    Raises:
        DataError: not one image can be read.
    """
    total = len(source.paths)
    images = np.empty((total, side, side, 3), dtype=np.uint8)
    labels: list[str | None] = []
    hashes: list[str] = []
    rows: list[int] = []
    paths: list[str] = []
    skipped: list[Skipped] = []
    for done, picture in enumerate(read_pictures(source, side, min_side=min_side), 1):
        if isinstance(picture, Skipped):
            skipped.append(picture)
        else:
            images[len(labels)] = picture.pixels
            labels.append(picture.label)
            hashes.append(picture.hash)
            rows.append(picture.row)
            paths.append(picture.path)
        if progress and (done % 64 == 0 or done == total):
            progress(done, total)
    if not labels:
        raise DataError(
            f"No image of {source.name} can be used; the first: {skipped[0].path}: {skipped[0].reason}.",
            "Look at the files, or lower data.min_side.",
        )
    return Pixels(torch.from_numpy(images[: len(labels)]).permute(0, 3, 1, 2), labels, hashes, skipped, rows, paths)
