"""A collection in Milvus follows an index folder: filled, and brought up to date.

The folder stays whole: items and vectors are on its disk, and what `sync` and the like decide is
decided there. The collection has the living rows. What it may have is noted in the folder before
anything is sent, and what it has for certain afterwards, so whatever is killed goes on later:
writing a row again, or removing one that is gone, changes nothing. What is damaged is sent again.
"""

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.engines.milvus import MOST_FIELDS, Remote
from mrl_search.engines.milvus_client import Damaged, Foreign, Place, check_file, connected
from mrl_search.engines.milvus_made import of_another
from mrl_search.engines.milvus_note import (
    Note,
    check_stamp,
    forget,
    ids_file,
    note_of,
    sending,
    state_of,
    token_of,
    write_note,
)
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, EngineError
from mrl_search.files import claim, write_atomically
from mrl_search.mapping import to_mapping
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection
from mrl_search.store.generations import changing
from mrl_search.store.manifest import (
    ITEMS,
    OF_THE_MODEL,
    SIEVE,
    VECTORS,
    Manifest,
    prefix_file,
    read_manifest,
)
from mrl_search.text import json_value
from mrl_search.vectors import l2_normalize

__all__ = [
    "check_engine", "check_free", "check_own", "copy_to", "drop", "follow", "is_left", "unfilled",
]  # fmt: skip

BESIDE = {name: Path(name).stem for name in OF_THE_MODEL}
"""Files of an index that are kept beside the rows, and their names there."""
WAIT = 30.0  # seconds for another process that changes the index
STAMPS = 1000  # of a place that are noted: by them an older file is known to be its own
SETTLED = 100  # rows that were sent; fewer would make many small files
SAMPLED, CLOSE = 100, 2e-3  # rows that are compared, and how near their numbers must be


def check_engine(spec: IndexSpec, count: int, token: str = "") -> None:
    """Check an engine before anything is embedded for it, or `count` rows are sent there.

    The collection of the index that has this `token` may be there.

    Raises:
        ConfigError: a place that is not one, too many prefixes, or a kind that Milvus lacks.
        EngineError: it does not answer, or has a collection of that name.
    """
    place = Place.parse(spec.engine)
    if len(spec.dims) > MOST_FIELDS:
        message = f"Milvus takes {MOST_FIELDS} prefixes at most, not {len(spec.dims)}."
        raise ConfigError(message, "Choose some: --dims 16,64,1024.")
    for d in spec.dims:
        spec.factory_of(d, count)
    if place.is_file and not Path(place.uri).exists():
        check_file(Path(place.uri))
    owner = Remote.owner(place)
    if owner is not None and (not token or owner != token):
        hint = "Choose another name"
        hint += f", or remove it: mrl-search remove '{place}'" if owner else ""
        raise EngineError(f"There is a collection {place} already.", f"{hint}.")


def check_free(folder: Path) -> None:
    """Check that no other process has the file of Milvus Lite of an index, before it is changed.

    Raises:
        EngineError: one has.
    """
    engine = read_manifest(folder).engine
    if engine and Place.parse(engine).is_file:
        connected(Place.parse(engine))


def unfilled(folder: Path, spec: IndexSpec, source: str = "", fingerprint: str = "") -> bool:
    """Whether a build of an index was stopped when only its collection was not filled.

    The build may go on if it has this spec, source and fingerprint of a model; "" for any.
    """
    if not spec.engine:
        return False
    m, place = read_manifest(folder), Place.parse(spec.engine)
    same = m.engine == str(place) and set(map(str, spec.dims)) <= set(m.factory)
    if not same or source not in ("", m.source) or fingerprint not in ("", m.fingerprint):
        return False
    note = note_of(folder, place)
    return note is None or not note.state


def check_own(folder: Path, m: Manifest) -> None:
    """Check that the collection of an older generation is still that of its index, or is gone.

    Raises:
        EngineError: it belongs to another index now, or does not answer.
    """
    if m.engine and Remote.owner(Place.parse(m.engine)) not in (None, token_of(folder)):
        raise of_another(Place.parse(m.engine))


def is_left(folder: Path, before: str) -> bool:
    """Whether the collection that an index asked before is still its own, if it asks another."""
    if before in ("", read_manifest(folder).engine):
        return False
    with suppress(EngineError):  # who knows
        return Remote.owner(Place.parse(before)) == token_of(folder)
    return False


def drop(place: str) -> None:
    """Remove a collection that mrl-search made.

    Raises:
        EngineError: it does not answer, has no such collection, or another program made it.
    """
    where = Place.parse(place)
    owner = Remote.owner(where)
    if not owner:
        what = "There is no" if owner is None else "mrl-search did not make the"
        raise EngineError(f"{what} collection {where}.", "Check the name.")
    Remote.drop(where)


def follow(folder: Path, progress: Progress = silent) -> None:
    """Bring the collection of an index to what its folder has; without one, do nothing.

    Raises:
        EngineError: it does not answer, refuses, or is that of another index.
        IndexFolderError: another process changes the index.
    """
    engine = read_manifest(folder).engine
    if not engine:
        return
    try:
        with claim(folder, wait=WAIT):
            collection = Collection.open(folder)
            _follow(folder, collection, progress)
            forget(folder, Place.parse(collection.manifest.engine))
    except Foreign as error:
        raise EngineError(error.message, f"{folder} has the change. {error.hint}") from error
    except EngineError as error:
        hint = f"{folder} has the change. To send it: {sending(Place.parse(engine), folder)}"
        raise EngineError(error.message, f"{error.hint} {hint}") from error


def _follow(folder: Path, collection: Collection, progress: Progress) -> None:
    """Bring a collection to what its folder has; what is damaged is sent again, once."""
    place = Place.parse(collection.manifest.engine)
    try:
        _update(folder, collection, place, progress)
    except Damaged:
        note = note_of(folder, place)
        if place.is_file and note is not None and note.made:
            Remote.drop(place)
        write_note(folder, place, Note(stamp=note.stamp, older=note.older) if note else Note())
        _update(folder, collection, place, progress)


def _made(folder: Path, m: Manifest, place: Place) -> tuple[Remote, Note]:
    """The collection of an index, made if it is not there, and what is noted of it."""
    token, note = token_of(folder, secrets.token_hex(8)), note_of(folder, place)
    if note is None:
        ids_file(folder, place).unlink(missing_ok=True)
        if Remote.owner(place) == token:  # of an earlier copy: nothing is known of it
            Remote.drop(place)
        note = Note()
        write_note(folder, place, note)
    about = {"fingerprint": m.fingerprint, "dim": m.dim, "token": token}
    remote = Remote.create(place, {int(d): kind for d, kind in m.factory.items()}, about)
    return remote, replace(note, made=True)


def _update(folder: Path, collection: Collection, place: Place, progress: Progress) -> None:
    m, items = collection.manifest, collection.items
    remote, note = _made(folder, m, place)
    if note.state:
        check_stamp(folder, remote)
    parts = [f"{m.files[p.file(VECTORS)].xxh3}-{m.files[p.file(ITEMS)].xxh3}" for p in m.all_parts]
    live = collection.live_rows
    living = items.all_ids[live]
    may_have = ids_file(folder, place)
    before = open_array(may_have, "int64", (None,)) if may_have.exists() else living[:0]
    gone = np.setdiff1d(before, living)
    starts = np.cumsum([0, *(part.rows for part in m.all_parts)])
    unknown = [number for number, part in enumerate(parts) if part not in note.parts]
    fresh = np.isin(np.searchsorted(starts, live, "right") - 1, unknown)
    resent = ~fresh & (~np.isin(living, before) | np.isin(living, note.again))  # restored ones
    if note.state and not (
        len(gone) or fresh.any() or resent.any() or set(parts) - set(note.parts)
    ):
        _check(collection, remote, living)
        write_note(folder, place, replace(note, state=state_of(m)))
        return
    rows = max(0, note.rows - len(gone))
    note = replace(note, again=tuple(living[resent].tolist()), rows=rows, state="")
    write_note(folder, place, note)
    _save(may_have, np.union1d(before, living))
    remote.delete(gone)
    for number, part in enumerate(parts):
        if part in note.parts:
            continue
        first = starts[number] + (note.sent if note.begun == part else 0)
        some = live[(live >= first) & (live < starts[number + 1])]
        for last in _send(collection, remote, some):
            note = replace(note, begun=part, sent=int(last + 1 - starts[number]))
            write_note(folder, place, note)
            progress("sending rows", int(np.searchsorted(live, last, "right")), len(live))
        note = replace(note, parts=(*note.parts, part))
        write_note(folder, place, note)
    for _ in _send(collection, remote, live[resent]):
        continue
    if fresh.sum() + resent.sum() >= SETTLED:
        remote.settle()
    stamp = secrets.token_hex(8)
    _keep_files(folder, m, items.schema, remote, stamp)
    try:
        _check(collection, remote, living)
    except EngineError:
        write_note(folder, place, Note(made=True))  # all are sent again
        raise
    _save(may_have, living)
    older = (note.stamp, *note.older)[:STAMPS] if note.stamp else note.older
    note = Note(True, len(living), tuple(parts), state=state_of(m), stamp=stamp, older=older)
    write_note(folder, place, note)


def _send(collection: Collection, remote: Remote, rows: NDArray[np.int64]) -> Iterator[int]:
    """Write rows, some at a time; yields the last of them that is written."""
    items, step = collection.items, remote.batch()
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        names = [name for name in items.column_names if name != "id"]
        table = pa.table({name: items[name].take(pa.array(some)) for name in names})
        unit = l2_normalize(collection.vectors.rows(some))
        remote.upsert(items.all_ids[some], unit, _plain(table))
        yield int(some[-1])


def _save(path: Path, ids: NDArray[np.int64]) -> None:
    with write_atomically(path) as file:
        np.save(file, np.sort(ids))


def _keep_files(folder: Path, m: Manifest, schema: pa.Schema, remote: Remote, stamp: str) -> None:
    """Keep beside the rows what an index of them needs: its manifest and small files."""
    for name, short in BESIDE.items():
        content = (folder / m.place(name)).read_bytes() if name in m.files else b""
        remote.write_file(short, content)
    remote.write_file("schema", schema.serialize().to_pybytes())
    manifest = {**to_mapping(replace(m, files={}, parts=(), engine="", joined="")), "stamp": stamp}
    remote.write_file("manifest", json.dumps(manifest).encode())


def _check(collection: Collection, remote: Remote, living: NDArray[np.int64]) -> None:
    """Compare the count and some rows.

    Raises:
        Damaged: the collection lacks rows, or has others in their place.
        EngineError: it has too many.
    """
    found, place = remote.count(), remote.place
    if found > len(living):
        message = f"The collection {place} has {found:,} rows, not {len(living):,}."
        raise EngineError(message, "Does something else write to it? Choose another name.")
    if found < len(living):
        message = f"The collection {place} lost rows: it has {found:,} of {len(living):,}."
        raise Damaged(message, "Milvus says more in its log.")
    rng = np.random.default_rng(len(living))
    rows = rng.choice(collection.live_rows, min(SAMPLED, len(living)), replace=False)
    own = {int(collection.items.all_ids[row]): int(row) for row in rows}
    for id, vector, _ in remote.some(list(own)):
        stored = l2_normalize(collection.vectors.rows(np.array([own.pop(id)])))[0]
        if np.abs(stored - vector).max() > CLOSE:
            raise Damaged(f"Item {id} of {place} has another vector than in the folder.")
    if own:
        raise Damaged(f"The collection {place} lacks item {min(own)}.")


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them, without nulls."""
    return [
        json.loads(json.dumps({n: v for n, v in row.items() if v is not None}, default=json_value))
        for row in table.to_pylist()
    ]


def copy_to(folder: Path, place: str, progress: Progress = silent) -> Manifest:
    """Send the rows of an index to a new collection; searches then ask it.

    Until all is there, searches ask what they asked before. What was begun goes on. FAISS files go
    when no generation that can be restored has them; a collection that is left stays as it is.

    Raises:
        ConfigError: not a place, or an index of more prefixes than Milvus takes.
        EngineError: it does not answer, or has a collection of another index.
    """
    where, m = str(Place.parse(place)), read_manifest(folder)
    if m.engine != where:
        dims = tuple(map(int, m.factory))
        spec = IndexSpec(dims, engine=place)
        check_engine(spec, m.count, token_of(folder))
        with changing(folder, "copy") as change:
            m = change.before
            gone = {*map(prefix_file, dims), *SIEVE}
            files = {n: r for n, r in m.files.items() if n not in gone}
            after = replace(
                m, files=files, engine=where, plans={},
                factory={str(d): spec.factory_of(d, m.count) for d in dims}, parts=m.all_parts,
            )  # fmt: skip
            if m.engine != where:  # as another process may have done
                _fill(folder, after, progress)
                change.commit(after)
    follow(folder, progress)
    return read_manifest(folder)


def _fill(folder: Path, m: Manifest, progress: Progress) -> None:
    """Fill the collection that an index will have, with the manifest that it will have."""
    try:
        _follow(folder, replace(Collection.open(folder), manifest=m), progress)
    except EngineError as error:
        command = sending(Place.parse(m.engine), folder)
        hint = f"{folder} answers as before."
        hint += "" if isinstance(error, Foreign) else f" Go on with: {command}"
        raise EngineError(error.message, f"{error.hint} {hint}") from error
