"""Changing the rows of an index: added, removed, described anew; folded in, and written together.

Rows are added as a tail that is compared one by one, and removed by a mark. When the tail is long
it is folded into the prefix indexes, which are not trained again; when much is removed, or the
index has doubled, everything is written together and trained. Each is a generation of its own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.building import write_indexes
from mrl_search.engines.build import extend_indexes
from mrl_search.engines.spec import CLUSTERED_FROM, IndexSpec
from mrl_search.errors import ConfigError, FileError, IndexFolderError, Skipped, require
from mrl_search.files import make_folder
from mrl_search.progress import Progress, silent
from mrl_search.search.exact.sieve import building_sieve
from mrl_search.store.collection import Collection, LeftOut, write_left_out
from mrl_search.store.generations import Change, changing
from mrl_search.store.items import FILE_COLUMNS, fitting, write_items
from mrl_search.store.manifest import (
    DELETED,
    ITEMS,
    LEFT_OUT,
    OF_THE_MODEL,
    SKIPPED,
    VECTORS,
    Manifest,
    Part,
    is_index_file,
    prefix_file,
    read_manifest,
    restorable,
)
from mrl_search.store.rows import Ids
from mrl_search.store.writer import CollectionWriter, write_rows
from mrl_search.vectors import l2_normalize

__all__ = ["Added", "Edit", "apply", "compact", "edited", "maintain", "restore"]

FEW = 1000  # rows that are neither folded nor written together
TAIL = 0.05  # of the indexed rows: a longer tail is folded
DEAD = 0.2  # of all rows: if more are deleted, the rest is written together
GROWN = 2  # times the rows that trained: then the indexes are trained again
MERGED = 2  # a part of the tail of up to so many times the new rows is written with them


@dataclass(frozen=True, eq=False, slots=True)
class Added:
    """New rows.

    Attributes:
        items: one row each; `id` may be null for a new item.
        rows: the vectors as they are stored, some at a time.
    """

    items: pa.Table
    rows: Iterable[NDArray[np.floating]]


@dataclass(frozen=True, eq=False)
class Edit:
    """What one change does to an index.

    Attributes:
        deleted: rows that go.
        items: rows whose columns change, to the columns.
        added: rows that come.
        skipped: the pictures that are left out now; None: as before.
        roots: the folders that are walked now; None: as before.
        left_out: what a sync does not take, by path; None: as before.
    """

    deleted: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    items: Mapping[int, Mapping[str, object]] = field(default_factory=dict)
    added: Added | None = None
    skipped: Sequence[Skipped] | None = None
    roots: Mapping[str, Mapping[str, str]] | None = None
    left_out: Mapping[str, LeftOut] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        same = (self.added, self.skipped, self.roots, self.left_out)
        return not len(self.deleted) and not self.items and all(part is None for part in same)

    @property
    def counts(self) -> dict[str, int]:
        """How many items it adds, removes, moves and edits."""
        new = 0 if self.added is None else self.added.items["id"].null_count
        again = 0 if self.added is None else len(self.added.items) - new
        own = [set(values) - set(FILE_COLUMNS.names) for values in self.items.values()]
        moved = sum("path" in names for names in own)
        described = sum(bool(names) for names in own) - moved
        removed = len(self.deleted) - again
        return {"added": new, "removed": removed, "moved": moved, "edited": again + described}


def apply(
    change: Change, collection: Collection, writer: CollectionWriter, edit: Edit,
    progress: Progress = silent,
) -> Manifest:  # fmt: skip
    """Make a generation of an edit, by a writer of the part `change.out`: its manifest."""
    m, parts = collection.manifest, list(collection.manifest.all_parts)
    gone = np.zeros(m.count, bool) if collection.alive is None else ~collection.alive
    gone[edit.deleted] = True
    table = edited(collection.items.table(), edit.items) if edit.items else None
    files, new = dict(m.files), dict[str, str]()
    next_id = m.next_id or int(collection.items.all_ids.max(initial=-1)) + 1
    if edit.added is not None and edit.added.items.num_rows:
        new_items = fitting(edit.added.items, collection.items.schema)
        count, left = new_items.num_rows, sum(part.rows for part in parts)
        taken = count
        while not parts[-1].indexed and parts[-1].rows <= MERGED * taken:
            last = parts.pop()
            taken, left = taken + last.rows, left - last.rows
            for name in (VECTORS, ITEMS):
                del files[last.file(name)]
        kept = left + np.flatnonzero(~gone[left:])
        old = (table or collection.items.table()).take(kept) if len(kept) else None
        items, next_id = _numbered(new_items, next_id)
        again = (stored for _, stored in collection.vectors.chunks(among=kept))
        writer.write_vectors(len(kept) + count, chain(again, edit.added.rows), progress)
        tables = [old, items] if old is not None else [items]
        writer.write_items(pa.concat_tables(tables, promote_options="permissive"))
        part = Part(change.part, len(kept) + count, indexed=False)
        parts.append(part)
        new |= {part.file(VECTORS): VECTORS, part.file(ITEMS): ITEMS}
        gone = np.concatenate([gone[:left], np.zeros(part.rows, bool)])
    start = 0
    for number, part in enumerate(parts):
        stop = start + part.rows
        if part.file(ITEMS) not in new and any(start <= row < stop for row in edit.items):
            assert table is not None
            name = f"items-{number}.parquet"
            write_items(writer.folder, table.slice(start, part.rows), name)
            new[part.file(ITEMS)] = name
        start = stop
    if gone.any():
        change.write_deleted(gone)
        new[DELETED] = DELETED
    else:
        files.pop(DELETED, None)
    if edit.skipped is not None:
        files.pop(SKIPPED, None)
        (writer.folder / SKIPPED).unlink(missing_ok=True)
        writer.write_skipped(edit.skipped)
        new |= {SKIPPED: SKIPPED} if edit.skipped else {}
    if edit.left_out is not None:
        write_left_out(writer.folder, edit.left_out)
        new[LEFT_OUT] = LEFT_OUT
    counts = edit.counts
    quiet = not any(counts.values()) and (edit.roots in (None, m.roots) or not m.roots)
    return change.counted(**counts).commit(replace(
        m, files=files, parts=tuple(parts), count=len(gone), deleted=int(gone.sum()),
        next_id=next_id, trained=m.trained or m.indexed,
        roots=m.roots if edit.roots is None else edit.roots,
    ), new, quiet=quiet)  # fmt: skip


def maintain(folder: Path, progress: Progress = silent) -> Manifest:
    """Fold a long tail in, or write together an index that lost or gained much.

    An index whose kinds cannot be made of so few rows stays as it is.

    Raises:
        FileError: the system does not read or write a file; what changed before stays.
    """
    m = read_manifest(folder)
    grown = m.alive > max(FEW, GROWN * (m.trained or m.count)) and not m.engine
    try:
        if m.alive and (grown or m.deleted > max(FEW, DEAD * m.count)):
            return compact(folder, progress)
        if m.count - m.indexed > max(FEW, TAIL * m.indexed) and not m.engine:
            return _fold(folder, progress)
    except ConfigError:
        return m
    except FileError as error:
        error.args = (f"The items are changed, but not their prefix indexes: {error.message}",)
        (error.message,) = error.args
        error.hint = f"{error.hint} The next change makes the indexes, too.".strip()
        raise
    return m


def compact(folder: Path, progress: Progress = silent, command: str = "") -> Manifest:
    """Write all items together, without deleted rows, and train their indexes.

    With a `command` of its own, kinds of index that so few rows cannot train are replaced by those
    of a new index.

    Raises:
        ConfigError: nothing is left.
    """
    with changing(folder, command) as change:
        collection = Collection.open(folder)
        m, rows = collection.manifest, collection.live_rows
        if not len(rows):
            message = f"Everything in {folder} is deleted."
            raise ConfigError(message, "Add something, restore a generation, or remove the folder.")
        default = IndexSpec()
        kinds = {
            d: kind for d, kind in m.factory.items()
            if m.engine or kind != default.factory_of(int(d), m.trained or m.count)
        }  # fmt: skip
        dims = tuple(map(int, m.factory))
        spec = IndexSpec(dims, factories=kinds, dtype=m.dtype, engine=m.engine)
        with CollectionWriter.open(change.out, m.dim, m.dtype) as writer:
            living = (stored for _, stored in collection.vectors.chunks(among=rows))
            store = writer.write_vectors(len(rows), living, progress)
            writer.write_items(collection.items.table().take(rows))
            try:
                factory = write_indexes(writer, store, spec, progress)
            except ConfigError:  # so few rows train other kinds alone
                if not command:
                    raise
                spec = replace(spec, factory="auto", factories={})
                factory = write_indexes(writer, store, spec, progress)
            new = {p.name: p.name for p in writer.folder.iterdir() if is_index_file(p.name)}
            files = {name: record for name, record in m.files.items() if name in OF_THE_MODEL}
            next_id = m.next_id or int(collection.items.all_ids.max()) + 1
            return change.commit(replace(
                m, files=files, parts=(Part("", len(rows)),), count=len(rows), deleted=0,
                factory=factory, trained=len(rows), next_id=next_id,
            ), new)  # fmt: skip


def restore(folder: Path, generation: int, check: Callable[[Manifest], None]) -> Manifest:
    """Make a new generation of an old one, which `check` may refuse.

    Raises:
        ConfigError: no number.
        IndexFolderError: it is not kept.
    """
    whole = isinstance(generation, int | np.integer) and not isinstance(generation, bool)
    require(whole, f"generation is {generation!r}; it must be a whole number.")
    with changing(folder, "restore") as change:
        kept = [manifest.generation for manifest in restorable(folder)]
        if generation not in kept:
            hint = f"It has {', '.join(map(str, kept))}." if kept else "It was never changed."
            raise IndexFolderError(f"{folder} has no generation {generation} to restore.", hint)
        old = read_manifest(folder, generation)
        if old.fingerprint != change.before.fingerprint:
            raise IndexFolderError(f"Generation {generation} of {folder} is of another model.")
        check(old)
        next_id = max(old.next_id or old.count, change.before.next_id or change.before.count)
        return change.commit(replace(old, next_id=next_id, parts=old.all_parts))


def _fold(folder: Path, progress: Progress) -> Manifest:
    """Add the tail to the prefix indexes as they are trained."""
    with changing(folder) as change:
        collection = Collection.open(folder)
        m, store = collection.manifest, collection.vectors
        make_folder(change.building)
        start, first = m.indexed, m.all_parts[0]
        try:
            tail = store.between(start, m.count)
            names = extend_indexes(folder, m, tail, change.building, progress)
        except ConfigError:  # a kind that takes no more rows
            names = []
        files = dict(m.files)
        if names or not any(prefix_file(int(d)) in files for d in m.factory):
            if m.count >= CLUSTERED_FROM:
                dims = tuple(sorted(map(int, m.factory)))
                with building_sieve(change.building, m.count, dims, m.dim) as take:
                    for rows, stored in store.chunks():
                        take(rows, l2_normalize(stored))
            write_rows(
                change.building / VECTORS, (m.count - first.rows, m.dim), np.dtype(m.dtype),
                (stored for _, stored in store.chunks(among=np.arange(first.rows, m.count))),
            )  # fmt: skip
            write_items(change.building, collection.items.table().slice(first.rows))
            for part in m.all_parts[1:]:
                for name in (VECTORS, ITEMS):
                    del files[part.file(name)]
            part = Part(change.part, m.count - first.rows)
            new = {p.name: p.name for p in change.building.iterdir() if is_index_file(p.name)}
            del new[VECTORS], new[ITEMS]
            new |= {part.file(VECTORS): VECTORS, part.file(ITEMS): ITEMS}
            return change.commit(replace(m, files=files, parts=(first, part)), new)
    return compact(folder, progress)


def edited(table: pa.Table, items: Mapping[int, Mapping[str, object]]) -> pa.Table:
    """Items with other values in some columns of some rows."""
    import pyarrow.compute as pc

    for name in sorted({name for values in items.values() for name in values}):
        rows = sorted(row for row, values in items.items() if name in values)
        values = [items[row][name] for row in rows]
        if name not in table.column_names:
            at = FILE_COLUMNS.get_field_index(name)
            kind = pa.array(values).type if at < 0 else FILE_COLUMNS.field(at).type
            if pa.types.is_null(kind):
                continue
            table = table.append_column(name, pa.nulls(len(table), kind))
        place = table.schema.get_field_index(name)
        mask = np.zeros(len(table), bool)
        mask[rows] = True
        kind = table.schema.field(name).type
        try:
            new = pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            message = f"Column {name!r} is {kind}; a table or folder gives another now: {error}."
            raise ConfigError(
                message, "Give a column one type, or build the index again."
            ) from error
        column = pc.replace_with_mask(table[name].combine_chunks(), pa.array(mask), new)
        table = table.set_column(place, name, column)
    return table


def _numbered(items: pa.Table, next_id: int) -> tuple[pa.Table, int]:
    """Items with an id each, and the next one."""
    ids = list[int]()
    for value in items["id"].to_pylist():
        ids.append(next_id if value is None else value)
        next_id += value is None
    place = items.schema.get_field_index("id")
    return items.set_column(place, "id", pa.array(ids, pa.int64())), next_id
