"""Exact search that reads as little as it can: a sieve first, and then, of the vectors that it keeps, ever longer prefixes."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.config import Stage
from mrl_search.embeddings import blocks
from mrl_search.index import Index
from mrl_search.results import BatchHits
from mrl_search.search.bounds import SLACK, Bounds
from mrl_search.search.kernel import best, sift
from mrl_search.search.stage import Rows, count_of, exact, joined, pair_scores, rescore, shortlist
from mrl_search.vectors import prefix, rows_of

__all__ = ["exact_pruned"]

SHORTLIST = 100  # the search that sets the score to beat re-scores so many, or four times k
SAMPLE, PROBED = 1024, 8  # rows and queries that tell whether to sift at all
HOPELESS = 0.5  # share of the corpus left in the sieve from which on reading everything is cheaper


def exact_pruned(index: Index, queries: NDArray[np.floating], k: int, allowed: Rows | None = None) -> BatchHits:
    """The true `k` nearest at full length, as `exact` gives them, mostly without reading whole vectors.

    A short search gives k scores to beat. A vector whose upper bound, from a byte for each of its first numbers and the length of its
    rest, lies below them is left out; of the others ever longer prefixes are read, until few remain. Where the first numbers hold
    too little of a vector's length, everything is compared after all.

    Arguments, result and errors are as those of `exact`; every hit of the result is `proven`.
    """
    queries, k = rows_of(queries, index.dim), min(k, count_of(index, allowed))
    start = _start(index, k, allowed)
    parts = []
    for rows in blocks(len(queries), len(index)):
        some = queries[rows]
        beat = None if start is None else _beat(index, some, k, start, allowed)
        if beat is None or _left(index, some[:PROBED], beat[:PROBED]) > HOPELESS:
            found = exact(index, some, k, allowed=allowed)
        else:
            found = _sifted(index, some, k, beat, allowed)
        parts.append(BatchHits(found.ids, found.scores, np.ones(found.ids.shape, dtype=bool)))
    return joined(parts, k)


def _start(index: Index, k: int, allowed: Rows | None) -> Stage | None:
    """The stage that finds scores to beat; None where there is no quick one, or nothing to sift by."""
    quick = [d for d in index.dims if d < index.dim and not index.scans(d)]
    if not quick or index.sieve.codes is None or (allowed is not None and len(allowed) * 2 < len(index)):
        return None
    return Stage(quick[-1], max(SHORTLIST, 4 * k))


def _beat(index: Index, queries: NDArray[np.float32], k: int, start: Stage, allowed: Rows | None) -> NDArray[np.float32]:
    """A score that the true k-th answer of each query has at least: (n, 1) float32; -inf where too few were found."""
    found = rescore(index, queries, shortlist(index, queries, start, allowed), index.dim, k)
    return found.scores[:, k - 1 :] - SLACK


def _left(index: Index, queries: NDArray[np.float32], beat: NDArray[np.float32]) -> float:
    """The share of a sample of the corpus that the sieve keeps."""
    rows = np.sort(np.random.default_rng(0).choice(len(index), min(SAMPLE, len(index)), replace=False))
    return float(np.mean([len(kept) for kept in _sieve(index, queries, beat, rows)]) / len(rows)) if len(queries) else 0.0


def _sieve(index: Index, queries: NDArray[np.float32], beat: NDArray[np.float32], rows: Rows | slice = slice(None)) -> list[Rows]:
    """For each query the places, among `rows`, of the vectors whose upper bound reaches its score to beat."""
    sieve = index.sieve
    if sieve.codes is None:
        raise ValueError("an index without codes has nothing to sift by")
    dims = len(sieve.steps)
    bounds, unit = Bounds.of(index, queries, dims), prefix(queries, index.dim)[:, :dims]
    least = beat - SLACK - bounds.head * np.float32(sieve.error)
    codes, norms = sieve.codes[rows], bounds.norms[rows]
    return [sift(codes, unit[i] * sieve.steps, norms, float(bounds.tail[i, 0]), float(least[i, 0])) for i in range(len(queries))]


def _sifted(index: Index, queries: NDArray[np.float32], k: int, beat: NDArray[np.float32], allowed: Rows | None) -> BatchHits:
    finer = [(d, Bounds.of(index, queries, d)) for d in index.dims if len(index.sieve.steps) < d < index.dim]
    parts = []
    for i, rows in enumerate(_sieve(index, queries, beat)):
        kept = rows if allowed is None else rows[np.isin(rows, allowed, assume_unique=True)]
        one = slice(i, i + 1)
        for d, bounds in finer:
            upper = bounds.of_queries(one).upper(pair_scores(index, queries[one], kept[None], d), bounds.norms[kept])
            kept = kept[upper[0] >= beat[i]]
        parts.append(best(kept[None], pair_scores(index, queries[one], kept[None], index.dim), k))
    return joined(parts, k)
