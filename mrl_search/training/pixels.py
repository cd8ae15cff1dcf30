"""A source decoded into memory, from which training draws its views."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from mrl_search.encoders.base import Preprocessing
from mrl_search.errors import DataError, Skipped
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source
from mrl_search.training.config import TrainConfig

__all__ = ["Pixels", "load_pixels", "pixel_side", "view_side"]


@dataclass(frozen=True, eq=False)
class Pixels:
    """Decoded images.

    Attributes:
        images: (n, 3, side, side) uint8.
        labels: of each image; None where unknown.
        hashes: of the bytes of each file.
        skipped: images of the source that are left out.
        rows: position of each image in the source.
        paths: of each image; empty where unknown.
    """

    images: Tensor
    labels: list[str | None]
    hashes: list[str]
    skipped: list[Skipped]
    rows: list[int]
    paths: list[str] = field(default_factory=list)


def load_pixels(
    source: Source, side: int, min_side: int = 0, progress: Callable[[int, int], None] | None = None
) -> Pixels:
    """Decode `source` into memory, 3 x side² bytes an image."""
    total = len(source.paths)
    images = np.empty((total, side, side, 3), dtype=np.uint8)
    kept: list[Picture] = []
    skipped: list[Skipped] = []
    pictures = read_pictures(source, Preprocessing(side).decode, min_side=min_side)
    for done, picture in enumerate(pictures, 1):
        if isinstance(picture, Skipped):
            skipped.append(picture)
        else:
            images[len(kept)] = picture.pixels
            kept.append(replace(picture, pixels=images[len(kept)]))
        if progress and (done % 64 == 0 or done == total):
            progress(done, total)
    if not kept:
        first = skipped[0]
        message = f"No image of {source.name} can be used; the first: {first.path}: {first.reason}."
        hint = "Check the files, or lower data.min_side."
        raise DataError(message, hint)
    return Pixels(
        torch.from_numpy(images[: len(kept)]).permute(0, 3, 1, 2),
        [picture.label for picture in kept],
        [picture.hash for picture in kept],
        skipped,
        [picture.row for picture in kept],
        [picture.path for picture in kept],
    )


def pixel_side(config: TrainConfig) -> int:
    """The side that a run needs its images decoded to, in pixels."""
    side = view_side(config, config.schedule.largest)
    # axes are set at the size at which the model embeds
    return max(side, config.schedule.embed_size) if config.axes else side


def view_side(config: TrainConfig, size: int) -> int:
    """The side of the images that views of `size` pixels are drawn from.

    A quarter more than `size` where views are crops, so that these are sharp.
    """
    kinds = [config.augment, config.weak, *(config.axes.views if config.axes else ())]
    cropped = any(kind and kind.crops for kind in kinds)
    side = round(1.25 * size) if cropped else size
    return min(side, max(size, config.data.native or side))
