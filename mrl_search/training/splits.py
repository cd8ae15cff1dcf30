"""Which images train and which validate. The split depends on labels, bytes and seed alone."""

import json
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.training.config import DataConfig
from mrl_search.training.individuals import individuals_of

__all__ = ["digest", "split_rows", "stratified_split"]


def digest(labels: Sequence[str | None], hashes: Sequence[str]) -> str:
    """A fingerprint of images and their labels, the same in any order."""
    pairs = sorted(zip(hashes, (label or "" for label in labels), strict=True))
    return xxhash.xxh3_128_hexdigest(json.dumps(pairs).encode())


def split_rows(
    labels: Sequence[str | None],
    hashes: Sequence[str],
    data: DataConfig,
    paths: Sequence[str | None] = (),
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, as the recipe says. See `stratified_split`.

    Pictures of one individual, as `paths` name it, stay on one side.
    """
    groups = individuals_of(paths, hashes, data.individual)
    train, validation = stratified_split(labels, groups, data.validation, data.split_seed)
    return (validation, train) if data.swap else (train, validation)


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
        raise DataError(
            f"{len(hashes)} images cannot be split {1 - validation:.0%} to {validation:.0%}.",
            "Use more images.",
        )
    return np.flatnonzero(train), np.flatnonzero(~train)
