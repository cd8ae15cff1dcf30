"""Individuals that several pictures show, as their paths name them, and pairs of such pictures."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mrl_search.errors import require

__all__ = ["individual_numbers", "individuals_of", "partners"]


def individuals_of(
    paths: Sequence[str | None], hashes: Sequence[str], pattern: str
) -> Sequence[str]:
    """The individual in each picture, as `data.individual` names it, or else its content hash.

    Raises:
        ConfigError: `pattern` is not a regular expression with one group.
    """
    if not pattern or not paths:
        return hashes
    try:
        expression = re.compile(pattern)
    except re.error:
        expression = re.compile("")
    message = f"data.individual is {pattern!r}; it must be a regular expression with one group."
    hint = "For example ([^/]+)/[^/]+$, the name of the folder."
    require(expression.groups == 1, message, hint)
    matches = [expression.search(Path(path or "").as_posix()) for path in paths]
    return [m[1] if m else own for m, own in zip(matches, hashes, strict=True)]


def individual_numbers(names: Sequence[str], rows: NDArray[np.int64]) -> Tensor:
    """The number of the individual in each picture at `rows`: (n,) int64 from 0 up."""
    _, numbers = np.unique([names[i] for i in rows], return_inverse=True)
    message = f"data.individual finds no individual with two of the {len(rows)} training images."
    hint = "Its group must be the same in the paths of all pictures of an individual."
    require(len(set(numbers.tolist())) < len(rows), message, hint)
    return torch.from_numpy(numbers.astype(np.int64))


def partners(individuals: Tensor, generator: torch.Generator) -> Tensor:
    """The position of another picture of each individual, at random; its own without another."""
    order = torch.argsort(individuals, stable=True)
    _, group, counts = torch.unique_consecutive(
        individuals[order], return_inverse=True, return_counts=True
    )
    count, first = counts[group], (counts.cumsum(0) - counts)[group]
    step = 1 + (torch.rand(len(order), generator=generator) * (count - 1)).long()
    place = torch.arange(len(order)) - first
    other = torch.empty_like(order)
    other[order] = order[first + (place + step) % count]
    return other
