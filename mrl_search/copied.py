"""An index folder made of a collection in Milvus."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.building import refuse_index, write_indexes
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError, EngineError
from mrl_search.files import claim, make_folder, write_atomically, write_text
from mrl_search.mirror import BESIDE
from mrl_search.progress import Progress, silent
from mrl_search.store.manifest import Manifest, manifest_of, read_manifest
from mrl_search.store.writer import CollectionWriter

__all__ = ["copy_back"]

BLOCK = 2_000  # ids that are read at once


def copy_back(place: str, out: Path, progress: Progress = silent) -> Manifest:
    """Make an index folder, searched by FAISS, of the rows of a collection.

    Rows that were read stay in a folder beside `out` until it is whole, so that a copy that was
    stopped goes on.

    Raises:
        EngineError: it does not answer, or is not finished.
        IndexFolderError: `out` exists.
    """
    cache = out.with_name(f".{out.name}.copying")
    if cache.exists() and out.exists():
        with claim(cache):  # of a copy that was stopped as it cleaned up
            shutil.rmtree(cache)
    refuse_index(out)
    remote = Remote(Place.parse(place))
    text, schema = remote.manifest(), remote.file("schema") or b""
    m = manifest_of(json.loads(text), Path(str(place)), "")
    make_folder(cache)
    with claim(cache):
        state, now = cache / "state", f"{place} {m.generation}"
        if state.exists() and state.read_text() != now:  # it changed since
            for path in cache.iterdir():
                path.unlink()
        write_text(state, now)
        blocks = list(_read(remote, m, cache, progress))
        ids = np.concatenate([open_array(ids, "int64", (None,)) for ids, _, _ in blocks])
        if len(ids) != m.alive or remote.count() != m.alive:
            message = f"The collection {place} has {len(ids):,} rows, not {m.alive:,}."
            hint = f"If nothing writes to it now, mend it: mrl-search copy INDEX --to '{place}'"
            raise EngineError(message, hint)
        with CollectionWriter.open(out, m.dim, m.dtype) as writer:
            store = writer.write_vectors(len(ids), (open_array(rows) for _, rows, _ in blocks))
            writer.write_items(_table(ids, [items for _, _, items in blocks], schema))
            for name, short in BESIDE.items():
                content = remote.file(short)
                if content:
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
        end = min(start + BLOCK, beyond)
        ids, rows, items = (cache / f"{start:012d}-{what}" for what in ("ids", "rows", "items"))
        if not items.exists():  # the last one
            found = sorted(remote.rows(start, end), key=lambda row: row[0])
            vectors = np.array([row for _, row, _ in found], np.float32).reshape(-1, m.dim)
            for path, array in (
                (ids, np.array([i for i, _, _ in found], np.int64)),
                (rows, vectors),
            ):
                with write_atomically(path) as file:
                    np.save(file, array)
            write_text(items, json.dumps([item for _, _, item in found]))
        progress("reading", end, beyond)
        yield ids, rows, items


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
            raise DataError(
                f"Column {column.name!r} has values of another type: {error}"
            ) from error
    return pa.table(columns, schema=fields)
