"""What a bench searches with: embedded pictures, a fixed-seed sample of them where there are many."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import DataError
from mrl_search.store.rows import EmbeddingSet

__all__ = ["QuerySet"]

FEWEST = 10


@dataclass(frozen=True, eq=False)
class QuerySet:
    """Some rows of an `EmbeddingSet` to search with.

    Attributes:
        embeddings: where they are from.
        rows: (n,) int64, ascending.
        source: what a report calls them.
        own: whether they are items of the corpus that is searched.
        index: what is searched, where the rows must be brought into its space; None where they are in it already.
    """

    embeddings: EmbeddingSet
    rows: NDArray[np.int64]
    source: str
    own: bool
    index: Index | None = None

    @classmethod
    def of_index(cls, index: Index, sample: int, seed: int) -> "QuerySet":
        """Items of the index itself, each to be left out of its own answer.

        Raises:
            DataError: there are too few of them.
        """
        return cls.of_set(index.embeddings, sample, seed, "items of the index", own=True)

    @classmethod
    def of_set(
        cls,
        embeddings: EmbeddingSet,
        sample: int,
        seed: int,
        source: str,
        *,
        own: bool = False,
        index: Index | None = None,
    ) -> "QuerySet":
        """At most `sample` of the rows of `embeddings`, drawn by `seed`; see the attributes for the rest.

        Raises:
            DataError: there are too few of them.
        """
        if len(embeddings) < FEWEST or sample < FEWEST:
            raise DataError(
                f"{min(len(embeddings), sample)} queries are too few: nothing would follow from them.",
                f"Measure with {FEWEST} pictures or more; hundreds make intervals short.",
            )
        rows = np.arange(len(embeddings))
        if sample < len(rows):
            rows = np.sort(np.random.default_rng(seed).choice(rows, sample, replace=False))
        return cls(embeddings, rows, source, own, index)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(n, dim) float32, in the space of the index."""
        rows = np.asarray(self.embeddings.vectors[self.rows], dtype=np.float32)
        return rows if self.index is None else self.index.to_space(rows)

    @cached_property
    def labels(self) -> NDArray[np.object_]:
        """(n,) str or None."""
        return self.embeddings.labels[self.rows]

    @cached_property
    def hashes(self) -> NDArray[np.object_]:
        """(n,) str, of the content."""
        return self.embeddings.hashes[self.rows]

    @cached_property
    def labelled(self) -> NDArray[np.int64]:
        """Positions of the queries that have a label, of which accuracy can be told."""
        return np.flatnonzero([label is not None for label in self.labels])

    @cached_property
    def fingerprint(self) -> str:
        """Of the contents and labels of all queries, in order: outcomes of two benches with the same one can be paired."""
        text = "\n".join(f"{h}\t{label}" for h, label in zip(self.hashes, self.labels, strict=True))
        return xxhash.xxh3_64_hexdigest(text.encode())

    def timed(self, count: int, seed: int) -> NDArray[np.float32]:
        """At most `count` of the vectors, drawn by `seed`, in random order: what single queries are timed with."""
        return self.vectors[np.random.default_rng(seed).permutation(len(self))[:count]]
