"""Exact search by comparing the stored vectors one after another; it needs no index."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, padded
from mrl_search.engines.kernels import best, pair_cosines, settled
from mrl_search.engines.spec import SCAN
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks

__all__ = ["ScanIndex", "directions", "scan"]

FEW = 8  # queries that are compared one by one; for more, a matrix product is faster


class ScanIndex(PrefixIndex):
    """A prefix without an index of its own: every search reads the stored vectors."""

    exact = True

    def __init__(self, store: VectorStore, dims: int) -> None:
        super().__init__(dims, len(store), SCAN, len(store) * dims * store.dtype.itemsize)
        self._store = store

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        return padded(scan(self._store, x, k, None if mask is None else mask.ids), k)


def scan(store: VectorStore, unit: NDArray[np.float32], k: int, rows: Ids | None = None) -> Found:
    """The true `k` nearest by the cosine of prefixes: the baseline that plans are measured against.

    Queries are (n, dims) float32 of unit norm, `rows` the rows that may be answers, ascending.
    Products are summed in float64, so that rounding decides no order; ties go by id. Scores and ids
    are (n, min(k, rows)) each.
    """
    count, dims = len(store) if rows is None else len(rows), unit.shape[1]
    scores, ids = np.empty((len(unit), 0), np.float32), np.empty((len(unit), 0), np.int64)
    for place in blocks(count, max(dims, 1024)):
        here = np.arange(place.start, place.stop) if rows is None else rows[place]
        store.will_read(len(here))
        parts = []
        for some, cosines in _compared(store, unit, place if rows is None else here):
            both = np.concatenate([ids[some], np.broadcast_to(here, cosines.shape)], axis=1)
            parts.append(best(np.concatenate([scores[some], cosines], axis=1), both, k))
        if parts:
            scores, ids = (np.concatenate(column) for column in zip(*parts, strict=True))
    return scores, ids


def _compared(
    store: VectorStore, unit: NDArray[np.float32], rows: Ids | slice
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Cosines of queries `unit` (n, dims) with all vectors at `rows`, some queries at a time."""
    if len(unit) < FEW:
        whole = store.rows(rows)
        every = np.broadcast_to(np.arange(len(whole)), (len(unit), len(whole)))
        yield slice(0, len(unit)), pair_cosines(whole, unit, every)
        return
    corpus = directions(store, unit.shape[1], rows).T
    for some in blocks(len(unit), corpus.shape[1]):
        yield some, settled((unit[some].astype(np.float64) @ corpus).astype(np.float32))


def directions(store: VectorStore, dims: int, rows: Ids | slice) -> NDArray[np.float64]:
    """Prefixes of the stored vectors at `rows`, normalised in float64: (rows, dims)."""
    part = store.rows(rows, dims).astype(np.float64)
    norms = np.linalg.norm(part, axis=1, keepdims=True)
    norms[norms == 0] = 1
    part /= norms
    return part
