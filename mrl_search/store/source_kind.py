"""Whether a source holds vectors or pictures, by what can be used in it."""

import shlex
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from mrl_search.errors import ConfigError, DataError, FileError, MrlSearchError
from mrl_search.files import open_regular, reading
from mrl_search.images.folders import METADATA, pictures_in
from mrl_search.images.tables import HUB, image_named, picture_columns
from mrl_search.parquet import open_parquet
from mrl_search.store.numbered_files import (
    arrays_in,
    is_array,
    is_matrix,
    is_table,
    split_column,
    split_pattern,
    tables_in,
    vectors_of,
)  # fmt: skip
from mrl_search.store.vector_files import open_vectors
from mrl_search.store.vector_parts import column_part, list_columns
from mrl_search.vectors import DIMS

__all__ = ["holds_vectors"]

ARROW = b"ARROW1"
PLOTS = 3  # pictures that may lie beside more vectors without being meant
SHOWN = 20  # columns in a message


def holds_vectors(where: str, wanted: str = "") -> bool:
    """Whether `where` holds vectors (see `open_vectors`) rather than pictures.

    What cannot be used decides nothing: a digest or a short list in a table of pictures, a few
    plots or a list of labels in a folder of vectors. `wanted` is `vectors` or `pictures`, where
    options show which of them is meant.

    Raises:
        ConfigError: it holds both, and `wanted` is empty.
        DataError: a table that is damaged, or has neither.
        FileError: the system does not read it.
    """
    if where.startswith(HUB):
        return False
    path, column = split_column(where)
    if column or split_pattern(path)[0] != path:
        return True
    with reading(path):
        _refuse_arrow(path)
        if path.is_dir():
            return _folder_holds_vectors(path, wanted)
        if path.is_file() and is_table(path):
            return _tables_hold_vectors([path], path, wanted)
    return is_array(path)


def _folder_holds_vectors(folder: Path, wanted: str) -> bool:
    arrays, tables = arrays_in(folder), list[Path]()
    with suppress(FileError):  # a folder of pictures may have folders that cannot be listed
        tables = tables_in(folder)
    pictures = pictures_in(folder) if arrays or tables else []
    if not pictures:
        return bool(arrays) or (bool(tables) and _tables_hold_vectors(tables, folder, wanted))
    arrays = [path for path in arrays if is_matrix(path)]
    columns = _first([path for path in tables if path.name not in METADATA], vectors_of)
    if not arrays and not columns:
        return False
    few, count = len(pictures) <= PLOTS, 0
    try:
        count = open_vectors(folder).count
    except MrlSearchError:  # damaged shards are reported; one odd array among pictures is not
        if arrays or few:
            return few
    if few and len(pictures) < count:
        return True
    vectors = str(arrays[0] if len(arrays) == 1 else folder / "*.npy")
    if not arrays:
        vectors = f"{folder}#{columns[0]}"
    found = f"{len(pictures):,} pictures, such as {pictures[0].name}"
    return _choice(folder, wanted, vectors, found, "--model bundled")


def _tables_hold_vectors(tables: Sequence[Path], where: Path, wanted: str) -> bool:
    with open_parquet(tables[0]) as file:
        schema = file.schema_arrow
    pictures = _first(tables, picture_columns)
    # beside pictures, a few numbers are a box or a point
    vectors = _first(tables, _long_vectors_of if pictures else vectors_of)
    if vectors and pictures:
        found = f"pictures in column {pictures[0]}"
        return _choice(where, wanted, f"{where}#{vectors[0]}", found, f"--column {pictures[0]}")
    if vectors or pictures or wanted == "pictures" or any(map(image_named, schema)):
        return bool(vectors)
    if list_columns(schema):
        return True
    columns = ", ".join(f"{field.name} ({field.type})" for field in list(schema)[:SHOWN])
    message = f"{where} holds neither vectors nor pictures. Its columns: {columns}."
    hint = f"Name the column of the pictures with --column, or of the vectors: {where}#COLUMN"
    raise DataError(message, hint)


def _refuse_arrow(path: Path) -> None:
    """Refuse vectors in Arrow files, which `datasets` and others write; pictures are read."""
    files = sorted(path.glob("*.arrow")) if path.is_dir() else [path]
    if not files or files[0].suffix.lower() not in (".arrow", ".feather"):
        return
    try:
        with open_regular(files[0]) as file:
            begins = file.read(len(ARROW))
            file.seek(0)
            opened = pa.ipc.open_file if begins == ARROW else pa.ipc.open_stream
            schema = opened(file).schema
    except (OSError, ValueError, pa.ArrowException, MrlSearchError):
        return
    if list_columns(schema) and not any(map(image_named, schema)):
        way = f"pyarrow.ipc.{opened.__name__}(OLD).read_all()"
        if path.is_dir():
            way = "datasets.load_from_disk(OLD).data.table"
        message = f"{path} holds vectors in Arrow files; they are read from Parquet."
        raise DataError(message, f"Convert it with: pyarrow.parquet.write_table({way}, NEW)")


def _choice(where: Path, wanted: str, vectors: str, pictures: str, option: str) -> bool:
    """Whether the vectors are wanted where both can be used."""
    if wanted:
        return wanted == "vectors"
    message = f"{where} holds vectors and {pictures}."
    hint = f"For the vectors name {shlex.quote(vectors)}; for the pictures add {option}."
    raise ConfigError(message, hint)


def _first(tables: Iterable[Path], columns: Callable[[Path], list[str]]) -> list[str]:
    """The columns of the first table that has any."""
    return next(filter(None, map(columns, tables)), [])


def _long_vectors_of(table: Path) -> list[str]:
    return [name for name in vectors_of(table) if column_part(table, name).dim >= DIMS[0]]
