"""Answers: `BatchHits` for many queries, `Hits` for one, `Hit` for one answer and its item.

`hit_records` has them as JSON, the same for the command line, the API and the page.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import Skipped
from mrl_search.search.explain import Explanation
from mrl_search.search.plan import Plan
from mrl_search.store.items import Items
from mrl_search.store.rows import Ids

__all__ = ["BatchHits", "Hit", "Hits", "Queries", "hit_records"]


@dataclass(frozen=True, eq=False, slots=True)
class Queries:
    """What to search with.

    Attributes:
        names: paths of the pictures, or places in a file of vectors.
        rows: (n, dim) float32 in the space of the stored vectors.
        skipped: pictures that could not be read.
        embed_ms: milliseconds that embedding all of them took; None for vectors.
        hashes: (n,) content hash of each picture, empty for pixels; None for vectors.
    """

    names: list[str]
    rows: NDArray[np.float32]
    skipped: tuple[Skipped, ...] = ()
    embed_ms: float | None = None
    hashes: NDArray[np.object_] | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """One answer.

    Attributes:
        rank: from 1.
        id: of the item, for as long as it lives.
        score: cosine at the prefix of the last stage.
        path: of the picture; None for vectors without one.
        label: None where unknown.
        expected: how many unrelated items would score as high, if the request wants it.

    Example:
        >>> Hit(rank=1, id=42, score=0.93, path="cats/tom.jpg", label="cat").label
        'cat'
    """

    rank: int
    id: int
    score: float
    path: str | None = None
    label: str | None = None
    expected: float | None = None
    _items: Items | None = field(default=None, repr=False, compare=False)
    _row: int = field(default=-1, repr=False, compare=False)

    def __getitem__(self, column: str) -> object:
        """The value of any other column of the items, as in `hit["width"]`."""
        if self._items is None or column not in self._items.column_names:
            raise KeyError(column)
        return self._items.value(column, self._row)


def _ids(rows: Ids, items: Items | None) -> Ids:
    """The ids of rows of the corpus; -1 stays."""
    if items is None:
        return rows
    known = items.all_ids
    return np.where(rows < 0, -1, known[rows]) if len(known) else rows


@dataclass(frozen=True, eq=False, slots=True)
class Hits:
    """The answers to one query, best first: `ids` (m,) int64 and `scores` (m,) float32.

    Iterating and indexing give `Hit`s. There are fewer than k where fewer were found. `rows` are
    the places of the items in the corpus, which a change of the index may move; ids stay.

    Example:
        >>> hits = Hits(np.array([7, 3]), np.array([0.5, 0.25], dtype=np.float32))
        >>> [(hit.rank, hit.id, hit.score) for hit in hits]
        [(1, 7, 0.5), (2, 3, 0.25)]
    """

    rows: Ids
    scores: NDArray[np.float32]
    items: Items | None = field(default=None, repr=False)
    expected: NDArray[np.float64] | None = None

    @property
    def ids(self) -> Ids:
        """The ids of the items: (m,) int64."""
        return _ids(self.rows, self.items)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits(slice(None)))

    def __getitem__(self, i: int) -> Hit:
        place = range(len(self))[index(i)]
        return self._hits(slice(place, place + 1))[0]

    def values(
        self, some: slice = slice(None)
    ) -> Iterable[tuple[int, float, str | None, str | None]]:
        """Id, score, path and label of each hit, or of some; faster than `Hit`s."""
        rows, scores = self.rows[some].tolist(), self.scores[some].tolist()
        if self.items is None:
            return zip(rows, scores, repeat(None), repeat(None))
        ids = self.items.all_ids[self.rows[some]].tolist()
        paths, labels = self.items.texts("path", rows), self.items.texts("label", rows)
        return zip(ids, scores, paths, labels, strict=True)

    def _hits(self, some: slice) -> list[Hit]:
        rows, ranks = self.rows[some].tolist(), range(1, len(self) + 1)[some]
        expected = [None] * len(rows) if self.expected is None else self.expected[some].tolist()
        return [
            Hit(rank, *values, chance, self.items, row)
            for rank, values, chance, row in zip(
                ranks, self.values(some), expected, rows, strict=True
            )
        ]


@dataclass(frozen=True, eq=False, slots=True)
class BatchHits:
    """The answers to n queries; `batch[i]` is the `Hits` of query i.

    Attributes:
        rows: (n, k) int64, places of the items in the corpus, best first; rows with fewer than k
            answers end with -1.
        scores: (n, k) float32; -inf where the row is -1.
        items: what they stand for.
        plan: what ran.
        dims: (n,) int64, the prefix at which each query stopped, if a stop rule was used.
        explanation: rank and score of every answer at every prefix, if the request wants it.
        expected: (n, k) float64, how many unrelated items would score as high, if the request wants
            it and 1,000 items or more were searched; infinity where the id is -1.

    Example:
        >>> scores = np.array([[0.5, -np.inf]], dtype=np.float32)
        >>> batch = BatchHits(np.array([[7, -1]]), scores)
        >>> len(batch), len(batch[0])
        (1, 1)
    """

    rows: Ids
    scores: NDArray[np.float32]
    items: Items | None = field(default=None, repr=False)
    plan: Plan | None = None
    dims: NDArray[np.int64] | None = None
    explanation: Explanation | None = None
    expected: NDArray[np.float64] | None = None

    @property
    def ids(self) -> Ids:
        """The ids of the items: (n, k) int64, -1 where there is none."""
        return _ids(self.rows, self.items)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Hits]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, i: int) -> Hits:
        found = int(np.count_nonzero(self.rows[index(i)] >= 0))
        expected = None if self.expected is None else self.expected[i, :found]
        return Hits(self.rows[i, :found], self.scores[i, :found], self.items, expected)

    def first(self, k: int) -> "BatchHits":
        """The best `k` answers of each query."""
        expected = None if self.expected is None else self.expected[:, :k]
        return replace(self, rows=self.rows[:, :k], scores=self.scores[:, :k], expected=expected)


def hit_records(
    hits: Hits, explanation: Explanation | None, query: int, own_vectors: bool, look: bool = True
) -> list[dict[str, Any]]:
    """The hits of one query, with rank and score of each at every prefix, if explained.

    `explanation` is that of all queries, `query` the number of this one. With `look`, files that
    are gone are told, except of a user's `own_vectors`, whose paths may name no files.
    """
    records: list[dict[str, Any]] = []
    items, rows = hits.items, hits.rows.tolist()
    own = items.own_columns if items is not None else []
    for i, (id_, score, path, label) in enumerate(hits.values()):
        record: dict[str, Any] = {"rank": i + 1, "id": id_, "score": round(score, 6)}
        if hits.expected is not None:
            record["expected"] = float(f"{hits.expected[i]:.3g}")
        record["label"], record["path"] = label, path
        if look and path is not None and not own_vectors:
            from mrl_search.images.sources import is_gone  # slow, and vectors do not need it

            record["gone"] = is_gone(path)
        if items is not None and own:
            values = {name: items.value(name, rows[i]) for name in own}
            record["columns"] = {n: None if v != v else v for n, v in values.items()}  # no NaN
        if explanation is not None:
            ranks, scores = explanation.ranks[query, i], explanation.scores[query, i]
            levels = zip(explanation.dims, ranks.tolist(), scores.tolist(), strict=True)
            record["explain"] = [
                {"dims": d, "rank": rank, "score": round(score, 6)} for d, rank, score in levels
            ]
        records.append(record)
    return records
