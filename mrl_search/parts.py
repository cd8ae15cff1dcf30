"""Parts of one index, which several machines build, and whether they fit together.

A part is an index folder of its own: the rows as the encoder or the user gave them, and their
items. It has no prefix indexes and no axes, which depend on all rows; they come when parts are
joined (see `mrl_search.joining`). Until then a part can be searched by exact comparison.

Files are shared out by a hash of their path below the source: a machine that lists them in another
order, or has them in another place, takes the same ones. Rows of data sets and vectors have no name
but their position: each machine takes a range of them.
"""

import shlex
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.building import embedded, made_by, refuse_index
from mrl_search.encoders.base import Encoder
from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.files import expanded, recordable
from mrl_search.images.base import FileSource, Source, Subset, subset
from mrl_search.images.tables import DatasetSource
from mrl_search.progress import Progress, silent
from mrl_search.store.manifest import OWN_VECTORS, Manifest, read_manifest
from mrl_search.store.own_vectors import inspect, item_columns, item_table, stored_rows
from mrl_search.store.shard import PATH, POSITION, Shard
from mrl_search.store.transform import Transform
from mrl_search.store.vector_files import VectorSource, open_vectors
from mrl_search.store.writer import CollectionWriter

__all__ = [
    "build_part", "build_vector_part", "check_parts", "manifests_of", "paths_below",
    "share_of_pictures", "share_of_vectors",
]  # fmt: skip

SHOWN = 5  # numbers of missing parts in a message


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
        writer.write_vectors(share.count, stored_rows(share, transform), progress)
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


def manifests_of(names: Sequence[str]) -> list[Manifest]:
    """The manifests of parts.

    Raises:
        IndexFolderError: one is missing, unfinished or damaged; the hint has its own command.
    """
    found = dict[str, Manifest]()
    for name in names:
        with suppress(IndexFolderError):
            found[name] = read_manifest(expanded(name))
    known = [m for m in found.values() if m.shard]
    for name in names:
        if name in found:
            continue
        out = shlex.quote(name)
        command = f"mrl-search build-index SRC --out {out} --shard NUMBER/COUNT"
        if known:
            numbers, count = _missing(known), known[0].shard.count
            number = numbers[0] if len(numbers) == 1 else "NUMBER"
            command = known[0].build(out, f"{number}/{count}")
            if len(numbers) > 1:
                command += f"\nNUMBER is one of {_listed(numbers)}."
        found[name] = read_manifest(expanded(name), command=command)  # unless it came meanwhile
    return [found[name] for name in names]


def _missing(manifests: Sequence[Manifest]) -> list[int]:
    """Numbers of the parts that are not there."""
    there = {m.shard.number for m in manifests}
    return [n for n in range(1, manifests[0].shard.count + 1) if n not in there]


def _listed(values: Sequence[object]) -> str:
    more = f" and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    return ", ".join(map(str, values[:SHOWN])) + more


def check_parts(
    names: Sequence[str], manifests: Sequence[Manifest], *, moved: bool, partial: bool
) -> None:
    """Check that parts fit together.

    Raises:
        ConfigError: they do not.
    """
    if not names:
        raise ConfigError("No part is given.", "Name the folders that build-index --shard wrote.")
    for name, m in zip(names, manifests, strict=True):
        if not m.shard:
            hint = "Parts come from: mrl-search build-index SRC --shard 1/4 --out PART"
            raise ConfigError(f"{name} is an index, not a part of one.", hint)
    facts: list[tuple[Callable[[Manifest], Any], str, str]] = [
        (lambda m: m.shard.count, "shares a source out among {}", "Build them with one COUNT."),
        (_maker, "was made by {}", "All parts must come from one model."),
        (lambda m: m.dim, "has {} dims", "All parts must come from one model."),
        (lambda m: m.dtype, "has vectors in {}", "Build them with one --dtype."),
    ]
    if not moved:
        hint = "If it is the same source in another place, name it here: --source SRC"
        facts.append((lambda m: m.source, "is of {}", hint))
    facts.append((_walk, "was built with {}", "Build all with the same options."))
    if manifests[0].shard.by == POSITION:
        hint = "Rows are shared out by position, so all must see the same. Build them again."
        facts.append((lambda m: f"{m.shard.total:,} rows ({m.shard.listing[:6]})", "saw {}", hint))
    for fact, what, hint in facts:
        first = fact(manifests[0])
        for name, m in zip(names, manifests, strict=True):
            if fact(m) != first:
                message = f"{name} {what.format(fact(m))}; {names[0]}, {first}."
                raise ConfigError(message, hint)
    _check_columns(names, manifests)
    places = defaultdict(list)
    for name, m in zip(names, manifests, strict=True):
        places[m.shard.number].append(name)
    count = manifests[0].shard.count
    for number, twice in places.items():
        if len(twice) > 1:
            message = f"Part {number}/{count} is there twice: {' and '.join(twice)}."
            raise ConfigError(message, "Leave one out.")
    missing = [f"{number}/{count}" for number in _missing(manifests)]
    if missing and not partial:
        are = "are" if len(missing) > 1 else "is"
        build = manifests[0].build("PART", missing[0])
        hint = f"Build what is missing: {build}\nOr join the others alone: --partial"
        raise ConfigError(f"Of {count} parts, {_listed(missing)} {are} missing.", hint)


def _check_columns(names: Sequence[str], manifests: Sequence[Manifest]) -> None:
    """Raise ConfigError if a part was built without columns that another has."""
    every = dict(zip(names, manifests, strict=True))
    having = {column: name for name, m in every.items() for column in m.shard.columns}
    for name, m in every.items():
        lacking = sorted(having.keys() - set(m.shard.columns))
        if lacking:
            other = having[lacking[0]]
            columns = f"column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}"
            message = f"{name} was built without the {columns}, which {other} has."
            way = "with its --items" if m.own_vectors else "where the metadata file is"
            same = replace(m, shard=replace(m.shard, items=every[other].shard.items))
            command = same.build(shlex.quote(name))
            raise ConfigError(message, f"Remove {name} and build it again {way}: {command}")


def _maker(manifest: Manifest) -> str:
    """What made the rows of a part; of a user's own vectors every part has other contents."""
    own = manifest.own_vectors
    return manifest.encoder if own else f"{manifest.encoder} ({manifest.fingerprint[:12]})"


def _walk(manifest: Manifest) -> str:
    """How the folders of a part were walked."""
    return ", ".join(
        f"--labels {how.get('labels') or 'by default'}{' --hidden' if how.get('hidden') else ''}"
        for how in manifest.roots.values()
    )
