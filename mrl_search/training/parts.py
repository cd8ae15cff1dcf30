"""Which pictures trained a model, and which did not."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source, subset
from mrl_search.mapping import from_mapping
from mrl_search.progress import Progress, silent
from mrl_search.training.config import DataConfig
from mrl_search.training.splits import digest, split_rows

__all__ = ["held_out_rows", "part_of"]


def part_of(
    source: Source, part: str | None, encoder: Encoder, progress: Progress = silent
) -> Source:
    """The `train` or `validation` part of a source, as the training of `encoder` divides it; all of it for None.

    Raises:
        ConfigError: another part, or an encoder that was not trained by a recipe.
        DataError: the pictures are not those that it was trained on; an older model does not say.
    """
    if part is None:
        return source
    if part not in ("train", "validation"):
        raise ConfigError(f"There is no {part!r} part of a source.", "It is train or validation.")
    if "recipe" not in encoder.training:
        raise ConfigError(
            f"The model {encoder.name} does not say how its training data was divided.",
            "Leave --split out.",
        )
    how = from_mapping(DataConfig, encoder.training["recipe"]["data"], f"model {encoder.name}")
    kept, labels, hashes = [], [], []
    for done, picture in enumerate(read_pictures(source, THUMBNAIL, min_side=how.min_side), 1):
        if isinstance(picture, Picture):
            kept.append(picture.row)
            labels.append(picture.label)
            hashes.append(picture.hash)
        progress("splitting", done, len(source.paths))
    pictures = digest(labels, hashes)
    if encoder.training.get("pictures", pictures) != pictures:
        raise DataError(
            f"{source.name} does not hold the same pictures as when {encoder.name} was trained, so nobody knows which of them trained.",
            "Leave --split out, or name the pictures as they were.",
        )
    train, held_out = split_rows(labels, hashes, how)
    return subset(
        source, [kept[i] for i in (train if part == "train" else held_out)], f"{part} part"
    )


def held_out_rows(
    labels: Sequence[str | None], hashes: Sequence[str], encoder: Encoder
) -> NDArray[np.int64] | None:
    """Which of these pictures did not train `encoder`; None if it was trained on other pictures."""
    if encoder.training.get("pictures") != digest(labels, hashes):
        return None
    recipe = encoder.training["recipe"]["data"]
    how = from_mapping(DataConfig, recipe, f"model {encoder.name}")
    return split_rows(labels, hashes, how)[1]
