"""Fills inverted files: rows to clusters by matrix products, codes by comparisons, lists at once.

FAISS does the same row by row. The lists are those that its own `add` makes of the same centroids
and code levels, but for rounding where a row is as near to two of them.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.clustered import inverted_file, nearest_centroids, turn_of
from mrl_search.engines.flat import FAISS
from mrl_search.vectors import sample

__all__ = ["ListFiller", "train_codes"]

BLOCK = 32  # vectors in a block of 4-bit codes
LEVELS = 16  # of a 4-bit code
ORDER = np.array([0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15])  # of a block's codes
ROUNDS = 25  # of the k-means that finds levels
ROWS_PER_LEVEL = 256
PLAIN = (faiss.IndexIVFScalarQuantizer, faiss.IndexIVFFlat, faiss.IndexIVFPQ)  # codes row by row


class ListFiller:
    """Takes the `count` rows of a corpus and fills the lists of a trained index that `fits`."""

    def __init__(self, index: faiss.Index, count: int) -> None:
        self._index, self._file, self._turn = index, inverted_file(index), turn_of(index)
        self._centroids = self._file.quantizer.reconstruct_n(0, self._file.nlist)
        self._by_row = not isinstance(self._file, faiss.IndexIVFPQFastScan)
        width = self._file.code_size if self._by_row else self._file.M2 // 2
        self._near = np.empty(count, np.int32)
        self._codes = np.zeros((count, width), np.uint8)
        self._bounds = None if self._by_row else _bounds(self._file.pq)

    @staticmethod
    def fits(index: faiss.Index) -> bool:
        """Whether the lists of this index are filled here: centroids are compared one by one."""
        file = inverted_file(index)
        if file is None or file.metric_type != faiss.METRIC_INNER_PRODUCT:
            return False
        if not isinstance(faiss.downcast_index(file.quantizer), faiss.IndexFlat):
            return False
        if isinstance(file, faiss.IndexIVFPQFastScan):
            return bool(file.bbs == BLOCK and _has_levels(file))
        return type(file) in PLAIN

    def take(self, rows: slice, x: NDArray[np.float32]) -> None:
        """Take the unit prefixes (n, dims) of these rows; different rows in several threads."""
        x = self._turn(x)
        near = nearest_centroids(x, self._centroids)
        self._near[rows] = near
        codes = self._codes[rows]
        if self._bounds is None:
            lists, n = near.astype(np.int64), len(x)
            pointers = [faiss.swig_ptr(array) for array in (x, lists, codes)]
            self._file.encode_vectors(n, *pointers, False)
            return
        rest = x - self._centroids[near]
        levels = np.zeros(rest.shape, np.uint8)
        for bound in self._bounds:
            levels += rest > bound
        codes[:] = levels[:, ::2]
        codes[:, : levels.shape[1] // 2] |= levels[:, 1::2] << 4

    def finish(self) -> None:
        """Write the lists into the index."""
        lists = FAISS.downcast_InvertedLists(self._file.invlists)
        order = np.argsort(self._near, kind="stable")
        sizes = np.bincount(self._near, minlength=self._file.nlist)
        stops = np.cumsum(sizes)
        for i in np.flatnonzero(sizes).tolist():
            ids = order[stops[i] - sizes[i] : stops[i]]
            codes = self._codes[ids] if self._by_row else _packed(self._codes[ids])
            lists.add_entries(i, len(ids), faiss.swig_ptr(ids), faiss.swig_ptr(codes))
        self._file.ntotal = self._index.ntotal = len(order)


def train_codes(index: faiss.Index, x: NDArray[np.float32]) -> bool:
    """Train the codes of an index by rows (n, dims) of unit norm, if they are of one dim each.

    Its centroids are placed. Of every dim of a residual, k-means finds the levels, for all dims at
    once. Where it returns False, FAISS has to train.
    """
    file = inverted_file(index)
    if not isinstance(file, faiss.IndexIVFPQFastScan) or not _has_levels(file):
        return False
    if file.quantizer.ntotal != file.nlist:
        return False
    x = x[sample(len(x), ROWS_PER_LEVEL * LEVELS)]
    x = turn_of(index)(x)
    centroids = file.quantizer.reconstruct_n(0, file.nlist)
    levels = find_levels(x - centroids[nearest_centroids(x, centroids)])
    faiss.copy_array_to_vector(levels.T.ravel(), file.pq.centroids)
    file.is_trained = index.is_trained = True
    return True


def find_levels(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """The 16 levels of each column of `x` (n, d) that k-means finds: (16, d), ascending."""
    x = np.sort(x, axis=0)
    sums = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(x, axis=0, dtype=np.float64)])
    middle = (np.arange(LEVELS) + 0.5) / LEVELS  # levels lie between even shares and even steps
    steps = x[:1] + middle[:, None] * (x[-1:] - x[:1])
    levels = ((x[(middle * len(x)).astype(np.int64)] + steps) / 2).astype(np.float32)
    end = np.full((1, x.shape[1]), len(x))
    for _ in range(ROUNDS):
        inside = [(x <= bound).sum(axis=0) for bound in (levels[1:] + levels[:-1]) / 2]
        places = np.concatenate([0 * end, np.stack(inside), end])
        totals = np.diff(np.take_along_axis(sums, places, axis=0), axis=0)
        counts = np.diff(places, axis=0)
        means = np.where(counts > 0, totals / np.maximum(counts, 1), levels)
        levels = means.astype(np.float32)
    return levels


def _has_levels(file: Any) -> bool:  # noqa: ANN401 - SWIG
    """Whether each dim of a residual has a 4-bit code of its own."""
    return bool(file.by_residual and file.pq.dsub == 1 and file.pq.nbits == 4)


def _bounds(pq: Any) -> NDArray[np.float32]:  # noqa: ANN401 - SWIG
    """Between which levels a value has which code: (15, d); the levels become ascending."""
    levels = np.sort(faiss.vector_to_array(pq.centroids).reshape(pq.M, LEVELS), axis=1)
    faiss.copy_array_to_vector(levels.ravel(), pq.centroids)
    return np.ascontiguousarray(((levels[:, 1:] + levels[:, :-1]) / 2).T)


def _packed(codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Codes as FAISS packs them for look-ups by shuffles, in blocks of 32 rows; missing ones are 0.

    (n, bytes) uint8, in each two dims of a row, become (blocks, bytes, 32): a byte has the codes of
    one dim of two rows, 16 rows apart.
    """
    count = -(-len(codes) // BLOCK)
    padded = np.zeros((count * BLOCK, codes.shape[1]), np.uint8)
    padded[: len(codes)] = codes
    both = padded.reshape(count, 2, BLOCK // 2, -1)[:, :, ORDER].transpose(1, 0, 3, 2)
    first, second = both
    even = (first & 15) | (second << 4)
    odd = (first >> 4) | (second & 240)
    return np.ascontiguousarray(np.concatenate([even, odd], axis=2))
