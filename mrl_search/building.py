"""Building an index folder: pictures embedded by a model, or vectors of a user's own."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from mrl_search.encoders.base import Encoder
from mrl_search.engines.build import build_indexes, check_kinds
from mrl_search.engines.spec import FLAT_UP_TO, IndexSpec
from mrl_search.errors import ConfigError, IndexFolderError, Skipped
from mrl_search.files import refuse_existing
from mrl_search.images.reading import Picture
from mrl_search.images.sources import Source
from mrl_search.progress import Progress
from mrl_search.search.exact.sieve import building_sieve
from mrl_search.store.manifest import MANIFEST, OWN_VECTORS, Manifest, read_manifest
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.rows import VectorStore
from mrl_search.store.transform import Transform, check_rotatable
from mrl_search.store.vector_files import VectorSource
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import default_dims

__all__ = ["build_from_pictures", "build_from_vectors", "newest_index", "write_indexes"]


def build_from_pictures(
    source: Source, out: Path, encoder: Encoder, spec: IndexSpec | None, progress: Progress
) -> None:
    """Embed the pictures of `source` and index every prefix, in the new folder `out`."""
    from mrl_search.encoders.embed import embed, first_change

    spec = _prepared(out, spec, encoder.dims, len(source.paths))
    dim, total = encoder.dims[-1], len(source.paths)
    job = [encoder.fingerprint, source.name, *source.paths]
    with CollectionWriter.open(out, dim, spec.dtype, job) as writer:
        checked = partial(progress, "checking")
        writer.keep(first_change(source, encoder, writer.entries, checked))
        what = "embedding again" if writer.restarted else "embedding"
        for batch in embed(source, encoder, start=writer.read):
            writer.append(batch.rows, [_entry(e) for e in batch.entries])
            progress(what, writer.read, total)
        store = writer.finish_rows(source.name, source.columns)
        writer.write_heads(encoder.heads.weights)
        factory = write_indexes(writer, store, spec, progress)
        writer.publish(Manifest(
            encoder=encoder.name, fingerprint=encoder.fingerprint, dim=dim, dims=spec.dims,
            count=len(store), dtype=spec.dtype, source=source.name, model=encoder.model,
            classes=encoder.heads.classes, unit_heads=encoder.heads.unit, factory=factory,
        ))  # fmt: skip


def build_from_vectors(
    source: VectorSource, out: Path, items: str | Path | None, rotate: str | None,
    spec: IndexSpec | None, progress: Progress,
) -> None:  # fmt: skip
    """Store the vectors of `source`, rotated if wanted, and index every prefix."""
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
        writer.write_rotation(found.rotation)
        factory = write_indexes(writer, store, spec, progress)
        writer.publish(Manifest(
            encoder=OWN_VECTORS, fingerprint=found.fingerprint, dim=dim, dims=spec.dims,
            count=source.count, dtype=spec.dtype, source=source.name, model="", factory=factory,
        ))  # fmt: skip


def newest_index(root: Path = Path("indexes")) -> Path:
    """The index folder in `root` that was created last; unreadable folders are passed over."""
    created = {}
    for path in root.glob(f"*/{MANIFEST}"):
        if not path.parent.name.startswith("."):
            try:
                created[path.parent] = read_manifest(path.parent).created
            except IndexFolderError:
                continue
    if not created:
        hint = f"Build one with: mrl-search build-index SRC --out {root / 'NAME'}"
        raise IndexFolderError(f"There is no index in {root}.", hint)
    return max(created, key=lambda folder: (created[folder], folder.name))


def write_indexes(
    writer: CollectionWriter, store: VectorStore, spec: IndexSpec, progress: Progress
) -> dict[str, str]:
    """Build all prefix indexes, and the sieve of a large corpus, in one pass over the vectors."""
    if len(store) <= FLAT_UP_TO:
        return build_indexes(writer.folder, store, spec, (), progress)
    with building_sieve(writer.folder, len(store), spec.dims, store.dim) as sieve:
        return build_indexes(writer.folder, store, spec, (sieve,), progress)


def _prepared(out: Path, spec: IndexSpec | None, dims: tuple[int, ...], count: int) -> IndexSpec:
    """Check the place, and give the spec with the full length among its prefixes."""
    refuse_existing(out.resolve())
    spec = (spec or IndexSpec()).over(dims)
    check_kinds(spec, count)
    return spec


def _entry(entry: Picture | Skipped) -> dict[str, object]:
    """What is logged about a picture of a source."""
    if isinstance(entry, Skipped):
        return asdict(entry)
    columns = ("path", "label", "hash", "width", "height")
    return {name: getattr(entry, name) for name in columns}
