"""Vectors that a user brings, on their way into a collection: checked, normalised, rotated."""

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.files import expanded
from mrl_search.progress import Progress
from mrl_search.store.item_files import item_files, payload, read_columns
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.numbered_files import order_of
from mrl_search.store.transform import Transform, principal_axes, rows_to_fit
from mrl_search.store.vector_files import VectorSource
from mrl_search.store.vector_parts import Column
from mrl_search.vectors import row_norms, unit_rows

__all__ = ["Inspection", "inspect", "item_columns", "item_notes", "item_table", "stored_rows"]

DERIVED = ("id", "hash", "norm")  # columns of the items that are always made here


@dataclass(frozen=True, eq=False, slots=True)
class Inspection:
    """What one pass over all rows finds.

    Attributes:
        hashes: content hash of each row.
        norms: (n,) float32, norm of each row.
        fingerprint: hash of all rows.
        rotation: (dim, dim) float32 principal axes, if a rotation is wanted.
    """

    hashes: list[str]
    norms: NDArray[np.float32]
    fingerprint: str
    rotation: NDArray[np.float32] | None


def inspect(source: VectorSource, rotated: bool, progress: Progress) -> Inspection:
    """Read and check every row once; with `rotated`, also fit the principal axes."""
    hashes: list[str] = []
    norms = np.empty(source.count, dtype=np.float32)
    content = xxhash.xxh3_128(f"{source.dim} {source.dtypes}".encode())
    moment = np.zeros((source.dim, source.dim)) if rotated else None
    fitted = rows_to_fit(source.count) if rotated else np.empty(0, dtype=np.int64)
    start = 0
    for rows in source.read():
        stop = start + len(rows)
        hashes += [xxhash.xxh3_128_hexdigest(row) for row in rows]
        content.update(rows.data)
        if moment is None:
            norms[start:stop] = row_norms(rows)
        else:
            unit, norms[start:stop] = unit_rows(rows)
            chosen = unit[fitted[(fitted >= start) & (fitted < stop)] - start]
            moment += chosen.T @ chosen
        start = stop
        progress("checking rows", start, source.count)
    rotation = None if moment is None else principal_axes(moment)
    return Inspection(hashes, norms, content.hexdigest(), rotation)


def stored_rows(source: VectorSource, transform: Transform) -> Iterator[NDArray[np.floating]]:
    """All rows as they are stored, some at a time."""
    for rows in source.read():
        unit, _ = unit_rows(rows)
        yield unit if transform.rotation is None else transform(unit)


def item_table(columns: pa.Table, found: Inspection) -> pa.Table:
    """The items of vectors: their columns, with ids, hashes and norms of the rows."""
    derived = {
        "id": pa.array(np.arange(len(found.hashes))),
        "hash": pa.array(found.hashes, pa.string()),
        "norm": pa.array(found.norms, pa.float32()),
    }
    for name, values in derived.items():
        columns = columns.set_column(columns.schema.get_field_index(name), name, values)
    return columns


def item_columns(source: VectorSource, items: str | Path | None = None) -> pa.Table:
    """The columns of `ITEMS_SCHEMA`, null where missing, then all others.

    They come from the Parquet files `items`, or from the files of the vectors themselves, without
    their nested and binary columns; see `read_columns`. `labels` serves as `label`. `id`, `hash`
    and `norm` are always made from the vectors: columns of these names become `item_id`,
    `item_hash` and `item_norm`.

    Raises:
        DataError: not a Parquet file, another number of rows, a repeated column, or values that
            the type of a column cannot hold.
        FileError: the system does not read a file.
    """
    if items is None and not isinstance(source.parts[0], Column):
        nulls = [pa.nulls(source.count, field.type) for field in ITEMS_SCHEMA]
        return pa.table(nulls, schema=ITEMS_SCHEMA)
    where = expanded(items) if items is not None else source.place
    if items is not None:
        table = read_columns(item_files(where), where)
    else:
        table = read_columns([part.path for part in source.parts], where, nested=False)
    if table.num_rows != source.count:
        message = f"{where} has {table.num_rows:,} rows; there are {source.count:,} vectors."
        raise DataError(message, "Give one row a vector, in the same order.")
    names = list(table.column_names)
    if "labels" in names and "label" not in names:
        names[names.index("labels")] = "label"
    names = [f"item_{name}" if name in DERIVED else name for name in names]
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        hint = f"Rename one; {', '.join(DERIVED)} become item_{DERIVED[0]} and so on."
        raise DataError(f"{where} has two columns {twice[0]!r}.", hint)
    table = table.rename_columns(names)
    columns = {field.name: pa.nulls(source.count, field.type) for field in ITEMS_SCHEMA}
    for name in names:
        known = name in columns
        columns[name] = (
            _cast(table[name], ITEMS_SCHEMA.field(name), where) if known else table[name]
        )
    return pa.table(columns)


def item_notes(source: VectorSource, items: str | Path | None) -> list[str]:
    """The order of the files of `items`, or the columns beside the vectors that are left out."""
    if items is not None:
        where = expanded(items)
        return order_of(item_files(where), where)
    first = source.parts[0]
    if not isinstance(first, Column):
        return []
    left = [name for name in payload(first.path) if name != first.column.split(".")[0]]
    hint = f"--items {shlex.quote(str(source.place))} keeps them"
    return [f"left out, as lists or bytes: {', '.join(left)}; {hint}"] if left else []


def _cast(column: pa.ChunkedArray, field: pa.Field, where: Path) -> pa.ChunkedArray:
    try:
        if pa.types.is_floating(column.type):  # NaN is how pandas writes that a value is missing
            column = pc.if_else(pc.is_nan(column), None, column)
        values = column.cast(field.type)
        if field.name == "label":  # as people type them
            return pc.utf8_normalize(values, form="NFC")
        return values
    except pa.ArrowException as error:
        message = f"Column {field.name!r} of {where} is {column.type}, not {field.type}: {error}."
        raise DataError(message, "Convert it, or rename it.") from error
