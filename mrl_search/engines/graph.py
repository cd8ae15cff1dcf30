"""Graphs of neighbours: HNSW and NSG."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, padded
from mrl_search.engines.flat import FAISS, FlatIndex, inner_index, selector, wrapped

__all__ = ["GraphIndex", "NSGIndex"]

ENOUGH = 0.75  # share of the k answers for which a walk with a mask should pass allowed rows
BEAM = 64  # candidates that a search holds at least, unless an effort says otherwise


class GraphIndex(PrefixIndex):
    """An HNSW graph; an effort is efSearch, the candidates that a walk holds."""

    widens = True
    efforts = (16, 32, 64, 128, 256, 512, 1024)

    def __init__(self, index: faiss.Index, kind: str, ram_bytes: int) -> None:
        super().__init__(index.d, index.ntotal, kind, ram_bytes)
        self._index: Any = index
        self._links = int(inner_index(index).hnsw.nb_neighbors(0))

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        beam = self._beam(max(effort or max(BEAM, 2 * k), k), k, mask)
        chosen = {} if mask is None else {"sel": selector(mask)}
        parameters = FAISS.SearchParametersHNSW(efSearch=beam, **chosen)
        return self._index.search(x, k, params=wrapped(self._index, parameters))  # type: ignore[no-any-return]

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        beam = effort or BEAM
        return float(min(self.count, self._beam(beam, beam, mask) * self._links / 2))

    def _beam(self, beam: int, k: int, mask: Mask | None) -> int:
        """Candidates to hold: more with a mask, as a walk passes through excluded rows."""
        share = 1.0 if mask is None else max(1, mask.count) / self.count
        more: float = beam if mask is None else max(beam / share**0.35, ENOUGH * k / share)
        return min(round(more), self.count)


class NSGIndex(FlatIndex):
    """An NSG graph, which takes neither an effort nor a mask."""

    def _search(self, x: NDArray[np.float32], k: int, effort: int, mask: Mask | None) -> Found:
        found = super()._search(x, min(k, self.count), effort, mask)  # FAISS never ends for more
        return padded(found, k)
