"""The items that vectors stand for: a Parquet table, one row a vector, read by column."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.files import reading, write_atomically
from mrl_search.store.manifest import ITEMS

__all__ = ["EXIF_COLUMNS", "FILE_COLUMNS", "ITEMS_SCHEMA", "Items", "logged_items", "write_items"]

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
    """`items.parquet`, opened: a column is read when it is first used, and kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        file = pa.OSFile(os.fsencode(path))  # of any name
        self._file = pq.ParquetFile(file, page_checksum_verification=True)
        self._columns: dict[str, pa.ChunkedArray] = {}
        self._lock = Lock()

    @property
    def num_rows(self) -> int:
        """Number of items."""
        return int(self._file.metadata.num_rows)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, those of `ITEMS_SCHEMA` first."""
        return _whole_schema(self._file.schema_arrow)

    @property
    def column_names(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema.names)

    @property
    def own_columns(self) -> list[str]:
        """Names of the columns that `ITEMS_SCHEMA` does not have."""
        return self.column_names[len(ITEMS_SCHEMA) :]

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        with self._lock:
            if name not in self._columns:
                try:
                    with reading(self.path):
                        column = self._file.read([name])[name]
                    kind = self.schema.field(name).type  # a cast imports pyarrow.compute
                    self._columns[name] = column if column.type == kind else column.cast(kind)
                except (OSError, pa.ArrowException) as error:
                    message = f"Column {name!r} of {self.path} cannot be read: {error}"
                    raise DataError(message, "Build the index again.") from error
            return self._columns[name]

    def value(self, name: str, row: int) -> object:
        """One value; of times, the microseconds: for nanoseconds Arrow asks for pandas."""
        found = self[name][row]
        if found.is_valid and pa.types.is_timestamp(found.type) and found.type.unit == "ns":
            found = pa.scalar(found.value // 1000, pa.timestamp("us", found.type.tz))
        return found.as_py()

    def column(self, name: str) -> NDArray[np.object_]:
        """A column as Python values: (n,) object."""
        values = np.empty(self.num_rows, dtype=object)
        values[:] = self[name].to_pylist()
        return values

    def table(self) -> pa.Table:
        """All columns, in memory."""
        return pa.table({name: self[name] for name in self.column_names}, schema=self.schema)


def logged_items(
    entries: Sequence[Mapping[str, object]], columns: pa.Table | None = None
) -> pa.Table:
    """The items that a build has logged, numbered from 0, with all that is known of them.

    Args:
        entries: one a row of the source, an item's columns; with a `reason`: it has no item.
        columns: further columns, one row a row of the source. One that is called as one of
            `EXIF_COLUMNS` replaces it; else a name that is taken gets `item_` before it.

    Returns:
        The columns of `ITEMS_SCHEMA`, the further ones, then those of `EXIF_COLUMNS` and
        `FILE_COLUMNS` that are logged of any item.
    """
    at = [i for i, entry in enumerate(entries) if "reason" not in entry]
    rows = [{"id": row, **entries[i]} for row, i in enumerate(at)]
    table = pa.Table.from_pylist(rows, ITEMS_SCHEMA)
    for name in () if columns is None else columns.column_names:
        free = name
        while free in {*table.column_names, *FILE_COLUMNS.names}:
            free = f"item_{free}"
        table = table.append_column(free, columns[name].take(at))
    for column in (*EXIF_COLUMNS, *FILE_COLUMNS):
        values = pa.array([row.get(column.name) for row in rows], column.type)
        if values.null_count < len(values) and column.name not in table.column_names:
            table = table.append_column(column, values)
    return table


def write_items(folder: Path, items: pa.Table) -> None:
    """Write `items.parquet`, the columns of `ITEMS_SCHEMA` first."""
    with write_atomically(folder / ITEMS) as file:
        pq.write_table(_in_schema(items), file, write_page_checksum=True)


def _in_schema(items: pa.Table) -> pa.Table:
    """The columns of `ITEMS_SCHEMA`, each cast to its type, then the others as they are."""
    schema = _whole_schema(items.schema)
    try:
        return items.select(schema.names).cast(schema)
    except pa.ArrowException as error:
        message = f"The items do not have the columns {ITEMS_SCHEMA.names}: {error}"
        raise DataError(message) from error


def _whole_schema(found: pa.Schema) -> pa.Schema:
    """`ITEMS_SCHEMA`, then the other fields that were found; no table, as pyarrow asks pandas."""
    if missing := [name for name in ITEMS_SCHEMA.names if name not in found.names]:
        raise DataError(f"The items have no column {missing[0]!r}.")
    return pa.schema([*ITEMS_SCHEMA, *(f for f in found if f.name not in ITEMS_SCHEMA.names)])
