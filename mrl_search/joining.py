"""The index that parts become: the one that a single machine would have built.

All that depends on all rows is made here: their order and ids, axes, rotation, prefix indexes.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from mrl_search.building import (
    CLOSED_FORM,
    Wanted,
    checked_spec,
    finish,
    finish_vectors,
    refuse_index,
)
from mrl_search.encoders.base import Access, Encoder
from mrl_search.encoders.registry import encoder_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, MrlSearchError, Skipped
from mrl_search.files import URI, expanded, recordable
from mrl_search.images.sources import RecordedSource
from mrl_search.index import Index
from mrl_search.mirror import follow
from mrl_search.parts import check_parts, manifests_of, paths_below
from mrl_search.progress import Progress, silent
from mrl_search.provenance import now, package_versions
from mrl_search.store.collection import Collection
from mrl_search.store.items import EXIF_COLUMNS, FILE_COLUMNS
from mrl_search.store.manifest import Manifest, read_manifest
from mrl_search.store.rows import Ids, Rearranged, VectorStore
from mrl_search.store.shard import PATH, Shard
from mrl_search.store.transform import (
    Transform,
    check_rotation,
    moment_of,
    principal_axes,
    rows_to_fit,
)
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import blocks, default_dims, l2_normalize

__all__ = ["join_parts"]


def join_parts(
    parts: Sequence[str | Path], out: str | Path, *, spec: IndexSpec | None = None,
    axes: str | None = None, rotate: str | None = None, source: str | Path | None = None,
    partial: bool = False, model: str | Encoder | None = None, access: Access | None = None,
    progress: Progress = silent,
) -> Index:  # fmt: skip
    """Make one index of the parts that `build_part` or `build_vector_part` wrote.

    Args:
        parts: their folders, in any order; they stay as they are.
        out: the new index folder.
        spec: prefixes and kinds of index, as for `Index.build`; the dtype is that of the parts.
        axes: of pictures, as for `Index.build`. `views` and `labels` read up to 700 pictures again
            and need the model; `pca` measures itself by them if it can.
        rotate: of vectors of a user's own, as for `Index.from_vectors`.
        source: where the pictures are on this machine, if that is another place.
        partial: whether parts may be missing.
        model: the model, if it is no longer where it was.
        access: what opening the model may do.
        progress: called with what is being done, how far, and of how much.

    Raises:
        ConfigError: parts that do not fit together, or are missing; or as for `Index.build`.
        DataError: one picture of two contents, or pictures that cannot be read again.
        IndexFolderError: `out` exists, and is not what this call makes; not a part, or a damaged
            one.
    """
    out, names = expanded(out), [str(folder) for folder in parts]
    job = _job(names, source, spec or IndexSpec(), axes, rotate)
    if _is_done(out, job) or refuse_index(out):  # stopped when it was all but done
        follow(out, progress)
        return Index.open(out, model, access)
    check_parts(names, manifests_of(names), moved=source is not None, partial=partial)
    opened = [Collection.open(expanded(folder)) for folder in parts]
    opened.sort(key=lambda c: c.manifest.shard.number)
    whole = _joined(opened, source, job)
    made = whole.made
    spec = replace(spec or IndexSpec(), dtype=made.dtype)
    for name, value in (("axes", axes), ("rotate", rotate)):
        if value is not None and made.own_vectors == (name == "axes"):
            kind = "vectors of your own" if made.own_vectors else "pictures"
            raise ConfigError(f"--{name} is given, and the parts hold {kind}.", "Leave it out.")
    if made.own_vectors:
        _finish_vectors(whole, out, spec, rotate, progress)
        follow(out, progress)
        return Index.open(out)
    labels = _shared(whole.items["label"])
    default = opened[0].manifest.shard.axes or "none"
    wanted = Wanted.of(made.dims, (axes, default), spec, labels)
    changed = _views(whole, wanted, labels, model, access, progress)
    with CollectionWriter.open(out, made.dim, made.dtype) as writer:
        writer.write_items(whole.items)
        writer.write_skipped(whole.skipped)
        store: VectorStore = whole.rows
        if wanted.axes == "none":
            rows = (stored for _, stored in whole.rows.chunks())
            store = writer.write_vectors(made.count, rows, progress)
        finish(writer, store, made, opened[0].heads, wanted, changed, progress)
    follow(out, progress)
    return Index.open(out, model, access)


def _job(names: Sequence[str], source: str | Path | None, *options: object) -> str:
    """A checksum of parts as they are, and of options; empty where they cannot be read."""
    with suppress(MrlSearchError):
        made = [source and _place(source), *sorted(map(repr, manifests_of(names)))]
        return xxhash.xxh3_128_hexdigest(repr((made, options)).encode())
    return ""


def _is_done(out: Path, job: str) -> bool:
    """Whether `out` is the index that a job makes, not changed since."""
    with suppress(MrlSearchError):
        m = read_manifest(out)
        return (m.joined, m.generation) == (job, 0) != ("", 0)
    return False


@dataclass(frozen=True, eq=False, slots=True)
class _Whole:
    """What all parts hold together: rows, their items, and the manifest of a part that has all."""

    rows: Rearranged
    items: pa.Table
    skipped: tuple[Skipped, ...]
    made: Manifest


def _joined(parts: Sequence[Collection], source: str | Path | None, job: str) -> _Whole:
    """All rows and items in the order in which one machine would have them, each path once."""
    first = parts[0].manifest
    tables = [_moved(part.items.table(), part.manifest.root, source) for part in parts]
    try:
        items = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        message = f"The parts have columns of different types: {error}."
        raise ConfigError(
            message, "Give a column one type, and build those parts again."
        ) from error
    order = np.arange(len(items))
    if first.shard.by == PATH:
        order = _in_order(items["path"], items["hash"])
    if not len(order):
        raise DataError("The parts hold nothing.", "See skipped.json in their folders.")
    late = [*EXIF_COLUMNS.names, *FILE_COLUMNS.names]
    columns = [name for name in items.column_names if name not in late]
    columns += [name for name in late if name in items.column_names]
    items = items.select(columns)
    items = pa.concat_tables([items.take(order[some]) for some in blocks(len(order), 1)])
    items = items.set_column(0, "id", pa.array(np.arange(len(items))))
    skipped = {
        path: entry._replace(path=path)
        for part in parts for entry in part.skipped
        for path in _paths([entry.path], part.manifest.root, source)
    }  # fmt: skip
    names = [part.manifest.fingerprint for part in parts]
    fingerprint = names[0]
    if first.own_vectors and len(names) > 1:
        fingerprint = xxhash.xxh3_128_hexdigest("\n".join(names).encode())
    made = replace(
        first, fingerprint=fingerprint, count=len(order), shard=Shard(), files={}, created=now(),
        versions=package_versions(), joined=job,
    )  # fmt: skip
    if source is not None:
        place = _place(source)
        begin = first.source.removeprefix(first.root) if first.root else ""  # " (train part)"
        how = next(iter(first.roots.values()), None)
        roots = {} if how is None else {place: how}
        made = replace(made, source=place + begin, roots=roots)
    rows = Rearranged(VectorStore.joined([part.vectors for part in parts]), order)
    return _Whole(rows, items, tuple(sorted(skipped.values(), key=attrgetter("path"))), made)


def _in_order(paths: pa.ChunkedArray, hashes: pa.ChunkedArray) -> NDArray[np.int64]:
    """Rows by path, as a walk finds them; of a path that is there twice, the first.

    Raises:
        DataError: a path with two contents.
    """
    keys = _one(paths)
    if pc.any(pc.starts_with(keys, URI)).as_py():  # of names that are not UTF-8
        names = [str(expanded(path)) for path in keys.to_pylist()]
        keys = pa.array([os.fsencode(name) for name in names], pa.large_binary())
    keys = pc.replace_substring(keys, os.sep, "\0")
    order = pc.sort_indices(keys)  # the same keys stay in their order
    keys, contents = keys.take(order), _one(hashes).take(order)
    again = pc.equal(keys[1:], keys[:-1])
    other = pc.and_(again, pc.not_equal(contents[1:], contents[:-1]))
    found = np.flatnonzero(other.to_numpy(zero_copy_only=False))
    rows: NDArray[np.int64] = order.to_numpy().astype(np.int64)
    if len(found):
        path = paths[int(rows[found[0]])].as_py()
        message = f"{path} has other bytes in one part than in another."
        raise DataError(message, "It changed meanwhile. Build one of these parts again.")
    kept = np.ones(len(rows), bool)
    kept[1:] = ~again.to_numpy(zero_copy_only=False)
    return rows[kept]


def _one(column: pa.ChunkedArray) -> pa.Array:
    """A column of text as one array, of more than 2 GB, too."""
    return column.cast(pa.large_string()).combine_chunks()


def _moved(items: pa.Table, root: str, source: str | Path | None) -> pa.Table:
    """Items whose paths lie in `source` rather than in `root`."""
    if source is None or not root:
        return items
    paths = pa.array(_paths(items["path"].to_pylist(), root, source), pa.string())
    return items.set_column(items.schema.get_field_index("path"), "path", paths)


def _paths(paths: Sequence[str], root: str, source: str | Path | None) -> list[str]:
    if source is None:
        return list(paths)
    place = _place(source)
    return [
        place + path.removeprefix(root) if path.startswith(f"{root}#") else
        recordable(expanded(place) / key)
        for path, key in zip(paths, paths_below(paths, root), strict=True)
    ]  # fmt: skip


def _place(source: str | Path) -> str:
    """The name of a source on this machine.

    Raises:
        DataError: it is not there.
    """
    place = expanded(source)
    if not place.exists():
        raise DataError(f"There is nothing at {source}.", "--source is where the pictures are.")
    return recordable(place.resolve())


def _shared(column: pa.ChunkedArray) -> list[str | None]:
    """Values of a column, of which few are different: each is one object."""
    encoded = _one(column).dictionary_encode()
    values = [*encoded.dictionary.to_pylist(), None]
    return [values[i] for i in encoded.indices.fill_null(-1).to_numpy()]


def _views(
    whole: _Whole, wanted: Wanted, labels: Sequence[str | None], model: str | Encoder | None,
    access: Access | None, progress: Progress,
) -> Callable[[Ids], tuple[Ids, NDArray[np.float32]]]:  # fmt: skip
    """Embeds changed views of some pictures, as axes are fitted to; for `pca`, if that can be."""
    made = whole.made

    @cache
    def pictures() -> RecordedSource:
        paths = whole.items["path"].to_pylist()
        return RecordedSource(made.source, paths, labels, places=made.places)

    @cache
    def encoder() -> Encoder:
        found = encoder_of(model or made.model, replace(access or Access(), fetch=False))
        if found.fingerprint != made.fingerprint:
            message = f"The model {found.name} did not make these parts: {made.encoder} did."
            raise ConfigError(message, "Name the model that did: --model")
        return found

    def changed(rows: Ids) -> tuple[Ids, NDArray[np.float32]]:
        from mrl_search.training.corpus_axes import KINDS, changed_views

        try:
            return changed_views(encoder(), pictures(), rows.tolist(), progress)
        except MrlSearchError:
            if wanted.axes in CLOSED_FORM:
                raise
            return np.empty(0, np.int64), np.empty((0, KINDS, made.dim), np.float32)

    return changed


def _finish_vectors(
    whole: _Whole, out: Path, spec: IndexSpec, rotate: str | None, progress: Progress
) -> None:
    """Write an index of vectors of a user's own."""
    dim, count = whole.made.dim, whole.made.count
    spec = checked_spec(spec, default_dims(dim), count)
    check_rotation(rotate, dim)
    transform = Transform(dim, dim)
    if rotate:
        moment = moment_of(whole.rows, rows_to_fit(count))
        transform = Transform(dim, dim, principal_axes(moment))
    rows = (l2_normalize(transform(r)) if rotate else r for _, r in whole.rows.chunks())
    with CollectionWriter.open(out, dim, spec.dtype) as writer:
        writer.write_items(whole.items)
        finish_vectors(writer, rows, whole.made, transform, spec, progress)
