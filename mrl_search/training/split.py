"""Which pictures train a model and which validate it: by labels, bytes and seed alone."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder, Preprocessing
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source, subset
from mrl_search.mapping import from_mapping
from mrl_search.progress import Progress, silent
from mrl_search.training.config import DataConfig

__all__ = ["digest", "held_out_rows", "part_of", "split_rows", "stratified_split"]

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
        message = f"{source.name} does not hold the pictures that {encoder.name} was trained on."
        hint = "Leave --split out, or name those pictures."
        raise DataError(message, hint)
    train, validation = split_rows(labels, hashes, how, paths, encoder.training.get("twins"))
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
    return split_rows(labels, hashes, how, paths, encoder.training.get("twins"))[1]


def digest(labels: Sequence[str | None], hashes: Sequence[str]) -> str:
    """A fingerprint of images and their labels, the same in any order."""
    pairs = sorted(zip(hashes, (label or "" for label in labels), strict=True))
    return xxhash.xxh3_128_hexdigest(json.dumps(pairs).encode())


def split_rows(
    labels: Sequence[str | None],
    hashes: Sequence[str],
    data: DataConfig,
    paths: Sequence[str | None] = (),
    twins: Mapping[str, str] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, as the recipe says. See `stratified_split`.

    Pictures of one individual, as `paths` name it, stay on one side. So do twins, from a content
    hash to that of the picture it shows: all of them train where one of them does.
    """
    from mrl_search.training.individuals import individuals_of  # imports torch

    groups = individuals_of(paths, hashes, data.individual)
    train, validation = stratified_split(labels, groups, data.validation, data.split_seed)
    train, validation = (validation, train) if data.swap else (train, validation)
    if twins:
        firsts = [twins.get(content, content) for content in hashes]
        trained = {firsts[i] for i in train}
        moved = np.array([firsts[i] in trained for i in validation], dtype=bool)
        train = np.sort(np.concatenate([train, validation[moved]]))
        validation = validation[~moved]
    return train, validation


def stratified_split(
    labels: Sequence[str | None], hashes: Sequence[str], validation: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, each ascending, stratified by label.

    Images with equal bytes stay on one side, under the label of the first of them.

    Raises:
        DataError: a side would be empty.
    """
    rows: dict[str, list[int]] = {}
    for i, hash_ in enumerate(hashes):
        rows.setdefault(hash_, []).append(i)
    by_label: dict[str, list[str]] = {}
    for hash_ in sorted(rows):  # independent of the order of the files
        by_label.setdefault(labels[rows[hash_][0]] or "", []).append(hash_)
    rng = np.random.default_rng(seed)
    chosen: list[int] = []
    for label in sorted(by_label):
        group = by_label[label]
        for c in rng.permutation(len(group))[: round(validation * len(group))]:
            chosen += rows[group[c]]
    train = np.ones(len(hashes), dtype=bool)
    train[chosen] = False
    if train.all() or not train.any():
        message = f"{len(hashes)} images cannot be split {1 - validation:.0%} to {validation:.0%}."
        hint = "Use more images."
        raise DataError(message, hint)
    return np.flatnonzero(train), np.flatnonzero(~train)
