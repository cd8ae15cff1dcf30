"""Which images train and which validate: stratified by label, equal bytes on one side, the same for everyone from the seed alone."""

import json
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.config import DataConfig
from mrl_search.data.individuals import individuals_of
from mrl_search.errors import DataError

__all__ = ["digest", "split_rows", "stratified_split"]


def digest(labels: Sequence[str | None], hashes: Sequence[str]) -> str:
    """Names the images and their labels, in whatever order they come: with one more, or less, of them the division is another."""
    pairs = sorted(zip(hashes, (label or "" for label in labels), strict=True))
    return xxhash.xxh3_128_hexdigest(json.dumps(pairs).encode())


def split_rows(
    labels: Sequence[str | None], hashes: Sequence[str], how: DataConfig, paths: Sequence[str] = ()
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation as a recipe divides them: `stratified_split`, with the sides changed where `how` swaps them.

    Pictures of one individual go to one side, as far as `paths` name it.
    """
    train, held_out = stratified_split(labels, individuals_of(paths, hashes, how), how.validation, how.split_seed)
    return (held_out, train) if how.swap else (train, held_out)


def stratified_split(
    labels: Sequence[str | None], hashes: Sequence[str], validation: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows for training and for validation, each ascending.

    Images of equal content hash go to one side together, under the label of the first of them.

    Raises:
        DataError: a side would be empty.
    """
    rows: dict[str, list[int]] = {}
    for i, h in enumerate(hashes):
        rows.setdefault(h, []).append(i)
    by_label: dict[str, list[str]] = {}
    for h in sorted(rows):  # an order that does not depend on how the files lie on disk
        by_label.setdefault(labels[rows[h][0]] or "", []).append(h)
    rng = np.random.default_rng(seed)
    held_out: list[int] = []
    for label in sorted(by_label):
        group = by_label[label]
        chosen = rng.permutation(len(group))[: round(validation * len(group))]
        held_out += [i for c in chosen for i in rows[group[c]]]
    inside = np.ones(len(hashes), dtype=bool)
    inside[held_out] = False
    if inside.all() or not inside.any():
        raise DataError(f"{len(hashes)} images cannot be split {1 - validation:.0%} to {validation:.0%}.", "Use more images.")
    return np.flatnonzero(inside), np.flatnonzero(~inside)
