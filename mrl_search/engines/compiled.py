"""The kernels that numba compiles; importing this takes half a second, and needs numba."""

import platform
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, overload

__all__ = ["narrow", "pairs", "select", "sift"]

SUMS = {"reassoc", "contract"}  # sums in any order: a processor adds many at once
LINE = 64  # bytes that memory gives at once
AHEAD = 128  # lines that are prefetched, because candidates lie anywhere in memory
USUAL = 64  # codes of a row, for which the compiler unrolls the sum
ARM = platform.machine() in ("aarch64", "arm64")
NATIVE = ARM or bool(binding.get_host_cpu_features().get("f16c"))


@intrinsic
def _as_float(_context: Any, _bits: Any) -> Any:  # numba's protocol
    """The float32 of these 32 bits."""
    return types.float32(types.uint32), lambda _c, builder, _s, args: builder.bitcast(
        args[0], ir.FloatType()
    )


@intrinsic
def _half_as_double(_context: Any, _bits: Any) -> Any:
    """float64 of the float16 with these bits, where the processor has an instruction."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        return builder.fpext(builder.bitcast(args[0], ir.HalfType()), ir.DoubleType())

    return types.float64(types.uint16), generate


@intrinsic
def _plus_product(_context: Any, _total: Any, _a: Any, _b: Any) -> Any:
    """An int32 plus the product of an int8 and an int16; numba alone would use 64 bits."""

    def generate(_c: Any, builder: Any, _s: Any, args: Any) -> Any:
        total, a, b = args
        wide = builder.sext(a, total.type), builder.sext(b, total.type)
        return builder.add(total, builder.mul(*wide))

    return types.int32(types.int32, types.int8, types.int16), generate


@intrinsic
def _fetch(_context: Any, array: Any, row: Any, column: Any) -> Any:
    """Prefetch the cache line of `array[row, column]`."""
    signature = types.void(array, row, column)

    def generate(context: Any, builder: Any, _s: Any, args: Any) -> Any:
        view = context.make_array(array)(context, builder, args[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        item = cgutils.get_item_pointer(context, builder, array, view, args[1:])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        # data to read, into the second cache: the first is too small
        builder.call(function, [builder.bitcast(item, byte), number(0), number(2), number(1)])
        return context.get_dummy_value()

    return signature, generate


def _number(x: Any) -> Any:
    """One stored number as float64: a float32, or the bits of a float16 as uint16."""


@overload(_number, inline="always")
def _number_of(x: Any) -> Any:
    if x == types.uint16 and NATIVE:

        def half(x: Any) -> Any:
            return _half_as_double(x)

        return half
    if x == types.uint16:

        def slow_half(x: Any) -> Any:  # the exponent of a float16 is 112 smaller
            bits = ((np.uint32(x) & np.uint32(0x8000)) << np.uint32(16)) | (
                (np.uint32(x) & np.uint32(0x7FFF)) << np.uint32(13)
            )
            return np.float64(_as_float(np.uint32(bits)) * np.float32(2.0**112))

        return slow_half

    def single(x: Any) -> Any:
        return np.float64(x)

    return single


@njit(cache=True, nogil=True, fastmath=SUMS)
def pairs(vectors: Any, unit: Any, ids: Any, scores: Any) -> None:
    """Fill `scores` (n, m) with cosines of `unit` (n, d) and the rows `ids` (n, m) of `vectors`."""
    d, m, step = unit.shape[1], ids.shape[1], LINE // vectors.itemsize
    ahead = max(1, AHEAD * step // d)
    for i in range(ids.shape[0]):
        for j in range(-ahead, m):
            if j + ahead < m and ids[i, j + ahead] >= 0:
                for k in range(0, d, step):
                    _fetch(vectors, ids[i, j + ahead], k)
            if j < 0:
                continue
            row = ids[i, j]
            if row < 0:
                scores[i, j] = -np.inf
                continue
            product, square = 0.0, 0.0
            for k in range(d):
                x = _number(vectors[row, k])
                product += x * unit[i, k]
                square += x * x
            scores[i, j] = product / np.sqrt(square) if square > 0 else 0.0


@njit(cache=True, nogil=True)
def select(ids: Any, scores: Any, best_ids: Any, best_scores: Any) -> None:
    """Fill `best_ids` and `best_scores` (n, k) with the best of each row; k is small.

    Higher scores come first, then lower ids.
    """
    last = best_ids.shape[1] - 1
    for i in range(ids.shape[0]):
        held, marks = best_ids[i], best_scores[i]
        for j in range(ids.shape[1]):
            row, score = ids[i, j], scores[i, j]
            if j > last and (marks[last] > score or (marks[last] == score and held[last] < row)):
                continue
            place = min(j, last)
            while place > 0 and (
                marks[place - 1] < score or (marks[place - 1] == score and held[place - 1] > row)
            ):
                held[place], marks[place] = held[place - 1], marks[place - 1]
                place -= 1
            held[place], marks[place] = row, score


@njit(cache=True, nogil=True)
def _sum(codes: Any, i: Any, weights: Any, length: Any) -> Any:
    total = np.int32(0)
    for k in range(length):
        total = _plus_product(total, codes[i, k], weights[k])
    return total


@njit(cache=True, nogil=True, fastmath=SUMS)
def sift(codes: Any, weights: Any, unit: Any, tails: Any, tail: Any, least: Any, out: Any) -> int:
    """Fill `out` with the rows of `codes` (n, d) whose bound reaches `least`; return their number.

    `weights` (d,) int16 times `unit` weigh the codes: sums of integers are exact, and fast.
    """
    found = 0
    for i in range(codes.shape[0]):
        if codes.shape[1] == USUAL:
            total = _sum(codes, i, weights, USUAL)
        else:
            total = _sum(codes, i, weights, codes.shape[1])
        if np.float32(total) * unit + tail * tails[i] >= least:
            out[found] = i
            found += 1
    return found


@njit(cache=True, nogil=True, fastmath=SUMS)
def narrow(
    vectors: Any, unit: Any, rows: Any, dims: Any, tails: Any, norms: Any, doubt: Any, least: Any,
    out: Any,
) -> int:  # fmt: skip
    """Fill `out` with those of `rows` whose cosine may reach `least`; return their number.

    Longer and longer prefixes, `dims` (l,), of a row of `vectors` are read, until one rules it out.
    `tails` (l,) are norms of the query's tails, `norms` (l, corpus) those of the vectors' tails,
    whose squares are known within `doubt`.
    """
    found, step = 0, LINE // vectors.itemsize
    ahead = max(1, AHEAD * step // dims[0])
    for j in range(-ahead, len(rows)):
        if j + ahead < len(rows):
            for k in range(0, dims[0], step):
                _fetch(vectors, rows[j + ahead], k)
        if j < 0:
            continue
        row = rows[j]
        product, square, start, possible = 0.0, 0.0, 0, True
        for level in range(len(dims)):
            part, weights = vectors[row, start : dims[level]], unit[start : dims[level]]
            for k in range(len(part)):
                x = _number(part[k])
                product += x * weights[k]
                square += x * x
            start = dims[level]
            norm = np.float64(norms[level, row])
            cosine = product / np.sqrt(square) if square > 0 else 0.0
            head = np.sqrt(max(1 - norm * norm + (doubt if cosine > 0 else -doubt), 0.0))
            if head * cosine + tails[level] * norm < least:
                possible = False
                break
        if possible:
            out[found] = row
            found += 1
    return found
