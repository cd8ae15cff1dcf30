"""What is compared: pictures of an index, or of a folder, with their vectors and their files."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.duplicates.keeping import Item
from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import embed
from mrl_search.errors import BrokenImage, ConfigError, DataError
from mrl_search.files import expanded, recordable
from mrl_search.images.decode import content_hash
from mrl_search.images.reading import Picture
from mrl_search.images.sources import (
    RecordedSource,
    Source,
    is_gone,
    open_source,
    read_path,
    read_recorded,
)
from mrl_search.progress import Progress
from mrl_search.search.corpus import Corpus
from mrl_search.store.manifest import MANIFEST
from mrl_search.store.rows import Ids, VectorStore

__all__ = ["CHANGED", "UNREADABLE", "Pictures", "content_of", "files_of"]

CHANGED, GONE, UNREADABLE = "changed since they were indexed", "gone", "that cannot be read"


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures and their vectors; a column has one value a picture.

    Attributes:
        sources: where they are; no path leaves them.
        paths: (n,) str, or None.
        hashes: (n,) str, of their bytes; of own vectors, of the vectors.
        sizes: (n, 2) int64 width and height; 0 where unknown.
        rows: (n,) int64, of their vectors.
        ids: (n,) int64, of the items; None if they are in no index.
        vectors: None where only bytes are compared.
        own_vectors: whether the vectors are a user's own, whose files are never read.
        unread: pictures that could not be read and are not among these.
    """

    sources: tuple[str, ...]
    paths: NDArray[np.object_]
    hashes: NDArray[np.object_]
    sizes: NDArray[np.int64]
    rows: Ids
    vectors: VectorStore | None
    ids: Ids | None = None
    own_vectors: bool = False
    unread: int = 0

    def __len__(self) -> int:
        return len(self.paths)

    @classmethod
    def of_index(cls, corpus: Corpus) -> "Pictures":
        """Those of an index, without deleted ones."""
        rows, own, items = corpus.live_rows, corpus.collection, corpus.items
        sizes = np.stack(
            [items[name].fill_null(0).to_numpy()[rows] for name in ("width", "height")], axis=1
        )
        return cls(
            corpus.manifest.places, own.paths[rows],
            own.hashes[rows], sizes.astype(np.int64), rows, corpus.vectors, items.all_ids[rows],
            corpus.manifest.own_vectors,
        )  # fmt: skip

    @classmethod
    def of_source(
        cls, source: Source, corpus: Corpus, encoder: Callable[[], Encoder] | None,
        progress: Progress,
    ) -> "Pictures":  # fmt: skip
        """Those of a source, embedded for an index; without an encoder, only their bytes are read.

        Raises:
            DataError: none can be read.
        """
        total, found, rows = len(source.paths), list[tuple[str, str, int, int]](), list[object]()
        if encoder is None:
            for i, path in enumerate(source.paths):
                try:
                    found.append((path, content_hash(source.read(i)), 0, 0))
                except BrokenImage:
                    continue
                progress("reading", i + 1, total)
        else:
            done = 0
            for batch in embed(source, encoder()):
                pictures = [entry for entry in batch.entries if isinstance(entry, Picture)]
                found += [(p.path, p.hash, p.width, p.height) for p in pictures]
                rows.append(corpus.to_space(batch.rows))
                done += len(batch.entries)
                progress("embedding", done, total)
        if not found:
            raise DataError(f"No picture of {source.name} can be read.", "Check the files.")
        paths, hashes, widths, heights = zip(*found, strict=True)
        vectors = VectorStore(np.concatenate(rows)) if rows else None  # type: ignore[arg-type]
        return cls(
            (source.name,), np.array(paths, object), np.array(hashes, object),
            np.array([widths, heights]).T, np.arange(len(paths)), vectors,
            unread=total - len(paths),
        )  # fmt: skip

    @classmethod
    def of_others(
        cls, others: Source | str | Path, corpus: Corpus, encoder: Callable[[], Encoder] | None,
        progress: Progress,
    ) -> "Pictures":  # fmt: skip
        """Those of an index, a folder or a file; see `of_source`."""
        corpus.check_takes_images()
        if not isinstance(others, str | Path):
            return cls.of_source(others, corpus, encoder, progress)
        folder = expanded(others)
        if not (folder / MANIFEST).is_file():
            return cls.of_source(open_source(str(others)), corpus, encoder, progress)
        other = Corpus.open(folder)
        other.check_takes_images()
        if encoder is None or _same_space(corpus, other):
            return cls.of_index(other)
        m, own = other.manifest, other.collection
        source = RecordedSource(m.root, own.paths.tolist(), own.labels.tolist(), places=m.places)
        return cls.of_source(source, corpus, encoder, progress)

    def contents(self) -> dict[str, list[int]]:
        """The pictures that have each hash, in order."""
        found: dict[str, list[int]] = {}
        for i, one in enumerate(self.hashes.tolist()):
            found.setdefault(one, []).append(i)
        return found

    def hash_named(self, name: str) -> str:
        """The hash of a picture by its path, as it is now, or was if it is gone.

        Raises:
            ConfigError: it is not in the index, neither by its path nor by its bytes.
        """
        known = (name, recordable(expanded(name).absolute()), recordable(expanded(name).resolve()))
        at = next((i for i in range(len(self)) if self.path(i) in known), None)
        if self.own_vectors:
            if at is None:
                hint = "Name rows as they are shown: 'item 5'."
                raise ConfigError(f"{name} is in no row.", hint)
            return str(self.hashes[at])
        with suppress(BrokenImage):
            digest = content_hash(read_path(name))
            if at is not None or digest in self.hashes:
                return digest
        if at is None:
            message = f"{name} is no picture of the index."
            raise ConfigError(message, "Name pictures by their paths; sync takes new ones in.")
        return str(self.hashes[at])

    def path(self, i: int) -> str:
        """The path of picture `i`, or what it is called without one."""
        return str(self.paths[i] or f"item {self.rows[i] if self.ids is None else self.ids[i]}")

    def file(self, i: int) -> Item:
        """Picture `i`, as recorded."""
        (width, height), path = self.sizes[i].tolist(), self.path(i)
        first, *others = self.sources
        source = next((s for s in others if expanded(path).is_relative_to(expanded(s))), first)
        own = None if self.ids is None else int(self.ids[i])
        return Item(own, path, self.hashes[i], source, width=width, height=height)


def _same_space(corpus: Corpus, other: Corpus) -> bool:
    """Whether the vectors of two indexes can be compared."""
    one, two = corpus.collection.transform, other.collection.transform
    same = (corpus.manifest.fingerprint, one.dim, one.rows_dim) == (
        other.manifest.fingerprint, two.dim, two.rows_dim,
    )  # fmt: skip
    axes = ((one.rotation, two.rotation), (one.centre, two.centre))
    return same and all(
        a is b or (a is not None and b is not None and np.array_equal(a, b)) for a, b in axes
    )


def content_of(file: Item) -> bytes:
    """The bytes of a file of an index, which must be what they were.

    Raises:
        BrokenImage: gone, changed, or outside of its source; the message is the reason.
    """
    data = read_recorded(file.path, file.source)
    if content_hash(data) != file.hash:
        raise BrokenImage(CHANGED)
    return data


def files_of(files: Iterable[Item], left_out: Counter[str]) -> dict[object, Item]:
    """The files that are there, with size and time, by what tells them apart: hard links are one.

    Rows of a data set are read for their size. Those that are gone or cannot be read are counted in
    `left_out`.
    """
    found: dict[object, Item] = {}
    for file in sorted(files, key=lambda f: f.path):
        try:
            place = expanded(file.path)
            state = place.stat() if os.path.lexists(place) else None
            size = len(content_of(file)) if state is None else state.st_size
        except (BrokenImage, OSError, ValueError):
            left_out[GONE if is_gone(file.path) else UNREADABLE] += 1
            continue
        key: object = file.path if state is None else (state.st_dev, state.st_ino)
        if first := found.get(key):
            found[key] = replace(first, links=(*first.links, file.path))
        else:
            when = None if state is None else state.st_mtime
            found[key] = replace(file, bytes=size, modified=when)
    return found
