"""What a picture is told of by where it lies: its label, and the columns of tables beside it."""

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from mrl_search.changes import Changes
from mrl_search.files import expanded
from mrl_search.images.base import FileSource, Source
from mrl_search.images.folders import folder_source
from mrl_search.images.scan import Scan
from mrl_search.images.walk import File
from mrl_search.store.collection import Collection as Rows
from mrl_search.store.items import FILE_COLUMNS

__all__ = ["Roots", "columns_anew", "columns_of", "joined_source", "stamp"]

FILLER = "\0"  # a column in place of none

Roots = Mapping[str, Mapping[str, str]]
"""Folders that are walked, and how: `labels` and `hidden` of `open_source`."""


def joined_source(files: Sequence[File], scans: Sequence[Scan], roots: Roots) -> Source:
    """The pictures at `files`, with the labels and columns that a build would give them."""
    parts = list(_sources(files, scans, roots))
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


def _sources(files: Sequence[File], scans: Sequence[Scan], roots: Roots) -> Iterator[Source]:
    """The files of each root as a source."""
    wanted = {file.path for file in files}
    for (root, how), found in zip(roots.items(), scans, strict=True):
        here = [f for f in found.pictures if f.path in wanted]
        wanted -= {f.path for f in here}
        if not here:
            continue
        if found.walk.root.is_dir():
            places = [expanded(f.path) for f in here]
            yield folder_source(found.walk, [*places, *found.tables], how.get("labels", ""))
        else:
            yield FileSource(root, [here[0].path], [None])


def columns_of(
    files: Sequence[File], scans: Sequence[Scan], roots: Roots, known: Sequence[str]
) -> dict[str, Mapping[str, object]]:
    """The columns that depend on where a picture is, of those that are `known`, by its path."""
    stamps = {file.path: stamp(file) for file in files}
    found: dict[str, Mapping[str, object]] = {}
    for source in _sources(files, scans, roots):
        columns = source.columns
        rows = [{}] * len(source.paths) if columns is None else columns.to_pylist()
        for path, label, row in zip(source.paths, source.labels, rows, strict=True):
            own = {name: value for name, value in row.items() if name in known}
            found[path] = {**own, "path": path, "label": label, **stamps[path]}
    return found


def columns_anew(
    rows: Rows, found: Changes, scans: Sequence[Scan], roots: Roots
) -> dict[int, Mapping[str, object]]:
    """Columns of pictures that stay, as tables beside them tell now; by row, what differs."""
    tables = [(each, root) for each, root in zip(scans, roots, strict=True) if each.tables]
    stay = {rows.paths[row]: row for row in (*found.same, *(row for row, _ in found.touched))}
    files = [file for each, _ in tables for file in each.pictures if file.path in stay]
    names = rows.items.column_names
    described = columns_of(files, [s for s, _ in tables], {r: roots[r] for _, r in tables}, names)
    differ = dict[int, Mapping[str, object]]()
    for path, values in described.items():
        row = stay[path]
        own = {n: v for n, v in values.items() if n not in ("path", *FILE_COLUMNS.names)}
        other = {n: v for n, v in own.items() if v != rows.items.value(n, row)}
        if other:
            differ[row] = other
    return differ


def stamp(file: File) -> Mapping[str, object]:
    """The columns by which a later sync knows that a file is the same."""
    values = (file.size, file.modified, file.inode)
    return dict(zip(FILE_COLUMNS.names, values, strict=True))
