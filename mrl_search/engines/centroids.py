"""Centroids of an inverted file, found by k-means in two levels."""

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["find_centroids"]

ROUNDS, REFINE = 10, 2  # rounds of k-means at both levels, and in the end


def find_centroids(x: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Centroids of `count` clusters of unit rows `x` (n, dims): (count, dims) float32, unit norm.

    Spherical k-means finds √count groups, then clusters within each group in proportion to its
    rows (hierarchical k-means; Nistér and Stewénius, CVPR 2006, section 3), then refines all of
    them together. That takes fewer comparisons than ten rounds from random centroids.

    Args:
        x: several times `count` rows.
        count: number of clusters.
    """
    groups = round(count**0.5)
    top = _kmeans(x, groups)
    group = top.index.search(x, 1)[1][:, 0]
    sizes = np.bincount(group, minlength=groups)
    clusters = enumerate(allot(count, sizes))
    start = np.concatenate([_kmeans(x[group == i], int(k)).centroids for i, k in clusters if k])
    return np.asarray(_kmeans(x, count, REFINE, start).centroids)


def allot(count: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide `count` in proportion to `sizes`, by largest remainder: (groups,) int64."""
    shares = sizes * count / sizes.sum()
    parts = np.floor(shares).astype(np.int64)
    parts[np.argsort(parts - shares, kind="stable")[: count - parts.sum()]] += 1
    return np.asarray(parts)


def _kmeans(
    x: NDArray[np.float32], k: int, rounds: int = ROUNDS, start: NDArray[np.float32] | None = None
) -> faiss.Kmeans:
    made = faiss.Kmeans(
        x.shape[1], k, niter=rounds, spherical=True, seed=1, min_points_per_centroid=1,
        max_points_per_centroid=2048,
    )  # fmt: skip
    made.train(x, init_centroids=start)
    return made
