"""Vectors that a user brings: a .npy file, a folder of .npy shards, or a Parquet column of lists.

Files stay on disk and are read some rows at a time. Every row is checked as it is read.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.errors import DataError
from mrl_search.images.sources import may_hold_images, scan_folder
from mrl_search.vectors import blocks, unit_rows

__all__ = [
    "ListColumn", "VectorSource", "holds_vectors", "in_parquet", "open_parquet", "open_vectors",
    "read_queries", "vector_columns", "vectors_in_memory",
]  # fmt: skip

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
FLOATS = "vectors are float16, float32 or float64"
SAME_DIMS = "All vectors must have the same dims; remove that row."
NAMES = "Name a .npy file, a folder of .npy files, or FILE.parquet#COLUMN."
CONVERT = "Convert it with: np.save(NEW, np.load(OLD).astype('float32'))"


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """One file of vectors: `count` rows of `dim` dims in float16, float32 or float64."""

    path: Path
    count: int
    dim: int
    dtype: np.dtype[np.floating]

    @abstractmethod
    def read(self) -> Iterator[NDArray[np.floating]]:
        """All rows in order, some at a time: (rows, dim), unchecked."""


@dataclass(frozen=True, eq=False)
class Array(Part):
    """An array in memory, or a .npy file, open only while it is read: there may be thousands."""

    array: NDArray[np.floating] | None = None

    def read(self) -> Iterator[NDArray[np.floating]]:
        array = open_array(self.path) if self.array is None else self.array
        for rows in blocks(self.count, self.dim):
            yield np.ascontiguousarray(array[rows])


@dataclass(frozen=True, eq=False)
class ListColumn(Part):
    """A column of lists of numbers in a Parquet file."""

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
            null = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            where = f"Row {start + null // self.dim} of {self.path}#{self.column}"
            raise DataError(f"{where} holds a null.", "Leave that row out, or fill the gap.")
        rows: NDArray[np.floating] = values.to_numpy(zero_copy_only=False)
        return rows.reshape(len(lists), self.dim)


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
                message = f"{part.path} cannot be read: {error}."
                raise DataError(message, "Write the file again.") from error


def open_vectors(where: VectorSource | NDArray[np.floating] | str | Path) -> VectorSource:
    """Open a .npy file, a folder of .npy files in the order of their names, or a Parquet column.

    An array is a source in memory, and a source stays as it is.

    A Parquet file with several columns of vectors needs `FILE.parquet#COLUMN`. Only
    headers are read.

    Raises:
        DataError: nothing there, not two-dimensional float16, float32 or float64, or mixed dims.
    """
    if isinstance(where, VectorSource):
        return where
    if not isinstance(where, str | Path):
        return vectors_in_memory(np.asarray(where))
    path = Path(where).expanduser()
    if in_parquet(str(where)):
        column = open_parquet(str(where))
        return VectorSource(f"{column.path.resolve()}#{column.column}", (column,))
    if not path.exists():
        raise DataError(f"There is nothing at {where}.", NAMES)
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix == ".npy" and p.is_file())
        if not files:
            hint = "Shards of vectors are .npy files directly in the folder."
            raise DataError(f"There is no .npy file in {path}.", hint)
    else:
        files = [path]
    parts = [_array_file(file) for file in files]
    for part in parts:
        if part.dim != parts[0].dim:
            other = f"{parts[0].path.name} has {parts[0].dim}"
            hint = "All shards must come from one model."
            raise DataError(f"{part.path} has {part.dim} dims; {other}.", hint)
    filled = tuple(part for part in parts if part.count)
    if not filled:
        raise DataError(f"{path} holds no vector.")
    return VectorSource(str(path.resolve()), filled)


def vectors_in_memory(array: NDArray[np.floating], name: str = "array") -> VectorSource:
    """An array (n, dim) of float16, float32 or float64 as a source."""
    path = Path(name)
    _check_type(array.dtype, path)
    if array.ndim != 2 or not array.size:
        message = f"The array has shape {array.shape}, not (rows, dims)."
        raise DataError(message, "One row a vector.")
    return VectorSource(name, (Array(path, len(array), array.shape[1], array.dtype, array),))


def read_queries(where: str | Path) -> NDArray[np.float32]:
    """Read query vectors: (n, dim) float32 of unit norm. A one-dimensional .npy file is one query.

    Raises:
        DataError: as `open_vectors` and `VectorSource.read`.
    """
    path = Path(where).expanduser()
    if path.is_file() and path.suffix != ".parquet":
        array = open_array(path)
        if array.ndim == 1 and array.size:
            _check_type(array.dtype, path)
            row = np.array(array)[None]
            _check_rows(row, 0, path)
            return unit_rows(row)[0].astype(np.float32)
    parts = open_vectors(where).read()
    return np.concatenate([unit_rows(rows)[0].astype(np.float32) for rows in parts])


def in_parquet(where: str) -> bool:
    """Whether `where` names a Parquet file, or `FILE.parquet#COLUMN`."""
    return _split(where)[0].suffix == ".parquet"


def holds_vectors(where: str) -> bool:
    """Whether `where` holds vectors (see `open_vectors`) rather than pictures.

    That is `FILE.parquet#COLUMN`, an array file, a folder with .npy files and no picture, or a
    Parquet file with a column of vectors and none of pictures.
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
    """The columns of vectors in a Parquet file."""
    return [field.name for field in _parquet(path).schema_arrow if _is_vector(field.type)]


def open_parquet(where: str) -> ListColumn:
    """Open `FILE.parquet#COLUMN`; without `#COLUMN`, the only column of vectors."""
    path, column = _split(where)
    if not path.is_file():
        raise DataError(f"There is no file {path}.", NAMES)
    schema, columns = _parquet(path).schema_arrow, vector_columns(path)
    named = f"It has: {', '.join(schema.names)}."
    if not column:
        if not columns:
            hint = f"{named} Vectors are lists of floats."
            raise DataError(f"{path} has no column of vectors.", hint)
        if len(columns) > 1:
            message = f"{path} has several columns of vectors: {', '.join(columns)}."
            raise DataError(message, f"Name one: {path}#{columns[0]}")
        (column,) = columns
    if schema.names.count(column) != 1:
        number = "two columns" if column in schema.names else "no column"
        raise DataError(f"{path} has {number} {column!r}.", named)
    kind = schema.field(column).type
    if column not in columns:
        raise DataError(f"Column {column!r} of {path} holds {kind}, not vectors.", named)
    dtype = np.dtype(kind.value_type.to_pandas_dtype())
    if dtype not in DTYPES:
        message = f"Column {column!r} of {path} holds {dtype}; {FLOATS}."
        raise DataError(message, "Convert it to float32.")
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
        message = f"{path} cannot be read as Parquet: {error}."
        raise DataError(message, "Write the file again.") from error


def _batches(path: Path, column: str, size: int) -> Iterable[pa.Array]:
    batches = _parquet(path).iter_batches(batch_size=size, columns=[column])
    return (batch.column(0) for batch in batches if len(batch))


def _is_vector(kind: pa.DataType) -> bool:
    t = pa.types
    if not (t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)):
        return False
    return bool(t.is_floating(kind.value_type) or t.is_integer(kind.value_type))


def _array_file(path: Path) -> Array:
    array = open_array(path)
    _check_type(array.dtype, path)
    if array.ndim != 2 or not array.shape[1]:
        message = f"{path} has shape {array.shape}, not (rows, dims)."
        raise DataError(message, "Save one row a vector.")
    return Array(path, len(array), array.shape[1], array.dtype)


def _check_type(dtype: np.dtype[np.generic], path: Path) -> None:
    if not dtype.isnative and dtype.newbyteorder() in DTYPES:
        raise DataError(f"{path} has the byte order of another machine ({dtype.str}).", CONVERT)
    if dtype not in DTYPES:
        raise DataError(f"{path} holds {dtype}; {FLOATS}.", CONVERT)


def _check_rows(rows: NDArray[np.floating], start: int, path: Path) -> None:
    def refuse(bad: NDArray[np.bool_], what: str, hint: str = "Remove such rows.") -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"Row {start + row} of {path} {what.format(largest[row])}.", hint)

    largest = np.abs(rows).max(axis=1).astype(np.float64)
    limits = np.finfo(np.float32)
    refuse(~np.isfinite(largest), "has NaN or infinity")
    refuse(largest == 0, "is all zeros")
    far = (largest > float(limits.max) / 2**16) | (largest < float(limits.tiny))
    hint = "Multiply all rows by a constant; it changes no cosine."
    refuse(far, "has values up to {:.3g}: beyond float32", hint)
