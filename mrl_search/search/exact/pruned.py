"""Exact search that reads as little as it can: a sieve first, and then, of the vectors that it keeps, ever longer prefixes."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.search.exact.bounds import DOUBT, SLACK, Bounds
from mrl_search.search.kernels import best, compiled, narrow, sift
from mrl_search.search.plan import Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.scoring import (
    Rows,
    count_of,
    exact,
    is_exact,
    joined,
    pair_scores,
    rescore,
    shortlist,
)
from mrl_search.store.rows import blocks
from mrl_search.vectors import prefix, query_rows, suffix_norms

__all__ = ["exact_pruned"]

SHORTLIST = 100  # the search that sets the score to beat re-scores so many, or four times k
SHORTEST, LONGEST = 32, 128  # dims of that search
HOPELESS = 0.5  # share of the corpus left in the sieve from which on reading everything is cheaper


def exact_pruned(
    index: Index, queries: NDArray[np.floating], k: int, allowed: Rows | None = None
) -> BatchHits:
    """The true `k` nearest at full length, as `exact` gives them, mostly without reading whole vectors.

    A short search gives k scores to beat. A vector whose upper bound, from a byte for each of its first numbers and the length of its
    rest, lies below them is left out; of the others ever longer prefixes are read, until few remain. Where the first numbers hold
    too little of a vector's length, everything is compared after all.

    Arguments, result and errors are as those of `exact`; every hit of the result is `proven`.
    """
    queries, k = query_rows(queries, index.dim), min(k, count_of(index, allowed))
    start = _start(index, k, allowed)
    if start is None:
        found = exact(index, queries, k, allowed=allowed)
    else:
        found = joined(
            [
                _sifted(index, queries[rows], k, start, allowed)
                for rows in blocks(len(queries), len(index))
            ],
            k,
        )
    return BatchHits(found.ids, found.scores, np.ones(found.ids.shape, dtype=bool))


def _start(index: Index, k: int, allowed: Rows | None) -> Stage | None:
    """The stage that finds scores to beat; None where there is no quick one, or nothing to sift by."""
    codes = index.sieve.codes
    if codes is None or (allowed is not None and len(allowed) * 2 < len(index)):
        return None
    quick = [d for d in index.dims if d <= LONGEST and d < index.dim and not index.scans(d)]
    flat = [
        d for d in quick if d >= SHORTEST and is_exact(index, d, None)
    ]  # of these the shorter is the quicker
    return Stage(flat[0] if flat else quick[-1], max(SHORTLIST, 4 * k)) if quick else None


def _beat(
    index: Index, queries: NDArray[np.float32], k: int, start: Stage, allowed: Rows | None
) -> NDArray[np.float32]:
    """A score that the true k-th answer of each query has at least: (n, 1) float32; -inf where too few were found."""
    found = rescore(index, queries, shortlist(index, queries, start, allowed), index.dim, k)
    return found.scores[:, k - 1 :] - SLACK


def _sieve(index: Index, queries: NDArray[np.float32], beat: NDArray[np.float32]) -> list[Rows]:
    """For each query the rows of the vectors whose upper bound reaches its score to beat."""
    sieve = index.sieve
    if sieve.codes is None:
        raise ValueError("an index without codes has nothing to sift by")
    dims = len(sieve.steps)
    bounds, unit = Bounds.of(index, queries, dims), prefix(queries, index.dim)[:, :dims]
    least = beat - SLACK - bounds.head * np.float32(sieve.error)
    codes = sieve.codes
    return [
        sift(
            codes, unit[i] * sieve.steps, bounds.norms, float(bounds.tail[i, 0]), float(least[i, 0])
        )
        for i in range(len(queries))
    ]


def _sifted(
    index: Index, queries: NDArray[np.float32], k: int, start: Stage, allowed: Rows | None
) -> BatchHits:
    beat = _beat(index, queries, k, start, allowed)
    kept = _sieve(index, queries, beat)
    hopeless = np.array([len(rows) > HOPELESS * len(index) for rows in kept])
    found = BatchHits(
        np.empty((len(queries), k), dtype=np.int64), np.empty((len(queries), k), dtype=np.float32)
    )
    if hopeless.any():
        everything = exact(index, queries[hopeless], k, allowed=allowed)
        found.ids[hopeless], found.scores[hopeless] = everything.ids, everything.scores
    for i in np.flatnonzero(~hopeless):
        rows = (
            kept[i] if allowed is None else kept[i][np.isin(kept[i], allowed, assume_unique=True)]
        )
        query = queries[i : i + 1]
        rows = _narrowed(index, query, rows, float(beat[i, 0]))
        one = best(rows[None], pair_scores(index, query, rows[None], index.dim), k)
        found.ids[i], found.scores[i] = one.ids[0], one.scores[0]
    return found


def _narrowed(index: Index, query: NDArray[np.float32], rows: Rows, beat: float) -> Rows:
    """Those of `rows` that longer prefixes do not rule out for a `query`, (1, dim)."""
    finer = [d for d in index.dims if len(index.sieve.steps) < d < index.dim]
    if not finer:
        return rows
    if compiled(len(rows) * finer[0]):
        unit, first = prefix(query, index.dim), index.sieve.dims.index(finer[0])
        norms = index.sieve.norms[first : first + len(finer)]
        vectors, tails = np.asarray(index.embeddings.vectors), suffix_norms(unit, finer)[:, 0]
        turns = index.embeddings.mapped.in_turn(len(rows), 1)
        return np.concatenate(
            [
                narrow(vectors, unit[0], rows[some], finer, tails, norms, DOUBT, beat)
                for some in turns
            ]
        )
    for d in finer:
        bounds = Bounds.of(index, query, d)
        rows = rows[
            bounds.upper(pair_scores(index, query, rows[None], d), bounds.norms[rows])[0] >= beat
        ]
    return rows
