"""How hard an approximate index looks: FAISS's search parameters for each kind of index, from one number."""

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

__all__ = ["clusters_visited", "efforts", "is_graph", "search_parameters"]

FAISS: Any = faiss  # whose stubs do not know all that SWIG makes
SHARE = 64  # an inverted file visits one in so many of its clusters, if nothing else is said
ALL_UP_TO = 64  # of so few clusters all may be visited
WALK = 64  # a graph holds at least so many candidates
LOOK = 32  # and one that finds clusters so many


def search_parameters(
    index: Any,
    k: int,
    effort: int = 0,
    allowed: NDArray[np.int64] | None = None,
) -> Any:  # noqa: ANN401 - SWIG
    """Parameters for a search of `index`, None where it takes none.

    Args:
        index: a FAISS index, as one was read from disk.
        k: how many answers are asked for.
        effort: clusters to visit (nprobe) or candidates to hold (efSearch); 0: a 64th of the clusters, or twice `k` candidates.
        allowed: ids that may be answers; for flat indexes.
    """
    if isinstance(index, faiss.IndexPreTransform):
        inner = search_parameters(faiss.downcast_index(index.index), k, effort, allowed)
        return None if inner is None else FAISS.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        visited = clusters_visited(index, effort)
        if not isinstance(faiss.downcast_index(index.quantizer), faiss.IndexHNSW):
            return FAISS.SearchParametersIVF(nprobe=visited)
        graph = FAISS.SearchParametersHNSW(efSearch=max(LOOK, visited + visited // 4))
        return FAISS.SearchParametersIVF(nprobe=visited, quantizer_params=graph)
    if isinstance(index, faiss.IndexHNSW):
        return FAISS.SearchParametersHNSW(
            efSearch=min(max(effort or max(WALK, 2 * k), k), index.ntotal)
        )
    if allowed is None:
        return None
    mask = np.zeros(index.ntotal, dtype=bool)
    mask[allowed] = True
    return FAISS.SearchParameters(sel=FAISS.IDSelectorBitmap(np.packbits(mask, bitorder="little")))


def clusters_visited(index: faiss.IndexIVF, effort: int) -> int:
    """How many clusters of an inverted file a search with `effort` visits."""
    return min(effort or max(1, index.nlist // SHARE), index.nlist)


def is_graph(index: Any) -> bool:  # noqa: ANN401
    """Whether an effort is the number of candidates that a walk holds: then it looks harder, too, the more are asked for."""
    return isinstance(
        faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index,
        faiss.IndexHNSW,
    )


def efforts(index: Any) -> tuple[int, ...]:  # noqa: ANN401
    """Efforts worth trying on `index`, rising: up to a quarter of its clusters, or to 1,024 candidates of a graph; (0,) for others."""
    if isinstance(index, faiss.IndexPreTransform):
        return efforts(faiss.downcast_index(index.index))
    if isinstance(index, faiss.IndexIVF):
        most = max(index.nlist // 4, min(index.nlist, ALL_UP_TO))
        return tuple(
            sorted(
                {
                    step << i >> 2
                    for i in range(most.bit_length())
                    for step in (4, 5, 6, 7)
                    if step << i >> 2 <= most
                }
            )
        )
    if isinstance(index, faiss.IndexHNSW):
        return (16, 32, 64, 128, 256, 512, 1024)
    return (0,)
