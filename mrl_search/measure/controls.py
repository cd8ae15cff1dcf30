"""Controls: other ways to shorten the same vectors, next to their prefixes.

`pca` keeps the first d principal axes of the corpus, which PCA must have seen; `random` keeps d
random dims.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.queries import QuerySet
from mrl_search.search.corpus import Corpus
from mrl_search.search.nearest import nearest_rows
from mrl_search.search.others import leave_out
from mrl_search.search.results import BatchHits
from mrl_search.store.transform import principal_axes
from mrl_search.vectors import blocks, prefix, sample

__all__ = ["CONTROLS", "LARGEST", "Projection", "centred_axes", "control_answers", "projections"]

CONTROLS = ("pca", "random")
LARGEST = 250_000  # vectors; the projected copy of more would not fit in memory
FITTED = 50_000  # rows that principal axes are fitted to

Projection = tuple[NDArray[np.float32], NDArray[np.float32]]  # centre (dim,), axes (dim, dim)


def projections(corpus: Corpus, seed: int) -> dict[str, Projection]:
    """The controls by name: x becomes (x - centre) @ axes, of which the first d dims are kept."""
    rows = corpus.live_rows[sample(len(corpus.live_rows), FITTED, seed)]
    order = np.random.default_rng(seed).permutation(corpus.dim)
    shuffled = np.ascontiguousarray(np.eye(corpus.dim, dtype=np.float32)[:, order])
    return {
        "pca": centred_axes(corpus.vectors.prefix(corpus.dim, rows)),
        "random": (np.zeros(corpus.dim, dtype=np.float32), shuffled),
    }


def centred_axes(x: NDArray[np.floating]) -> Projection:
    """Mean (dim,) and principal axes (dim, dim) of the rows of `x`, an axis a column.

    The axis with the largest variance comes first.
    """
    centre = x.mean(axis=0, dtype=np.float64)
    moment = np.zeros((x.shape[1], x.shape[1]))
    for rows in blocks(*x.shape):
        part = x[rows] - centre
        moment += part.T @ part
    return centre.astype(np.float32), np.ascontiguousarray(principal_axes(moment).T)


def control_answers(
    corpus: Corpus, queries: QuerySet, projection: Projection, dims: Sequence[int], k: int
) -> Iterator[tuple[int, BatchHits]]:
    """For each of `dims`: the nearest (n, k) by that many projected dims, without the query."""
    centre, axes = projection
    live = corpus.live_rows
    wide = min(len(live), k + int(corpus.collection.copies(queries.hashes).max(initial=0)))
    projected = (prefix(queries.vectors, corpus.dim) - centre) @ axes[:, : max(dims)]
    rotated = np.empty((len(live), max(dims)), dtype=np.float32)
    for rows, stored in corpus.live_chunks():
        rotated[rows] = (prefix(stored, corpus.dim) - centre) @ axes[:, : max(dims)]
    for d in dims:
        chunks = (rotated[rows, :d] for rows in blocks(len(live), 1024))
        near = nearest_rows(chunks, projected[:, :d], wide)
        hits = BatchHits(live[near.rows], near.scores)
        own = corpus.collection.hashes[hits.rows] == queries.hashes[:, None]
        yield d, leave_out(hits, own, k)
