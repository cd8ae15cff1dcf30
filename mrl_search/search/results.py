"""What goes into a search, `Queries`, and what comes out: `BatchHits` for all of them, `Hits` for one, `Hit` for one answer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import Skipped

__all__ = ["BatchHits", "Hit", "Hits", "Queries"]


@dataclass(frozen=True, eq=False, slots=True)
class Queries:
    """What to search with: `rows` (n, dim) float32 in the space of an index, and the name of each.

    Attributes:
        names: paths of the pictures, or places in a file of vectors.
        rows: see above.
        skipped: pictures that could not be read.
        embed_ms: milliseconds that embedding all of them took; None for vectors.
    """

    names: list[str]
    rows: NDArray[np.float32]
    skipped: tuple[Skipped, ...] = ()
    embed_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer: `rank` from 1, `id` the row in the corpus, `score` the cosine at the last stage's prefix.

    `proven` says whether exact search is known to answer it, too; None where nobody asked.
    """

    rank: int
    id: int
    score: float
    proven: bool | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Hits:
    """The answers to one query, best first: `ids` (k,) int64 and `scores` (k,) float32; the rest as in `BatchHits`."""

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    proven: NDArray[np.bool_] | None = None
    dims: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Hit]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Hit:
        proven = None if self.proven is None else bool(self.proven[i])
        return Hit(range(1, len(self) + 1)[i], int(self.ids[i]), float(self.scores[i]), proven)


@dataclass(frozen=True, eq=False, slots=True)
class BatchHits:
    """The answers to a batch of queries: `ids` (n, k) int64 and `scores` (n, k) float32, best first in each row.

    Attributes:
        ids: see above; -1 where there are fewer than k answers.
        scores: see above.
        proven: (n, k) bool, the answers that are known to be among the true k at full length; None where nobody asked.
        dims: (n,) int64, how many numbers of its candidates each query read, where the search decided that by itself; else None.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    proven: NDArray[np.bool_] | None = None
    dims: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Hits]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Hits:
        proven = None if self.proven is None else self.proven[i]
        return Hits(
            self.ids[i], self.scores[i], proven, None if self.dims is None else int(self.dims[i])
        )

    def first(self, k: int) -> "BatchHits":
        """The best `k` answers of each query."""
        return BatchHits(
            self.ids[:, :k],
            self.scores[:, :k],
            None if self.proven is None else self.proven[:, :k],
            self.dims,
        )
