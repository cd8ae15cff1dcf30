"""What a search gives back: `BatchHits` for a batch of queries, `Hits` for one of them, `Hit` for one answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["BatchHits", "Hit", "Hits"]


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: `rank` from 1, `id` the row in the corpus, `score` the cosine at the last stage's prefix."""

    rank: int
    id: int
    score: float


@dataclass(frozen=True, eq=False, slots=True)
class Hits:
    """The answers to one query, best first: `ids` (k,) int64 and `scores` (k,) float32."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Hit]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Hit:
        return Hit(range(1, len(self) + 1)[i], int(self.ids[i]), float(self.scores[i]))


@dataclass(frozen=True, eq=False, slots=True)
class BatchHits:
    """The answers to a batch of queries: `ids` (n, k) int64 and `scores` (n, k) float32, best first in each row."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Hits]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Hits:
        return Hits(self.ids[i], self.scores[i])
