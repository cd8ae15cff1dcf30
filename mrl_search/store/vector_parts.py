"""One file of vectors: a .npy array, or a column of lists of numbers in a Parquet file.

A part is read some rows at a time and stays closed in between: there may be thousands.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.errors import DataError
from mrl_search.parquet import first_rows, open_parquet
from mrl_search.vectors import blocks

__all__ = [
    "Array", "Column", "Part", "array_part", "check_dtype", "column_part", "list_columns",
    "vector_columns",
]  # fmt: skip

DTYPES = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))
FLOATS = "vectors are float16, float32, float64 or bfloat16"
SAME_DIMS = "All vectors must have the same dims; remove that row."
CONVERT = "Convert it with: np.save(NEW, np.load(OLD).astype('float32'))"
SAMPLE = 64  # rows that tell whether a column holds vectors


@dataclass(frozen=True, eq=False)
class Part(ABC):
    """Rows of one file of vectors: `count` of `dim` dims in float16, float32 or float64.

    Attributes:
        first: number of the first one in the file.
    """

    path: Path
    count: int
    dim: int
    dtype: np.dtype[np.floating]
    first: int = field(default=0, kw_only=True)

    @abstractmethod
    def read(self) -> Iterator[NDArray[np.floating]]:
        """All rows in order, some at a time: (rows, dim), unchecked."""


@dataclass(frozen=True, eq=False)
class Array(Part):
    """An array in memory, or a .npy file, open only while it is read."""

    array: NDArray[np.floating] | None = None

    def read(self) -> Iterator[NDArray[np.floating]]:
        array = open_array(self.path) if self.array is None else self.array
        size = self.array is None and self.path.stat().st_size
        for rows in blocks(self.count, self.dim):
            if self.array is None and self.path.stat().st_size != size:  # its pages would be gone
                raise DataError(f"{self.path} changed while it was read.", "Run it again.")
            rows = slice(self.first + rows.start, self.first + rows.stop)
            yield _widened(np.ascontiguousarray(array[rows]))


@dataclass(frozen=True, eq=False)
class Column(Part):
    """A column of a Parquet file; `column.field` is a field of a column of structs."""

    column: str

    def read(self) -> Iterator[NDArray[np.floating]]:
        if not self.count:
            return
        stop, size = self.first + self.count, next(blocks(self.count, self.dim)).stop
        with open_parquet(self.path) as file:
            groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            ends = np.cumsum(groups)
            wanted = np.flatnonzero((ends > self.first) & (ends - groups < stop))
            start = int(ends[wanted[0]] - groups[wanted[0]])
            named = {"batch_size": size, "row_groups": wanted.tolist(), "columns": [self.column]}
            for batch in file.iter_batches(**named):
                begin, end = max(0, self.first - start), min(len(batch), stop - start)
                some = batch.column(0).slice(begin, max(0, end - begin))
                if len(some):
                    where = f"{self.path}#{self.column}"
                    values = _values(some, where, start + begin, self.dim)
                    yield values.to_numpy(zero_copy_only=False).reshape(len(some), self.dim)
                start += len(batch)


def array_part(path: Path) -> Array:
    """Open a .npy file of vectors; only its header is read.

    Raises:
        DataError: not two-dimensional, or of another dtype.
        FileError: the system does not open it.
    """
    array = open_array(path)
    dtype = check_dtype(array.dtype, path)
    if array.ndim != 2 or not array.shape[1]:
        message = f"{path} has shape {array.shape}, not (rows, dims)."
        raise DataError(message, "Save one row a vector.")
    return Array(path, len(array), array.shape[1], dtype)


def column_part(path: Path, column: str = "") -> Column:
    """Open a column of a Parquet file; default: the only one of vectors.

    Raises:
        DataError: not Parquet, no such column, several, or one that does not hold vectors.
        FileError: the system does not open it.
    """
    with open_parquet(path) as file:
        fields, count = _fields(file.schema_arrow), file.metadata.num_rows
        column = column or _only_column(path, file)
        if [name for name, _ in fields].count(column) != 1:
            times = "two columns" if column in dict(fields) else "no column"
            raise DataError(f"{path} has {times} {column!r}.", _columns(fields))
        kind = dict(fields)[column]
        number = _number(kind)
        if number is None or _is_matrix(kind):
            hint = f"{_columns(fields)} {_way_out(column, kind)}"
            raise DataError(f"Column {column!r} of {path} holds {kind}, not vectors.", hint)
        if not pa.types.is_floating(number):
            message = f"Column {column!r} of {path} holds {number}; {FLOATS}."
            raise DataError(message, _way_out(column, kind))
        where = f"{path}#{column}"
        dim = len(_values(first_rows(file, column, 1), where))
    if count and not dim:
        raise DataError(f"Row 0 of {where} is empty.", SAME_DIMS)
    return Column(path, count, dim, np.dtype(number.to_pandas_dtype()), column)


def vector_columns(file: pq.ParquetFile) -> list[str]:
    """The columns whose first rows are vectors: lists of floats, all of the same dims."""
    found = []
    for name, kind in _fields(file.schema_arrow):
        number = _number(kind)
        if number is None or not pa.types.is_floating(number) or _is_matrix(kind):
            continue
        values = first_rows(file, name, SAMPLE)
        try:
            dim = len(_values(values[:1], name))
            if dim:
                _values(values, name, dim=dim)
                found.append(name)
        except DataError:
            continue
    return found


def list_columns(schema: pa.Schema) -> list[str]:
    """The columns of lists of numbers of any type and size."""
    return [name for name, kind in _fields(schema) if _number(kind) is not None]


def check_dtype(dtype: np.dtype[np.generic], path: Path) -> np.dtype[np.floating]:
    """The dtype in which rows of `dtype` are read.

    Raises:
        DataError: not float16, bfloat16, float32 or float64 of this machine's byte order.
    """
    if not dtype.isnative and dtype.newbyteorder() in DTYPES:
        raise DataError(f"{path} has the byte order of another machine ({dtype.str}).", CONVERT)
    if _is_bfloat16(dtype):
        return np.dtype(np.float32)
    for known in DTYPES:
        if dtype == known:
            return known
    hint = CONVERT
    if dtype.kind == "V":  # float8 and others, which numpy does not name
        hint = "Name its type: np.save(NEW, np.load(OLD).view(ml_dtypes.NAME).astype('float32'))"
    raise DataError(f"{path} holds {dtype}; {FLOATS}.", hint)


def _is_bfloat16(dtype: np.dtype[np.generic]) -> bool:
    """Whether a dtype is two bytes without a name, as ml_dtypes saves bfloat16."""
    return dtype.kind == "V" and dtype.itemsize == 2 and not dtype.names


def _widened(rows: NDArray[np.floating]) -> NDArray[np.floating]:
    """Rows of bfloat16 as float32, exactly; others as they are."""
    if not _is_bfloat16(rows.dtype):
        return rows
    return (rows.view("<u2").astype("<u4") << 16).view("<f4")


def _fields(schema: pa.Schema) -> list[tuple[str, pa.DataType]]:
    """The columns with their types, fields of structs as `column.field`."""
    found = []
    waiting = [(field.name, field.type) for field in reversed(schema)]
    while waiting:
        name, kind = waiting.pop()
        if pa.types.is_struct(kind):
            waiting += [(f"{name}.{field.name}", field.type) for field in reversed(list(kind))]
        found.append((name, kind))
    return found


def _number(kind: pa.DataType) -> pa.DataType | None:
    """The type of the numbers of lists, tensors or lists of lists; None for anything else."""
    kind = _plain(kind)
    if not _is_list(kind):
        return None
    while _is_list(kind):
        kind = _plain(kind.value_type)
    t = pa.types
    return kind if t.is_floating(kind) or t.is_integer(kind) or t.is_decimal(kind) else None


def _values(column: pa.Array, where: str, start: int = 0, dim: int | None = None) -> pa.Array:
    """The numbers of all rows, one row after the other, without a null.

    Args:
        column: lists, tensors, lists of one list each, or structs with one such field.
        where: name of the column, for messages.
        start: number of the first row, for messages.
        dim: numbers of a row; default: any, for a single row that may be null.

    Raises:
        DataError: a row that is null, holds a null, several lists, or not `dim` numbers.
    """
    while pa.types.is_struct(column.type):
        column = column.flatten()[0]
    column = _storage(column)
    while _is_list(column.type):
        nested = _is_list(_plain(column.type.value_type))
        wanted = 1 if nested else dim
        import pyarrow.compute as pc  # slow, and a .npy file does not need it

        lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
        if wanted is not None and (lengths != wanted).any():
            row = int(np.flatnonzero(lengths != wanted)[0])
            found, hint = f"has {lengths[row]} dims; the first has {dim}", SAME_DIMS
            if lengths[row] < 0:
                found = "is null"
            elif nested:
                found, hint = f"holds {lengths[row]} lists", "Give one list a row."
            raise DataError(f"Row {start + row} of {where} {found}.", hint)
        column = _storage(column.flatten())
    if column.null_count:
        null = int(np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))[0])
        row = start + null // (dim or len(column))
        hint = "Leave that row out, or fill the gap."
        raise DataError(f"Row {row} of {where} holds a null.", hint)
    return column


def _storage(column: pa.Array) -> pa.Array:
    """A column without its extension type."""
    return column.storage if isinstance(column, pa.ExtensionArray) else column


def _plain(kind: pa.DataType) -> pa.DataType:
    """A type without its extension."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_matrix(kind: pa.DataType) -> bool:
    """Whether a column holds tensors with several rows and columns, which are no vectors."""
    tensor = isinstance(kind, pa.FixedShapeTensorType)
    return tensor and sum(size > 1 for size in kind.shape) > 1


def _is_list(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind)
        or t.is_list_view(kind) or t.is_large_list_view(kind)
    )  # fmt: skip


def _only_column(path: Path, file: pq.ParquetFile) -> str:
    """The column of vectors, else the only one of lists of numbers."""
    found = vector_columns(file) or list_columns(file.schema_arrow)
    if not found:
        hint = f"{_columns(_fields(file.schema_arrow))} Vectors are lists of floats."
        raise DataError(f"{path} has no column of vectors.", hint)
    if len(found) > 1:
        message = f"{path} has several columns of vectors: {', '.join(found)}."
        raise DataError(message, f"Name one: {path}#{found[0]}")
    return found[0]


def _columns(fields: list[tuple[str, pa.DataType]]) -> str:
    return f"It has: {', '.join(name for name, _ in fields)}."


def _way_out(column: str, kind: pa.DataType) -> str:
    """How to convert a column to lists of float32."""
    t, note = pa.types, ""
    value = "np.asarray(v, 'float32').ravel()"
    if t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind):
        value = "np.frombuffer(v, 'float32')"
    elif t.is_string(kind) or t.is_large_string(kind):
        value = "np.asarray(json.loads(v), 'float32')"
    elif _number(kind) == pa.uint16():
        note = ", as bits of bfloat16,"
        value = "(np.asarray(v, 'uint32') << 16).view('float32')"
    table = f"t[{column!r}]"
    steps = f"t = pandas.read_parquet(OLD); {table} = [{value} for v in {table}]"
    return f"Convert it{note} with: {steps}; t.to_parquet(NEW)"
