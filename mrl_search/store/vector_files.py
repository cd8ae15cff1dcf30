"""Vectors that a user brings: .npy files, Parquet columns of lists, or folders of either.

Files stay on disk and are read some rows at a time. Every row is checked as it is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.errors import DataError
from mrl_search.files import expanded, reading, recordable
from mrl_search.store.numbered_files import (
    is_table,
    order_of,
    shards_in,
    split_column,
    split_pattern,
)
from mrl_search.store.vector_parts import (
    Array,
    Column,
    Part,
    array_part,
    check_dtype,
    column_part,
)  # fmt: skip
from mrl_search.vectors import unit_rows

__all__ = ["VectorSource", "open_queries", "open_vectors", "read_queries", "vectors_in_memory"]

NAMES = "Name a .npy file, FILE.parquet#COLUMN, or a folder of such files."
ONE_MODEL = "All shards must come from one model."
SHOWN = 5  # files that are not read, by name


@dataclass(frozen=True, slots=True)
class VectorSource:
    """Vectors on disk or in memory: the rows of one part after another.

    Attributes:
        place: absolute path of the file or folder.
        parts: the files, all with the same dims.
        notes: the order of the files, and what is not read.
    """

    place: Path
    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The place, with `#COLUMN` for Parquet files."""
        first = self.parts[0]
        place = recordable(self.place)
        return f"{place}#{first.column}" if isinstance(first, Column) else place

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

    def between(self, start: int, stop: int) -> "VectorSource":
        """The rows from `start` to before `stop`; of none, the first part without rows."""
        found, begin = list[Part](), 0
        for part in self.parts:
            first, last = max(start - begin, 0), min(stop - begin, part.count)
            if first < last:
                found.append(replace(part, first=part.first + first, count=last - first))
            begin += part.count
        return replace(self, parts=tuple(found) or (replace(self.parts[0], count=0),))

    def read(self) -> Iterator[NDArray[np.floating]]:
        """All rows in order, some at a time: (rows, dim) as they are in the file.

        Raises:
            DataError: a row that is not finite, all zeros, or of other dims, or a damaged file.
            FileError: the system does not read a file.
        """
        for part in self.parts:
            start = part.first
            with reading(part.path):
                for rows in part.read():
                    _check_rows(rows, start, part.path)
                    yield rows
                    start += len(rows)


def open_vectors(where: VectorSource | NDArray[np.floating] | str | Path) -> VectorSource:
    """Open vectors in a .npy file, a Parquet column, or a folder of such files.

    The files of a folder are read by the numbers in their names: `x2.npy` before `x10.npy`.
    `FOLDER/x*.npy` takes some of them. An array is a source in memory, and a source stays as it is.

    Parquet files with several columns of vectors need `#COLUMN`. Only headers are read.

    Raises:
        DataError: nothing there, not two-dimensional float16, bfloat16, float32 or float64, or
            mixed dims.
        FileError: the system does not open a file.
    """
    if isinstance(where, VectorSource):
        return where
    if not isinstance(where, str | Path):
        return vectors_in_memory(np.asarray(where))
    path, column = split_column(str(where))
    folder, pattern = split_pattern(path)
    with reading(folder):
        if not folder.exists():
            raise DataError(f"There is nothing at {where}.", NAMES)
    files, notes = [folder], []
    if folder.is_dir():
        files, column, others = shards_in(folder, pattern, column)
        notes = order_of(files, folder)
        if others:
            more = ", …" if len(others) > SHOWN else ""
            notes.append(f"not read as vectors: {', '.join(others[:SHOWN])}{more}")
        if not files:
            hint = "Shards of vectors are .npy files directly in the folder, or Parquet files."
            raise DataError(f"There is no .npy file in {path}.", hint)
    parts: list[Part] = []
    for file in files:
        if column or is_table(file):
            parts.append(found := column_part(file, column))
            column = found.column
        else:
            parts.append(array_part(file))
    parts = [part for part in parts if part.count]
    for part in parts:
        if part.dim != parts[0].dim:
            other = f"{parts[0].path.name} has {parts[0].dim}"
            raise DataError(f"{part.path} has {part.dim} dims; {other}.", ONE_MODEL)
    if not parts:
        raise DataError(f"{path} holds no vector.")
    return VectorSource(path.resolve(), tuple(parts), tuple(notes))


def vectors_in_memory(array: NDArray[np.floating], name: str = "array") -> VectorSource:
    """An array (n, dim) of float16, float32 or float64 as a source."""
    path = Path(name)
    dtype = check_dtype(array.dtype, path)
    if array.ndim != 2 or not array.size:
        message = f"The array has shape {array.shape}, not (rows, dims)."
        raise DataError(message, "One row a vector.")
    return VectorSource(path, (Array(path, len(array), array.shape[1], dtype, array),))


def open_queries(where: str | Path) -> VectorSource:
    """Open query vectors as `open_vectors` does; a one-dimensional .npy file is one query."""
    path = expanded(where)
    if path.is_file() and not is_table(path):
        array = open_array(path)
        if array.ndim == 1 and array.size:
            return vectors_in_memory(array[None], str(path))
    return open_vectors(where)


def read_queries(where: VectorSource | str | Path) -> NDArray[np.float32]:
    """Read query vectors: (n, dim) float32 of unit norm. A one-dimensional .npy file is one query.

    Raises:
        DataError, FileError: as `open_vectors` and `VectorSource.read`.
    """
    source = where if isinstance(where, VectorSource) else open_queries(where)
    return np.concatenate([unit_rows(rows)[0].astype(np.float32) for rows in source.read()])


def _check_rows(rows: NDArray[np.floating], start: int, path: Path) -> None:
    def refuse(bad: NDArray[np.bool_], what: str, hint: str = "Remove such rows.") -> None:
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise DataError(f"Row {start + row} of {path} {what.format(largest[row])}.", hint)

    largest = np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64)
    limits = np.finfo(np.float32)
    refuse(~np.isfinite(largest), "has NaN or infinity")
    refuse(largest == 0, "is all zeros")
    far = (largest > float(limits.max) / 2**16) | (largest < float(limits.tiny))
    hint = "Multiply all rows by a constant; it changes no cosine."
    refuse(far, "has values up to {:.3g}: beyond float32", hint)
