"""The pictures that trained a model, and those that did not."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder, Preprocessing
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source, subset
from mrl_search.mapping import from_mapping
from mrl_search.progress import Progress, silent
from mrl_search.training.config import DataConfig
from mrl_search.training.splits import digest, split_rows

__all__ = ["held_out_rows", "part_of"]

TINY = 8  # pixels; only labels and hashes are needed


def part_of(
    source: Source, part: str | None, encoder: Encoder, progress: Progress = silent
) -> Source:
    """The `train` or `validation` part of a source, as the training of `encoder` split it.

    Args:
        source: the pictures of that training.
        part: the part; None: all pictures.
        encoder: the trained model.
        progress: receives what is done, how much of it, and the total.

    Raises:
        ConfigError: another part, or an encoder that was not trained by a recipe.
        DataError: these are not the pictures of that training.
    """
    if part is None:
        return source
    if part not in ("train", "validation"):
        raise ConfigError(f"--split is {part!r}; it must be train or validation.")
    if "recipe" not in encoder.training:
        raise ConfigError(
            f"The model {encoder.name} does not say how its training data was split.",
            "Leave --split out.",
        )
    kept, labels, hashes = [], [], []
    config = _data_config(encoder)
    tiny = Preprocessing(TINY).decode
    found = read_pictures(source, tiny, min_side=config.min_side)
    for done, picture in enumerate(found, 1):
        if isinstance(picture, Picture):
            kept.append(picture.row)
            labels.append(picture.label)
            hashes.append(picture.hash)
        progress("splitting", done, len(source.paths))
    pictures = digest(labels, hashes)
    if encoder.training.get("pictures", pictures) != pictures:
        raise DataError(
            f"{source.name} does not hold the pictures that trained {encoder.name}, "
            "so its split is unknown.",
            "Leave --split out, or use the pictures as they were.",
        )
    rows = split_rows(labels, hashes, config)[0 if part == "train" else 1]
    return subset(source, [kept[i] for i in rows], f"{part} part")


def held_out_rows(
    labels: Sequence[str | None], hashes: Sequence[str], encoder: Encoder
) -> NDArray[np.int64] | None:
    """The rows of some items that were held out of the training of `encoder`: (n,) int64.

    None where the items are not the pictures of that training.

    Args:
        labels: label of each item.
        hashes: content hash of each item.
        encoder: the trained model.
    """
    if encoder.training.get("pictures") != digest(labels, hashes):
        return None
    return split_rows(labels, hashes, _data_config(encoder))[1]


def _data_config(encoder: Encoder) -> DataConfig:
    recipe = encoder.training["recipe"]["data"]
    return from_mapping(DataConfig, recipe, f"model {encoder.name}")
