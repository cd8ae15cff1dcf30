"""Graphs of neighbours: HNSW and NSG."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found, Mask, PrefixIndex, padded
from mrl_search.engines.flat import FAISS, FlatIndex, inner_index, selector, wrapped

__all__ = ["GraphIndex", "NSGIndex"]

BEAM = 64  # candidates that a search holds at least, unless an effort says otherwise


class GraphIndex(PrefixIndex):
    """An HNSW graph; an effort is efSearch, the candidates that a walk holds."""

    widens = True
    efforts = (16, 32, 64, 128, 256, 512, 1024)

    def __init__(self, index: faiss.Index, kind: str, ram_bytes: int) -> None:
        super().__init__(index.d, index.ntotal, kind, ram_bytes)
        self._index: Any = index
        self._links = int(inner_index(index).hnsw.nb_neighbors(0))

    def search(
        self, x: NDArray[np.float32], k: int, effort: int = 0, mask: Mask | None = None
    ) -> Found:
        beam = self._beam(max(effort or max(BEAM, 2 * k), k), mask)
        chosen = {} if mask is None else {"sel": selector(mask)}
        parameters = FAISS.SearchParametersHNSW(efSearch=beam, **chosen)
        return self._index.search(x, k, params=wrapped(self._index, parameters))  # type: ignore[no-any-return]

    def cost(self, effort: int = 0, mask: Mask | None = None) -> float | None:
        compared = self._beam(effort or BEAM, mask) * self._links / 2
        return float(min(self.count, compared))

    def _beam(self, beam: int, mask: Mask | None) -> int:
        """Candidates to hold: a walk passes through rows that may not be answers."""
        share = 1 if mask is None else max(1, mask.count) / self.count
        return min(round(beam / share), self.count)


class NSGIndex(FlatIndex):
    """An NSG graph, which takes neither an effort nor a mask."""

    def search(
        self, x: NDArray[np.float32], k: int, effort: int = 0, mask: Mask | None = None
    ) -> Found:
        found = super().search(x, min(k, self.count), effort, mask)  # FAISS never ends for more
        return padded(found, k)
