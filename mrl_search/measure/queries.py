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

from mrl_search.engines.spec import FLAT_UP_TO, SCAN, IndexSpec
from mrl_search.errors import DataError
from mrl_search.images.sources import Source
from mrl_search.index import Index
from mrl_search.progress import Progress
from mrl_search.search.classify import label_doubt
from mrl_search.search.corpus import Corpus
from mrl_search.store.collection import Collection
from mrl_search.vectors import sample

if TYPE_CHECKING:
    from mrl_search.encoders.base import Encoder

__all__ = ["QuerySet", "shuffled", "temporary_index"]


@dataclass(frozen=True, eq=False)
class QuerySet:
    """Some rows of a collection as queries."""

    collection: Collection
    rows: NDArray[np.int64]  # (n,) ascending
    source: str  # what a report calls them
    own: bool = False  # whether they are items of the searched corpus
    corpus: Corpus | None = None  # what is searched, where the rows are raw, not in its space
    doubt: str = ""  # why labels are no classes; accuracy is then not measured

    @classmethod
    def of_corpus(cls, corpus: Corpus, size: int | None = None, seed: int = 0) -> "QuerySet":
        """At most `size` items of the corpus itself; none is among its own hits."""
        live = corpus.live_rows
        rows = live[sample(len(live), size or len(live), seed)]
        doubt = label_doubt(corpus)
        return cls(corpus.collection, rows, "items of the index", own=True, doubt=doubt)

    @classmethod
    def of_collection(
        cls, collection: Collection, source: str, corpus: Corpus, size: int | None = None,
        seed: int = 0,
    ) -> "QuerySet":  # fmt: skip
        """At most `size` rows of another collection, as queries of `corpus`."""
        live = collection.live_rows
        rows = live[sample(len(live), size or len(live), seed)]
        return cls(collection, rows, source, corpus=corpus, doubt=label_doubt(corpus))

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def vectors(self) -> NDArray[np.float32]:
        """(n, dim) float32, in the space of the corpus."""
        rows = self.collection.vectors.rows(self.rows).astype(np.float32)
        if self.corpus is None:
            return rows
        return self.corpus.to_space(rows * self.collection.norms[self.rows, None])

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
        """Positions of the queries with a label; none where labels are no classes."""
        return np.flatnonzero(self.collection.labelled[self.rows] & (not self.doubt))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of contents and labels; outcomes of two benchmarks can be paired if it is equal."""
        text = "\n".join(f"{h}\t{label}" for h, label in zip(self.hashes, self.labels, strict=True))
        return xxhash.xxh3_64_hexdigest(text.encode())

    def trained(self, index: Index) -> NDArray[np.bool_] | None:
        """Which queries trained the model of `index`, (n,); None where that is not known.

        It is known where the index holds the pictures that were split for the training.
        """
        held_out = index.held_out()
        if held_out is None:
            return None
        others = np.delete(index.corpus.collection.hashes, held_out)
        trained: NDArray[np.bool_] = np.isin(self.hashes.astype(str), others.astype(str))
        return trained

    def paths_in(self, corpus: Corpus) -> list[str]:
        """Paths of the queries whose content is in `corpus`.

        Raises:
            DataError: there is none.
        """
        known = corpus.collection.hash_counts
        pairs = zip(self.paths, self.hashes, strict=True)
        found = [str(path) for path, content in pairs if path and content in known]
        if not found:
            hint = "Use pictures that are in the index, or leave --instance out."
            where = f"No picture of {self.source} is in {corpus.folder}"
            raise DataError(f"{where}: no copy can find its original.", hint)
        return found


def shuffled(count: int, size: int, seed: int) -> NDArray[np.int64]:
    """At most `size` of `count` positions in a seeded random order."""
    return np.random.default_rng(seed).permutation(count)[:size]


@contextmanager
def temporary_index(
    source: Source, encoder: "Encoder", dims: tuple[int, ...], progress: Progress
) -> Iterator[Index]:
    """An exact index of the pictures of `source`, which is deleted at the end of the block."""
    kind = "Flat" if len(source.paths) <= FLAT_UP_TO else SCAN
    with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
        out, spec = Path(folder) / "index", IndexSpec(dims, kind)
        axes = "none" if dims else None  # rows as another index takes them
        yield Index.build(source, out, model=encoder, spec=spec, axes=axes, progress=progress)
