"""The items that vectors stand for: a table with one row a vector, read from disk a column at a time and only when it is asked for."""

from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from mrl_search.errors import DataError
from mrl_search.files import write_atomically
from mrl_search.store.manifest import ITEMS

__all__ = ["ITEMS_SCHEMA", "Items", "ItemsFile", "as_table", "write_items"]

ITEMS_SCHEMA = pa.schema([
    ("id", pa.int64()), ("path", pa.string()), ("label", pa.string()), ("hash", pa.string()),
    ("width", pa.int32()), ("height", pa.int32()), ("norm", pa.float32()),
])  # fmt: skip


class ItemsFile:
    """`items.parquet`, opened: its header is read at once, a column when it is first asked for. It looks like the table it holds.

    Raises:
        OSError, pyarrow.ArrowException: the file is not there, or not Parquet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = pq.ParquetFile(path)
        self._columns: dict[str, pa.ChunkedArray] = {}

    @property
    def num_rows(self) -> int:
        """How many items there are."""
        return int(self._file.metadata.num_rows)

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns, those of `ITEMS_SCHEMA` first."""
        return _in_schema(self._file.schema_arrow.empty_table()).schema

    @property
    def column_names(self) -> list[str]:
        """The names alone."""
        return list(self.schema.names)

    def __getitem__(self, name: str) -> pa.ChunkedArray:
        if name not in self._columns:
            try:
                self._columns[name] = self._file.read([name])[name].cast(
                    self.schema.field(name).type
                )
            except (OSError, pa.ArrowException) as error:
                raise DataError(
                    f"Column {name!r} of {self.path} cannot be read: {error}",
                    "Build the index again.",
                ) from error
        return self._columns[name]


Items: TypeAlias = pa.Table | ItemsFile


def as_table(items: Items) -> pa.Table:
    """All columns, in memory."""
    return pa.table({name: items[name] for name in items.column_names}, schema=items.schema)


def write_items(folder: Path, items: Items) -> None:
    """Write `items.parquet`, the columns of `ITEMS_SCHEMA` first. Raises MrlSearchError when the disk is full."""
    with write_atomically(folder / ITEMS) as path:
        pq.write_table(_in_schema(as_table(items)), path)


def _in_schema(items: pa.Table) -> pa.Table:
    """The columns of `ITEMS_SCHEMA`, each of its type, then the others as they are."""
    extra = [field for field in items.schema if field.name not in ITEMS_SCHEMA.names]
    return items.select([*ITEMS_SCHEMA.names, *(field.name for field in extra)]).cast(
        pa.schema([*ITEMS_SCHEMA, *extra])
    )
