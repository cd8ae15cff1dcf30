"""What a picture is told of by where it lies: its label, and the columns of tables beside it."""

import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import pyarrow as pa

from mrl_search.changes import Changes
from mrl_search.errors import BrokenImage
from mrl_search.files import expanded
from mrl_search.images.base import Columns, FileSource, Source, read_file
from mrl_search.images.exif import exif_columns
from mrl_search.images.folders import FOLDER, folder_source, label_of
from mrl_search.images.scan import Scan, scan
from mrl_search.images.walk import File
from mrl_search.store.collection import Collection as Rows
from mrl_search.store.items import EXIF_COLUMNS, FILE_COLUMNS, free_names

__all__ = ["Roots", "Walks", "stamp"]

FILLER = "\0"  # a column in place of none

Roots = Mapping[str, Mapping[str, str]]
"""Folders that are walked, and how: `labels` and `hidden` of `open_source`."""


@dataclass(frozen=True, slots=True)
class Walks:
    """The folders that a sync walks, and what it found there.

    Attributes:
        roots: those that it walks, and how.
        scans: of these, in their order.
    """

    roots: Roots
    scans: Sequence[Scan]

    @classmethod
    def of(cls, walked: Roots, every: Iterable[str], known: Container[str]) -> "Walks":
        """Walk some of the roots of an index; see `scan` for the paths that are `known`."""
        links = list(every)
        scans = [scan(root, bool(how.get("hidden")), known, links) for root, how in walked.items()]
        return cls(walked, scans)

    @property
    def outside(self) -> int:
        """How many links lead out of all roots."""
        return sum(len(each.walk.outside) for each in self.scans)

    def source(self, files: Sequence[File]) -> Source:
        """The pictures at `files`, with the labels and columns that a build would give them."""
        parts = list(self._sources(files))
        columns = None
        if any(part.columns is not None for part in parts):  # nulls for those that have none
            rows = [part.columns or pa.table({FILLER: pa.nulls(len(part.paths))}) for part in parts]
            columns = pa.concat_tables(rows, promote_options="permissive")
            columns = columns.select([name for name in columns.column_names if name != FILLER])
        return FileSource(
            ", ".join(part.name for part in parts),
            [path for part in parts for path in part.paths],
            [label for part in parts for label in part.labels],
            columns=columns,
        )

    def columns_of(self, files: Iterable[File]) -> dict[str, Columns]:
        """The columns that depend on where a picture is, by its path."""
        files = list(files)
        stamps = {file.path: stamp(file) for file in files}
        found: dict[str, Columns] = {}
        for source in self._sources(files):
            columns = source.columns
            rows: list[dict[str, object]] = [{}] * len(source.paths)
            if columns is not None:
                names = free_names(columns.column_names).values()
                rows = columns.rename_columns(list(names)).to_pylist()
            for path, label, row in zip(source.paths, source.labels, rows, strict=True):
                found[path] = {**row, "path": path, "label": label, **stamps[path]}
        return found

    def columns_anew(self, rows: Rows, found: Changes) -> dict[int, Columns]:
        """Columns of pictures that stay, as tables beside them tell now; by row, what differs.

        What a table told that is gone, or that has no such column any more, goes. Where it may have
        stood in place of what EXIF tells, the picture is read again.
        """
        items = rows.items
        stay = {rows.paths[row]: row for row in (*found.same, *(row for row, _ in found.touched))}
        plain = {FOLDER, *EXIF_COLUMNS.names, *FILE_COLUMNS.names}
        told = [n for n in items.own_columns if n not in plain]
        told = [n for n in told if items[n].null_count < items.num_rows]
        some = [
            (root, how, each)
            for (root, how), each in zip(self.roots.items(), self.scans, strict=True)
            if each.tables or told or _labelled_by_table(how, each, rows, stay)
        ]
        walks = Walks({root: how for root, how, _ in some}, [each for _, _, each in some])
        files = [file for each in walks.scans for file in each.pictures if file.path in stay]
        tabled = {file.path for each in walks.scans if each.tables for file in each.pictures}
        differ, known = dict[int, Columns](), set(items.column_names)
        for path, values in walks.columns_of(files).items():
            row = stay[path]
            own = {n: v for n, v in values.items() if n not in ("path", *FILE_COLUMNS.names)}
            own |= dict.fromkeys(name for name in told if name not in own)
            then = {n: items.value(n, row) if n in known else None for n in own}
            other = {n: v for n, v in own.items() if v != then[n]}
            if any(n in other and n not in values for n in told) or (other and path not in tabled):
                other |= _exif_anew(rows, row, path, values)
            if other:
                differ[row] = other
        return differ

    def _sources(self, files: Sequence[File]) -> Iterator[Source]:
        """The files of each root as a source."""
        wanted = {file.path for file in files}
        for (root, how), found in zip(self.roots.items(), self.scans, strict=True):
            here = [f for f in found.pictures if f.path in wanted]
            wanted -= {f.path for f in here}
            if not here:
                continue
            if found.walk.root.is_dir():
                places = [expanded(f.path) for f in here]
                labels = how.get("labels", "")
                if labels == "metadata" and not found.tables:  # they are gone, and so are these
                    labels = "none"
                yield folder_source(found.walk, [*places, *found.tables], labels)
            else:
                yield FileSource(root, [here[0].path], [None])


def _labelled_by_table(
    how: Mapping[str, str], found: Scan, rows: Rows, stay: Mapping[str, int]
) -> bool:
    """Whether pictures have labels that they can only have from a table, which is gone."""
    if (labels := how.get("labels", "")) not in ("", "metadata"):
        return False

    @cache
    def by_folder(folder: str) -> str | None:
        return None if labels or folder == found.root else label_of(os.path.basename(folder))  # noqa: PTH119

    return any(
        rows.labels[stay[file.path]] != by_folder(os.path.dirname(file.path))  # noqa: PTH120
        for file in found.pictures
        if file.path in stay
    )


def _exif_anew(rows: Rows, row: int, path: str, values: Container[str]) -> Columns:
    """What EXIF tells of a picture in place of a table, as its columns have it; what differs."""
    try:
        told = exif_columns(read_file(path))
    except BrokenImage:  # it stays as it is
        return {}
    differ = dict[str, object]()
    for column in EXIF_COLUMNS:
        name, at = column.name, rows.items.schema.get_field_index(column.name)
        if at < 0 or name in values:
            continue
        try:
            value = pa.scalar(told.get(name), column.type).cast(rows.items.schema.field(at).type)
            new = value.as_py()
        except pa.ArrowException:  # a user's column of another type
            new = None
        if new != rows.items.value(name, row):
            differ[name] = new
    return differ


def stamp(file: File) -> Columns:
    """The columns by which a later sync knows that a file is the same."""
    values = (file.size, file.modified, file.inode)
    return dict(zip(FILE_COLUMNS.names, values, strict=True))
