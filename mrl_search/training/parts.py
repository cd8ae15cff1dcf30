"""Which pictures of a source trained a model, and which validated it."""

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

TINY = Preprocessing(8)  # only sizes and hashes of the pictures are needed


def part_of(
    source: Source, part: str | None, encoder: Encoder, progress: Progress = silent
) -> Source:
    """The `train` or `validation` part of a source, as the training of `encoder` split it.

    Args:
        source: all pictures.
        part: `train`, `validation`, or None for all.
        encoder: a model that a recipe trained.
        progress: called with pictures read so far and in all.

    Raises:
        ConfigError: another part, or a model without a recipe.
        DataError: the pictures are not those that the model was trained on.
    """
    if part is None:
        return source
    if part not in ("train", "validation"):
        raise ConfigError(f"--split is {part!r}; it must be train or validation.")
    if "recipe" not in encoder.training:
        message = f"The model {encoder.name} has no record of how its pictures were split."
        raise ConfigError(message, "Leave --split out.")
    how = from_mapping(DataConfig, encoder.training["recipe"]["data"], f"model {encoder.name}")
    kept, labels, hashes, paths = [], [], [], []
    for done, picture in enumerate(read_pictures(source, TINY.decode, min_side=how.min_side), 1):
        if isinstance(picture, Picture):
            kept.append(picture.row)
            labels.append(picture.label)
            hashes.append(picture.hash)
            paths.append(picture.path)
        progress("splitting", done, len(source.paths))
    pictures = digest(labels, hashes)
    if encoder.training.get("pictures", pictures) != pictures:
        raise DataError(
            f"{source.name} does not hold the pictures that {encoder.name} was trained on.",
            "Leave --split out, or name those pictures.",
        )
    train, validation = split_rows(labels, hashes, how, paths)
    rows = train if part == "train" else validation
    return subset(source, [kept[i] for i in rows], f"{part} part")


def held_out_rows(
    labels: Sequence[str | None],
    hashes: Sequence[str],
    paths: Sequence[str | None],
    encoder: Encoder,
) -> NDArray[np.int64] | None:
    """Which of these pictures did not train `encoder`; None if it was trained on other pictures."""
    if encoder.training.get("pictures") != digest(labels, hashes):
        return None
    recipe = encoder.training["recipe"]["data"]
    how = from_mapping(DataConfig, recipe, f"model {encoder.name}")
    return split_rows(labels, hashes, how, paths)[1]
