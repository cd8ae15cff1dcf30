"""Which clusters of an inverted file a query visits: as many as it needs, and not as many as every other.

Most queries have their neighbours in a few clusters, some lie between hundreds. So a query visits those clusters that are hardly further
from it than the nearest ones are: query-aware pruning (SPANN, Chen et al., NeurIPS 2021, section 3.3). On a million
generated vectors 192 clusters on average found what 512 for every query did, .9995 of the neighbours, in half the time.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.clusters import inverted_file
from mrl_search.engines.effort import clusters_visited, search_parameters

__all__ = ["SAMPLE", "Probe"]

FAISS: Any = faiss  # whose stubs do not know all that SWIG makes
NEAREST = (
    4  # the cluster that the others are compared with: the very nearest one is nearer by chance
)
MOST = 4  # times the mean number of clusters: what a query may visit
SAMPLE = 256  # vectors of the corpus that tell how far to go


class Probe:
    """Searches an inverted file of which the clusters are found exactly; `fits` says whether an index is one.

    Args:
        index: the FAISS index, its inverted file behind transforms or not.
        sample: (n, dims) float32, rows of the corpus at unit length.
    """

    def __init__(self, index: faiss.Index, sample: NDArray[np.float32]) -> None:
        self._index = index
        chain: Any = index.chain if isinstance(index, faiss.IndexPreTransform) else None
        self._steps = (
            [faiss.downcast_VectorTransform(chain.at(i)) for i in range(chain.size())]
            if chain
            else []
        )
        self._file = inverted_file(index)
        self._sample = self._turned(sample)
        self._reach: dict[int, float] = {}
        self._parameters: dict[int, Any] = {}

    @staticmethod
    def fits(index: faiss.Index) -> bool:
        """Whether `index` can be searched so: it has clusters, and does not find them through a graph."""
        file = inverted_file(index)
        return file is not None and isinstance(
            faiss.downcast_index(file.quantizer), faiss.IndexFlat
        )

    def search(
        self, x: NDArray[np.float32], k: int, effort: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Scores and ids, each (n, k), of the best in the clusters that each row of `x` (n, dims) visits: `effort` of them on average.

        That is the average over the corpus, and no query visits more than four times as many; an effort of 0 is the usual one. Rows end
        with id -1 where there were fewer vectors than `k`. A batch gives what its rows give singly, up to the rounding of FAISS's products
        for a cluster that lies just within reach.
        """
        effort = clusters_visited(self._file, effort)
        if effort == self._file.nlist:
            return self._index.search(x, k, params=search_parameters(self._index, k, effort))
        x = self._turned(x)
        near, clusters = self._nearest(x, effort)
        away = _distances(x, near)
        counts = (
            (away <= self._reach_of(effort) * away[:, _anchor(effort), None]).sum(axis=1).tolist()
        )
        scores, ids = np.empty((len(x), k), dtype=np.float32), np.empty((len(x), k), dtype=np.int64)

        def visit(
            rows: range,
        ) -> (
            None
        ):  # rows visit different numbers of clusters, which FAISS cannot be told of a whole batch
            for row in rows:
                given = [faiss.swig_ptr(array[row]) for array in (x, clusters, near, scores, ids)]
                self._file.search_preassigned_c(
                    1, given[0], k, *given[1:], False, self._visiting(counts[row])
                )

        threads = min(len(x), FAISS.omp_get_max_threads())
        if threads < 2:
            visit(range(len(x)))
        else:
            with ThreadPoolExecutor(threads, thread_name_prefix="probe") as pool:
                list(pool.map(visit, [range(i, len(x), threads) for i in range(threads)]))
        return scores, ids

    def _turned(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        for step in self._steps:
            x = step.apply(x)
        return x

    def _nearest(
        self, x: NDArray[np.float32], effort: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._file.quantizer.search(x, min(MOST * effort, self._file.nlist))  # type: ignore[no-any-return]

    def _reach_of(self, effort: int) -> float:
        """How many times as far away as the fourth cluster the last may be that is visited, in squared distances."""
        if effort not in self._reach:
            away = _distances(self._sample, self._nearest(self._sample, effort)[0])
            ratios = (away / np.maximum(away[:, _anchor(effort), None], np.float32(1e-12))).ravel()
            wanted = effort * len(self._sample)
            self._reach[effort] = max(1.0, float(np.partition(ratios, wanted - 1)[wanted - 1]))
        return self._reach[effort]

    def _visiting(self, count: int) -> Any:  # noqa: ANN401 - SWIG
        if count not in self._parameters:  # making them takes a tenth of a search
            self._parameters[count] = FAISS.SearchParametersIVF(nprobe=count)
        return self._parameters[count]


def _anchor(effort: int) -> int:
    return min(NEAREST, effort) - 1


def _distances(x: NDArray[np.float32], products: NDArray[np.float32]) -> NDArray[np.float32]:
    """Squared distances of rows `x` to centres of unit length, from their inner products: (n, clusters)."""
    distances: NDArray[np.float32] = np.maximum(np.vecdot(x, x)[:, None] + 1 - 2 * products, 0)
    return distances
