"""Comparing stored vectors one by one: all of them, or those added since an index was built."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, padded
from mrl_search.engines.kernels import best, pair_cosines, settled
from mrl_search.engines.spec import SCAN
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks

__all__ = ["ScanIndex", "TailedIndex", "directions", "scan", "split_mask"]

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


class TailedIndex(PrefixIndex):
    """The first rows by a prefix index; the rest, where they score higher than what it found.

    The rest are prefixes (n, dims) float32 of unit norm, compared one by one.
    """

    def __init__(self, base: PrefixIndex, tail: NDArray[np.float32]) -> None:
        super().__init__(base.dims, base.count + len(tail), base.kind, base.ram_bytes + tail.nbytes)
        self.exact, self.filters = base.exact, base.filters
        self.widens, self.efforts = base.widens, base.efforts
        self._base, self._tail = base, tail

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        first, second = split_mask(mask, self._base.count)
        count = self._base.count if first is None else first.count
        found = np.empty((len(x), 0), np.float32), np.empty((len(x), 0), np.int64)
        if count:
            found = self._base.search(x, min(k, count), effort, first)
        if count < k:
            found = padded(found, k)
        if len(x) == 1:
            scores = self._tail @ x[0]
            rows = np.flatnonzero(scores > found[0][0, -1])
            if second is not None:
                rows = rows[second.allowed[rows]]
            return self._joined(found, scores[rows][None], rows[None]) if len(rows) else found
        for some in blocks(len(x), len(self._tail)):
            scores = x[some] @ self._tail.T
            wanted = scores > found[0][some, -1:]
            if second is not None:
                wanted &= second.allowed
            if width := int(np.count_nonzero(wanted, axis=1).max(initial=0)):
                scores[~wanted] = -np.inf
                rows = np.argpartition(scores, -width, axis=1)[:, -width:]
                part = (found[0][some], found[1][some])
                more = self._joined(part, np.take_along_axis(scores, rows, axis=1), rows)
                found[0][some], found[1][some] = more
        return found

    def _joined(self, found: Found, scores: NDArray[np.float32], rows: Ids) -> Found:
        """The best of what was found and of rows of the tail, as many as were found."""
        ids = np.where(scores == -np.inf, -1, rows + self._base.count)
        every = np.concatenate([found[0], scores], axis=1), np.concatenate([found[1], ids], axis=1)
        return best(*every, found[0].shape[1], nearly=True)

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        cost = self._base.cost(effort, split_mask(mask, self._base.count)[0])
        return None if cost is None else cost + len(self._tail)


def split_mask(mask: Mask | None, start: int) -> tuple[Mask | None, Mask | None]:
    """A mask of the rows before `start`, and one of those from there on."""
    if mask is None:
        return None, None

    def part(rows: slice) -> Mask | None:
        allowed = mask.allowed[rows]
        return None if allowed.all() else Mask(allowed)

    if ("split", start) not in mask.cache:
        mask.cache["split", start] = part(slice(start)), part(slice(start, None))
    found: tuple[Mask | None, Mask | None] = mask.cache["split", start]
    return found
