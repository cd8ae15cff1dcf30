"""What answers are worth: the queries that tuning asks, and a mark for each answer."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.search.classify import Ballot, vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import exact_others
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import Ids

__all__ = ["NEIGHBOURS", "USES", "Goal", "enough_to_tune", "queries_to_tune"]

NEIGHBOURS = {"recall": 10, "class": 20, "adaptive": 20, "instance": 1}  # k of each goal
USES = {"recall": "query", "class": "classify", "instance": "instance"}  # in the manifest's plans
FEW, MANY = 1000, 4000  # queries to tune by


@dataclass(frozen=True, eq=False)
class Goal:
    """What answers are worth: a mark from 0 to 1 for each query.

    Attributes:
        name: `recall`, `class` or `instance`.
        k: answers a query gets.
        queries: (n, dim) float32, in the space of the corpus.
        own: (n,) row of each query in the corpus, left out of its answer; -1 where it has none.
        exact: what exact search gives, (n, k).
        score: (rows of the queries, their answers) to marks (rows,).
    """

    name: str
    k: int
    queries: NDArray[np.float32]
    own: Ids
    exact: BatchHits
    score: Callable[[Ids, BatchHits], NDArray[np.float64]]

    @property
    def steps(self) -> int:
        """A mark is a multiple of 1 / `steps`."""
        return self.k if self.name == "recall" else 1

    @classmethod
    def named(cls, name: str, corpus: Corpus, rows: Ids, k: int | None = None) -> "Goal":
        """The goal `recall` or `class` for the items at `rows`."""
        if name not in ("recall", "class"):
            raise ConfigError(f"goal is {name!r}; it must be recall or class.")
        make = cls.recall if name == "recall" else cls.votes
        return make(corpus, rows, k or NEIGHBOURS[name])

    @classmethod
    def recall(cls, corpus: Corpus, rows: Ids, k: int = 10) -> "Goal":
        """Share of the true `k` neighbours of the items at `rows` that are found."""
        k = min(k, len(corpus.live_rows) - 1)
        queries = corpus.vectors.rows(rows).astype(np.float32)
        truth = exact_others(corpus, queries, rows, k)

        def score(at: Ids, hits: BatchHits) -> NDArray[np.float64]:
            same = hits.rows[:, :, None] == truth.rows[at][:, None, :]
            found: NDArray[np.float64] = same.any(axis=2).sum(axis=1) / k
            return found

        return cls("recall", k, queries, rows, truth, score)

    @classmethod
    def votes(cls, corpus: Corpus, rows: Ids, k: int = 20) -> "Goal":
        """Whether the vote of the `k` neighbours gives labelled items at `rows` their own label."""
        labels = corpus.collection.labels
        rows = rows[corpus.collection.labelled[rows]]
        if not len(rows):
            raise DataError(f"The items of {corpus.folder} have no labels.", "Tune for recall.")
        queries = corpus.vectors.rows(rows).astype(np.float32)
        k = min(k, len(corpus.live_rows) - 1)

        def score(at: Ids, hits: BatchHits) -> NDArray[np.float64]:
            votes = zip(vote(hits, labels, Ballot(k)), labels[rows[at]], strict=True)
            return np.array([v.label == label for v, label in votes], dtype=np.float64)

        return cls("class", k, queries, rows, exact_others(corpus, queries, rows, k), score)


def queries_to_tune(corpus: Corpus, count: int | None = None, target: float = 0.0) -> Ids:
    """At most `count` rows of the corpus, drawn with a fixed seed, in random order.

    By default `enough_to_tune`.
    """
    if count is None:
        count = enough_to_tune(target)
    return np.random.default_rng(0).permutation(corpus.live_rows)[:count]


def enough_to_tune(target: float) -> int:
    """Queries by which a plan that misses half of what `target` allows passes the check."""
    return round(min(max(4 / max(1 - target, 1e-9), FEW), MANY))
