"""Vectors that a user brings: a .npy file, a folder of .npy shards, or a Parquet column of lists.

Files stay on disk and are read some rows at a time. Every row is checked as it is read.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.images.sources import may_hold_images, scan_folder
from mrl_search.vectors import blocks, unit_rows

__all__ = [
    "VectorSource",
    "holds_vectors",
    "in_parquet",
    "open_parquet",
    "open_vectors",
    "read_queries",
    "vector_columns",
    "vectors_in_memory",
]

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
SAME_DIMS = "All vectors must have the same dims; remove that row."
CONVERT = "Convert it with: np.save(NEW, np.load(OLD).astype('float32'))"


class Part(Protocol):
    """One file of vectors: `count` rows of `dim` dims in `dtype`."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def count(self) -> int:
        """Number of rows."""

    @property
    def dim(self) -> int:
        """Dims of a row."""

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float16, float32 or float64."""

    def read(self) -> Iterator[NDArray[np.floating]]:
        """All rows in order, some at a time: (rows, dim), unchecked."""


@dataclass(frozen=True, slots=True)
class ArrayFile:
    """A two-dimensional .npy file, open only while it is read: there may be thousands."""

    path: Path
    count: int
    dim: int
    dtype: np.dtype[np.floating]

    def read(self) -> Iterator[NDArray[np.floating]]:
        array = np.load(self.path, mmap_mode="r", allow_pickle=False)
        for rows in blocks(self.count, self.dim):
            yield np.ascontiguousarray(array[rows])


@dataclass(frozen=True, eq=False, slots=True)
class MemoryArray:
    """An array in memory, (n, dim) float16, float32 or float64."""

    array: NDArray[np.floating]
    path: Path = Path("array")

    @property
    def count(self) -> int:
        return len(self.array)

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        return self.array.dtype

    def read(self) -> Iterator[NDArray[np.floating]]:
        for rows in blocks(self.count, self.dim):
            yield np.ascontiguousarray(self.array[rows])


@dataclass(frozen=True, slots=True)
class ListColumn:
    """A column of lists of numbers in a Parquet file."""

    path: Path
    count: int
    dim: int
    dtype: np.dtype[np.floating]
    column: str

    def read(self) -> Iterator[NDArray[np.floating]]:
        start = 0
        for lists in _batches(self.path, self.column, next(blocks(self.count, self.dim)).stop):
            yield self._rows(lists, start)
            start += len(lists)

    def _rows(self, lists: pa.Array, start: int) -> NDArray[np.floating]:
        lengths = pc.fill_null(pc.list_value_length(lists), -1).to_numpy(zero_copy_only=False)
        wrong = np.flatnonzero(lengths != self.dim)
        if len(wrong):
            row, length = start + int(wrong[0]), int(lengths[wrong[0]])
            found = "is null" if length < 0 else f"has {length} dims; the first has {self.dim}"
            raise DataError(f"Row {row} of {self.path}#{self.column} {found}.", SAME_DIMS)
        values = lists.flatten()
        if values.null_count:
            row = (
                start
                + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
                // self.dim
            )
            raise DataError(
                f"Row {row} of {self.path}#{self.column} holds a null.",
                "Leave that row out, or fill the gap.",
            )
        rows: NDArray[np.floating] = values.to_numpy(zero_copy_only=False).reshape(
            len(lists), self.dim
        )
        return rows


@dataclass(frozen=True, slots=True)
class VectorSource:
    """Vectors on disk or in memory: the rows of one part after another.

    Attributes:
        name: absolute path, with `#COLUMN` for a Parquet file.
        parts: the files, all with the same dims.
    """

    name: str
    parts: tuple[Part, ...]

    @property
    def count(self) -> int:
        return sum(part.count for part in self.parts)

    @property
    def dim(self) -> int:
        return self.parts[0].dim

    @property
    def dtypes(self) -> str:
        """The dtypes of the parts, such as `float32`."""
        return ", ".join(sorted({str(part.dtype) for part in self.parts}))

    def read(self) -> Iterator[NDArray[np.floating]]:
        """All rows in order, some at a time: (rows, dim) as they are in the file.

        Raises:
            DataError: a row that is not finite, all zeros, or of other dims.
        """
        for part in self.parts:
            start = 0
            try:
                for rows in part.read():
                    _check_rows(rows, start, part.path)
                    yield rows
                    start += len(rows)
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"{part.path} cannot be read: {error}.", "Write the file again."
                ) from error


def open_vectors(where: str | Path) -> VectorSource:
    """Open a .npy file, a folder of .npy files in the order of their names, or a Parquet column.

    A Parquet file with several columns of vectors needs `FILE.parquet#COLUMN`. Only
    headers are read.

    Raises:
        DataError: nothing there, not two-dimensional float16, float32 or float64, or mixed dims.
    """
    path = Path(where).expanduser()
    if in_parquet(str(where)):
        column = open_parquet(str(where))
        return VectorSource(f"{column.path.resolve()}#{column.column}", (column,))
    if not path.exists():
        raise DataError(
            f"There is nothing at {where}.",
            "Name a .npy file, a folder of .npy files, or FILE.parquet#COLUMN.",
        )
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix == ".npy" and p.is_file())
        if not files:
            raise DataError(
                f"There is no .npy file in {path}.",
                "Shards of vectors are .npy files directly in the folder.",
            )
    else:
        files = [path]
    parts = [_array_file(file) for file in files]
    for part in parts:
        if part.dim != parts[0].dim:
            raise DataError(
                f"{part.path} has {part.dim} dims; {parts[0].path.name} has {parts[0].dim}.",
                "All shards must come from one model.",
            )
    filled = tuple(part for part in parts if part.count)
    if not filled:
        raise DataError(f"{path} holds no vector.")
    return VectorSource(str(path.resolve()), filled)


def vectors_in_memory(array: NDArray[np.floating], name: str = "array") -> VectorSource:
    """An array (n, dim) of float16, float32 or float64 as a source.

    Raises:
        DataError: another shape or dtype, or no row.
    """
    path = Path(name)
    _check_type(array.dtype, path)
    if array.ndim != 2 or not array.size:
        raise DataError(
            f"The array has shape {array.shape}, not (rows, dims).", "One row a vector."
        )
    return VectorSource(name, (MemoryArray(array, path),))


def read_queries(where: str | Path) -> NDArray[np.float32]:
    """Read query vectors: (n, dim) float32 of unit norm. A one-dimensional .npy file is one query.

    Raises:
        DataError: as `open_vectors` and `VectorSource.read`.
    """
    path = Path(where).expanduser()
    if path.is_file() and path.suffix != ".parquet":
        array = _load(path)
        if array.ndim == 1 and array.size:
            _check_type(array.dtype, path)
            row = np.array(array)[None]
            _check_rows(row, 0, path)
            return unit_rows(row)[0].astype(np.float32)
    return np.concatenate(
        [unit_rows(rows)[0].astype(np.float32) for rows in open_vectors(where).read()]
    )


def in_parquet(where: str) -> bool:
    """Whether `where` names a Parquet file, or `FILE.parquet#COLUMN`."""
    return _split(where)[0].suffix == ".parquet"


def holds_vectors(where: str) -> bool:
    """Whether `where` holds vectors (see `open_vectors`) rather than pictures.

    That is `FILE.parquet#COLUMN`, an array file, a folder with .npy files and no picture, or a
    Parquet file with a column of vectors and none of pictures.

    Raises:
        DataError: a Parquet file that cannot be read.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return any(p.suffix == ".npy" for p in path.iterdir()) and not scan_folder(path).paths
    if not in_parquet(where):
        return path.suffix in (".npy", ".npz")
    if not path.is_file():
        return not where.endswith(".parquet")
    return bool(vector_columns(path)) and not any(
        may_hold_images(field) for field in pq.read_schema(path)
    )


def vector_columns(path: Path) -> list[str]:
    """The columns of vectors in a Parquet file.

    Raises:
        DataError: it is not a Parquet file.
    """
    return [field.name for field in _parquet(path).schema_arrow if _is_vector(field.type)]


def open_parquet(where: str) -> ListColumn:
    """Open `FILE.parquet#COLUMN`; without `#COLUMN`, the only column of vectors.

    Raises:
        DataError: not a Parquet file, no such column, several to choose from, or another dtype.
    """
    path, column = _split(where)
    if not path.is_file():
        raise DataError(
            f"There is no file {path}.",
            "Name a .npy file, a folder of .npy files, or FILE.parquet#COLUMN.",
        )
    schema, columns = _parquet(path).schema_arrow, vector_columns(path)
    named = f"It has: {', '.join(schema.names)}."
    if not column:
        if len(columns) != 1:
            found = (
                f"several columns of vectors: {', '.join(columns)}"
                if columns
                else "no column of vectors"
            )
            raise DataError(
                f"{path} has {found}.",
                f"Name one: {path}#{columns[0]}"
                if columns
                else f"{named} Vectors are lists of floats.",
            )
        (column,) = columns
    if schema.names.count(column) != 1:
        raise DataError(
            f"{path} has no column {column!r}."
            if column not in schema.names
            else f"{path} has two columns {column!r}.",
            named,
        )
    kind = schema.field(column).type
    if column not in columns:
        raise DataError(f"Column {column!r} of {path} holds {kind}, not vectors.", named)
    dtype = np.dtype(kind.value_type.to_pandas_dtype())
    if dtype not in DTYPES:
        raise DataError(
            f"Column {column!r} of {path} holds {dtype}; vectors are float16, float32 or float64.",
            "Convert it to float32.",
        )
    count = _parquet(path).metadata.num_rows
    if not count:
        raise DataError(f"{path} holds no vector.")
    first = next(iter(_batches(path, column, 1)))
    dim = len(first[0]) if first[0].is_valid else 0
    if not dim:
        raise DataError(f"Row 0 of {path}#{column} is empty.", SAME_DIMS)
    return ListColumn(path, count, dim, dtype, column)


def _split(where: str) -> tuple[Path, str]:
    """`FILE.parquet#COLUMN` as file and column; a `#` in an existing file's name is part of it."""
    file, _, column = where.rpartition("#")
    if file.endswith(".parquet") and not Path(where).expanduser().exists():
        return Path(file).expanduser(), column
    return Path(where).expanduser(), ""


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, memory_map=True, buffer_size=1 << 20)
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as Parquet: {error}.", "Write the file again."
        ) from error


def _batches(path: Path, column: str, size: int) -> Iterable[pa.Array]:
    return (
        batch.column(0)
        for batch in _parquet(path).iter_batches(batch_size=size, columns=[column])
        if len(batch)
    )


def _is_vector(kind: pa.DataType) -> bool:
    lists: bool = (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )
    return lists and bool(
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )


def _array_file(path: Path) -> ArrayFile:
    array = _load(path)
    _check_type(array.dtype, path)
    if array.ndim != 2 or not array.shape[1]:
        raise DataError(
            f"{path} has shape {array.shape}, not (rows, dims).", "Save one row a vector."
        )
    return ArrayFile(path, array.shape[0], array.shape[1], array.dtype)


def _load(path: Path) -> NDArray[np.floating]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        reason = "damaged, or not an array of numbers"
        if isinstance(error, OSError):
            reason = f"{error}".rstrip(".")
        raise DataError(
            f"{path} cannot be read as .npy: {reason}.",
            "Save the array again: np.save(PATH, x.astype('float32'))",
        ) from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise DataError(
            f"{path} is an archive of arrays.", "Save one of them with np.save, as .npy."
        )
    return array


def _check_type(dtype: np.dtype[np.generic], path: Path) -> None:
    if not dtype.isnative and dtype.newbyteorder() in DTYPES:
        raise DataError(f"{path} has the byte order of another machine ({dtype.str}).", CONVERT)
    if dtype not in DTYPES:
        raise DataError(f"{path} holds {dtype}; vectors are float16, float32 or float64.", CONVERT)


def _check_rows(rows: NDArray[np.floating], start: int, path: Path) -> None:
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        row = start + int(np.flatnonzero(~finite)[0])
        raise DataError(f"Row {row} of {path} has NaN or infinity.", "Remove such rows.")
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    if not largest.all():
        raise DataError(
            f"Row {start + int(np.flatnonzero(largest == 0)[0])} of {path} is all zeros.",
            "Remove such rows.",
        )
    limits = np.finfo(np.float32)
    far = (largest > float(limits.max) / 2**16) | (largest < float(limits.tiny))
    if far.any():
        row = int(np.flatnonzero(far)[0])
        raise DataError(
            f"Row {start + row} of {path} has values up to {largest[row]:.3g}: beyond float32.",
            "Multiply all rows by a constant; it changes no cosine.",
        )
