"""Inverted files: where the clusters of a large one lie, found in two levels."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["find_centroids", "inverted_file"]

ROUNDS, REFINE = 10, 2  # of k-means, at both levels, and in the end


def inverted_file(index: faiss.Index) -> Any:  # noqa: ANN401 - SWIG
    """The inverted file inside `index`, where there is one; else None."""
    inner = faiss.try_extract_index_ivf(index)
    return None if inner is None else faiss.downcast_index(inner)


def find_centroids(x: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Centres of `count` clusters of `x`, (n, dims) float32 rows of unit length: (count, dims) float32, of unit length.

    Spherical k-means into √count groups, then each group into clusters, as many as its share of the rows (hierarchical k-means;
    Nistér and Stewénius, CVPR 2006, section 3), then two rounds of k-means with all of them: fewer comparisons than ten rounds from random
    centres take. `n` is several times `count`.
    """
    groups = round(count**0.5)
    top = _kmeans(x, groups)
    group = top.index.search(x, 1)[1][:, 0]
    sizes = np.bincount(group, minlength=groups)
    start = np.concatenate(
        [_kmeans(x[group == i], int(k)).centroids for i, k in enumerate(allot(count, sizes)) if k]
    )
    return np.asarray(_kmeans(x, count, REFINE, start).centroids)


def allot(count: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide `count`, at most the sum of `sizes`, in proportion to `sizes`: (groups,) int64 that add up to it, by largest remainder."""
    shares = sizes * count / sizes.sum()
    parts = np.floor(shares).astype(np.int64)
    parts[np.argsort(parts - shares, kind="stable")[: count - parts.sum()]] += 1
    return np.asarray(parts)


def _kmeans(
    x: NDArray[np.float32], k: int, rounds: int = ROUNDS, start: NDArray[np.float32] | None = None
) -> faiss.Kmeans:
    made = faiss.Kmeans(
        x.shape[1],
        k,
        niter=rounds,
        spherical=True,
        seed=1,
        min_points_per_centroid=1,
        max_points_per_centroid=2048,
    )
    made.train(x, init_centroids=start)
    return made
