"""Parts of one index, which several machines build (see `mrl_search.joining`).

A part is an index folder of its own: the rows as the encoder or the user gave them, and their
items. It has no prefix indexes and no axes, which depend on all rows; they come when parts are
joined. Until then a part can be searched by exact comparison.

Files are shared out by a hash of their path below the source: a machine that lists them in another
order, or has them in another place, takes the same ones. Rows of data sets and vectors have no name
but their position: each machine takes a range of them.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.building import embedded, made_by, refuse_index
from mrl_search.encoders.base import Encoder
from mrl_search.files import expanded, recordable
from mrl_search.images.base import FileSource, Source, Subset, subset
from mrl_search.images.tables import DatasetSource
from mrl_search.progress import Progress, silent
from mrl_search.store.manifest import OWN_VECTORS, Manifest
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.shard import PATH, POSITION, Shard
from mrl_search.store.transform import Transform
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.store.writer import CollectionWriter

__all__ = [
    "build_part", "build_vector_part", "paths_below", "share_of_pictures", "share_of_vectors",
]  # fmt: skip


def build_part(
    source: Source, out: str | Path, encoder: Encoder, shard: Shard | str, *,
    dtype: str = "float16", progress: Progress = silent,
) -> None:  # fmt: skip
    """Embed one share of the pictures of `source`, in the new folder `out`.

    An unfinished part of the same pictures by the same model is continued. In a process that
    `accelerate launch` started, all of them embed; the first one writes.

    Args:
        source: all pictures.
        out: the new folder.
        encoder: the model, the same for all parts.
        shard: which share, such as `3/16`.
        dtype: of the stored vectors, `float16` or `float32`.
        progress: called with what is being done, how far, and of how much.

    Raises:
        ConfigError: not a shard.
        IndexFolderError: `out` exists, or another process builds it.
    """
    from mrl_search.encoders.ranks import Ranks

    out = expanded(out)
    refuse_index(out)
    shard = Shard.parse(shard) if isinstance(shard, str) else shard
    shard, rows = share_of_pictures(source, shard)
    share = subset(source, rows, f"shard {shard}")
    with Ranks.here() as ranks:
        if not ranks.first:
            return ranks.help(share, encoder)
        job = [encoder.fingerprint, share.name, *share.paths]
        with CollectionWriter.open(out, encoder.dims[-1], dtype, job) as writer:
            store = embedded(writer, share, encoder, ranks, progress, empty=True)
            writer.write_heads(encoder.heads.weights)
            made = made_by(encoder, source, store)
            writer.publish(replace(made, shard=replace(shard, axes=encoder.axes)))


def build_vector_part(
    vectors: VectorSource | NDArray[np.floating] | str | Path, out: str | Path,
    shard: Shard | str, *, items: str | Path | None = None, dtype: str = "float16",
    progress: Progress = silent,
) -> None:  # fmt: skip
    """Store one share of vectors of a user's own, see `open_vectors`, in the new folder `out`.

    Raises:
        ConfigError: not a shard.
        DataError: vectors or items that cannot be used.
        IndexFolderError: `out` exists, or another process builds it.
    """
    out, source = expanded(out), open_vectors(vectors)
    refuse_index(out)
    shard = Shard.parse(shard) if isinstance(shard, str) else shard
    shard, share = share_of_vectors(source, shard)
    first = shard.range_of(source.count).start
    columns = item_columns(source, items)
    given = [name for name in columns.column_names if columns[name].null_count < len(columns)]
    where = "" if items is None else recordable(expanded(items).resolve())
    shard = replace(shard, columns=tuple(sorted(given)), items=where)
    columns = columns.slice(first, share.count)
    found = inspect(share, False, progress)
    transform = Transform(source.dim, source.dim)
    with CollectionWriter.open(out, source.dim, dtype) as writer:
        writer.write_items(item_table(columns, found))
        writer.write_vectors(share.count, stored_rows(share, transform, progress))
        writer.publish(Manifest(
            encoder=OWN_VECTORS, fingerprint=found.fingerprint, dim=source.dim, dims=(source.dim,),
            count=share.count, dtype=dtype, source=source.name, model="", shard=shard,
        ))  # fmt: skip


def share_of_pictures(source: Source, shard: Shard) -> tuple[Shard, list[int]]:
    """The shard with what it depends on, and the rows of `source` that it takes, ascending."""
    total, whole = len(source.paths), _whole(source)
    columns = [] if whole.columns is None else list(whole.columns.column_names)
    if isinstance(whole, FileSource) and whole.by_metadata:
        columns.append("label")
    shard = replace(shard, columns=tuple(sorted(columns)))
    if isinstance(whole, DatasetSource):
        shard = replace(shard, by=POSITION, total=total, listing=_listing([str(total)]))
        return shard, list(shard.range_of(total))
    below = paths_below(source.paths, whole.name)
    keys = [unicodedata.normalize("NFC", path) for path in below]  # the same on all machines
    shard = replace(shard, by=PATH, total=total, listing=_listing(sorted(keys)))
    return shard, [row for row, key in enumerate(keys) if shard.takes(key)]


def share_of_vectors(source: VectorSource, shard: Shard) -> tuple[Shard, VectorSource]:
    """The shard with what it depends on, and the rows of `source` that it takes."""
    seen = [f"{part.path.name} {part.count}" for part in source.parts]
    for row in sorted({0, source.count // 2, source.count - 1}):
        seen += [rows.tobytes().hex() for rows in source.between(row, row + 1).read()]
    shard = replace(shard, by=POSITION, total=source.count, listing=_listing(seen))
    rows = shard.range_of(source.count)
    return shard, source.between(rows.start, rows.stop)


def paths_below(paths: Sequence[str], root: str) -> list[str]:
    """Paths relative to `root`, with `/`; paths elsewhere as they are."""
    place, begin = expanded(root), f"{root.rstrip('/')}/"
    return [p[len(begin) :] if p.startswith(begin) else _below(p, place) for p in paths]


def _below(path: str, root: Path) -> str:
    file = expanded(path)
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else path


def _whole(source: Source) -> Source:
    """The source of which another is a part."""
    while isinstance(source, Subset):
        source = source.of
    return source


def _listing(names: Iterable[str]) -> str:
    text = "\0".join(names).encode(errors="surrogateescape")
    return str(xxhash.xxh3_128_hexdigest(text))
