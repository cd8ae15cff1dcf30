"""Scoring straight from the rows on disk: cosines of candidates, their order, the sieve's bounds.

Compiled by numba where that is installed (the extra `fast`); otherwise numpy does the same sums,
also in float64. Importing numba takes about half a second, so until the kernels are loaded numpy
works, for as many products as loading is worth. `load` loads them at once.
"""

import importlib.util
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Lock
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks

__all__ = [
    "available", "best", "compiled", "load", "narrow", "pair_cosines", "settled", "sift", "spread",
]  # fmt: skip

LOAD = 1 << 27  # products that numpy computes in the time that loading takes
FEW = 32  # answers up to which insertion beats sorting
ZERO = 1e-12  # a smaller cosine is rounding error
CACHED = 1 << 18  # values that numpy scores at once: they stay in a processor's cache

_products = 0  # computed by numpy so far
_broken = False  # whether importing numba failed
_lock = Lock()


def available() -> bool:
    """Whether numba is installed, and was not found broken."""
    return not _broken and _installed()


@cache
def _installed() -> bool:
    return importlib.util.find_spec("numba") is not None


def load() -> bool:
    """Load the kernels now; False where numba is missing or broken."""
    global _broken
    if not available():
        return False
    try:
        with _lock:
            return bool(_compiled())
    except ImportError:
        _broken = True
        return False


def compiled(products: int) -> bool:
    """Whether to use the kernels for this many products: if loaded, or if loading now pays."""
    global _products
    if not available():
        return False
    if _compiled.cache_info().currsize:
        return True
    _products += products
    return _products >= LOAD and load()


def pair_cosines(
    vectors: NDArray[np.floating], unit: NDArray[np.float32], ids: Ids
) -> NDArray[np.float32]:
    """Cosine of each query's prefix with the prefixes of its own candidates.

    Args:
        vectors: (corpus, dim) float16 or float32, rows of any norm.
        unit: (n, d) queries of unit norm, d at most dim: the first d dims of rows are compared.
        ids: (n, m) rows of `vectors`; a negative one scores -inf.

    Returns:
        (n, m) float32. Products are summed in float64.
    """
    scores = np.empty(ids.shape, dtype=np.float32)
    if compiled(ids.size * unit.shape[1]):
        kernel, wide, bits = _compiled()["pairs"], unit.astype(np.float64), _bits(vectors)
        spread(len(ids), lambda rows: kernel(bits, wide[rows], ids[rows], scores[rows]))
        return settled(scores)
    for rows in blocks(len(ids), ids.shape[1] * unit.shape[1], CACHED):
        for columns in blocks(ids.shape[1], (rows.stop - rows.start) * unit.shape[1], CACHED):
            part = vectors[ids[rows, columns], : unit.shape[1]].astype(np.float32)
            norms = np.sqrt(np.vecdot(part, part, dtype=np.float64))
            norms[norms == 0] = 1
            products = np.vecdot(part, unit[rows, None], dtype=np.float64)
            scores[rows, columns] = products / norms
    scores[ids < 0] = -np.inf
    return settled(scores)


def settled(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """`cosines`, in place, with rounding errors as 0: ties do not depend on the order of sums."""
    cosines[np.abs(cosines) < ZERO] = 0
    return cosines


def best(scores: NDArray[np.float32], ids: Ids, keep: int, nearly: bool = False) -> Found:
    """The best `keep` of each row, or all: higher score first; of equal scores, the lower id.

    Args:
        scores: (n, m) float32; -inf where the id is -1.
        ids: (n, m) int64, below 2**32 and distinct within a row, or -1 for padding.
        keep: answers of each row.
        nearly: whether rows are nearly in order, as from FAISS, which saves time.
    """
    keep = min(keep, ids.shape[1])
    if (nearly or keep <= FEW) and compiled(ids.size):
        found = np.empty((len(ids), keep), np.float32), np.empty((len(ids), keep), np.int64)
        _compiled()["select"](ids, scores, found[1], found[0])
        return found
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # ordered as the floats are
    key = (-ascending.astype(np.int64) << 32) + ids
    if keep < key.shape[1]:
        rows = np.argpartition(key, keep, axis=1)[:, :keep]
        order = np.take_along_axis(key, rows, axis=1).argsort(axis=1)
        rows = np.take_along_axis(rows, order, axis=1)
    else:
        rows = key.argsort(axis=1)
    return np.take_along_axis(scores, rows, axis=1), np.take_along_axis(ids, rows, axis=1)


def sift(
    codes: NDArray[np.int8],
    weights: NDArray[np.float32],
    tails: NDArray[np.float32],
    tail: float,
    least: float,
) -> Ids:
    """The rows whose upper bound, `codes @ weights + tail * tails`, reaches `least`: ascending.

    Args:
        codes: (n, d) int8.
        weights: (d,) float32, the query times the step of each code.
        tails: (n,) float32, norms of the vectors' tails.
        tail: norm of the query's tail.
        least: the score to reach.
    """
    if compiled(codes.size):
        kernel = _compiled()["sift"]
        unit = np.abs(weights).max(initial=np.float32(1e-30)) / np.float32(32767)
        whole = np.rint(weights / unit).astype(np.int16)
        doubt = unit * 64 * codes.shape[1]  # half a unit for each code, at most 127, and rounding
        numbers = np.float32(tail), np.float32(least - doubt)

        def sifted(rows: slice) -> Ids:
            out = np.empty(rows.stop - rows.start, dtype=np.int64)
            found = kernel(codes[rows], whole, unit, tails[rows], *numbers, out)
            return out[:found] + rows.start  # type: ignore[no-any-return]

        return _joined(spread(len(codes), sifted))
    upper = np.empty(len(codes), dtype=np.float32)
    for rows in blocks(len(codes), codes.shape[1]):
        upper[rows] = codes[rows].astype(np.float32) @ weights
    return np.flatnonzero(upper + np.float32(tail) * tails >= np.float32(least))


def narrow(
    vectors: NDArray[np.floating], unit: NDArray[np.float32], rows: Ids, dims: Sequence[int],
    tails: NDArray[np.float32], norms: NDArray[np.float32], doubt: float, least: float,
) -> Ids:  # fmt: skip
    """Those of `rows` whose cosine with a query may reach `least`, by longer and longer prefixes.

    Compiled only.

    Args:
        vectors: (corpus, dim) float16 or float32, rows of any norm but zero.
        unit: (dim,) float32, the query at unit norm.
        rows: (m,) rows of `vectors`.
        dims: l prefix lengths, ascending, shorter than `dim`.
        tails: (l,) norm of the query's tail after each prefix.
        norms: (l, corpus) norm of each vector's tail, once the vector has unit norm.
        doubt: possible error of the square of a norm.
        least: the score to reach.

    Returns:
        (at most m,) int64.
    """
    kernel, lengths, bits = _compiled()["narrow"], np.array(dims), _bits(vectors)
    wide, far = unit.astype(np.float64), tails.astype(np.float64)

    def narrowed(part: slice) -> Ids:
        out = np.empty(part.stop - part.start, dtype=np.int64)
        found = kernel(bits, wide, rows[part], lengths, far, norms, doubt, least, out)
        return out[:found]

    return _joined(spread(len(rows), narrowed))


def _bits(vectors: NDArray[np.floating]) -> NDArray[np.generic]:
    return vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors


def _joined(parts: list[Ids]) -> Ids:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def thread_count() -> int:
    """Threads that FAISS and the kernels may use."""
    return int(faiss.omp_get_max_threads())


def spread(n: int, job: Callable[[slice], Any]) -> list[Any]:
    """The results of `job` for slices of n, one a thread, in order."""
    threads = min(n, thread_count())
    if threads < 2:
        return [job(slice(0, n))] if n else []
    return list(_pool(threads).map(job, blocks(n, 1, -(-n // threads))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="search")


os.register_at_fork(after_in_child=_pool.cache_clear)


@cache
def _compiled() -> dict[str, Callable[..., Any]]:
    from mrl_search.engines import compiled

    return {name: getattr(compiled, name) for name in compiled.__all__}
