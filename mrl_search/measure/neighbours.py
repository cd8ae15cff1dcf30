"""How many true neighbours of stored vectors a changed form of them still finds: rows of the corpus are the queries.

Truth is exact search at full length, and every row is left out of its own answer.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import DataError
from mrl_search.search import exact
from mrl_search.search.others import leave_out_rows
from mrl_search.store.rows import EmbeddingSet

__all__ = ["QUERIES", "Change", "Changed", "changed", "drawn", "neighbours"]

QUERIES = 200
Change: TypeAlias = Callable[[NDArray[np.floating], int], NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Changed(EmbeddingSet):
    """A set whose vectors are changed as they are read. `change` takes rows (n, dim) as stored and dims, and gives (n, dims)."""

    change: Change = field(kw_only=True)

    def stored(
        self, dims: int, rows: slice | NDArray[np.integer] = slice(None)
    ) -> NDArray[np.floating]:
        return self.change(np.asarray(self.vectors)[rows], dims)


def changed(index: Index, change: Change) -> Index:
    """`index` with vectors that are changed as they are read; only exact search knows of it."""
    own = {f.name: getattr(index.embeddings, f.name) for f in fields(EmbeddingSet)}
    return Index(index.folder, Changed(**own, change=change))


def drawn(index: Index, count: int = QUERIES) -> NDArray[np.int64]:
    """Rows to ask with, ascending: `count` of the index drawn with a fixed seed, or all.

    Raises:
        DataError: there are not two rows, so none has a neighbour.
    """
    if len(index) < 2:
        raise DataError(
            f"{index.folder} holds one vector, which has no neighbour.",
            "Build an index of at least two.",
        )
    return np.sort(
        np.random.default_rng(0).choice(len(index), min(count, len(index)), replace=False)
    )


def neighbours(
    index: Index,
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    k: int,
    dims: int | None = None,
) -> NDArray[np.int64]:
    """The true `k` nearest of each query that is row `rows` of the index itself, which is left out: (n, at most k) ids, best first.

    Args:
        index: what is searched.
        rows: (n,) the query's own row in the index.
        queries: (n, dim) float32.
        k: how many others.
        dims: prefix that is compared; all by default.
    """
    return leave_out_rows(exact(index, queries, k + 1, dims), rows, min(k, len(index) - 1)).ids
