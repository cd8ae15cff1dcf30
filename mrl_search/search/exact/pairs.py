"""All pairs of rows whose cosine reaches a threshold: none is missed.

As in `pruned`, the cosine of unit vectors is at most the inner product of their heads plus the
product of the norms of their tails (Cauchy-Schwarz). With the norm of its tail as one more dim of
each head, that bound is an inner product itself: one matrix product rules out nearly all pairs, and
the rest are compared at full length.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.progress import Progress, silent
from mrl_search.search.exact.pruned import SLACK
from mrl_search.search.scoring import pair_scores
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks, default_dims, sample, suffix_norms

__all__ = ["Pairs", "Side", "close_pairs", "random_cosines"]

LEFT, RIGHT = 1024, 4096  # rows that are compared at once
PROBE = 512  # rows that choose the length of the heads
SHORTEST = 32  # dims of a head
SINGLE = 90  # times the cost of a product outside of a matrix product, as measured
MOST = 5_000_000  # pairs


@dataclass(frozen=True, eq=False, slots=True)
class Side:
    """Some rows of a store, none of them zero."""

    store: VectorStore
    rows: Ids

    def __len__(self) -> int:
        return len(self.rows)

    def heads(self, dims: int, at: Ids | None = None) -> NDArray[np.float32]:
        """The first dims of the unit vectors and the norm of the rest: (n, dims + 1) float32."""
        rows = self.rows if at is None else self.rows[at]
        found = np.empty((len(rows), dims + 1), np.float32)
        for some in blocks(len(rows), self.store.dim):
            self.store.will_read(some.stop - some.start)
            unit = self.store.prefix(self.store.dim, rows[some])
            found[some, :dims] = unit[:, :dims]
            found[some, dims] = suffix_norms(unit, (dims,))[0]
        return found


@dataclass(frozen=True, eq=False, slots=True)
class Pairs:
    """Pairs of rows, ordered by `left`, then by `right`.

    Attributes:
        left: (n,) int64, places in the first side.
        right: (n,) int64, places in the second side; in the same side, above `left`.
        scores: (n,) float32, their cosines.
    """

    left: Ids
    right: Ids
    scores: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.left)


def close_pairs(
    left: Side, least: float, right: Side | None = None, progress: Progress = silent
) -> Pairs:
    """The pairs of a row of `left` and one of `right` with a cosine of at least `least`.

    Without a `right`, `left` is compared with itself, each pair once.

    Raises:
        DataError: more than five million pairs.
    """
    other = left if right is None else right
    none = np.empty(0, np.int64)
    dims, found, count = _dims(left, other, least), [_compared(left, none, other, none, least)], 0
    ours = left.heads(dims)
    theirs = ours if right is None else other.heads(dims)
    for some in blocks(len(left), 1, LEFT):
        for a, b in _possible(ours[some], theirs, some.start if right is None else None, least):
            pairs = _compared(left, a + some.start, other, b, least)
            found.append(pairs)
            count += len(pairs)
            if count > MOST:
                message = f"More than {MOST:,} pairs have a cosine of at least {least:.3f}."
                raise DataError(message, "Ask for fewer false pairs, such as --fpr 1e-9.")
        progress("pairs", some.stop, len(left))
    every = [np.concatenate([getattr(p, name) for p in found]) for name in ("left", "right")]
    scores = np.concatenate([p.scores for p in found])
    order = np.lexsort(every[::-1])
    return Pairs(every[0][order], every[1][order], scores[order])


def _possible(
    heads: NDArray[np.float32], others: NDArray[np.float32], start: int | None, least: float
) -> Iterator[tuple[Ids, Ids]]:
    """Places of pairs that the bound does not rule out; in the same side, those above `start`."""
    for some in blocks(len(others), 1, RIGHT):
        if start is not None and some.stop <= start:
            continue
        bounds = heads @ others[some].T
        a, b = np.nonzero(bounds >= np.float32(least) - SLACK)
        b += some.start
        later = b > a + start if start is not None else slice(None)
        yield a[later], b[later]


def _compared(left: Side, a: Ids, right: Side, b: Ids, least: float) -> Pairs:
    """Those of the pairs at places `a` and `b` whose full-length cosine is at least `least`."""
    dim, scores = left.store.dim, np.empty(len(a), np.float32)
    for some in blocks(len(a), dim):
        queries = left.store.rows(left.rows[a[some]]).astype(np.float32)
        ids = right.rows[b[some]][:, None]
        scores[some] = pair_scores(right.store, queries, ids, dim)[:, 0]
    kept = scores >= least
    return Pairs(a[kept], b[kept], scores[kept])


def _dims(left: Side, right: Side, least: float) -> int:
    """The length of the heads with which some rows are compared at the lowest cost."""
    dim = left.store.dim
    choices = [d for d in default_dims(dim) if d >= SHORTEST] or [dim]
    cost = {}
    for d in choices:
        one = left.heads(d, sample(len(left), PROBE, seed=0))
        bounds = one @ right.heads(d, sample(len(right), PROBE, seed=1)).T
        share = float((bounds >= np.float32(least) - SLACK).mean()) if bounds.size else 0.0
        cost[d] = d + SINGLE * dim * share
    return min(choices, key=lambda d: cost[d])


def random_cosines(side: Side, count: int) -> NDArray[np.float32]:
    """Cosines (n,) of `count` random pairs of different rows, or of all pairs if these are few."""
    total = len(side)
    if total * (total - 1) // 2 <= count:
        a, b = np.triu_indices(total, 1)
    else:
        rng = np.random.default_rng(0)
        a = rng.integers(total, size=count)
        b = (a + rng.integers(1, total, size=count)) % total
    return _compared(side, a, side, b, -np.inf).scores
