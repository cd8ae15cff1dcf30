"""Scoring in compiled code, straight from the rows on disk: cosines of candidates, their order, and the sieve of exact search.

Compiled by numba where that is installed (the extra `fast`); numpy does the same sums, also in float64, where it is not. Importing
numba and loading what it compiled takes about half a second, so the first jobs are left to numpy until they have cost as much.
"""

import importlib.util
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.search.results import BatchHits
from mrl_search.store.rows import blocks

__all__ = ["available", "best", "compiled", "load", "narrow", "pair_cosines", "settled", "sift"]

LOAD = 1 << 27  # products that numpy does in the time that loading the kernels takes
FEW = 32  # answers up to which keeping them in order beats sorting
ZERO = 1e-12  # a cosine below this is 0, out of which the order of its sum made something
CACHED = 1 << 18  # numbers that numpy scores at once: few enough to stay in a processor's cache

_done = 0  # products that were left to numpy so far
_broken = False  # whether numba turned out to be unusable, as one for another numpy is


def available() -> bool:
    """Whether numba is installed, and can be used as far as is known."""
    return not _broken and _installed()


@cache
def _installed() -> bool:  # asked at every scoring, so the disk is looked at once
    return importlib.util.find_spec("numba") is not None


def load() -> bool:
    """Load the kernels now, as a server or a benchmark wants; false where there is no numba, or none that can be used."""
    global _broken
    if not available():
        return False
    try:
        return bool(_compiled())
    except ImportError:
        _broken = True
        return False


def compiled(products: int) -> bool:
    """Whether to use the kernels: always, once they are loaded; until then, numpy works for so many products as loading is worth."""
    global _done
    if not available():
        return False
    _done += products
    return _compiled.cache_info().currsize > 0 or (_done >= LOAD and load())


def pair_cosines(
    vectors: NDArray[np.floating], unit: NDArray[np.float32], ids: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Cosine of each query's prefix and those of its own candidates.

    Args:
        vectors: (corpus, dim) float16 or float32, rows of any length but zero.
        unit: (n, d) queries of unit length, d at most dim: the first d numbers of the rows are compared.
        ids: (n, m) rows of `vectors`; a negative one scores -inf.

    Returns:
        (n, m) float32. Products are summed in float64.
    """
    scores = np.empty(ids.shape, dtype=np.float32)
    if compiled(ids.size * unit.shape[1]):
        bits = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors
        kernel, wide = _compiled()["pairs"], unit.astype(np.float64)
        _spread(len(ids), lambda rows: kernel(bits, wide[rows], ids[rows], scores[rows]))
        return settled(scores)
    for rows in blocks(len(ids), ids.shape[1] * unit.shape[1], CACHED):
        for columns in blocks(ids.shape[1], (rows.stop - rows.start) * unit.shape[1], CACHED):
            some = vectors[ids[rows, columns], : unit.shape[1]].astype(np.float32)
            lengths = np.sqrt(np.vecdot(some, some, dtype=np.float64))
            lengths[lengths == 0] = 1
            scores[rows, columns] = np.vecdot(some, unit[rows, None], dtype=np.float64) / lengths
    scores[ids < 0] = -np.inf
    return settled(scores)


def settled(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same `cosines`, in place, with 0 for those that are but rounding: so that the same vectors tie however they were compared."""
    cosines[np.abs(cosines) < ZERO] = 0
    return cosines


def best(
    ids: NDArray[np.int64], scores: NDArray[np.float32], keep: int, nearly: bool = False
) -> BatchHits:
    """The best `keep` of each row, or all m: higher score first, and of equal scores the lower id, in whatever order they were found.

    Args:
        ids: (n, m) int64, below 2**32 and distinct within a row, or -1 where a row holds fewer than m.
        scores: (n, m) float32, aligned; -inf where the id is -1.
        keep: how many of each row.
        nearly: whether they come nearly in order, as from FAISS, which saves time.
    """
    keep = min(keep, ids.shape[1])
    if (nearly or keep <= FEW) and compiled(ids.size):
        found = BatchHits(
            np.empty((len(ids), keep), dtype=np.int64), np.empty((len(ids), keep), dtype=np.float32)
        )
        _compiled()["select"](ids, scores, found.ids, found.scores)
        return found
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    ascending = np.where(
        bits < 0, bits ^ np.int32(0x7FFFFFFF), bits
    )  # as integers in the order of the floats
    key = (-ascending.astype(np.int64) << 32) + ids
    if keep < key.shape[1]:
        rows = np.argpartition(key, keep, axis=1)[:, :keep]
        rows = np.take_along_axis(
            rows, np.take_along_axis(key, rows, axis=1).argsort(axis=1), axis=1
        )
    else:
        rows = key.argsort(axis=1)
    return BatchHits(
        np.take_along_axis(ids, rows, axis=1), np.take_along_axis(scores, rows, axis=1)
    )


def sift(
    codes: NDArray[np.int8],
    weights: NDArray[np.float32],
    tails: NDArray[np.float32],
    tail: float,
    least: float,
) -> NDArray[np.int64]:
    """The rows whose upper bound, `codes @ weights + tail * tails`, reaches `least`: ascending int64.

    Args:
        codes: (n, d) int8.
        weights: (d,) float32, the query times the step of each code.
        tails: (n,) float32, `tail` is the query's.
        tail: see `tails`.
        least: the score to beat.
    """
    if compiled(codes.size):
        kernel = _compiled()["sift"]
        unit = np.abs(weights).max(initial=np.float32(1e-30)) / np.float32(32767)
        whole = np.rint(weights / unit).astype(np.int16)
        doubt = (
            unit * 64 * codes.shape[1]
        )  # half a unit for each code, which is 127 at most, and a little for rounding
        numbers = np.float32(tail), np.float32(least - doubt)

        def sifted(rows: slice) -> NDArray[np.int64]:
            out = np.empty(rows.stop - rows.start, dtype=np.int64)
            found: NDArray[np.int64] = (
                out[: kernel(codes[rows], whole, unit, tails[rows], *numbers, out)] + rows.start
            )
            return found

        return _gathered(len(codes), sifted)
    upper = np.empty(len(codes), dtype=np.float32)
    for rows in blocks(len(codes), codes.shape[1]):
        upper[rows] = codes[rows].astype(np.float32) @ weights
    return np.flatnonzero(upper + np.float32(tail) * tails >= np.float32(least))


def narrow(
    vectors: NDArray[np.floating], unit: NDArray[np.float32], rows: NDArray[np.int64], dims: Sequence[int],
    tails: NDArray[np.float32], norms: NDArray[np.float32], doubt: float, least: float,
) -> NDArray[np.int64]:  # fmt: skip
    """Those of `rows` whose cosine with one query may reach `least`, as ever longer prefixes show: (m,) int64. Compiled only.

    Args:
        vectors: (corpus, dim) float16 or float32, rows of any length but zero.
        unit: (dim,), the query at unit length.
        rows: (m,) of `vectors`.
        dims: l lengths of prefixes, ascending and shorter than `dim`.
        tails: (l,), what follows each of `unit` has this length.
        norms: (l, corpus), and of each vector at unit length this one.
        doubt: what the square of a norm may be wrong by.
        least: the score to beat.
    """
    bits = vectors.view(np.uint16) if vectors.dtype == np.float16 else vectors
    kernel, lengths = _compiled()["narrow"], np.array(dims)
    wide, far = unit.astype(np.float64), tails.astype(np.float64)

    def narrowed(part: slice) -> NDArray[np.int64]:
        out = np.empty(part.stop - part.start, dtype=np.int64)
        return out[: kernel(bits, wide, rows[part], lengths, far, norms, doubt, least, out)]

    return _gathered(len(rows), narrowed)


def _threads() -> int:
    count: int = faiss.omp_get_max_threads()
    return count


def _spread(n: int, job: Callable[[slice], object]) -> list[Any]:
    """What `job` gives for slices of n, one a thread of FAISS's, in order."""
    parts = list(blocks(n, 1, -(-n // _threads()) if n else 1))
    if len(parts) < 2:
        return [job(rows) for rows in parts]
    with ThreadPoolExecutor(len(parts), thread_name_prefix="score") as pool:
        return list(pool.map(job, parts))


def _gathered(n: int, job: Callable[[slice], NDArray[np.int64]]) -> NDArray[np.int64]:
    """The rows that `job` finds in slices of n, together."""
    found: NDArray[np.int64] = np.concatenate([np.empty(0, dtype=np.int64), *_spread(n, job)])
    return found


@cache
def _compiled() -> dict[str, Callable[..., Any]]:
    from mrl_search.search import compiled

    return {name: getattr(compiled, name) for name in compiled.__all__}
