"""Building an index folder: pictures embedded by a model, or vectors of a user's own."""

import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.axes import LONGEST, check_choice, choose_axes, default_choice
from mrl_search.encoders.base import Encoder, LinearHeads
from mrl_search.engines.build import build_indexes, check_kinds
from mrl_search.engines.spec import FLAT_UP_TO, IndexSpec
from mrl_search.errors import ConfigError, IndexFolderError, ModelError, Skipped
from mrl_search.files import refuse_existing
from mrl_search.images.base import FileSource
from mrl_search.images.reading import Picture
from mrl_search.images.sources import Source
from mrl_search.mirror import check_engine
from mrl_search.progress import Progress
from mrl_search.search.exact.sieve import building_sieve
from mrl_search.store.manifest import MANIFEST, OWN_VECTORS, VECTORS, Manifest
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.rows import VectorStore
from mrl_search.store.transform import Transform, check_rotatable
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.store.writer import RAW, CollectionWriter
from mrl_search.vectors import default_dims

__all__ = ["build_from_pictures", "build_from_vectors", "entry_of", "refuse_index", "write_indexes"]


def build_from_pictures(
    source: Source, out: Path, encoder: Encoder, spec: IndexSpec | None, axes: str | None,
    progress: Progress,
) -> None:  # fmt: skip
    """Embed the pictures of `source` and index every prefix, in the new folder `out`."""
    from mrl_search.encoders.embed import embed, first_change

    dim, total = encoder.dims[-1], len(source.paths)
    given, named = spec, axes is not None
    axes = axes or default_choice(encoder.axes, total)
    check_choice(axes, dim, source.labels)
    closed_form = axes in ("views", "labels")
    dims = default_dims(min(dim, LONGEST)) if closed_form else encoder.dims
    spec = _prepared(out, spec, dims, total)
    job = [encoder.fingerprint, source.name, *source.paths]
    file = VECTORS if axes == "none" else RAW
    with CollectionWriter.open(out, dim, spec.dtype, job, file) as writer:
        checked = partial(progress, "checking")
        writer.keep(first_change(source, encoder, writer.entries, checked))
        what = "embedding again" if writer.restarted else "embedding"
        for batch in embed(source, encoder, start=writer.read):
            writer.append(batch.rows, [entry_of(e) for e in batch.entries])
            progress(what, writer.read, total)
        store = writer.finish_rows(source.name, source.columns)
        if not any(e.get("norm") for e in writer.entries):
            message = f"The model {encoder.name} gives every picture a vector of zeros."
            raise ModelError(message, "Choose another model.")
        heads, record = encoder.heads, dict[str, object]()
        if axes != "none":
            try:
                check_choice(axes, dim, _labels(writer).tolist())  # of pictures that can be read
                found = _along_axes(writer, store, source, encoder, axes, progress)
            except ConfigError:
                if named or not closed_form:
                    raise
                spec = _prepared(out, given, encoder.dims, total)
                found = _along_axes(writer, store, source, encoder, "pca", progress)
            store, record = found
            heads = LinearHeads()  # they take rows as the encoder gives them
        writer.write_heads(heads.weights)
        factory = write_indexes(writer, store, spec, progress)
        writer.publish(Manifest(
            encoder=encoder.name, fingerprint=encoder.fingerprint, dim=store.dim, dims=spec.dims,
            count=len(store), dtype=spec.dtype, source=source.name, model=encoder.model,
            classes=heads.classes, unit_heads=heads.unit, factory=factory, axes=record,
            engine=spec.engine,
            rows_dim=dim if dim != store.dim else 0, roots=_roots(source),
        ))  # fmt: skip


def _along_axes(
    writer: CollectionWriter, store: VectorStore, source: Source, encoder: Encoder, axes: str,
    progress: Progress,
) -> tuple[VectorStore, dict[str, object]]:  # fmt: skip
    """The rows of a build, transformed; and the record of how."""
    from mrl_search.training.corpus_axes import changed_views

    items = [(row, e) for row, e in enumerate(writer.entries) if "reason" not in e]
    norms = np.array([e["norm"] for _, e in items], dtype=np.float32)
    labels = _labels(writer)

    def changed(at: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        return changed_views(encoder, source, [items[i][0] for i in at], progress)

    transform, record = choose_axes(axes, store, norms, labels, changed, progress)
    return writer.transform_rows(transform, norms), record


def _labels(writer: CollectionWriter) -> NDArray[np.object_]:
    """The labels of the pictures that can be read."""
    return np.array([e["label"] for e in writer.entries if "reason" not in e], dtype=object)


def build_from_vectors(
    vectors: VectorSource | NDArray[np.floating] | str | Path, out: Path,
    items: str | Path | None, rotate: str | None, spec: IndexSpec | None, progress: Progress,
) -> None:  # fmt: skip
    """Store vectors, see `open_vectors`, rotated if wanted, and index every prefix."""
    source = open_vectors(vectors)
    dim = source.dim
    spec = _prepared(out, spec, default_dims(dim), source.count)
    if rotate not in (None, "pca"):
        raise ConfigError(f"There is no rotation {rotate!r}.", "Use pca, or leave it out.")
    if rotate:
        check_rotatable(dim)
    columns = item_columns(source, items)  # refused before the vectors are read
    found = inspect(source, bool(rotate), progress)
    transform = Transform(dim, dim, found.rotation)
    table = item_table(columns, found)
    with CollectionWriter.open(out, dim, spec.dtype) as writer:
        store = writer.write_vectors(source.count, stored_rows(source, transform, progress))
        writer.write_items(table)
        writer.write_transform(transform)
        factory = write_indexes(writer, store, spec, progress)
        writer.publish(Manifest(
            encoder=OWN_VECTORS, fingerprint=found.fingerprint, dim=dim, dims=spec.dims,
            count=source.count, dtype=spec.dtype, source=source.name, model="", factory=factory,
            engine=spec.engine,
        ))  # fmt: skip


def refuse_index(out: Path) -> None:
    """Raise IndexFolderError if `out` exists, with the command that changes an index."""
    if (out / MANIFEST).exists():
        hint = (
            f"Bring it up to date: mrl-search sync {shlex.quote(str(out))}; or name another --out."
        )
        raise IndexFolderError(f"{out} exists already: it holds an index.", hint)
    refuse_existing(out.resolve())


def write_indexes(
    writer: CollectionWriter, store: VectorStore, spec: IndexSpec, progress: Progress
) -> dict[str, str]:
    """Build all prefix indexes, and the sieve of a large corpus, in one pass over the vectors."""
    if spec.engine:  # it is filled when the folder is finished (see `mirror`)
        return {str(d): spec.factory_of(d, len(store)) for d in spec.dims}
    if len(store) <= FLAT_UP_TO:
        return build_indexes(writer.folder, store, spec, (), progress)
    with building_sieve(writer.folder, len(store), spec.dims, store.dim) as sieve:
        return build_indexes(writer.folder, store, spec, (sieve,), progress)


def _roots(source: Source) -> dict[str, Mapping[str, str]]:
    """The folder that a later sync walks, if there is one."""
    walked = source.walked if isinstance(source, FileSource) else None
    return {} if walked is None else {source.name: walked}


def _prepared(out: Path, spec: IndexSpec | None, dims: tuple[int, ...], count: int) -> IndexSpec:
    """Check the place, and give the spec with the full length among its prefixes."""
    refuse_index(out)
    spec = (spec or IndexSpec()).over(dims)
    if spec.engine:
        check_engine(spec, count)
    else:
        check_kinds(spec, count)
    return spec


def entry_of(entry: Picture | Skipped) -> dict[str, object]:
    """What is logged about a picture of a source."""
    if isinstance(entry, Skipped):
        return {"path": entry.path, "reason": entry.reason}
    columns = ("path", "label", "hash", "width", "height")
    return {**{name: getattr(entry, name) for name in columns}, **entry.columns}
