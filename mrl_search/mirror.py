"""A collection in Milvus follows an index folder: filled, and brought up to date.

The folder stays whole: items and vectors are on its disk, and what `sync` and the like decide is
decided there. The collection has the living rows. What it may have is noted in the folder before
anything is sent, and what it has for certain afterwards, so whatever is killed goes on later:
writing a row again, or removing one that is gone, changes nothing.
"""

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.engines.milvus import MOST_FIELDS, Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, EngineError
from mrl_search.files import claim, write_atomically, write_text
from mrl_search.mapping import read_json, to_mapping
from mrl_search.progress import Progress, silent
from mrl_search.store.collection import Collection
from mrl_search.store.generations import changing
from mrl_search.store.manifest import (
    CENTRE,
    CODES,
    HEADS,
    ITEMS,
    ROTATION,
    STEPS,
    SUFFIX,
    VECTORS,
    Manifest,
    prefix_file,
    read_manifest,
)
from mrl_search.text import json_value
from mrl_search.vectors import l2_normalize

__all__ = ["check_engine", "copy_to", "follow"]

NOTED, MAY_HAVE = "milvus.json", "milvus-ids.npy"
NOTHING = {"parts": [], "again": [], "begun": "", "sent": 0, "whole": False}
MODEL = {HEADS: "heads", ROTATION: "rotation", CENTRE: "centre"}  # files kept beside the rows
WAIT = 30.0  # seconds for another process that changes the index
SAMPLED, CLOSE = 100, 2e-3  # rows that are compared, and how near their numbers must be


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
    engine = read_manifest(folder).engine
    if not engine:
        return
    try:
        with claim(folder, wait=WAIT):
            collection = Collection.open(folder)
            _follow(folder, collection, _remote(folder, collection.manifest), progress)
    except EngineError as error:
        again = f"{folder} has the change; send it with: mrl-search copy {folder} --to '{engine}'"
        raise EngineError(error.message, f"{error.hint} {again}") from error


def _remote(folder: Path, m: Manifest) -> Remote:
    """The collection of an index, made if it is not there. A token tells whose it is."""
    place = Place.parse(m.engine)
    if _noted(folder).get("place") != str(place) or not Remote.exists(place):
        (folder / MAY_HAVE).unlink(missing_ok=True)
        _note(folder, {"place": str(place), "token": secrets.token_hex(8), **NOTHING})
    token = _noted(folder)["token"]
    about = {"fingerprint": m.fingerprint, "dim": m.dim, "token": token}
    return Remote.create(place, {int(d): kind for d, kind in m.factory.items()}, about)


def _noted(folder: Path) -> dict[str, Any]:
    """What is noted about the collection of an index; empty if nothing is."""
    path = folder / NOTED
    return read_json(path) if path.exists() else {}


def _follow(folder: Path, collection: Collection, remote: Remote, progress: Progress) -> None:
    m, items, noted = collection.manifest, collection.items, _noted(folder)
    parts = [f"{m.files[p.file(VECTORS)].xxh3}-{m.files[p.file(ITEMS)].xxh3}" for p in m.all_parts]
    live = collection.live_rows
    living = items.all_ids[live]
    before = (
        open_array(folder / MAY_HAVE, "int64", (None,))
        if (folder / MAY_HAVE).exists()
        else living[:0]
    )
    gone = np.setdiff1d(before, living)
    starts = np.cumsum([0, *(part.rows for part in m.all_parts)])
    fresh = np.isin(np.searchsorted(starts, live, "right") - 1, _unknown(parts, noted["parts"]))
    again = ~fresh & (~np.isin(living, before) | np.isin(living, noted["again"]))  # restored ones
    changed = len(gone) or fresh.any() or again.any() or set(parts) - set(noted["parts"])
    if noted["whole"] and not changed:
        if remote.count() == len(living):
            return
        noted |= {"parts": [], "begun": ""}  # it lost some, as where a disk was full
    noted |= {"again": living[again].tolist(), "whole": False}
    _note(folder, noted)
    _save(folder, np.union1d(before, living))
    remote.delete(gone)
    for number, part in enumerate(parts):
        if part in noted["parts"]:
            continue
        first = starts[number] + (noted["sent"] if noted["begun"] == part else 0)
        rows = live[(live >= first) & (live < starts[number + 1])]
        for last in _send(collection, remote, rows):
            noted |= {"begun": part, "sent": int(last + 1 - starts[number])}
            _note(folder, noted)
            progress("sending", last + 1, m.count)
        noted["parts"] = [*noted["parts"], part]
        _note(folder, noted)
    for _ in _send(collection, remote, live[again]):
        continue
    _keep_model(folder, m, items.schema, remote)
    try:
        _check(collection, remote, living)
    except EngineError:
        _note(folder, {**noted, **NOTHING})  # all are sent again
        raise
    _save(folder, living)
    _note(folder, {**noted, **NOTHING, "parts": parts, "whole": True})


def _unknown(parts: Sequence[str], known: Sequence[str]) -> list[int]:
    """Numbers of the parts that the collection does not have whole."""
    return [number for number, part in enumerate(parts) if part not in known]


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


def _note(folder: Path, noted: Mapping[str, object]) -> None:
    write_text(folder / NOTED, json.dumps(noted))


def _save(folder: Path, ids: NDArray[np.int64]) -> None:
    with write_atomically(folder / MAY_HAVE) as file:
        np.save(file, np.sort(ids))


def _keep_model(folder: Path, m: Manifest, schema: pa.Schema, remote: Remote) -> None:
    """Keep beside the rows what an index of them needs: the manifest and what the model has."""
    for name, short in MODEL.items():
        if name in m.files:
            remote.write_file(short, (folder / m.place(name)).read_bytes())
    remote.write_file("schema", schema.serialize().to_pybytes())
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
        if found < len(living):
            raise EngineError(message, "It lost some; all are sent again by the next run.")
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
    """Rows as JSON has them, without nulls."""
    return [
        json.loads(json.dumps({n: v for n, v in row.items() if v is not None}, default=json_value))
        for row in table.to_pylist()
    ]


def copy_to(folder: Path, place: str, progress: Progress = silent) -> Manifest:
    """Send the rows of an index to a new collection; searches then ask it.

    An index that FAISS searches is searched by it until all is there. What was begun goes on. The
    FAISS files go when no generation that can be restored has them.

    Raises:
        ConfigError: not a place, or an index of more prefixes than Milvus takes.
        EngineError: it does not answer, or has a collection of another index.
    """
    m, where = read_manifest(folder), str(Place.parse(place))
    if m.engine != where:
        dims = tuple(map(int, m.factory))
        spec = IndexSpec(dims, engine=place)
        if m.engine or _noted(folder).get("place") != where:  # no copy that was stopped
            check_engine(spec, m.count)
        factory = {str(d): spec.factory_of(d, m.count) for d in dims}
        with changing(folder, "copy") as change:
            m = change.before
            gone = {*map(prefix_file, dims), CODES, STEPS, SUFFIX}
            files = {n: r for n, r in m.files.items() if n not in gone}
            after = replace(
                m, files=files, factory=factory, engine=where, plans={}, parts=m.all_parts
            )
            if not m.engine:
                _fill(folder, after, progress)
            change.commit(after)
    follow(folder, progress)
    return read_manifest(folder)


def _fill(folder: Path, m: Manifest, progress: Progress) -> None:
    """Fill the collection that an index will have, with the manifest that it will have."""
    try:
        collection = replace(Collection.open(folder), manifest=m)
        _follow(folder, collection, _remote(folder, m), progress)
    except EngineError as error:
        again = f"{folder} is as it was; go on with: mrl-search copy {folder} --to '{m.engine}'"
        raise EngineError(error.message, f"{error.hint} {again}") from error
