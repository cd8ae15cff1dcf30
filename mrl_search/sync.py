"""Keeping an index as its pictures are: what is added, removed, moved and edited.

Every function changes the index folder by generations of its own (see `mrl_search.living`).
"""

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.building import entry_of
from mrl_search.changes import Changes, Recorded, compare
from mrl_search.described import Roots, Walks, stamp
from mrl_search.encoders.base import Encoder
from mrl_search.errors import ConfigError, MrlSearchError, Skipped
from mrl_search.files import expanded
from mrl_search.images.base import Source
from mrl_search.images.scan import hash_file
from mrl_search.images.walk import File, is_hidden
from mrl_search.living import Added, Edit, apply, edited, maintain
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection as Rows
from mrl_search.store.collection import LeftOut, left_out_of
from mrl_search.store.generations import Change, changing
from mrl_search.store.items import FILE_COLUMNS
from mrl_search.store.manifest import Manifest
from mrl_search.store.rows import Ids
from mrl_search.store.writer import RAW, CollectionWriter
from mrl_search.synced import Synced, note_walks, unchanged

__all__ = ["applied", "check_unwalked", "is_walked", "roots_of", "sync"]

CHUNK = 2048  # pictures that are embedded between two generations
BY_PATH = attrgetter("path")
TINY = 32  # pixels a side, to see whether a picture can be decoded


def sync(
    folder: Path, encoder: Callable[[], Encoder], *, only: Roots | None = None,
    dry_run: bool = False, meant: bool = False, progress: Progress = silent,
) -> Synced:  # fmt: skip
    """Walk the folders that an index was built from, and make it as they are.

    Args:
        folder: the index folder.
        encoder: opens its model, if there is something to embed.
        only: folders to add, and how they are walked (see `Manifest.roots`); no other is walked,
            but for a known one around them.
        dry_run: as of `Index.sync`, like `meant`.
        meant: whether pictures of a folder that is gone as a whole go, too.
        progress: called with what is being done, how far, and of how much.

    Raises:
        ConfigError: an index that was not built from folders of pictures.
        IndexFolderError: another process changes it.
    """
    if only is None and (same := unchanged(folder)):
        return same
    with changing(folder, "sync" if only is None else "add") as change:
        rows = Rows.open(folder)
        roots, walked = _walked(folder, rows.manifest, only)
        live = rows.live_rows
        paths, known = rows.paths, set(rows.paths[live].tolist())
        walks = Walks.of(walked, roots, known)
        gone_too = list(roots) if meant else ()
        found = compare(_recorded(rows, live), walks.scans, meant=gone_too, progress=progress)
        known_bad = {entry.path for entry in rows.skipped}
        before = left_out_of(folder, rows.manifest)
        found, skipped = _without_skipped(found, rows.skipped)
        if only is None:
            left_out = before | _renamed(found.new, before)
        else:
            left_out = {p: one for p, one in before.items() if not _within(p, only)}
        new = [file for file in found.new if file.path not in left_out]
        copied = [(row, file) for row, file in found.copied if file.path not in left_out]
        hidden = len(found.new) + len(found.copied) - len(new) - len(copied)
        found = replace(found, new=new, copied=copied)
        gone = tuple(f"{root}: " for root in found.lost_roots)
        kept = [(row, why) for row, why in found.kept if only is None and not why.startswith(gone)]
        described = walks.columns_anew(rows, found)
        result = Synced(
            tuple(file.path for file in new),
            tuple(paths[row] for row in found.gone),
            tuple((paths[row], f.path) for row, f in found.moved),
            tuple(f.path for _, f in found.edited),
            tuple(paths[row] for row in described),
            tuple(f.path for _, f in copied),
            len(found.same) + len(found.touched),
            unread=(*found.unread, *((paths[row], why) for row, why in kept)),
            lost=found.lost_roots, left_out=hidden, outside=walks.outside,
            generation=rows.manifest.generation, items=rows.manifest.alive,
        )  # fmt: skip
        own = {file: int(rows.items.all_ids[row]) for row, file in found.edited}
        todo = [*found.new, *own]
        if dry_run:
            return _without(result, [*skipped, *_broken(walks.source(todo), progress)], known_bad)
        edit = _without_embedding(rows, found, described, walks)
        edit = edit if left_out == before else replace(edit, left_out=left_out)

        def ended(edit: Edit) -> Edit:
            now, then = (sorted(each, key=BY_PATH) for each in (skipped, rows.skipped))
            edit = edit if now == then else replace(edit, skipped=now)
            more = only is not None and roots != rows.manifest.roots
            return replace(edit, roots=roots) if more or not edit.empty else edit

        if not todo:
            applied(change, rows, ended(edit))
        for start in range(0, len(todo), CHUNK):
            some, m = todo[start : start + CHUNK], rows.manifest
            with CollectionWriter.open(change.out, m.dim, m.dtype, file=RAW) as writer:

                def done(count: int, start: int = start) -> None:
                    progress("embedding", start + count, len(todo))

                edit, bad = _embedded(edit, rows, writer, some, own, walks, encoder(), done)
                skipped += bad
                edit = ended(edit) if start + CHUNK >= len(todo) else edit
                if not edit.empty:
                    made = apply(change, rows, writer, replace(edit, roots=roots))
                    change, rows, edit = change.after(made), Rows.open(folder), Edit()
    manifest = maintain(folder, progress)
    result = _without(result, skipped, known_bad)
    result = replace(result, generation=manifest.generation, items=manifest.alive)
    if only is None and not result.unread and not result.lost:
        note_walks(folder, {each.root: each.digest for each in walks.scans}, result)
    return result


def _without(result: Synced, skipped: Sequence[Skipped], before: Container[str]) -> Synced:
    """What a sync did, where some of the pictures that it was to embed cannot be read."""
    unusable = {entry.path for entry in skipped}
    skipped = sorted(skipped, key=BY_PATH)
    return replace(
        result, skipped=tuple(skipped),
        new_skipped=tuple(entry for entry in skipped if entry.path not in before),
        added=tuple(p for p in result.added if p not in unusable),
        edited=tuple(p for p in result.edited if p not in unusable),
        removed=(*result.removed, *(p for p in result.edited if p in unusable)),
    )  # fmt: skip


def _broken(source: Source, progress: Progress) -> Iterator[Skipped]:
    """The pictures of a source that cannot be decoded."""
    from mrl_search.encoders.base import Preprocessing
    from mrl_search.images.reading import read_pictures

    pictures = read_pictures(source, Preprocessing(TINY).decode)
    for done, picture in enumerate(pictures, 1):
        progress("reading", done, len(source.paths))
        if isinstance(picture, Skipped):
            yield picture


def _renamed(files: Iterable[File], left_out: Mapping[str, LeftOut]) -> dict[str, LeftOut]:
    """Those of some files that have the bytes of pictures that were removed by hand, by path."""
    contents = {one.hash: one for one in left_out.values() if one.hash}
    sizes, found = {one.bytes for one in contents.values()}, dict[str, LeftOut]()
    for file in files if contents else ():
        if file.path not in left_out and (file.size in sizes or None in sizes):
            with suppress(MrlSearchError):  # what cannot be read is told when it is embedded
                if one := contents.get(hash_file(file)):
                    found[file.path] = one
    return found


def _walked(folder: Path, manifest: Manifest, only: Roots | None) -> tuple[Roots, Roots]:
    """All folders of an index after a sync, and those that are walked by it."""
    if only is None:
        roots = roots_of(folder, manifest)
        return roots, roots
    try:
        roots = roots_of(folder, manifest)
    except ConfigError:
        roots = {}
    above = {
        root: next((known for known, how in roots.items() if _walks(known, how, root)), root)
        for root in only
    }  # labels and columns depend on the root
    roots |= {root: how for root, how in only.items() if above[root] == root not in roots}
    return roots, {root: roots[root] for root in above.values()}


def _walks(root: str, how: Mapping[str, str], path: str) -> bool:
    """Whether the walk of a root comes to a path below it, which may be in a hidden folder."""
    if not _within(path, (root,)):
        return False
    parts = expanded(path).relative_to(expanded(root)).parts
    return bool(how.get("hidden")) or not any(map(is_hidden, parts))


def check_unwalked(folder: Path, manifest: Manifest, root: str) -> None:
    """Raise ConfigError where a folder is walked already, in the way of its own root."""
    known = [other for other in manifest.roots if _within(root, (other,))]
    if known:
        message = f"{root} is in {known[0]}, which {folder} walks as it was built."
        raise ConfigError(message, "Leave --labels and --hidden out.")


def _within(path: str, roots: Iterable[str]) -> bool:
    return any(expanded(path).is_relative_to(expanded(root)) for root in roots)


def roots_of(folder: Path, manifest: Manifest) -> dict[str, Mapping[str, str]]:
    """The folders that an index is made of, and how they are walked.

    Raises:
        ConfigError: it was built from something else.
    """
    if manifest.roots:
        return dict(manifest.roots)
    root = manifest.root
    if root and root == manifest.source and expanded(root).exists():
        return {root: {}}  # of version 0.2 and before
    what = "your own vectors" if manifest.own_vectors else f"{manifest.source!r}, not of a folder"
    hint = f"Build it again, or change it with: mrl-search add {folder} and mrl-search remove"
    raise ConfigError(f"{folder} is made of {what}: there is nothing to walk.", hint)


def is_walked(folder: Path, manifest: Manifest) -> bool:
    """Whether an index was built from folders."""
    try:
        return bool(roots_of(folder, manifest))
    except ConfigError:
        return False


def _recorded(rows: Rows, live: Ids) -> Recorded:
    """What an index recorded of its live rows."""

    def column(name: str) -> list[int | None]:
        if name not in rows.items.column_names:
            return [None] * len(live)
        chunks = (chunk.view(pa.int64()) for chunk in rows.items[name].chunks)
        values = [value for chunk in chunks for value in chunk.to_pylist()]
        return [values[row] for row in live]  # Arrow imports pandas to take rows

    paths, hashes = rows.paths[live].tolist(), rows.hashes[live].tolist()
    facts = list(zip(*map(column, FILE_COLUMNS.names), strict=True))
    bad = rows.skipped  # as rows before the first, of no content
    paths += [entry.path for entry in bad]
    hashes += [""] * len(bad)
    facts += [entry.stamp or (None, None, None) for entry in bad]
    return Recorded(paths, hashes, facts, [*live.tolist(), *range(-1, -1 - len(bad), -1)])


def _without_skipped(found: Changes, skipped: Sequence[Skipped]) -> tuple[Changes, list[Skipped]]:
    """The changes of items alone, and the skipped pictures that are as they were."""
    rows = [*found.same, *(row for row, _ in found.kept)]
    changed = [file for row, file in found.edited if row < 0]
    items = replace(
        found,
        same=[row for row in found.same if row >= 0],
        edited=[(row, file) for row, file in found.edited if row >= 0],
        gone=[row for row in found.gone if row >= 0],
        kept=[(row, why) for row, why in found.kept if row >= 0],
        new=sorted([*found.new, *changed]),
    )
    return items, [skipped[-1 - row] for row in rows if row < 0]


def _without_embedding(
    rows: Rows, found: Changes, anew: Mapping[int, Mapping[str, object]], walks: Walks
) -> Edit:
    """Remove what is gone, note what moved or was touched, and let copies take over vectors."""
    items = {row: stamp(file) for row, file in found.touched}
    for row, differ in anew.items():
        items[row] = {**items.get(row, {}), **differ}
    places = walks.columns_of(file for _, file in (*found.moved, *found.copied))
    items |= {row: places[file.path] for row, file in found.moved}
    added = None
    if found.copied:
        of = np.array([row for row, _ in found.copied])
        table = rows.items.table().take(pa.array(of))
        table = table.set_column(0, "id", pa.nulls(len(of), pa.int64()))
        values = {i: places[file.path] for i, (_, file) in enumerate(found.copied)}
        added = Added(edited(table, values), [rows.vectors.rows(of)])
    return Edit(np.array(found.gone, np.int64), items, added)


def _embedded(
    edit: Edit, rows: Rows, writer: CollectionWriter, files: Sequence[File],
    ids: Mapping[File, int], walks: Walks, encoder: Encoder, progress: Callable[[int], None],
) -> tuple[Edit, list[Skipped]]:  # fmt: skip
    """An edit with new and edited pictures, embedded; and those that cannot be."""
    from mrl_search.encoders.embed import embed

    own = {file.path: ids[file] for file in files if file in ids}
    old = np.flatnonzero(np.isin(rows.items.all_ids, list(own.values())))
    old = old if rows.alive is None else old[rows.alive[old]]
    edit = replace(edit, deleted=np.concatenate([edit.deleted, old]))
    writer.keep(0)
    source = walks.source(files)
    bad, stamps = list[Skipped](), {file.path: file[1:4] for file in files}
    for batch in embed(source, encoder):
        bad += [
            entry._replace(stamp=stamps[entry.path])
            for entry in batch.entries if isinstance(entry, Skipped)
        ]  # fmt: skip
        writer.append(batch.rows, [entry_of(e) for e in batch.entries], rows.transform)
        progress(writer.read)
    if not writer.kept:
        return edit, bad
    store = writer.finish_rows(source.name, source.columns)
    table = writer.items
    assert table is not None
    kept = [own.get(path) for path in table["path"].to_pylist()]
    table = table.set_column(0, "id", pa.array(kept, pa.int64()))
    stored: Iterable[NDArray[np.floating]] = (rows for _, rows in store.chunks())
    if edit.added is not None:
        table = pa.concat_tables([edit.added.items, table], promote_options="permissive")
        stored = chain(edit.added.rows, stored)
    return replace(edit, added=Added(table, stored)), bad


def applied(
    change: Change, rows: Rows, edit: Edit, progress: Progress = silent
) -> tuple[Change, Rows]:
    """Make a generation of an edit, if it changes anything; what comes next starts from it."""
    if edit.empty:
        return change, rows
    m = rows.manifest
    with CollectionWriter.open(change.out, m.dim, m.dtype) as writer:
        made = apply(change, rows, writer, edit, progress)
    return change.after(made), Rows.open(change.folder)
