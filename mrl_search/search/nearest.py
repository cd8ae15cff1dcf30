"""Exact neighbours among plain arrays: vectors that are rotated, rounded or cut when they are read.

No index is needed, and none could answer for vectors that it does not hold.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.kernels import best
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks, l2_normalize

__all__ = ["Change", "nearest_rows", "row_neighbours"]

BATCH = 256  # queries at once
Change: TypeAlias = Callable[[NDArray[np.floating]], NDArray[np.floating]]  # (n, dim) to (n, d)


def nearest_rows(
    chunks: Iterable[NDArray[np.floating]], queries: NDArray[np.floating], k: int
) -> BatchHits:
    """The `k` rows with the highest cosine to each query, best first; ties go to the lower row.

    Rows come in order, some at a time, (m, d); queries are (n, d). All are of any norm. Where there
    are fewer than `k`, all are hits.
    """
    unit = l2_normalize(queries)
    scores, ids = np.empty((len(unit), 0), np.float32), np.empty((len(unit), 0), np.int64)
    start = 0
    for chunk in chunks:
        here = np.arange(start, start + len(chunk))
        start += len(chunk)
        corpus, parts = l2_normalize(chunk).T, []
        for some in blocks(len(unit), 1, BATCH):
            cosines = unit[some] @ corpus
            both = np.concatenate([ids[some], np.broadcast_to(here, cosines.shape)], axis=1)
            parts.append(best(np.concatenate([scores[some], cosines], axis=1), both, k))
        scores, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return BatchHits(ids, scores)


def row_neighbours(
    store: VectorStore, rows: Ids, k: int, change: Change, among: Ids | None = None
) -> Ids:
    """The `k` nearest other rows of each of `rows`, once all are changed: (n, k), best first.

    `change` makes (m, d) of stored rows (m, dim). The `recall_at_k` of two changes says how many
    neighbours one of them keeps. Neighbours lie `among` some rows, ascending; default: all.
    """
    chunks = (change(stored) for _, stored in store.chunks(None, among))
    ids = nearest_rows(chunks, change(store.rows(rows)), k + 1).rows
    ids = ids if among is None else among[ids]
    own = ids == rows[:, None]
    own[~own.any(axis=1), -1] = True  # among equals the query itself may be missing
    others: Ids = ids[~own].reshape(len(rows), k)
    return others
