"""Exact search that reads as little as it can: prefixes first, and of those vectors alone that may still be answers the rest."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.embeddings import blocks
from mrl_search.index import Index
from mrl_search.results import BatchHits
from mrl_search.search.bounds import SLACK, Bounds
from mrl_search.search.ranking import best
from mrl_search.search.run import Rows, count_of, exact, joined, pair_scores, rescore
from mrl_search.vectors import prefix, rows_of

__all__ = ["exact_pruned"]

SAMPLE, PROBED = 1024, 16  # rows and queries that tell which prefix to scan
READ = 4  # one number costs `exact`, which sums in float64, as much as so many of a scan
GATHER = 8  # the same for a vector that survived the scan
PROBES = 4  # times k: how many of the best by their prefix set the score to beat


def exact_pruned(index: Index, queries: NDArray[np.floating], k: int, allowed: Rows | None = None) -> BatchHits:
    """The true `k` nearest at full length, as `exact` gives them, mostly without reading whole vectors.

    Every allowed vector is scored at one prefix. The best of them, scored at full length, give a score to beat; a vector whose upper
    bound lies below it is left, and the others are read further, prefix by prefix, until few remain. Which prefix is scanned follows
    from a sample of the corpus. Where the first numbers hold little of a vector's length, this costs as much as reading everything.

    Arguments, result and errors are as those of `exact`; every hit of the result is `proven`.
    """
    queries, count = rows_of(queries, index.dim), count_of(index, allowed)
    k = min(k, count)
    parts = []
    for rows in blocks(len(queries), 4 * count):
        some = queries[rows]
        dims = _scan_dims(index, some, k, allowed)
        found = exact(index, some, k, allowed=allowed) if dims is None else _pruned(index, some, k, dims, allowed)
        parts.append(BatchHits(found.ids, found.scores, np.ones(found.ids.shape, dtype=bool)))
    return joined(parts, k)


def _pruned(index: Index, queries: NDArray[np.float32], k: int, dims: int, allowed: Rows | None) -> BatchHits:
    cosines, upper = _scan(index, queries, dims, allowed)
    probes = min(PROBES * k, cosines.shape[1])
    near = np.argpartition(cosines, -probes, axis=1)[:, -probes:]
    beat = rescore(index, queries, near if allowed is None else allowed[near], index.dim, k).scores[:, -1:] - SLACK
    query, column = np.nonzero(upper >= beat)
    row = column if allowed is None else allowed[column]
    for d in (d for d in index.dims if dims < d < index.dim):
        bounds = Bounds.of(index, queries, d).of_queries(query)
        left = bounds.upper(_cosines(index, queries, query, row, d), bounds.norms[row, None]) >= beat[query]
        query, row = query[left[:, 0]], row[left[:, 0]]
    scores = _cosines(index, queries, query, row, index.dim)[:, 0]
    place = np.arange(len(query)) - np.searchsorted(query, query)
    found = BatchHits(np.full((len(queries), place.max() + 1), -1, np.int64), np.full((len(queries), place.max() + 1), -np.inf, np.float32))
    found.ids[query, place], found.scores[query, place] = row, scores
    return best(found.ids, found.scores, k)


def _scan(index: Index, queries: NDArray[np.float32], dims: int, allowed: Rows | None) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Cosine of every query's prefix and every allowed vector's, and the most each pair can score: two (n, allowed) float32."""
    bounds, unit = Bounds.of(index, queries, dims), prefix(queries, dims)
    cosines = np.empty((len(queries), count_of(index, allowed)), dtype=np.float32)
    for rows in blocks(cosines.shape[1], dims):
        corpus = index.unit_rows(dims, rows) if allowed is None else index.embeddings.prefix(dims, allowed[rows])
        np.matmul(unit, corpus.T, out=cosines[:, rows])
    return cosines, bounds.upper(cosines, bounds.norms if allowed is None else bounds.norms[allowed])


def _cosines(index: Index, queries: NDArray[np.float32], query: Rows, row: Rows, dims: int) -> NDArray[np.float32]:
    """Cosine of the prefixes of pairs, `query[i]` and `row[i]`: (pairs, 1) float32."""
    scores = np.empty((len(row), 1), dtype=np.float32)
    for some in blocks(len(row), index.dim):
        scores[some] = pair_scores(index, queries[query[some]], row[some, None], dims)
    return scores


def _scan_dims(index: Index, queries: NDArray[np.float32], k: int, allowed: Rows | None) -> int | None:
    """The prefix that is cheapest to scan first, judged by a sample of rows; None where reading everything is cheaper."""
    rng, count = np.random.default_rng(0), count_of(index, allowed)
    rows = np.arange(len(index)) if allowed is None else allowed
    rows = np.sort(rng.choice(rows, min(SAMPLE, count), replace=False))
    some, place = queries[:PROBED], max(1, round(k * len(rows) / count))  # the k-th best of all is about the place-th best of the sample
    whole = prefix(some, index.dim) @ index.embeddings.prefix(index.dim, rows).T
    beat = np.partition(whole, -place, axis=1)[:, -place, None]
    costs: dict[int | None, float] = {None: READ * index.dim}
    for d in (d for d in index.dims if d < index.dim):
        upper = _scan(index, some, d, rows)[1]
        costs[d] = d + GATHER * (index.dim - d) * float((upper >= beat).mean())
    return min(costs, key=lambda d: costs[d])
