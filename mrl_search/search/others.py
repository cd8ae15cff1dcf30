"""The neighbours of images that are in the corpus themselves: every copy of the query is left out of its own answer."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.search.scoring import joined

__all__ = [
    "by_copies",
    "copies_of",
    "leave_out",
    "leave_out_rows",
    "search_others",
    "widened",
    "without_copies",
]


def search_others(
    index: Index, queries: NDArray[np.floating], hashes: NDArray[np.object_], plan: Plan
) -> BatchHits:
    """Search as `search` does, but leave every image with the query's own content out of its answer.

    Each stage keeps more, by the number of copies that the query has in the corpus, so that `plan.keep` others remain. A query that is
    not in the corpus gets what `search` gives.

    Args:
        index: what is searched.
        queries: (n, dim) vectors.
        hashes: (n,) str, content hash of each query's image, as in the `hash` column of the items.
        plan: what each stage keeps of other images.
    """
    return without_copies(
        index,
        queries,
        hashes,
        plan.keep,
        lambda some, extra: search(index, some, widened(plan, extra)),
    )


def without_copies(
    index: Index, queries: NDArray[np.floating], hashes: NDArray[np.object_], k: int,
    find: Callable[[NDArray[np.floating], int], BatchHits],
) -> BatchHits:  # fmt: skip
    """The best `k` of what `find` finds that have other content than the query itself; `find` takes queries and how many more they need."""
    parts, order = [], []
    for rows, extra in by_copies(index, hashes):
        found = find(queries[rows], extra)
        parts.append(
            replace(leave_out(found, index.embeddings.hashes, hashes[rows], k), dims=found.dims)
        )
        order.append(rows)
    if len(parts) < 2:
        return parts[0] if parts else find(queries, 0).first(k)
    whole, back = joined(parts, k), np.argsort(np.concatenate(order))
    return BatchHits(
        whole.ids[back], whole.scores[back], dims=None if whole.dims is None else whole.dims[back]
    )


def by_copies(index: Index, hashes: NDArray[np.object_]) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Queries of content `hashes` (n,) that have the same number of copies in the corpus: their positions, and that number."""
    copies = copies_of(index, hashes)
    for extra in np.unique(copies).tolist():
        yield np.flatnonzero(copies == extra), extra


def copies_of(index: Index, hashes: NDArray[np.object_]) -> NDArray[np.int64]:
    """How many items of the corpus have each of the contents `hashes` (n,): (n,) int64."""
    return np.array([index.embeddings.copies[h] for h in hashes], dtype=np.int64)


def widened(plan: Plan, extra: int) -> Plan:
    """`plan` with so many more kept by every stage."""
    return Plan(tuple(replace(stage, keep=stage.keep + extra) for stage in plan.stages))


def leave_out(
    hits: BatchHits, corpus_hashes: NDArray[np.object_], query_hashes: NDArray[np.object_], k: int
) -> BatchHits:
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
    ids, scores = (
        np.take_along_axis(hits.ids, order, axis=1),
        np.take_along_axis(hits.scores, order, axis=1),
    )
    return BatchHits(np.where(gone, -1, ids), np.where(gone, np.float32(-np.inf), scores))
