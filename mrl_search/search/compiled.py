"""The kernels that numba compiles. Import this only where numba is installed, and only when there is much to do: it takes a moment."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

__all__ = ["pairs", "sift"]

SUMS = {"reassoc", "contract"}  # sums may be taken in any order, which lets a processor add many at once


@intrinsic
def _as_float(_context: Any, _bits: Any) -> Any:  # noqa: ANN401 - numba's protocol
    """The float32 of these 32 bits."""
    return types.float32(types.uint32), lambda _c, builder, _s, args: builder.bitcast(args[0], ir.FloatType())


def _number(x: Any) -> Any:  # noqa: ANN401
    """One stored number as float64: a float32, or the bits of a float16 as uint16."""


@overload(_number, inline="always")
def _number_of(x: Any) -> Any:  # noqa: ANN401
    if x == types.uint16:

        def half(x: Any) -> Any:  # noqa: ANN401 - the exponent of a float16 is 112 smaller; subnormals come out right, too
            bits = ((np.uint32(x) & np.uint32(0x8000)) << np.uint32(16)) | ((np.uint32(x) & np.uint32(0x7FFF)) << np.uint32(13))
            return np.float64(_as_float(np.uint32(bits)) * np.float32(2.0**112))

        return half

    def single(x: Any) -> Any:  # noqa: ANN401
        return np.float64(x)

    return single


@njit(cache=True, nogil=True, fastmath=SUMS)
def pairs(vectors: Any, unit: Any, ids: Any, scores: Any) -> None:  # noqa: ANN401
    """Fill `scores` (n, m) float32 with the cosines of `unit` (n, d) float64 and the rows `ids` (n, m) of `vectors` (corpus, dim)."""
    for i in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            row = ids[i, j]
            if row < 0:
                scores[i, j] = -np.inf
                continue
            product, square = 0.0, 0.0
            for k in range(unit.shape[1]):
                x = _number(vectors[row, k])
                product += x * unit[i, k]
                square += x * x
            scores[i, j] = product / np.sqrt(square) if square > 0 else 0.0


@njit(cache=True, nogil=True, fastmath=SUMS)
def sift(codes: Any, weights: Any, tails: Any, tail: Any, least: Any, out: Any) -> int:  # noqa: ANN401
    """Fill `out` with the rows of `codes` (n, d) int8 whose bound reaches `least`, and return how many there are."""
    found = 0
    for i in range(codes.shape[0]):
        upper = tail * tails[i]
        for k in range(codes.shape[1]):
            upper += np.float32(codes[i, k]) * weights[k]
        if upper >= least:
            out[found] = i
            found += 1
    return found
