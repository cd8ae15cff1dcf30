"""What a benchmark searches with: embedded pictures, or a seeded sample of them."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.engines.spec import FLAT_UP_TO, SCAN, IndexSpec
from mrl_search.images.sources import Source
from mrl_search.progress import Progress
from mrl_search.store.rows import EmbeddingSet
from mrl_search.vectors import sample

if TYPE_CHECKING:
    from mrl_search.encoders.encoder import Encoder

__all__ = ["QuerySet", "temporary_index"]


@dataclass(frozen=True, eq=False)
class QuerySet:
    """Some rows of a collection as queries.

    Attributes:
        collection: where they are from.
        rows: (n,) int64, ascending.
        source: what a report calls them.
        own: whether they are items of the searched index.
        index: the searched index, where the rows are raw; None where they are in its space.
    """

    collection: EmbeddingSet
    rows: NDArray[np.int64]
    source: str
    own: bool = False
    index: Index | None = None

    @classmethod
    def of_index(cls, index: Index, size: int | None = None, seed: int = 0) -> "QuerySet":
        """At most `size` items of the index itself; none is among its own hits."""
        rows = sample(len(index), size or len(index), seed)
        return cls(index.embeddings, rows, "items of the index", own=True)

    @classmethod
    def of_collection(
        cls,
        collection: EmbeddingSet,
        source: str,
        index: Index,
        size: int | None = None,
        seed: int = 0,
    ) -> "QuerySet":
        """At most `size` rows of another collection, as queries of `index`."""
        rows = sample(len(collection), size or len(collection), seed)
        return cls(collection, rows, source, index=index)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(n, dim) float32, in the space of the index."""
        rows = np.asarray(self.collection.vectors[self.rows], dtype=np.float32)
        return rows if self.index is None else self.index.to_space(rows)

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """(n,) str or None."""
        return self.collection.labels[self.rows]

    @cached_property
    def hashes(self) -> NDArray[np.object_]:
        """(n,) content hashes."""
        return self.collection.hashes[self.rows]

    @cached_property
    def paths(self) -> NDArray[np.object_]:
        """(n,) str or None."""
        return self.collection.paths[self.rows]

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the queries with a label."""
        return np.flatnonzero([label is not None for label in self.labels])

    @cached_property
    def fingerprint(self) -> str:
        """Hash of contents and labels; outcomes of two benchmarks can be paired if it is equal."""
        text = "\n".join(f"{h}\t{label}" for h, label in zip(self.hashes, self.labels, strict=True))
        return xxhash.xxh3_64_hexdigest(text.encode())

    def paths_in(self, index: Index) -> list[str]:
        """Paths of the queries whose content is in `index`."""
        known = set(index.embeddings.hashes)
        return [
            str(path)
            for path, h in zip(self.paths, self.hashes, strict=True)
            if path and h in known
        ]

    def shuffled(self, count: int, seed: int) -> NDArray[np.int64]:
        """At most `count` positions in a seeded random order."""
        return np.random.default_rng(seed).permutation(len(self))[:count]


@contextmanager
def temporary_index(
    source: Source, encoder: "Encoder", dims: tuple[int, ...], progress: Progress
) -> Iterator[Index]:
    """An exact index of the pictures of `source`, which is deleted at the end of the block."""
    from mrl_search.index import build_index

    factory = "auto" if len(source.paths) <= FLAT_UP_TO else SCAN
    with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
        out = Path(folder) / "queries"
        yield build_index(source, encoder, out, IndexSpec(dims, factory), progress)
