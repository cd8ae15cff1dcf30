"""Leaving the query itself out of its answer, where queries are items of the corpus."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Mask, chosen
from mrl_search.errors import ConfigError
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits, Queries
from mrl_search.search.run import Find, default_plan, search
from mrl_search.store.rows import Ids

__all__ = ["by_copies", "exact_others", "leave_out", "others_than", "search_others"]

Widened = Callable[[NDArray[np.float32], Plan, int], BatchHits]


def others_than(queries: Queries) -> Find:
    """What searches, but leaves every item with the content of its query out of the answer.

    Raises:
        ConfigError: the queries are vectors.
    """
    hashes = queries.hashes
    if hashes is None:
        raise ConfigError("Vectors have no content by which to leave out the query itself.")

    def find(
        corpus: Corpus, rows: NDArray[np.floating], plan: Plan, k: int, mask: Mask | None
    ) -> BatchHits:
        plan = default_plan(corpus, k) if plan == Plan.AUTO else plan
        wider = partial(search, corpus, mask=mask)
        return search_others(corpus, rows.astype(np.float32), hashes, plan, k, wider)

    return find


def search_others(
    corpus: Corpus, queries: NDArray[np.float32], hashes: NDArray[np.object_], plan: Plan, k: int,
    find: Widened | None = None,
) -> BatchHits:  # fmt: skip
    """Search, but leave every item with the query's own content out of its answer.

    Each query keeps as many more candidates as it has copies in the corpus, so that `k` others
    remain; there are fewer columns where the corpus is smaller. A query that is not in the corpus
    gets what `search` gives.

    Args:
        corpus: what is searched.
        queries: (n, dim) float32.
        hashes: (n,) str, content hash of each query, as in the `hash` column of the items.
        plan: how to search.
        k: answers wanted.
        find: searches queries by a plan for k answers; default: `search`.
    """
    find = find or partial(search, corpus)
    width = min(k, len(corpus.live_rows))
    ids, scores = np.full((len(queries), width), -1), np.full((len(queries), width), -np.inf)
    found = BatchHits(ids, scores.astype(np.float32), corpus.items, plan)
    for rows, extra in by_copies(corpus, hashes):
        wide = find(queries[rows], plan.widened(extra), k + extra)
        own = corpus.collection.hashes[wide.rows] == hashes[rows, None]
        others = leave_out(wide, own, width)
        found.rows[rows, : others.rows.shape[1]] = others.rows
        found.scores[rows, : others.rows.shape[1]] = others.scores
    return found


def by_copies(corpus: Corpus, hashes: NDArray[np.object_]) -> Iterator[tuple[Ids, int]]:
    """Positions of the queries with the same number of copies in the corpus, and that number."""
    copies = corpus.collection.copies(hashes)
    for extra in np.unique(copies).tolist():
        yield np.flatnonzero(copies == extra), extra


def leave_out(hits: BatchHits, unwanted: NDArray[np.bool_], k: int) -> BatchHits:
    """The first `k` hits of each query that are not `unwanted`, (n, m); the rest is padding."""
    scores, ids = chosen((hits.scores, hits.rows), (hits.rows >= 0) & ~unwanted, k)
    return BatchHits(ids, scores, hits.items, hits.plan)


def exact_others(corpus: Corpus, queries: NDArray[np.float32], own: Ids, k: int) -> BatchHits:
    """The true `k` nearest of each query without its own row, -1 for none: (n, k)."""
    hits = search(corpus, queries, Plan.EXACT, k + 1)
    return leave_out(hits, hits.rows == own[:, None], k)
