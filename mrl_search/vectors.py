"""Prefixes of Matryoshka vectors: the one place that slices and normalises."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError

__all__ = [
    "DIMS", "blocks", "check_dims", "combined", "default_dims", "l2_normalize", "nearest",
    "prefix", "query_rows", "row_norms", "rows_of", "sample", "suffix_norms", "unit_rows",
]  # fmt: skip

DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)  # prefix lengths of the networks trained here
CANCELLED = 1e-6  # share of all weights below which a sum has no direction
SAFE = (1e-15, 1e18)  # norms whose squares neither underflow nor overflow in float32
BLOCK = 1 << 22  # float32 values in memory at once: 16 MB
SMALLEST = 1e-300  # squared norm; no row but one of zeros has less
CACHED = 1 << 17  # values that stay in a processor's cache while they are worked on


def rows_of(x: NDArray[np.generic], dim: int | None = None) -> NDArray[np.float32]:
    """Check `x` and return it as (n, dim) float32, C-contiguous; a single vector becomes one row.

    Raises:
        DataError: not numeric, not one- or two-dimensional, not of `dim` dims, or not finite.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        x = x[None]
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise DataError(f"Vectors must be an (n, dim) array of numbers, not {x.dtype} {x.shape}.")
    if dim is not None and x.shape[1] != dim:
        message = f"These vectors have {x.shape[1]} dims; the index has {dim}."
        raise DataError(message, "Embed the query with the index's model.")
    if x.dtype == np.float32:
        rows: NDArray[np.float32] = np.ascontiguousarray(x)
    else:
        with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite: refused below
            rows = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise DataError(f"Row {row} of the vectors is not finite.", "Remove NaN and infinity.")
    return rows


def query_rows(x: NDArray[np.generic], dim: int) -> NDArray[np.float32]:
    """Check queries as `rows_of` does; each must also have a direction."""
    rows = rows_of(x, dim)
    if not rows.any(axis=1).all():
        zero = int(np.flatnonzero(~rows.any(axis=1))[0])
        raise DataError(f"Row {zero} of the queries is all zeros.", "Remove such rows.")
    return rows


def l2_normalize(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of norm 1, (n, dim) float32. A row of zeros stays zero."""
    rows: NDArray[np.float32] = np.asarray(x, dtype=np.float32)
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.vecdot(rows, rows))[:, None]
    odd = (norm < SAFE[0]) | (norm > SAFE[1])
    if odd.any():
        _, exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True, initial=0))
        rows = np.where(odd, np.ldexp(rows, -exponent), rows)  # a power of two rounds nothing
        norm = np.sqrt(np.vecdot(rows, rows))[:, None]
        norm[norm == 0] = 1
    own = x.dtype != np.float32  # a copy, which is divided in place
    unit: NDArray[np.float32] = np.divide(rows, norm, out=rows if own else None)
    return unit


def unit_rows(x: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows of norm 1, (n, dim) float64, and the norms they had, (n,) float64; no row may be zero.

    A row whose norm is 1 within the precision of its dtype is returned bit for bit.
    """
    unit, norms = np.empty(x.shape), np.empty(len(x))
    for rows, wide, exponent, norm in _measured(x):
        norms[rows] = np.ldexp(norm, exponent)
        np.divide(wide, norm[:, None], out=unit[rows])
        is_unit = np.abs(norms[rows] - 1) <= 4 * float(np.finfo(x.dtype).eps)
        unit[rows][is_unit] = x[rows][is_unit]
    return unit, norms


def row_norms(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """The norms of rows as `unit_rows` gives them: (n,) float64."""
    parts = [np.ldexp(norm, exponent) for _, _, exponent, norm in _measured(x)]
    return np.concatenate(parts) if parts else np.empty(0)


def _measured(
    x: NDArray[np.floating],
) -> Iterator[tuple[slice, NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]]:
    """Some rows at a time: their place, rows times a power of two, its exponent, their norms."""
    for rows in blocks(len(x), x.shape[1], CACHED):
        wide = x[rows].astype(np.float64)
        exponent = np.zeros(len(wide), np.int32)
        if x.dtype == np.float64:  # squares of others neither underflow nor overflow in it
            _, exponent = np.frexp(np.abs(wide).max(axis=1))
            wide = np.ldexp(wide, -exponent[:, None])  # a power of two rounds nothing
        yield rows, wide, exponent, np.sqrt(np.vecdot(wide, wide))


def combined(rows: Sequence[NDArray[np.floating]], weights: Sequence[float]) -> NDArray[np.float32]:
    """The sum of weight * unit vector over some vectors (dim,), normalised: (dim,) float32.

    Raises:
        DataError: the vectors cancel each other.

    Example:
        >>> import numpy as np
        >>> combined([np.array([2.0, 0.0]), np.array([0.0, 5.0])], [3.0, 4.0])
        array([0.6, 0.8], dtype=float32)
    """
    total = np.asarray(weights, np.float64) @ l2_normalize(np.stack(rows)).astype(np.float64)
    if np.linalg.norm(total) <= CANCELLED * np.abs(weights).sum():
        message = "What is added and what is subtracted cancel each other."
        raise DataError(message, "Change the words or their weights.")
    unit: NDArray[np.float32] = l2_normalize(total[None])[0]
    return unit


def prefix(x: NDArray[np.floating], dims: int) -> NDArray[np.float32]:
    """The first `dims` dims of each row of `x`, normalised: (n, dims) float32, C-contiguous.

    The inner product of two such rows is their cosine, the only scoring rule of this library.
    `prefix(prefix(x, 256), 64)` equals `prefix(x, 64)`.

    Raises:
        ConfigError: `dims` is not between 1 and the dims of `x`.

    Example:
        >>> import numpy as np
        >>> prefix(np.array([[3.0, 4.0, 12.0]]), 2)
        array([[0.6, 0.8]], dtype=float32)
    """
    if not 1 <= dims <= x.shape[1]:
        raise ConfigError(f"Vectors of {x.shape[1]} dims have no prefix of {dims}.")
    return l2_normalize(x[:, :dims])


def suffix_norms(x: NDArray[np.floating], dims: Sequence[int]) -> NDArray[np.float32]:
    """Norm of what follows the first d dims of each unit row of `x`: (len(dims), n) float32.

    `dims` ascend.
    """
    norms = np.zeros((len(dims), len(x)), np.float32)
    starts = [0, *(d for d in dims if d < x.shape[1])]
    for rows in blocks(len(x), x.shape[1], CACHED):
        parts = np.add.reduceat(np.square(x[rows], dtype=np.float64), starts, axis=1)
        squares = parts[:, ::-1].cumsum(axis=1)[:, ::-1]  # of what follows each start
        shares = squares[:, 1:] / np.maximum(squares[:, :1], SMALLEST)
        norms[: len(starts) - 1, rows] = np.sqrt(shares).T
    return norms


def check_dims(dims: Iterable[int], full: int | None = None) -> tuple[int, ...]:
    """Prefix lengths as an ascending tuple of distinct values, at most `full`.

    Raises:
        ConfigError: empty, repeated, not positive, or larger than `full`.
    """
    result = tuple(sorted(int(d) for d in dims))
    if not result or result[0] < 1 or len(set(result)) != len(result):
        message = f"Dims must be distinct positive numbers, not {list(result)}."
        raise ConfigError(message, "For example 8,16,64.")
    if full is not None and result[-1] > full:
        message = f"Vectors of {full} dims have no prefix of {result[-1]}."
        raise ConfigError(message, f"Use at most {full} dims.")
    return result


def default_dims(dim: int) -> tuple[int, ...]:
    """Default prefix lengths: the powers of two from 8 below `dim`, and `dim` itself."""
    return (*(2**i for i in range(3, dim.bit_length()) if 2**i < dim), dim)


def nearest(dims: Sequence[int], wanted: int) -> int:
    """The member of `dims` nearest to `wanted`."""
    return min(dims, key=lambda d: (abs(d - wanted), d))


def blocks(count: int, width: int, size: int | None = None) -> Iterator[slice]:
    """Slices over `count` rows of `width` values, each of about `size` values (4 million)."""
    step = max(1, (size or BLOCK) // max(1, width))
    return (slice(start, min(start + step, count)) for start in range(0, count, step))


def sample(count: int, size: int, seed: int = 0) -> NDArray[np.int64]:
    """`size` of `count` rows drawn without replacement, or all of them: ascending int64."""
    if size >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))
