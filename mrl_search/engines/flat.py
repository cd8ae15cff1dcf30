"""Indexes that compare a query with every vector: Flat, SQ, PQ, Panorama, and other kinds."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, chosen
from mrl_search.engines.scan import ScanIndex
from mrl_search.store.rows import VectorStore

__all__ = ["FAISS", "FlatIndex", "PanoramaIndex", "inner_index", "selector", "wrapped"]

FAISS: Any = faiss  # whose stubs do not know all that SWIG makes
MORE = 1.1  # times the answers that a random filter leaves: asked for, so that enough remain
WIDEST = 16  # times k: a filter that leaves fewer is given to FAISS


class FlatIndex(PrefixIndex):
    """A FAISS index without clusters or a graph."""

    def __init__(self, index: faiss.Index, kind: str, ram_bytes: int) -> None:
        super().__init__(index.d, index.ntotal, kind, ram_bytes)
        inner = inner_index(index)
        self._index: Any = index
        self._most = int(getattr(inner, "batch_size", index.ntotal))  # of answers to one query
        self.exact = isinstance(index, faiss.IndexFlat)  # transforms may lose information
        self.filters = self.exact or isinstance(inner, faiss.IndexScalarQuantizer)

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        if mask is None:
            return self._index.search(x, k)  # type: ignore[no-any-return]
        wide = round(MORE * k * self.count / max(1, mask.count)) + k
        if not self.exact or wide > min(WIDEST * k, self._most):
            return self._selected(x, k, mask)
        # asking for more and dropping what is excluded is three times as fast as a selector
        scores, ids = self._index.search(x, wide)
        found = chosen((scores, ids), mask.allowed[ids], k)
        short = np.flatnonzero(found[1][:, -1] < 0)
        if len(short):
            found[0][short], found[1][short] = self._selected(x[short], k, mask)
        return found

    def _selected(self, x: NDArray[np.float32], k: int, mask: Mask) -> Found:
        if "flat" not in mask.cache:
            mask.cache["flat"] = FAISS.SearchParameters(sel=selector(mask))
        parameters = wrapped(self._index, mask.cache["flat"])
        return self._index.search(x, k, params=parameters)  # type: ignore[no-any-return]


class PanoramaIndex(FlatIndex):
    """A Panorama index, and a scan for more answers than FAISS returns from one."""

    def __init__(self, index: faiss.Index, kind: str, ram_bytes: int, store: VectorStore) -> None:
        super().__init__(index, kind, ram_bytes)
        self._scan = ScanIndex(store, index.d)

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        if k > self._most:
            return self._scan.search(x, k, effort, mask)
        return super()._search(x, k, effort, mask)


def inner_index(index: faiss.Index) -> Any:  # noqa: ANN401 - SWIG
    """The index itself, or the one behind its transforms."""
    if isinstance(index, faiss.IndexPreTransform):
        return faiss.downcast_index(index.index)
    return index


def selector(mask: Mask) -> Any:  # noqa: ANN401 - SWIG
    """The mask as FAISS takes it."""
    if "selector" not in mask.cache:
        mask.cache["selector"] = FAISS.IDSelectorBitmap(mask.bits)
    return mask.cache["selector"]


def wrapped(index: faiss.Index, parameters: Any) -> Any:  # noqa: ANN401 - SWIG
    """Search parameters of the inner index as those of the whole."""
    if isinstance(index, faiss.IndexPreTransform):
        return FAISS.SearchParametersPreTransform(index_params=parameters)
    return parameters
