"""The neighbours of images that are in the corpus themselves: every copy of the query is left out of its own answer."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.config import Plan
from mrl_search.index import Index
from mrl_search.results import BatchHits
from mrl_search.search.run import search

__all__ = ["copies_of", "leave_out", "leave_out_rows", "search_others", "widened"]


def search_others(index: Index, queries: NDArray[np.floating], hashes: NDArray[np.object_], plan: Plan) -> BatchHits:
    """Search as `search` does, but leave every image with the query's own content out of its answer.

    Each stage keeps more, by the largest number of copies that one query has in the corpus, so that `plan.keep` others remain. A
    query that is not in the corpus gets what `search` gives.

    Args:
        index: what is searched.
        queries: (n, dim) vectors.
        hashes: (n,) str, content hash of each query's image, as in the `hash` column of the items.
        plan: what each stage keeps of other images.
    """
    corpus = index.embeddings.hashes
    return leave_out(search(index, queries, widened(plan, copies_of(corpus, hashes))), corpus, hashes, plan.keep)


def copies_of(corpus_hashes: NDArray[np.object_], query_hashes: NDArray[np.object_]) -> int:
    """The largest number of items that one of the contents `query_hashes` (n,) has in the corpus, whose items have `corpus_hashes`."""
    corpus = corpus_hashes.astype(str)
    _, counts = np.unique(corpus[np.isin(corpus, query_hashes.astype(str))], return_counts=True)
    return int(counts.max(initial=0))


def widened(plan: Plan, extra: int) -> Plan:
    """`plan` with so many more kept by every stage."""
    return Plan(tuple(replace(stage, keep=stage.keep + extra) for stage in plan.stages))


def leave_out(hits: BatchHits, corpus_hashes: NDArray[np.object_], query_hashes: NDArray[np.object_], k: int) -> BatchHits:
    """The first `k` hits of each query that have other content than the query itself.

    Args:
        hits: (n, m) answers, best first; m should be k and as many more as a query has copies in the corpus.
        corpus_hashes: (corpus,) content hash of each item.
        query_hashes: (n,) content hash of each query.
        k: how many to keep.

    Returns:
        (n, min(k, m)) answers in the same order; a row with fewer is filled up with id -1 and score -inf.
    """
    return _without(hits, corpus_hashes[hits.ids] == query_hashes[:, None], k)


def leave_out_rows(hits: BatchHits, own: NDArray[np.int64], k: int) -> BatchHits:
    """The first `k` hits of each query but the row `own` (n,), the query itself in the corpus; -1 leaves out none. As `leave_out`."""
    return _without(hits, hits.ids == own[:, None], k)


def _without(hits: BatchHits, unwanted: NDArray[np.bool_], k: int) -> BatchHits:
    gone = (hits.ids < 0) | unwanted
    order = gone.argsort(axis=1, kind="stable")[:, :k]
    gone = np.take_along_axis(gone, order, axis=1)
    ids, scores = np.take_along_axis(hits.ids, order, axis=1), np.take_along_axis(hits.scores, order, axis=1)
    return BatchHits(np.where(gone, -1, ids), np.where(gone, np.float32(-np.inf), scores))
