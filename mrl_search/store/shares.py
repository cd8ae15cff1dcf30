"""The share of a source that one of several machines embeds.

Files are shared out by a hash of their path below the source: a machine that lists them in another
order, or has them in another place, takes the same ones. Rows of data sets and vectors have no name
but their position: each machine takes a range of them.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import xxhash

from mrl_search.files import expanded
from mrl_search.images.base import Source, Subset
from mrl_search.images.tables import DatasetSource
from mrl_search.store.shard import PATH, POSITION, Shard
from mrl_search.store.vector_files import VectorSource

__all__ = ["path_keys", "paths_below", "share_of_pictures", "share_of_vectors"]


def share_of_pictures(source: Source, shard: Shard) -> tuple[Shard, list[int]]:
    """The shard with what it depends on, and the rows of `source` that it takes, ascending."""
    total = len(source.paths)
    if isinstance(_whole(source), DatasetSource):
        shard = replace(shard, by=POSITION, total=total, listing=_listing([str(total)]))
        return shard, list(shard.range_of(total))
    keys = path_keys(source.paths, _whole(source).name)
    shard = replace(shard, by=PATH, total=total, listing=_listing(sorted(keys)))
    return shard, [row for row, key in enumerate(keys) if shard.takes(key)]


def share_of_vectors(source: VectorSource, shard: Shard) -> tuple[Shard, VectorSource]:
    """The shard with what it depends on, and the rows of `source` that it takes."""
    parts = [f"{part.path.name} {part.count}" for part in source.parts]
    shard = replace(shard, by=POSITION, total=source.count, listing=_listing(parts))
    rows = shard.range_of(source.count)
    return shard, source.between(rows.start, rows.stop)


def path_keys(paths: Sequence[str], root: str) -> list[str]:
    """Names of files that are the same on all machines: paths below `root`, in NFC."""
    return [unicodedata.normalize("NFC", path) for path in paths_below(paths, root)]


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
