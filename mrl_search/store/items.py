"""The items that vectors stand for: a Parquet table, one row a vector, read by column."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import reading, write_atomically
from mrl_search.store.manifest import ITEMS

__all__ = [
    "EXIF_COLUMNS", "FILE_COLUMNS", "ITEMS_SCHEMA", "Items", "fitting", "free_names",
    "logged_items", "numbers", "scalar", "write_items",
]  # fmt: skip

ITEMS_SCHEMA = pa.schema([
    ("id", pa.int64()), ("path", pa.string()), ("label", pa.string()), ("hash", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()), ("norm", pa.float32()),
])  # fmt: skip
EXIF_COLUMNS = pa.schema([  # of pictures whose EXIF tells them; `taken` by the clock of the place
    ("taken", pa.timestamp("ms")), ("camera", pa.string()), ("latitude", pa.float64()),
    ("longitude", pa.float64()),
])  # fmt: skip
FILE_COLUMNS = pa.schema([  # of pictures that are files, as they were when they were read
    ("bytes", pa.int64()), ("modified", pa.timestamp("ns", tz="UTC")), ("inode", pa.int64()),
])  # fmt: skip


class Items:
    """The items of parts, a Parquet file each: a column is read when it is first used, and kept.

    A part without a column has nulls there.
    """

    def __init__(self, *paths: Path) -> None:
        self.paths = paths
        self._files = [
            pq.ParquetFile(pa.OSFile(os.fsencode(path)), page_checksum_verification=True)
            for path in paths  # of any name
        ]
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._texts: dict[str, Callable[[int], str | None]] = {}
        self._lock = Lock()

    @property
    def num_rows(self) -> int:
        """Number of rows, deleted ones too."""
        return sum(file.metadata.num_rows for file in self._files)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, those of `ITEMS_SCHEMA` first."""
        schemas = [_whole_schema(file.schema_arrow) for file in self._files]
        try:
            return pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            where = ", ".join(map(str, self.paths))
            raise DataError(f"Columns of {where} do not fit together: {error}") from error

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @cached_property
    def own_columns(self) -> list[str]:
        """Names of the columns that `ITEMS_SCHEMA` does not have."""
        return self.column_names[len(ITEMS_SCHEMA) :]

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        with self._lock:
            if name not in self._columns:
                kind = self.schema.field(name).type
                parts = [
                    self._read(file, path, name, kind)
                    for file, path in zip(self._files, self.paths, strict=True)
                ]
                chunks = [chunk for part in parts for chunk in part.chunks]
                self._columns[name] = pa.chunked_array(chunks, kind)
            return self._columns[name]

    @cached_property
    def all_ids(self) -> NDArray[np.int64]:
        """The id of each row: (n,) int64."""
        column = self["id"]
        if column.null_count:
            raise DataError(
                f"Items of {self.paths[0].parent} have no id.", "Build the index again."
            )
        return numbers(column).astype(np.int64, copy=False)

    def _read(
        self, file: pq.ParquetFile, path: Path, name: str, kind: pa.DataType
    ) -> pa.ChunkedArray:
        if name not in file.schema_arrow.names:
            return pa.chunked_array([pa.nulls(file.metadata.num_rows, kind)])
        try:
            with reading(path):
                column = file.read([name])[name]
            # a cast imports pyarrow.compute
            return column if column.type == kind else column.cast(kind)
        except (OSError, pa.ArrowException) as error:
            message = f"Column {name!r} of {path} cannot be read: {error}"
            raise DataError(message, "Build the index again.") from error

    def value(self, name: str, row: int) -> object:
        """One value; times to the microsecond. Arrow imports pandas for more, and for zones."""
        found = self[name][row]
        if not found.is_valid or not pa.types.is_timestamp(found.type):
            return found.as_py()
        nanoseconds, zone = found.type.unit == "ns", found.type.tz
        ticks = np.array([found.value // 1000 if nanoseconds else found.value])
        moment: datetime = scalar(
            pa.timestamp("us" if nanoseconds else found.type.unit), ticks
        ).as_py()
        if not zone:
            return moment
        return moment.replace(tzinfo=UTC).astimezone(pa.lib.string_to_tzinfo(zone))

    def texts(self, name: str, rows: Sequence[int]) -> list[str | None]:
        """Values of a column of text; past Arrow where it can, as that takes half as long."""
        read = self._texts.get(name)
        if read is None:
            read = self._texts[name] = _reader_of(self[name])
        return [read(row) for row in rows]

    def column(self, name: str) -> NDArray[np.object_]:
        """A column as Python values: (n,) object."""
        values = np.empty(self.num_rows, dtype=object)
        values[:] = self[name].to_pylist()
        return values

    def table(self) -> pa.Table:
        """All columns, in memory."""
        return pa.table({name: self[name] for name in self.column_names}, schema=self.schema)


def numbers(column: pa.ChunkedArray) -> NDArray[Any]:
    """A column of numbers without nulls: (n,). The way of Arrow, `to_numpy`, imports pandas."""
    parts = [np.from_dlpack(chunk) for chunk in column.chunks if len(chunk)]
    return np.concatenate(parts) if parts else np.empty(0)


def scalar(kind: pa.DataType, *buffers: NDArray[Any] | bytes) -> pa.Scalar:
    """A value from its buffers: `pa.scalar` imports pandas, which takes longer than a search."""
    return pa.Array.from_buffers(kind, 1, [None, *map(pa.py_buffer, buffers)])[0]


def _reader_of(column: pa.ChunkedArray) -> Callable[[int], str | None]:
    """What gives the text of a row."""
    if column.num_chunks != 1 or column.type != pa.string():
        return lambda row: column[row].as_py()
    (chunk,) = column.chunks
    valid, offsets, data = chunk.buffers()
    first, text = chunk.offset, memoryview(data or b"")
    starts = memoryview(offsets).cast("i")
    bits = None if valid is None else memoryview(valid)

    def read(row: int) -> str | None:
        at = first + row
        if bits is not None and not bits[at >> 3] >> (at & 7) & 1:
            return None
        return str(text[starts[at] : starts[at + 1]], "utf-8")

    return read


def logged_items(
    entries: Sequence[Mapping[str, object]], columns: pa.Table | None = None
) -> pa.Table:
    """The items that a build has logged, numbered from 0, with all that is known of them.

    Args:
        entries: one a row of the source, an item's columns; with a `reason`: it has no item.
        columns: further columns, one row a row of the source. One that is called as one of
            `EXIF_COLUMNS` replaces it; else a name that is taken gets `item_` before it. They
            follow those of `ITEMS_SCHEMA`; what is logged of EXIF and file comes last.
    """
    at = [i for i, entry in enumerate(entries) if "reason" not in entry]
    rows = [{"id": row, **entries[i]} for row, i in enumerate(at)]
    table = pa.Table.from_pylist(rows, ITEMS_SCHEMA)
    further = (
        {} if columns is None else dict(zip(columns.column_names, columns.columns, strict=True))
    )
    for name, free in free_names(further).items():
        table = table.append_column(free, further[name].take(pa.array(at, pa.int64())))
    for column in (*EXIF_COLUMNS, *FILE_COLUMNS):
        values = pa.array([row.get(column.name) for row in rows], column.type)
        if values.null_count < len(values) and column.name not in table.column_names:
            table = table.append_column(column, values)
    return table


def free_names(columns: Iterable[str]) -> dict[str, str]:
    """What further columns are called among items: with `item_` before a name that is taken."""
    found: dict[str, str] = {}
    for name in columns:
        free = name
        while free in {*ITEMS_SCHEMA.names, *FILE_COLUMNS.names, *found.values()}:
            free = f"item_{free}"
        found[name] = free
    return found


def fitting(items: pa.Table, known: pa.Schema) -> pa.Table:
    """New items whose columns fit together with those that an index has.

    What EXIF tells takes the type of a user's column of its name, and is null where it has no
    such form.

    Raises:
        ConfigError: another column has a type that does not fit.
    """
    for column in EXIF_COLUMNS:
        place, other = items.schema.get_field_index(column.name), known.get_field_index(column.name)
        if min(place, other) < 0 or items.schema.field(place).type != column.type:
            continue
        kind = known.field(other).type
        try:
            values = items[column.name].cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            values = pa.nulls(len(items), kind)
        items = items.set_column(place, column.name, values)
    try:
        pa.unify_schemas([known, items.schema], promote_options="permissive")
    except pa.ArrowException as error:
        message = f"The new items have columns of other types: {error}."
        raise ConfigError(message, "Give a column one type.") from error
    return items


def write_items(folder: Path, items: pa.Table, name: str = ITEMS) -> None:
    """Write items as `items.parquet` or another `name`, the columns of `ITEMS_SCHEMA` first."""
    schema = _whole_schema(items.schema)
    try:
        table = items.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        message = f"The items do not have the columns {ITEMS_SCHEMA.names}: {error}"
        raise DataError(message) from error
    with write_atomically(folder / name) as file:
        pq.write_table(table, file, write_page_checksum=True)


def _whole_schema(found: pa.Schema) -> pa.Schema:
    """`ITEMS_SCHEMA`, then the other fields that were found; no table, as pyarrow asks pandas."""
    if missing := [name for name in ITEMS_SCHEMA.names if name not in found.names]:
        raise DataError(f"The items have no column {missing[0]!r}.")
    return pa.schema([*ITEMS_SCHEMA, *(f for f in found if f.name not in ITEMS_SCHEMA.names)])
