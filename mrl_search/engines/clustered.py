"""Inverted files: clusters of vectors, of which a query visits as many as it needs.

Most queries have their neighbours in a few clusters, some lie between hundreds. So a query visits
the clusters that are hardly further away than its nearest ones: query-aware pruning (SPANN, Chen
et al., NeurIPS 2021, section 3.3). On a million generated vectors, 192 clusters on average found
what 512 for every query did, .9995 of the neighbours, in half the time.
"""

from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, Visits
from mrl_search.engines.flat import FAISS, selector, wrapped
from mrl_search.engines.kernels import spread
from mrl_search.engines.lists import CodeLists, rotation_of
from mrl_search.vectors import sample

__all__ = [
    "SAMPLE", "ClusteredIndex", "find_centroids", "inverted_file", "nearest_centroids", "steps_of",
    "turn_of",
]  # fmt: skip

SHARE, MORE, ENOUGH = 64, 8, 32  # by default one in 64 clusters is visited; of few, one in 8
ALL_UP_TO = 128  # clusters; of so few all may be worth visiting
BEAM = 32  # candidates that a graph over the centroids holds at least
NEAREST = 4  # the cluster that others are compared with: the very nearest is nearer by chance
MOST = 4  # times the mean number of clusters that a query may visit
SAMPLE = 256  # rows of the corpus that calibrate how far to go
ROUNDS, REFINE = 10, 2  # rounds of k-means at both levels, and in the end
PER_GROUP = 256  # rows that find the groups
TILE = 512  # rows compared at once: long enough for two threads to take turns
RESERVOIR = 11  # FAISS's fast-scan variant that answers single queries fastest


class ClusteredIndex(PrefixIndex):
    """An IVF index; an effort is the number of clusters visited on average (nprobe).

    Where centroids are compared one by one, every query visits its own number of clusters; where a
    graph finds them, all visit the same number. `sample` gives some rows of the corpus at this
    prefix, (n, dims) float32 of unit norm.
    """

    def __init__(
        self, index: faiss.Index, kind: str, ram_bytes: int,
        sample: Callable[[], NDArray[np.float32]],
    ) -> None:  # fmt: skip
        super().__init__(index.d, index.ntotal, kind, ram_bytes)
        self._index: Any = index
        self._file = inverted_file(index)
        if isinstance(self._file, faiss.IndexIVFFastScan):
            self._file.implem = RESERVOIR
        self._turn = turn_of(index)
        self._lists = int(self._file.nlist)
        quantizer = faiss.downcast_index(self._file.quantizer)
        self._compares_all = isinstance(quantizer, faiss.IndexFlat)
        self._by_graph = isinstance(quantizer, faiss.IndexHNSW)
        sizes = map(self._file.invlists.list_size, range(self._lists))
        self._empty = np.fromiter((size == 0 for size in sizes), dtype=bool, count=self._lists)
        self._some_empty = bool(self._empty.any())
        self._sample = sample
        self.lists = CodeLists.of(self._file, steps_of(index))
        self._reach: dict[int, float] = {}
        self._parameters: dict[int, Any] = {}
        most = max(self._lists // 4, min(self._lists, ALL_UP_TO))
        steps = {s << i >> 2 for i in range(most.bit_length()) for s in (4, 5, 6, 7)}
        self.efforts = tuple(sorted(s for s in steps if s <= most))

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        if self.lists is not None:
            return self.lists.search(x, k, self.visits(effort, mask), mask)
        visited = self._visited(effort, mask)
        if not self._compares_all or visited == self._lists:
            return self._index.search(x, k, params=self._whole(visited, mask))  # type: ignore[no-any-return]
        x = self._turn(x)
        near, clusters = self._nearest(x, visited)
        distances = _distances(x, near)
        limit = self._reach_of(visited) * distances[:, _anchor(visited), None]
        counts = (distances <= limit).sum(axis=1).tolist()
        scores, ids = np.empty((len(x), k), np.float32), np.empty((len(x), k), np.int64)
        search, cache = self._file.search_preassigned_c, self._parameters
        if mask is not None:
            cache = mask.cache.setdefault(self, {})

        def visit(rows: range) -> None:  # FAISS takes one number of clusters for a whole batch
            for row in rows:
                pointers = [faiss.swig_ptr(a[row]) for a in (x, clusters, near, scores, ids)]
                parameters = cache.get(counts[row]) or self._make(counts[row], mask, cache)
                search(1, pointers[0], k, *pointers[1:], False, parameters)

        spread(len(x), lambda part: visit(range(part.start, part.stop)))
        return scores, ids

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        visited = self._visited(effort, mask)
        return float(self._lists + np.ceil(self.count * visited / self._lists))

    def visits(self, effort: int, mask: Mask | None) -> Visits:
        visited = self._visited(effort, mask)
        if visited == self._lists:
            return 1, visited, np.inf
        most = min(MOST * visited, self._lists)
        return _anchor(visited) + 1, most, self._reach_of(visited)

    def _visited(self, effort: int, mask: Mask | None) -> int:
        """Clusters to visit on average: more of them where fewer rows may be answers."""
        share = 1 if mask is None else max(1, mask.count) / self.count
        usual = max(1, self._lists // SHARE, min(ENOUGH, self._lists // MORE))
        wanted = float(effort or usual)
        more: float = wanted / float(share) ** 0.5
        return min(round(more), self._lists)

    def _whole(self, visited: int, mask: Mask | None) -> Any:  # noqa: ANN401 - SWIG
        """Parameters for a search that FAISS does alone."""
        options: dict[str, Any] = {"nprobe": visited}
        if mask is not None:
            options["sel"] = selector(mask)
        if self._by_graph:
            beam = max(BEAM, visited + visited // 4)
            options["quantizer_params"] = FAISS.SearchParametersHNSW(efSearch=beam)
        return wrapped(self._index, FAISS.SearchParametersIVF(**options))

    def _make(self, count: int, mask: Mask | None, cache: dict[int, Any]) -> Any:  # noqa: ANN401
        """Parameters for one row; making them takes a tenth of a search, so they are kept."""
        chosen = {} if mask is None else {"sel": selector(mask)}
        cache[count] = FAISS.SearchParametersIVF(nprobe=count, **chosen)
        return cache[count]

    def _nearest(self, x: NDArray[np.float32], visited: int) -> Found:
        """Products and numbers of the nearest clusters, (n, clusters) each; empty ones come last.

        Many copies of few vectors give equal centroids, of which most have no vectors.
        """
        near, clusters = self._file.quantizer.search(x, min(MOST * visited, self._lists))
        if self._some_empty:
            empty = self._empty[clusters]
            order = empty.argsort(axis=1, kind="stable")
            near = np.where(empty, np.float32(-1), near)
            near, clusters = (np.take_along_axis(a, order, axis=1) for a in (near, clusters))
        return near, clusters

    def _reach_of(self, visited: int) -> float:
        """The largest squared distance of a visited cluster, as a ratio to the fourth nearest."""
        if visited not in self._reach:
            x = self._turn(self._sample())
            distances = _distances(x, self._nearest(x, visited)[0])
            fourth = np.maximum(distances[:, _anchor(visited), None], np.float32(1e-12))
            ratios, wanted = (distances / fourth).ravel(), visited * len(x) - 1
            self._reach[visited] = max(1.0, float(np.partition(ratios, wanted)[wanted]))
        return self._reach[visited]


def inverted_file(index: faiss.Index) -> Any:  # noqa: ANN401 - SWIG
    """The inverted file inside `index`, or None."""
    inner = faiss.try_extract_index_ivf(index)
    return None if inner is None else faiss.downcast_index(inner)


def _anchor(visited: int) -> int:
    return min(NEAREST, visited) - 1


def _distances(x: NDArray[np.float32], products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances of rows `x` to centroids of unit norm, from inner products."""
    squares = np.vecdot(x, x)[:, None] + 1 - 2 * products
    distances: NDArray[np.float32] = np.maximum(squares, 0)
    return distances


def steps_of(index: faiss.Index) -> list[Any]:
    """The transforms before an index."""
    chain: Any = index.chain if isinstance(index, faiss.IndexPreTransform) else None
    places = range(chain.size()) if chain else ()
    return [faiss.downcast_VectorTransform(chain.at(i)) for i in places]


def turn_of(index: faiss.Index) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The transforms before an index; of a rotation as a matrix product, which is faster."""
    steps = steps_of(index)
    matrix = rotation_of(steps)
    if matrix is not None:
        return lambda x: x @ matrix

    def turn(x: NDArray[np.float32]) -> NDArray[np.float32]:
        for step in steps:
            x = step.apply(x)
        return x

    return turn


def find_centroids(x: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Centroids of `count` clusters of unit rows `x` (n, dims): (count, dims) float32, unit norm.

    Spherical k-means finds √count groups of some of the rows, then clusters within each group in
    proportion to its rows (hierarchical k-means; Nistér and Stewénius, CVPR 2006, section 3), then
    refines all of them together: fewer comparisons than ten rounds from random centroids.
    """
    groups = round(count**0.5)
    top = _kmeans(x[sample(len(x), PER_GROUP * groups)], groups)
    group = nearest_centroids(x, top)
    sizes = np.bincount(group, minlength=groups)
    clusters = enumerate(allot(count, sizes))
    start = np.concatenate([_kmeans(x[group == i], int(k)) for i, k in clusters if k])
    return _kmeans(x, count, REFINE, start)


def nearest_centroids(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The centroid (k, dims) of unit norm that is nearest to each row (n, dims): (n,) int64."""
    across = np.ascontiguousarray(centroids.T)
    products = np.empty((TILE, len(centroids)), np.float32)
    near = np.empty(len(x), np.int64)
    for start in range(0, len(x), TILE):
        rows = slice(start, start + TILE)
        found = products[: len(near[rows])]
        np.matmul(x[rows], across, out=found)
        found.argmax(axis=1, out=near[rows])
    return near


def allot(count: int, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Divide `count` in proportion to `sizes`, by largest remainder: (groups,) int64."""
    shares = sizes * count / sizes.sum()
    parts = np.floor(shares).astype(np.int64)
    parts[np.argsort(parts - shares, kind="stable")[: count - parts.sum()]] += 1
    return np.asarray(parts)


def _kmeans(
    x: NDArray[np.float32], k: int, rounds: int = ROUNDS, start: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Spherical k-means of unit rows `x` (n, dims) from `k` of them, or `start`: (k, dims)."""
    rng = np.random.default_rng(1)
    centroids = x[rng.choice(len(x), k, replace=False)] if start is None else start

    def nearest_of(rows: slice) -> NDArray[np.int64]:
        return nearest_centroids(x[rows], centroids)

    for _ in range(rounds):
        near = np.concatenate(spread(len(x), nearest_of))
        order, sizes = np.argsort(near, kind="stable"), np.bincount(near, minlength=k)
        filled = np.flatnonzero(sizes)
        begins = (np.cumsum(sizes) - sizes)[filled]
        sums = np.add.reduceat(x[order], begins, axis=0)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        found = np.empty_like(centroids)
        found[filled] = np.divide(sums, norms, out=centroids[filled], where=norms > 0)
        if len(filled) < k:  # the others begin anew, in the largest clusters
            empty = np.flatnonzero(sizes == 0)
            found[empty] = x[order[rng.integers(0, len(order), len(empty))]]
        centroids = found
    return centroids
