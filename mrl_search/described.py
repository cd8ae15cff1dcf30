"""What a picture is told of by where it lies: its label, and the columns of tables beside it."""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from mrl_search.changes import Changes
from mrl_search.files import expanded
from mrl_search.images.base import Columns, FileSource, Source
from mrl_search.images.folders import folder_source
from mrl_search.images.scan import Scan, scan
from mrl_search.images.walk import File
from mrl_search.store.collection import Collection as Rows
from mrl_search.store.items import FILE_COLUMNS, free_names

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
        """Columns of pictures that stay, as tables beside them tell now; by row, what differs."""
        pairs = zip(self.roots.items(), self.scans, strict=True)
        tables = {root: (how, each) for (root, how), each in pairs if each.tables}
        if not tables:
            return {}
        some = Walks({r: how for r, (how, _) in tables.items()}, [s for _, s in tables.values()])
        stay = {rows.paths[row]: row for row in (*found.same, *(row for row, _ in found.touched))}
        files = [file for each in some.scans for file in each.pictures if file.path in stay]
        differ, known = dict[int, Columns](), set(rows.items.column_names)
        for path, values in some.columns_of(files).items():
            row = stay[path]
            own = {n: v for n, v in values.items() if n not in ("path", *FILE_COLUMNS.names)}
            then = {n: rows.items.value(n, row) if n in known else None for n in own}
            other = {n: v for n, v in own.items() if v != then[n]}
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
                yield folder_source(found.walk, [*places, *found.tables], how.get("labels", ""))
            else:
                yield FileSource(root, [here[0].path], [None])


def stamp(file: File) -> Columns:
    """The columns by which a later sync knows that a file is the same."""
    values = (file.size, file.modified, file.inode)
    return dict(zip(FILE_COLUMNS.names, values, strict=True))
