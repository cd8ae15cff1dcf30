"""The files of a folder of vectors or tables, in the order of the numbers in their names."""

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeAlias

from mrl_search.arrays import MAGIC, open_array
from mrl_search.errors import DataError, MrlSearchError
from mrl_search.files import expanded, open_regular, reading
from mrl_search.parquet import MAGIC as PARQUET
from mrl_search.parquet import open_parquet
from mrl_search.store.vector_parts import vector_columns

__all__ = [
    "arrays_in", "is_array", "is_matrix", "is_table", "natural", "order_of",
    "shards_in", "split_column", "split_pattern", "tables_in", "vectors_of",
]  # fmt: skip

ARRAY, TABLES = ".npy", (".parquet", ".parq", ".pq")
SHOWN = 3  # names in a note, before the last one

Key: TypeAlias = tuple[list[list[str | int]], str]


def natural(path: Path) -> Key:
    """Sort key by the numbers in a name: `part-2` before `part-10`, `img-9` before `img-10`."""
    names = [re.split(r"(\d+)", name.casefold()) for name in path.with_suffix("").parts]
    return [[int(t) if i % 2 else t for i, t in enumerate(name)] for name in names], str(path)


def shards_in(
    folder: Path, pattern: str = "*", column: str = ""
) -> tuple[list[Path], str, list[str]]:
    """The .npy files directly in a folder, or the Parquet files in it, in the order of numbers.

    With them come the column of vectors in Parquet files, which may be named, and the names of
    files directly in the folder that are not read.

    Raises:
        DataError: vectors in files of both kinds or in several columns, and no `column`.
        FileError: a folder cannot be listed.
    """
    arrays, tables = arrays_in(folder, pattern), tables_in(folder, pattern)
    matrices = [path for path in arrays if is_matrix(path)]
    first = next((path for path in tables if vectors_of(path)), None) if not column else None
    if first is not None:
        columns = vectors_of(first)
        hint = f"Name one: {folder}#{columns[0]}"
        if matrices:
            message = f"{folder} has vectors in {matrices[0].name} and in {first.name}."
            raise DataError(message, f"{hint}, or '{folder}/*{ARRAY}'")
        if len(columns) > 1:
            message = f"{folder} has several columns of vectors: {', '.join(columns)}."
            raise DataError(message, hint)
        column = columns[0]
    files = matrices or arrays
    if column or not files:
        files = [path for path in tables if _has_column(path, column)] or tables
    others = [path.name for path in _files(folder, pattern) if path not in set(files)]
    return files, column, others


def arrays_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The .npy files directly in a folder."""
    return [path for path in _files(folder, pattern) if path.suffix.lower() == ARRAY]


def is_matrix(path: Path) -> bool:
    """Whether a .npy file is damaged or has two dimensions; labels and norms have one."""
    try:
        return open_array(path).ndim == 2
    except DataError:
        return True


def tables_in(folder: Path, pattern: str = "*") -> list[Path]:
    """The Parquet files directly in a folder, else those in its sub-folders.

    Raises:
        FileError: a folder cannot be listed.
    """
    direct = [p for p in _files(folder, pattern) if p.suffix.lower() in TABLES]
    if direct:
        return direct
    found = []
    with reading(folder):
        for here, folders, names in os.walk(folder, onerror=_fail):
            folders[:] = [name for name in folders if name[0] not in "._"]
            paths = [Path(here, name) for name in names if name[0] not in "._"]
            tables = [p for p in paths if p.suffix.lower() in TABLES and p.is_file()]
            found += [path for path in tables if fnmatchcase(path.name, pattern)]
    return sorted(found, key=natural)


def vectors_of(table: Path) -> list[str]:
    """The columns of vectors of a Parquet file; none if it is damaged."""
    try:
        with open_parquet(table) as file:
            return vector_columns(file)
    except DataError:
        return []


def _has_column(table: Path, column: str) -> bool:
    """Whether a Parquet file is damaged or has a column."""
    try:
        with open_parquet(table) as file:
            names = file.schema_arrow.names
    except DataError:
        return True
    return column in names or column.partition(".")[0] in names


def order_of(files: Sequence[Path], folder: Path) -> list[str]:
    """A note about the order of several files."""
    names = [str(path.relative_to(folder)) for path in files]
    if len(names) < 2:
        return []
    shown = names if len(names) <= SHOWN + 1 else [*names[:SHOWN], f"… {names[-1]}"]
    return [f"Shards in the order {', '.join(shown)}"]


def is_table(path: Path) -> bool:
    """Whether a file is Parquet, by its name or its first bytes."""
    return path.suffix.lower() in TABLES or _begins(path, PARQUET)


def is_array(path: Path) -> bool:
    """Whether a file is .npy or .npz, by its name or its first bytes."""
    return path.suffix.lower() in (ARRAY, ".npz") or _begins(path, MAGIC)


def split_column(where: str) -> tuple[Path, str]:
    """`FILE#COLUMN` as file and column; a `#` in an existing file's name is part of it."""
    path = expanded(where)
    if not os.path.lexists(path):
        for sign in re.finditer("#", where):
            file = expanded(where[: sign.start()])
            if sign.start() and (os.path.lexists(file) or file.suffix.lower() in TABLES):
                return file, where[sign.end() :]
    return path, ""


def split_pattern(path: Path) -> tuple[Path, str]:
    """`FOLDER/x*.npy` as folder and pattern; other paths take all."""
    if not path.exists() and set("*?[") & set(path.name):
        return path.parent, path.name
    return path, "*"


def _files(folder: Path, pattern: str) -> list[Path]:
    """The files directly in a folder, without hidden ones and those that begin with `_`."""
    with reading(folder):
        paths = [path for path in folder.iterdir() if path.name[0] not in "._"]
        found = [path for path in paths if fnmatchcase(path.name, pattern) and path.is_file()]
    return sorted(found, key=natural)


def _fail(error: OSError) -> None:
    raise error


def _begins(path: Path, magic: bytes) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(magic)) == magic
    except MrlSearchError:
        return False
