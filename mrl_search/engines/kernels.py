"""Scoring straight from the rows on disk: cosines of candidates, their order, the sieve's bounds.

Compiled code does it (`native/`, in C++); where no compiler built that, numpy does the same sums,
also in float64.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks

native: Any = None  # compiled code, where a compiler was when the package was installed
with suppress(ImportError):
    native = import_module("mrl_search.engines.compiled")

__all__ = [
    "best", "instructions", "native", "nearest", "numbers", "pair_cosines", "settled", "sift",
    "spread",
]  # fmt: skip

FEW = 32  # answers up to which insertion beats sorting
ZERO = 1e-12  # a smaller cosine is rounding error
CACHED = 1 << 18  # values that numpy scores at once: they stay in a processor's cache


def instructions() -> str:
    """The processor's instructions that compiled code uses; empty where there is none."""
    return "" if native is None else str(native.instructions())


def numbers(text: bytes) -> NDArray[np.float32] | None:
    """A list of numbers in JSON as (n,) float32; None where it is something else, or too large.

    Without compiled code it is always None.
    """
    found = None if native is None else native.numbers(text)
    return None if found is None else np.frombuffer(found, np.float32)


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
    if native is not None and vectors.flags.c_contiguous:
        unit, ids = np.ascontiguousarray(unit), np.ascontiguousarray(ids)
        sizes = vectors.shape[1], unit.shape[1], vectors.itemsize

        def score(rows: slice) -> None:
            native.pairs(vectors, unit[rows], ids[rows], scores[rows], *sizes)

        spread(len(ids), score)
        return scores
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
    if (nearly or keep <= FEW) and native is not None:
        found = np.empty((len(ids), keep), np.float32), np.empty((len(ids), keep), np.int64)
        scores, ids = np.ascontiguousarray(scores), np.ascontiguousarray(ids)
        native.select(ids, scores, found[1], found[0], len(ids))
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
    if native is not None:
        unit = np.abs(weights).max(initial=np.float32(1e-30)) / np.float32(32767)
        whole = np.rint(weights / unit).astype(np.int16)
        doubt = unit * 64 * codes.shape[1]  # half a unit for each code, at most 127, and rounding
        few = float(unit), tail, float(least - doubt)

        def sifted(rows: slice) -> Ids:
            out = np.empty(rows.stop - rows.start + 1, dtype=np.int64)
            found = native.sift(codes[rows], whole, few[0], tails[rows], *few[1:], out)
            return out[:found] + rows.start  # type: ignore[no-any-return]

        return _joined(spread(len(codes), sifted), np.int64)
    upper = np.empty(len(codes), dtype=np.float32)
    for rows in blocks(len(codes), codes.shape[1]):
        upper[rows] = codes[rows].astype(np.float32) @ weights
    return np.flatnonzero(upper + np.float32(tail) * tails >= np.float32(least))


def nearest(
    vectors: NDArray[np.floating], unit: NDArray[np.float32], rows: Ids, dims: Sequence[int],
    tails: NDArray[np.float32], norms: NDArray[np.float32], doubt: float, least: float, k: int,
) -> tuple[NDArray[np.float32], Ids]:  # fmt: skip
    """The best of some rows, of those that may reach `least`: longer prefixes rule out the others.

    Compiled only.

    Args:
        vectors: (n, dim) float16 or float32, rows of about unit norm.
        unit: (dim,) float32, the query at unit norm.
        rows: (m,) rows of `vectors`, ascending.
        dims: l prefix lengths, ascending, shorter than `dim`.
        tails: (l,) norm of the query's tail after each prefix.
        norms: (l, n) norm of each vector's tail, once the vector has unit norm.
        doubt: possible error of the square of a norm.
        least: the cosine to reach.
        k: answers wanted.

    Returns:
        Cosines and rows, at most `k` of each thread, in no order.
    """
    lengths = np.array(dims, dtype=np.int64)
    tails, norms = np.ascontiguousarray(tails), np.ascontiguousarray(norms)

    def compared(part: slice) -> tuple[NDArray[np.float32], Ids]:
        scores, ids = np.empty(k, np.float32), np.empty(k, np.int64)
        found = native.nearest(
            vectors, unit, rows[part], lengths, tails, norms, doubt, least, scores, ids,
            vectors.itemsize,
        )  # fmt: skip
        return scores[:found], ids[:found]

    scores, ids = zip(*spread(len(rows), compared), strict=True) if len(rows) else ((), ())
    return _joined(scores, np.float32), _joined(ids, np.int64)


def _joined(parts: Sequence[NDArray[Any]], dtype: type) -> NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *parts])


def thread_count() -> int:
    """Threads that FAISS and the kernels may use."""
    return int(faiss.omp_get_max_threads())


def spread(n: int, job: Callable[[slice], Any]) -> list[Any]:
    """The results of `job` for slices of n, one a thread, in order."""
    threads = min(n, thread_count()) if n > 1 else 1
    if threads < 2:
        return [job(slice(0, n))] if n else []
    return list(_pool(threads).map(job, blocks(n, 1, -(-n // threads))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="search")


os.register_at_fork(after_in_child=_pool.cache_clear)
