"""Controls: what Matryoshka training bought, beside other ways to make the same vectors as short.

`pca` keeps the first d principal axes of the corpus, which a prefix must compete with though it has seen the corpus; `random` keeps d
of the numbers, drawn with a fixed seed, as if no prefix were special.
"""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.measure.queries import QuerySet
from mrl_search.search import copies_of, leave_out
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import blocks
from mrl_search.store.transform import principal_axes
from mrl_search.vectors import l2_normalize, prefix

__all__ = ["CONTROLS", "LARGEST", "Projection", "centred_axes", "control_answers", "projections"]

CONTROLS = ("pca", "random")
LARGEST = 250_000  # vectors; larger corpora have no controls, which would hold another copy of them in memory
FITTED = 50_000  # rows that principal axes are computed from

Projection = tuple[
    NDArray[np.float32], NDArray[np.float32]
]  # centre (dim,) and axes (dim, up to dim), most important first


def projections(index: Index, seed: int) -> dict[str, Projection]:
    """The controls by name: a vector x becomes (x - centre) @ axes, of which the first d numbers are kept."""
    rows = np.arange(len(index))
    if len(rows) > FITTED:
        rows = np.sort(np.random.default_rng(seed).choice(rows, FITTED, replace=False))
    centre, axes = centred_axes(index.embeddings.prefix(index.dim, rows))
    order = np.random.default_rng(seed).permutation(index.dim)
    chosen = np.zeros((index.dim, index.dim), dtype=np.float32)
    chosen[order, np.arange(index.dim)] = 1
    return {"pca": (centre, axes), "random": (np.zeros(index.dim, dtype=np.float32), chosen)}


def centred_axes(x: NDArray[np.float32]) -> Projection:
    """Mean and principal axes of the rows of `x`, (n, dim), the largest variance first; the largest number of each axis is positive."""
    centre = x.mean(axis=0, dtype=np.float64)
    moment = np.zeros((x.shape[1], x.shape[1]))
    for rows in blocks(*x.shape):
        part = x[rows] - centre
        moment += part.T @ part
    return centre.astype(np.float32), np.ascontiguousarray(principal_axes(moment).T)


def control_answers(
    index: Index, queries: QuerySet, projection: Projection, dims: tuple[int, ...], k: int
) -> Iterator[tuple[int, BatchHits]]:
    """The nearest (n, k) by the cosine of the first d projected numbers, for each d of `dims`; each query's own picture is left out."""
    centre, axes = projection
    wide = min(len(index), k + int(copies_of(index, queries.hashes).max(initial=0)))
    asked = (prefix(queries.vectors, index.dim) - centre) @ axes[:, : max(dims)]
    corpus = np.empty((len(index), max(dims)), dtype=np.float32)
    for rows in blocks(len(index), index.dim):
        corpus[rows] = (index.embeddings.prefix(index.dim, rows) - centre) @ axes[:, : max(dims)]
    for d in dims:
        flat: Any = faiss.IndexFlatIP(d)
        flat.add(l2_normalize(corpus[:, :d]))
        scores, ids = flat.search(l2_normalize(asked[:, :d]), wide)
        yield d, leave_out(BatchHits(ids, scores), index.embeddings.hashes, queries.hashes, k)
