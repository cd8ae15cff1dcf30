"""A collection in Milvus follows an index folder: filled, brought up to date, and copied back.

The folder stays whole: items and vectors are on its disk, and what `sync` and the like decide is
decided there. The collection has the living rows. What it may have is noted in the folder before
anything is sent, and what it has for certain afterwards, so whatever is killed goes on later:
writing a row again, or removing one that is gone, changes nothing.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.engines.milvus import MOST_FIELDS, Place, Remote
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, EngineError
from mrl_search.files import claim, make_folder, write_atomically, write_text
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection
from mrl_search.store.generations import changing
from mrl_search.store.manifest import (
    CENTRE,
    HEADS,
    ITEMS,
    ROTATION,
    VECTORS,
    Manifest,
    is_index_file,
    prefix_file,
    read_manifest,
)
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import l2_normalize

__all__ = ["check_engine", "copy_back", "copy_to", "follow"]

NOTED, MAY_HAVE = "milvus.json", "milvus-ids.npy"
MODEL = (HEADS, ROTATION, CENTRE)  # files that are kept beside the rows
WAIT = 30.0  # seconds for another process that changes the index
SAMPLED, CLOSE = 100, 2e-3  # rows that are compared, and how near their numbers must be
BLOCK = 2_000  # ids that are read at once
KINDS = {**{HEADS: "heads", ROTATION: "rotation", CENTRE: "centre"}}


def check_engine(spec: IndexSpec, count: int) -> None:
    """Check an engine before anything is embedded for it.

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
    if Remote.exists(place):
        raise EngineError(f"There is a collection {place} already.", "Choose another name.")


def follow(folder: Path, progress: Progress = silent) -> None:
    """Bring the collection of an index to what its folder has; without one, do nothing.

    Raises:
        EngineError: it does not answer, refuses, or is that of another index.
        IndexFolderError: another process changes the index.
    """
    if not read_manifest(folder).engine:
        return
    with claim(folder, wait=WAIT):
        collection = Collection.open(folder)
        _follow(folder, collection, _remote(folder, collection.manifest), progress)


def _remote(folder: Path, m: Manifest) -> Remote:
    """The collection of an index, made if it is not there."""
    place = Place.parse(m.engine)
    about = {"fingerprint": m.fingerprint, "dim": m.dim}
    kinds = {int(d): kind for d, kind in m.factory.items()}
    if not Remote.exists(place) or not (folder / NOTED).exists():
        (folder / NOTED).unlink(missing_ok=True)
        (folder / MAY_HAVE).unlink(missing_ok=True)
        remote = Remote.create(place, kinds, about)
    else:
        remote = Remote(place)
    known = {name: remote.about.get(name) for name in about}
    if known != about or remote.kinds != kinds:
        message = f"The collection {place} is of another index: its model or prefixes differ."
        raise EngineError(message, "Choose another name for this one.")
    return remote


def _follow(folder: Path, collection: Collection, remote: Remote, progress: Progress) -> None:
    m, items = collection.manifest, collection.items
    noted: dict[str, Any] = {"parts": [], "begun": "", "rows": 0}
    if (folder / NOTED).exists():
        noted |= json.loads((folder / NOTED).read_text())
    parts = [f"{m.files[p.file(VECTORS)].xxh3}-{m.files[p.file(ITEMS)].xxh3}" for p in m.all_parts]
    living = items.all_ids[collection.live_rows]
    before = np.load(folder / MAY_HAVE) if (folder / MAY_HAVE).exists() else living[:0]
    gone = np.setdiff1d(before, living)
    new = [i for i, part in enumerate(parts) if part not in noted["parts"]]
    if not len(gone) and not new and len(before) == len(living):
        return
    _save(folder, np.union1d(before, living))
    remote.delete(gone)
    starts = np.cumsum([0, *(part.rows for part in m.all_parts)]).tolist()
    for i in new:
        rows = collection.live_rows
        rows = rows[(rows >= starts[i]) & (rows < starts[i + 1])]
        done = noted["rows"] if noted["begun"] == parts[i] else 0
        for at in range(done, len(rows), step := remote.batch()):
            some = rows[at : at + step]
            table = pa.table({n: items[n].take(pa.array(some)) for n in items.column_names})
            unit = l2_normalize(collection.vectors.rows(some))
            remote.upsert(items.all_ids[some], unit, _plain(table))
            noted |= {"begun": parts[i], "rows": at + len(some)}
            write_text(folder / NOTED, json.dumps(noted))
            progress("sending", int(starts[i] + at + len(some)), m.count)
        noted["parts"] = [*noted["parts"], parts[i]]
        write_text(folder / NOTED, json.dumps(noted))
    _keep_model(folder, m, items.schema, remote)
    _check(collection, remote, living)
    _save(folder, living)
    noted |= {"parts": parts, "begun": "", "rows": 0}
    write_text(folder / NOTED, json.dumps(noted))


def _save(folder: Path, ids: NDArray[np.int64]) -> None:
    with write_atomically(folder / MAY_HAVE) as file:
        np.save(file, np.sort(ids))


def _keep_model(folder: Path, m: Manifest, schema: pa.Schema, remote: Remote) -> None:
    """Keep beside the rows what an index of them needs: the manifest and what the model has."""
    for name in MODEL:
        if name in m.files and not remote.about.get("model"):
            remote.write_file(KINDS[name], (folder / m.place(name)).read_bytes())
    remote.write_file("schema", schema.serialize().to_pybytes())
    from mrl_search.mapping import to_mapping

    told = to_mapping(replace(m, files={}, parts=(), engine=""))
    remote.write_file("manifest", json.dumps(told).encode())


def _check(collection: Collection, remote: Remote, living: NDArray[np.int64]) -> None:
    """Compare the count and some rows.

    Raises:
        EngineError: the collection has others.
    """
    found = remote.count()
    if found != len(living):
        message = f"The collection {remote.place} has {found:,} rows, not {len(living):,}."
        raise EngineError(message, "Somebody else may write to it. Copy it under another name.")
    rng = np.random.default_rng(len(living))
    rows = rng.choice(collection.live_rows, min(SAMPLED, len(living)), replace=False)
    own = {int(collection.items.all_ids[row]): int(row) for row in rows}
    for id, vector, _ in remote.some(list(own)):
        stored = l2_normalize(collection.vectors.rows(np.array([own.pop(id)])))[0]
        if np.abs(stored - vector).max() > CLOSE:
            raise EngineError(f"Item {id} of {remote.place} has another vector than here.")
    if own:
        raise EngineError(f"The collection {remote.place} lacks item {min(own)}.")


def _plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them; times as ISO 8601, nulls left out."""
    return [
        {n: _value(v) for n, v in row.items() if v is not None and n != "id"}
        for row in table.to_pylist()
    ]


def _value(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    return value if isinstance(value, str | int | float | bool | list | dict) else str(value)


def copy_to(folder: Path, place: str, progress: Progress = silent) -> Manifest:
    """Send the rows of an index to a new collection; searches then ask it.

    What was begun goes on. The FAISS files go when no generation that can be restored has them.

    Raises:
        ConfigError: not a place, or an index of more prefixes than Milvus takes.
        EngineError: it does not answer, or has a collection of another index.
    """
    m = read_manifest(folder)
    if m.engine != str(Place.parse(place)):
        dims = tuple(map(int, m.factory))
        spec = IndexSpec(dims, engine=place)
        check_engine(spec, m.count)
        factory = {str(d): spec.factory_of(d, m.count) for d in dims}
        with changing(folder, "copy") as change:
            m = change.before
            gone = {prefix_file(d) for d in dims}
            files = {n: r for n, r in m.files.items() if n not in gone and not _of_sieve(n)}
            change.commit(replace(
                m, files=files, factory=factory, engine=place, plans={}, parts=m.all_parts
            ))  # fmt: skip
        (folder / NOTED).unlink(missing_ok=True)
        (folder / MAY_HAVE).unlink(missing_ok=True)
    follow(folder, progress)
    return read_manifest(folder)


def _of_sieve(name: str) -> bool:
    from mrl_search.store.manifest import CODES, STEPS, SUFFIX

    return name in (CODES, STEPS, SUFFIX)


def copy_back(place: str, out: Path, progress: Progress = silent) -> Manifest:
    """Make an index folder, searched by FAISS, of the rows of a collection.

    Rows that were read stay in a folder beside `out` until it is whole, so that a copy that was
    stopped goes on.

    Raises:
        EngineError: it does not answer, or is not finished.
        IndexFolderError: `out` exists.
    """
    from mrl_search.building import refuse_index, write_indexes
    from mrl_search.store.manifest import manifest_of

    refuse_index(out)
    remote = Remote(Place.parse(place))
    told, schema = remote.file("manifest"), remote.file("schema")
    if told is None or schema is None:
        hint = "Finish the copy that fills it: mrl-search copy INDEX --to PLACE"
        raise EngineError(f"The collection {place} is not whole.", hint)
    m = manifest_of(json.loads(told), Path(str(place)), "")
    cache = out.with_name(f".{out.name}.copying")
    make_folder(cache)
    with claim(cache):
        (cache / "place").write_text(f"{place} {m.generation}") if not (
            cache / "place"
        ).exists() else None
        if (cache / "place").read_text() != f"{place} {m.generation}":
            for path in cache.glob("*.np?"):
                path.unlink()
            (cache / "place").write_text(f"{place} {m.generation}")
        blocks = list(_read(remote, m, cache, progress))
        ids = np.concatenate([np.load(ids) for ids, _, _ in blocks])
        if len(ids) != m.alive or remote.count() != m.alive:
            message = f"The collection {place} has {len(ids):,} rows, not {m.alive:,}."
            raise EngineError(message, "It changes; run the command again.")
        with CollectionWriter.open(out, m.dim, m.dtype) as writer:
            store = writer.write_vectors(len(ids), (np.load(rows) for _, rows, _ in blocks))
            writer.write_items(_table(ids, [items for _, _, items in blocks], schema))
            for name in MODEL:
                content = remote.file(KINDS[name])
                if content is not None:
                    (writer.folder / name).write_bytes(content)
            spec = IndexSpec(tuple(map(int, m.factory)), dtype=m.dtype)
            factory = write_indexes(writer, store, spec, progress)
            writer.publish(replace(
                m, count=len(ids), deleted=0, factory=factory, plans={}, engine="", format=1,
                generation=0, parts=(), trained=0,
            ))  # fmt: skip
        shutil.rmtree(cache)
    return read_manifest(out)


def _read(
    remote: Remote, m: Manifest, cache: Path, progress: Progress
) -> Iterator[tuple[Path, Path, Path]]:
    """Files of ids, rows and items, block by block; those that are there are not read again."""
    beyond = max(m.next_id or m.count, 1)
    for start in range(0, beyond, BLOCK):
        paths = tuple(cache / f"{start:012d}-{what}" for what in ("ids.npy", "rows.npy", "items.npj"))
        if not all(path.exists() for path in paths):
            found = sorted(remote.rows(start, min(start + BLOCK, beyond)), key=lambda row: row[0])
            rows = np.array([row for _, row, _ in found], np.float32).reshape(len(found), m.dim)
            for path, array in zip(paths, (np.array([i for i, _, _ in found], np.int64), rows), strict=False):
                with write_atomically(path) as file:
                    np.save(file, array)
            write_text(paths[2], json.dumps([item for _, _, item in found]))
        progress("reading", min(start + BLOCK, beyond), beyond)
        yield paths  # type: ignore[misc]


def _table(ids: NDArray[np.int64], items: list[Path], schema: bytes) -> pa.Table:
    """The items of all blocks, with the columns that they had."""
    fields = pa.ipc.read_schema(pa.BufferReader(schema))
    rows = [row for path in items for row in json.loads(path.read_text())]
    columns = []
    for column in fields:
        if column.name == "id":
            columns.append(pa.array(ids))
            continue
        values = [row.get(column.name) for row in rows]
        if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
            values = [None if v is None else datetime.fromisoformat(v) for v in values]
        try:
            columns.append(pa.array(values, column.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise DataError(f"Column {column.name!r} has values of another type: {error}") from error
    return pa.table(columns, schema=fields)
