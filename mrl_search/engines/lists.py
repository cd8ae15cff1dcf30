"""Inverted files of 4-bit codes as compiled code scans them: FAISS's own memory, no copy of it.

FAISS packs codes in blocks of 32 vectors for look-ups by shuffles (`…,PQ{d}x4fsr`). Compiled code
reads the same blocks, chooses clusters as `ClusteredIndex` does, and keeps the best codes. FAISS
searches the same file where there is no compiled code.
"""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import kernels
from mrl_search.engines.base import Found, Mask, Visits
from mrl_search.engines.flat import FAISS

__all__ = ["CodeLists", "has_lists", "rotation_of"]

BLOCK = 32  # vectors in a block of codes
MOST_PARTS = 256  # codes of a vector: sums of as many bytes stay below 65,536


def has_lists(kind: str) -> bool:
    """Whether compiled code searches indexes of this kind."""
    return kernels.native is not None and "IVF" in kind and kind.endswith("x4fsr")


def rotation_of(steps: list[Any]) -> NDArray[np.float32] | None:
    """The only transform of FAISS as a matrix (d_in, d_out) float32; None for others."""
    if len(steps) != 1 or not isinstance(steps[0], faiss.LinearTransform) or steps[0].have_bias:
        return None
    return np.ascontiguousarray(faiss.vector_to_array(steps[0].A).reshape(steps[0].d_out, -1).T)


class CodeLists:
    """What compiled code needs of an inverted file: a handle, and what it points to."""

    def __init__(self, handle: object, dims: int, keeps: object) -> None:
        self.handle, self.dims, self._keeps = handle, dims, keeps

    @classmethod
    def of(cls, file: Any, steps: list[Any]) -> "CodeLists | None":  # noqa: ANN401 - SWIG
        """The lists of a FAISS inverted file behind some transforms; None for other codes."""
        kind = faiss.IndexIVFPQFastScan
        if kernels.native is None or not isinstance(file, kind) or not file.by_residual:
            return None
        lists = FAISS.downcast_InvertedLists(file.invlists)
        quantizer = faiss.downcast_index(file.quantizer)
        packed = file.bbs == BLOCK and isinstance(lists, FAISS.BlockInvertedLists)
        flat = isinstance(quantizer, faiss.IndexFlat)
        rotation = rotation_of(steps)
        turned = not steps or (rotation is not None and len(set(rotation.shape)) == 1)
        if not packed or not flat or file.M > MOST_PARTS or not turned:
            return None
        centroids = quantizer.reconstruct_n(0, file.nlist)
        levels = faiss.vector_to_array(file.pq.centroids).reshape(file.M, 16, -1)
        levels = np.ascontiguousarray(levels.transpose(0, 2, 1))
        where = np.zeros((file.nlist, 3), np.int64)
        for i in range(file.nlist):
            if size := lists.list_size(i):
                where[i] = int(lists.get_codes(i)), int(lists.get_ids(i)), size
        handle = kernels.native.lists(file.d, file.M, rotation, centroids, levels, where)
        return cls(handle, file.d, (file, rotation, centroids, levels))

    def search(self, x: NDArray[np.float32], k: int, visits: Visits, mask: Mask | None) -> Found:
        """The best `k` codes for each unit prefix, (n, k)."""
        scores, ids = np.empty((len(x), k), np.float32), np.empty((len(x), k), np.int64)
        x, bits = np.ascontiguousarray(x, np.float32), None if mask is None else mask.bits

        def search(rows: slice) -> None:
            kernels.native.scan(self.handle, x[rows], *visits, bits, ids[rows], scores[rows])

        kernels.spread(len(x), search)
        return scores, ids
