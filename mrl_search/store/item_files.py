"""Columns of the Parquet files that describe vectors, as plain types."""

from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mrl_search.errors import DataError
from mrl_search.parquet import first_rows, open_parquet
from mrl_search.store.numbered_files import split_pattern, tables_in

__all__ = ["item_files", "payload", "read_columns"]

HINT = "--items is a Parquet file with one row a vector, or a folder of such files."
TEXT = ("path", "label", "labels")  # columns that are never left out for being bytes
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
CONTROL = r"[\x00-\x08\x0e-\x1f]"  # no text has these characters; a digest may
SAMPLE = 64  # values that tell whether a column of bytes holds text


def item_files(where: Path) -> list[Path]:
    """A Parquet file, or those of a folder in the order of their numbers."""
    folder, pattern = split_pattern(where)
    files = tables_in(folder, pattern) if folder.is_dir() else [where] if where.is_file() else []
    if not files:
        what = "Parquet file in" if where.is_dir() else "file"
        raise DataError(f"There is no {what} {where}.", HINT)
    return files


def read_columns(files: Sequence[Path], where: Path, nested: bool = True) -> pa.Table:
    """The rows of Parquet files, one after the other; `where` is what messages call them.

    Categories and extension types become plain values, and bytes become text where they are
    UTF-8 without control characters. A folder `key=value` above a file is a column `key`. Lists,
    structs and bytes are read only with `nested`.

    Raises:
        DataError: a damaged file, or columns of types that do not fit together.
        FileError: the system does not read a file.
    """
    tables = []
    for path in files:
        with open_parquet(path, HINT) as file:
            schema = file.schema_arrow
            names = [f.name for f in schema if nested or not _is_payload(file, f)]
            read, count = file.read(columns=names), file.metadata.num_rows
        columns = [_plain(column) for column in read.columns]
        names = list(read.column_names)
        for key, value in _partitions(path):
            names.append(key)
            columns.append(pa.chunked_array([pa.repeat(pa.scalar(value, pa.string()), count)]))
        if not columns:  # a table without columns would have no rows
            names, columns = ["path"], [pa.nulls(count, pa.string())]
        tables.append(pa.Table.from_arrays(columns, names=names))
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        message = f"The files of {where} have columns that do not fit together: {error}."
        raise DataError(message, "Give a column one name and one type.") from error


def payload(path: Path) -> list[str]:
    """The columns of a Parquet file that hold lists, structs, or bytes that are no text."""
    with open_parquet(path, HINT) as file:
        return [field.name for field in file.schema_arrow if _is_payload(file, field)]


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column without categories and extension types; bytes as text, if they are text."""
    kind = column.type
    if _is_uuid(kind):
        values = [None if value is None else str(value) for value in column.to_pylist()]
        return pa.chunked_array([values], pa.string())
    if isinstance(kind, pa.BaseExtensionType):
        chunks = [chunk.storage for chunk in column.chunks]
        return _plain(pa.chunked_array(chunks, kind.storage_type))
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if _is_bytes(kind):
        try:
            text = column.cast(pa.string())
        except pa.ArrowInvalid:
            return column
        return column if pc.any(pc.match_substring_regex(text, CONTROL)).as_py() else text
    return column


def _is_payload(file: pq.ParquetFile, field: pa.Field) -> bool:
    """Whether a column holds lists, structs, or bytes that are no text."""
    kind = field.type
    if _is_uuid(kind) or (field.name in TEXT and _is_bytes(kind)):
        return False
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if pa.types.is_nested(kind):
        return True
    if not _is_bytes(kind):
        return False
    values = first_rows(file, field.name, SAMPLE)
    return _is_bytes(_plain(pa.chunked_array([values], kind)).type)


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.BaseExtensionType) and kind.extension_name == "arrow.uuid"


def _is_bytes(kind: pa.DataType) -> bool:
    t = pa.types
    return bool(
        t.is_binary(kind) or t.is_large_binary(kind) or t.is_fixed_size_binary(kind)
        or t.is_binary_view(kind)
    )  # fmt: skip


def _partitions(path: Path) -> Iterator[tuple[str, str | None]]:
    """Keys and values of the folders `key=value` above a file, as Spark and pandas write them."""
    for folder in takewhile(lambda folder: "=" in folder.name, path.absolute().parents):
        key, _, value = folder.name.partition("=")
        yield unquote(key), None if value == NO_VALUE else unquote(value)
