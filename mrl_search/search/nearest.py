"""Exact neighbours among plain arrays: vectors that are rotated, rounded or cut when read.

No index is needed, and none could answer for vectors that it does not hold.
"""

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.search.results import BatchHits
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks, l2_normalize

__all__ = ["Change", "nearest_rows", "row_neighbours"]

BATCH = 256  # queries at once
Change: TypeAlias = Callable[[NDArray[np.floating]], NDArray[np.floating]]  # (n, dim) to (n, d)


def nearest_rows(
    chunks: Iterable[NDArray[np.floating]], queries: NDArray[np.floating], k: int
) -> BatchHits:
    """The `k` rows with the highest cosine to each of `queries` (n, d), best first.

    Args:
        chunks: the rows in order, some at a time: (m, d) each, of any norm.
        queries: (n, d), of any norm.
        k: hits wanted; all rows where there are fewer.
    """
    unit = l2_normalize(queries)
    batches = list(blocks(len(unit), 1, BATCH))
    best: list[BatchHits | None] = [None] * len(batches)
    start = 0
    for chunk in chunks:
        corpus = l2_normalize(chunk).T
        ids = np.arange(start, start + len(chunk))
        start += len(chunk)
        for i, some in enumerate(batches):
            best[i] = _merged(best[i], ids, unit[some] @ corpus, k)
    return BatchHits(
        np.concatenate([hits.ids for hits in best if hits]),
        np.concatenate([hits.scores for hits in best if hits]),
    )


def _merged(old: BatchHits | None, ids: Ids, scores: NDArray[np.float32], k: int) -> BatchHits:
    """The best `k` of earlier hits and of further rows `ids` (m,) with `scores` (n, m)."""
    all_ids = np.broadcast_to(ids, scores.shape)
    if old is not None:
        all_ids = np.concatenate([old.ids, all_ids], axis=1)
        scores = np.concatenate([old.scores, scores], axis=1)
    if scores.shape[1] > k:
        top = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        all_ids = np.take_along_axis(all_ids, top, axis=1)
        scores = np.take_along_axis(scores, top, axis=1)
    order = np.lexsort((all_ids, -scores), axis=1)
    return BatchHits(
        np.take_along_axis(all_ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


def row_neighbours(store: VectorStore, rows: Ids, k: int, change: Change) -> Ids:
    """The `k` nearest other rows of each of `rows`, once all are changed: (n, k) ids, best first.

    Compare the ids of two changes with `recall_at_k`: it says how many neighbours one keeps.

    Args:
        store: the vectors.
        rows: (n,) rows that are the queries.
        k: neighbours wanted, fewer than there are rows.
        change: what happens to stored rows (m, dim) before they are compared.
    """
    chunks = (change(stored) for _, stored in store.chunks())
    ids = nearest_rows(chunks, change(store.rows(rows)), k + 1).ids
    own = ids == rows[:, None]
    own[~own.any(axis=1), -1] = True  # among equals the query itself may be missing
    others: Ids = ids[~own].reshape(len(rows), k)
    return others
