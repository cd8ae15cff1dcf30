"""Building an index folder: pictures embedded by a model, or vectors of a user's own."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.axes import LONGEST, Changed, check_choice, choose_axes, default_choice
from mrl_search.encoders.base import Encoder
from mrl_search.engines.build import build_indexes
from mrl_search.engines.spec import CLUSTERED_FROM, IndexSpec
from mrl_search.engines.trial import check_kinds
from mrl_search.errors import ConfigError, IndexFolderError, ModelError, Skipped
from mrl_search.files import refuse_existing
from mrl_search.images.base import FileSource
from mrl_search.images.reading import Picture
from mrl_search.images.sources import Source
from mrl_search.mirror import check_engine, follow, unfilled
from mrl_search.progress import Progress
from mrl_search.search.exact.sieve import building_sieve
from mrl_search.store.collection import Heads
from mrl_search.store.manifest import MANIFEST, OWN_VECTORS, VECTORS, Manifest, read_manifest
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.store.transform import Transform, check_rotation
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.store.writer import RAW, CollectionWriter
from mrl_search.vectors import default_dims

if TYPE_CHECKING:
    from mrl_search.encoders.ranks import Ranks

__all__ = [
    "Wanted", "build_from_pictures", "build_from_vectors", "checked_spec", "embedded", "entry_of",
    "finish", "finish_vectors", "made_by", "refuse_index", "write_indexes",
]  # fmt: skip

CLOSED_FORM = ("views", "labels")


@dataclass(frozen=True)
class Wanted:
    """How rows are stored and indexed.

    Attributes:
        axes: along which (see `mrl_search.axes`).
        named: whether a user named them; others are replaced where they cannot be fitted.
        dims: prefix lengths of the encoder.
        given: the spec that was given.
        spec: the spec with the full length among its prefixes.
    """

    axes: str
    named: bool
    dims: tuple[int, ...]
    given: IndexSpec | None
    spec: IndexSpec

    @classmethod
    def of(
        cls, dims: tuple[int, ...], axes: tuple[str | None, str], spec: IndexSpec | None,
        labels: Sequence[str | None],
    ) -> Self:  # fmt: skip
        """What a user wants of pictures with these labels.

        `dims` are prefix lengths of the encoder, `axes` those that are named, and its default.

        Raises:
            ConfigError: axes that these pictures cannot have, or a spec that FAISS cannot build.
        """
        choice = axes[0] or default_choice(axes[1], len(labels))
        check_choice(choice, dims[-1], labels)
        longest = default_dims(min(dims[-1], LONGEST)) if choice in CLOSED_FORM else dims
        full = checked_spec(spec, longest, len(labels))
        return cls(choice, axes[0] is not None, dims, spec, full)


def build_from_pictures(
    source: Source, out: Path, encoder: Encoder, spec: IndexSpec | None, axes: str | None,
    progress: Progress,
) -> None:  # fmt: skip
    """Embed the pictures of `source` and index every prefix, in the new folder `out`.

    In a process that `accelerate launch` started, all of them embed; the first one writes.
    """
    from mrl_search.encoders.ranks import Ranks, launched
    from mrl_search.training.corpus_axes import changed_views

    if refuse_index(out, spec, source.name, encoder.fingerprint):
        if launched()[0] == 0:
            follow(out, progress)
        return
    wanted = Wanted.of(encoder.dims, (axes, encoder.axes), spec, source.labels)
    file = VECTORS if wanted.axes == "none" else RAW
    with Ranks.here() as ranks:
        if not ranks.first:
            return ranks.help(source, encoder)
        job = [encoder.fingerprint, source.name, *source.paths]
        with CollectionWriter.open(out, encoder.dims[-1], wanted.spec.dtype, job, file) as writer:
            store = embedded(writer, source, encoder, ranks, progress)
            at = [row for row, e in enumerate(writer.entries) if "reason" not in e]

            def changed(rows: Ids) -> tuple[Ids, NDArray[np.float32]]:
                return changed_views(encoder, source, [at[i] for i in rows], progress)

            made, heads = made_by(encoder, source, store), encoder.heads.weights
            finish(writer, store, made, heads, wanted, changed, progress)
    follow(out, progress)


def embedded(
    writer: CollectionWriter, source: Source, encoder: Encoder, ranks: "Ranks", progress: Progress,
    *, empty: bool = False,
) -> VectorStore:  # fmt: skip
    """Embed the pictures of `source`, from where a stopped build ended: the rows and their items.

    Raises:
        DataError: no picture can be read, unless the rows may be `empty`.
        ModelError: every vector is zero.
    """
    from mrl_search.encoders.embed import first_change

    total, checked = len(source.paths), partial(progress, "checking")
    writer.keep(first_change(source, encoder, writer.entries, checked))
    what = "embedding again" if writer.restarted else "embedding"
    for batch in ranks.embed(source, encoder, writer.read):
        writer.append(batch.rows, [entry_of(e) for e in batch.entries])
        progress(what, writer.read, total)
    store = writer.finish_rows(source.name, source.columns, empty=empty)
    if len(store) and not any(e.get("norm") for e in writer.entries):
        message = f"The model {encoder.name} gives every picture a vector of zeros."
        raise ModelError(message, "Choose another model.")
    return store


def made_by(encoder: Encoder, source: Source, store: VectorStore) -> Manifest:
    """The manifest of rows as the encoder gave them, at unit norm."""
    return Manifest(
        encoder=encoder.name, fingerprint=encoder.fingerprint, dim=store.dim, dims=encoder.dims,
        count=len(store), dtype=str(store.dtype), source=source.name, model=encoder.model,
        classes=encoder.heads.classes, unit_heads=encoder.heads.unit, roots=_roots(source),
    )  # fmt: skip


def finish(
    writer: CollectionWriter, store: VectorStore, made: Manifest, heads: Heads, wanted: Wanted,
    changed: Changed, progress: Progress,
) -> None:  # fmt: skip
    """Store rows along the wanted axes, index every prefix, and publish the index.

    The writer has the items, and the rows if they are stored as they are. `store` has the rows as
    the encoder gave them, at unit norm; `made` describes them, and `heads` read them.
    """
    record = dict[str, object]()
    if wanted.axes != "none":
        assert writer.items is not None
        labels = np.array(writer.items["label"].to_pylist(), dtype=object)
        norms = np.asarray(writer.items["norm"].to_pylist(), dtype=np.float32)
        facts = store, norms, labels, changed, progress
        try:
            check_choice(wanted.axes, store.dim, labels.tolist())  # of pictures that can be read
            transform, record = choose_axes(wanted.axes, *facts)
        except ConfigError:
            if wanted.named or wanted.axes not in CLOSED_FORM:
                raise
            spec = checked_spec(wanted.given, wanted.dims, len(labels))
            wanted = replace(wanted, axes="pca", spec=spec)
            transform, record = choose_axes(wanted.axes, *facts)
        store = writer.transform_rows(transform, norms, store)
        heads, made = {}, replace(made, classes=(), unit_heads=False)  # they take rows as they were
    writer.write_heads(heads)
    factory = write_indexes(writer, store, wanted.spec, progress)
    writer.publish(replace(
        made, dim=store.dim, dims=wanted.spec.dims, count=len(store), factory=factory, axes=record,
        engine=wanted.spec.engine, rows_dim=made.dim if made.dim != store.dim else 0,
    ))  # fmt: skip


def build_from_vectors(
    vectors: VectorSource | NDArray[np.floating] | str | Path, out: Path,
    items: str | Path | None, rotate: str | None, spec: IndexSpec | None, progress: Progress,
) -> None:  # fmt: skip
    """Store vectors, see `open_vectors`, rotated if wanted, and index every prefix."""
    source = open_vectors(vectors)
    dim = source.dim
    if refuse_index(out, spec, source.name):
        follow(out, progress)
        return
    spec = checked_spec(spec, default_dims(dim), source.count)
    check_rotation(rotate, dim)
    columns = item_columns(source, items)  # refused before the vectors are read
    found = inspect(source, bool(rotate), progress)
    transform = Transform(dim, dim, found.rotation)
    table = item_table(columns, found)
    made = Manifest(
        encoder=OWN_VECTORS, fingerprint=found.fingerprint, dim=dim, dims=spec.dims,
        count=source.count, dtype=spec.dtype, source=source.name, model="",
    )  # fmt: skip
    with CollectionWriter.open(out, dim, spec.dtype) as writer:
        writer.write_items(table)
        finish_vectors(writer, stored_rows(source, transform), made, transform, spec, progress)
    follow(out, progress)


def finish_vectors(
    writer: CollectionWriter, rows: Iterable[NDArray[np.floating]], made: Manifest,
    transform: Transform, spec: IndexSpec, progress: Progress,
) -> None:  # fmt: skip
    """Write transformed rows of a user's own, index every prefix, and publish the index."""
    store = writer.write_vectors(made.count, rows, progress)
    writer.write_transform(transform)
    factory = write_indexes(writer, store, spec, progress)
    writer.publish(replace(made, dims=spec.dims, factory=factory, engine=spec.engine))


def refuse_index(
    out: Path, spec: IndexSpec | None = None, source: str = "", fingerprint: str = ""
) -> bool:
    """Refuse an `out` that exists, with the command that changes an index.

    It is no refusal, but True, if a build of this index was stopped when only rows were left to be
    sent to its engine (see `unfilled`).

    Raises:
        IndexFolderError: `out` exists.
    """
    if (out / MANIFEST).exists():
        if spec is not None and unfilled(out, spec, source, fingerprint):
            return True
        what, then = "an index", f"Bring it up to date: mrl-search sync {shlex.quote(str(out))}"
        with suppress(IndexFolderError):  # a damaged one
            if shard := read_manifest(out).shard:
                what = f"part {shard} of an index"
                then = "With all parts: mrl-search join PART… --out DIR"
        message = f"{out} exists already: it holds {what}."
        raise IndexFolderError(message, f"{then}; or name another --out.")
    refuse_existing(out.resolve())
    return False


def write_indexes(
    writer: CollectionWriter, store: VectorStore, spec: IndexSpec, progress: Progress
) -> dict[str, str]:
    """Build all prefix indexes, and the sieve of a large corpus, in one pass over the vectors."""
    if spec.engine:  # it is filled when the folder is finished (see `mirror`)
        return {str(d): spec.factory_of(d, len(store)) for d in spec.dims}
    if len(store) < CLUSTERED_FROM:
        return build_indexes(writer.folder, store, spec, (), progress)
    with building_sieve(writer.folder, len(store), spec.dims, store.dim) as sieve:
        return build_indexes(writer.folder, store, spec, (sieve,), progress)


def _roots(source: Source) -> dict[str, Mapping[str, str]]:
    """The folder that a later sync walks, if there is one."""
    walked = source.walked if isinstance(source, FileSource) else None
    return {} if walked is None else {source.name: walked}


def checked_spec(spec: IndexSpec | None, dims: tuple[int, ...], count: int) -> IndexSpec:
    """The spec with the full length among its prefixes, which its engine can build."""
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
