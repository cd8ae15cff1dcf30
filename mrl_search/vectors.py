"""What a Matryoshka vector is: rows of which every prefix, normalised again, is an embedding too.

The one place that slices and normalises, for queries and for the corpus alike.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError

__all__ = [
    "DIMS",
    "check_dims",
    "default_dims",
    "l2_normalize",
    "nearest",
    "prefix",
    "query_rows",
    "rows_of",
    "sample",
    "suffix_norms",
    "unit_rows",
]

DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)  # prefix lengths of the networks trained here
SAFE = (1e-15, 1e18)  # lengths of float32 rows whose squares neither vanish nor overflow


def rows_of(x: NDArray[np.generic], dim: int | None = None) -> NDArray[np.float32]:
    """Check `x` and return it as (n, dim) float32, C-contiguous; a single vector becomes one row.

    Raises:
        DataError: not numeric, not one- or two-dimensional, of another length than `dim`, or not finite.
    """
    x = np.asarray(x)
    if x.ndim == 1:
        x = x[None]
    if x.ndim != 2 or x.dtype.kind not in "fiu":
        raise DataError(
            f"Vectors must be an (n, dim) array of numbers, not {x.dtype} of shape {x.shape}."
        )
    if dim is not None and x.shape[1] != dim:
        raise DataError(
            f"These vectors have {x.shape[1]} dims; the index has {dim}.",
            "Embed the query with the index's model.",
        )
    rows: NDArray[np.float32] = np.ascontiguousarray(x, dtype=np.float32)
    if not np.isfinite(rows).all():
        row = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        raise DataError(
            f"Row {row} of the vectors is not finite.", "Remove rows with NaN or infinity."
        )
    return rows


def query_rows(x: NDArray[np.generic], dim: int) -> NDArray[np.float32]:
    """Check queries as `rows_of` does, and that each has a direction.

    Raises:
        DataError: as `rows_of`, or a row of zeros.
    """
    rows = rows_of(x, dim)
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise DataError(
            f"Row {zero[0]} of the queries is zero: it has no direction.", "Leave such rows out."
        )
    return rows


def l2_normalize(x: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of unit length, (n, dim) float32. A row of zeros stays zero: it has no direction."""
    rows: NDArray[np.float32] = np.asarray(x, dtype=np.float32)
    with np.errstate(over="ignore"):
        norm = np.sqrt(np.vecdot(rows, rows))[:, None]
    odd = (norm < SAFE[0]) | (norm > SAFE[1])
    if odd.any():
        _, exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True, initial=0))
        rows = np.where(
            odd, np.ldexp(rows, -exponent), rows
        )  # by a power of two, which rounds nothing
        norm = np.sqrt(np.vecdot(rows, rows))[:, None]
        norm[norm == 0] = 1
    unit: NDArray[np.float32] = rows / norm
    return unit


def unit_rows(x: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rows at unit length and the lengths they had, (n, dim) and (n,) float64, from rows of any type and length but zero.

    A row that is at unit length already, as well as its type can say, is left as it is, so that it is stored bit for bit.
    """
    rows = x.astype(np.float64)
    _, exponent = np.frexp(np.abs(rows).max(axis=1, keepdims=True))
    scaled = np.ldexp(
        rows, -exponent
    )  # by a power of two, which rounds nothing: no square overflows or vanishes
    norm = np.linalg.norm(scaled, axis=1, keepdims=True)
    length = np.ldexp(norm, exponent)
    is_unit = np.abs(length - 1) <= 4 * float(np.finfo(x.dtype).eps)
    return np.where(is_unit, rows, scaled / norm), length[:, 0]


def prefix(x: NDArray[np.floating], dims: int) -> NDArray[np.float32]:
    """The first `dims` numbers of each row of `x`, at unit length again: (n, dims) float32, C-contiguous.

    The cosine of two prefixes is the inner product of what this returns; it is the only scoring rule here.
    `prefix(prefix(x, 256), 64)` equals `prefix(x, 64)`.

    Raises:
        ConfigError: `dims` is not between 1 and the length of a row.
    """
    if not 1 <= dims <= x.shape[1]:
        raise ConfigError(f"A prefix of {dims} dims cannot be taken from vectors of {x.shape[1]}.")
    return l2_normalize(x[:, :dims])


def suffix_norms(x: NDArray[np.floating], dims: Sequence[int]) -> NDArray[np.float32]:
    """Length of what follows the first d numbers of each row of `x`, (n, dim), once the row has unit length: (len(dims), n) float32."""
    squares = l2_normalize(x).astype(np.float64) ** 2
    tail = np.cumsum(squares[:, ::-1], axis=1)[:, ::-1]  # [:, d]: what begins at d
    norms = [np.sqrt(tail[:, d]) if d < x.shape[1] else np.zeros(len(x)) for d in dims]
    return np.array(norms, dtype=np.float32).reshape(len(dims), len(x))


def check_dims(dims: Iterable[int], full: int | None = None) -> tuple[int, ...]:
    """Prefix lengths as an ascending tuple of distinct numbers, the last one `full` if that is given.

    Raises:
        ConfigError: empty, repeated, not positive, or longer than `full`.
    """
    result = tuple(sorted(int(d) for d in dims))
    if not result or result[0] < 1 or len(set(result)) != len(result):
        raise ConfigError(
            f"Dims must be distinct positive numbers, not {list(result)}.",
            "For example 8,16,32,64.",
        )
    if full is not None and result[-1] > full:
        raise ConfigError(
            f"There is no prefix of {result[-1]} dims in vectors of {full}.",
            f"Use dims of at most {full}.",
        )
    return result


def default_dims(dim: int) -> tuple[int, ...]:
    """The prefixes that get an index where none are named: the powers of two from 8 up, below `dim`, and `dim` itself."""
    return (*(2**i for i in range(3, dim.bit_length()) if 2**i < dim), dim)


def nearest(dims: Sequence[int], wanted: int) -> int:
    """The member of `dims` nearest to `wanted`, for a hint."""
    return min(dims, key=lambda d: (abs(d - wanted), d))


def sample(count: int, size: int, seed: int = 0) -> NDArray[np.int64]:
    """`size` of `count` rows drawn without replacement, or all of them: ascending int64."""
    if size >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, size, replace=False))
