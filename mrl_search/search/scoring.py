"""One stage of a search: what a prefix proposes, how candidates are scored again, and what every answer is measured against.

A stage scores by the cosine of its own prefix, of the query's and of the stored vectors', both normalised; so scores and order depend
neither on the kind of FAISS index nor on the size of the batch. Where only some rows are allowed, no kind of index loses one of
them: rows that FAISS cannot be trusted to find are scored here.
"""

from collections.abc import Iterator
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.search.kernels import best, pair_cosines, settled
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import blocks
from mrl_search.vectors import prefix, query_rows

__all__ = [
    "Rows", "ask", "count_of", "directions", "exact", "is_exact", "joined", "opening", "pair_scores", "propose", "rescore", "shortlist",
]  # fmt: skip

MARGIN = 8  # candidates that FAISS is asked for beyond those a first stage keeps
TIE = 1e-6  # scores this close are one to a flat index: its sums of up to 1,024 products in float32 are no surer
WIDEST = 1 << 16  # a tie among more candidates than this is cut as FAISS cut it
SELECTED = 32  # reading one allowed row from the store costs as much as passing over so many in a flat index
FEW = 8  # queries that are compared with everything one by one; more are worth a matrix product

Rows = NDArray[np.int64]


def propose(
    index: Index,
    queries: NDArray[np.float32],
    stage: Stage,
    allowed: Rows | None = None,
    margin: int = MARGIN,
) -> BatchHits:
    """A first stage: the best `stage.keep` of what FAISS finds.

    Where the cut of a flat index falls among scores that it cannot tell apart, it is asked again for four times as many; an
    approximate index promises nothing at its cut.
    """
    dims, count = stage.dims, count_of(index, allowed)
    if index.scans(dims):
        return exact(index, queries, stage.keep, dims, allowed)
    flat = isinstance(index.prefix_index(dims), faiss.IndexFlat)
    if allowed is not None and (not flat or count * SELECTED < len(index)):
        return exact(index, queries, stage.keep, dims, allowed)
    keep = min(stage.keep, count)
    wide = min(keep + margin, count)
    said, ids = ask(index, queries, Stage(dims, wide, stage.effort), allowed)
    hits = rescore(index, queries, ids, dims, keep)
    if flat and keep < wide < min(count, WIDEST):
        torn = np.flatnonzero(said[:, keep - 1] - said[:, -1] <= TIE)
        for some in blocks(len(torn), 4 * 4 * wide):
            deeper = propose(index, queries[torn[some]], stage, allowed, 4 * wide - keep)
            hits.ids[torn[some]], hits.scores[torn[some]] = deeper.ids, deeper.scores
    return hits


def opening(
    index: Index, queries: NDArray[np.float32], plan: Plan, allowed: Rows | None = None
) -> BatchHits:
    """What the first stage of `plan` keeps, scored, and in order."""
    first = plan.stages[0]
    if len(plan.stages) == 1:
        return propose(index, queries, first, allowed)
    return rescore(
        index, queries, shortlist(index, queries, first, allowed), first.dims, first.keep
    )


def shortlist(
    index: Index, queries: NDArray[np.float32], stage: Stage, allowed: Rows | None = None
) -> Rows:
    """Ids (n, stage.keep) of a first stage that others follow, in no order: the cut is FAISS's, and no prefix is read again to make it.

    Equal scores at the cut of an approximate index go by id. Where a flat index cannot tell the scores at its cut apart, or there
    is no index to ask, the cut is that of `propose`.
    """
    dims, count = stage.dims, count_of(index, allowed)
    if index.scans(dims) or allowed is not None or stage.keep >= count:
        return propose(index, queries, stage, allowed).ids
    said, ids = ask(index, queries, Stage(dims, min(stage.keep + MARGIN, count), stage.effort))
    if not isinstance(index.prefix_index(dims), faiss.IndexFlat):
        return best(ids, said, stage.keep, nearly=True).ids
    torn = np.flatnonzero(said[:, stage.keep - 1] <= said[:, stage.keep] + TIE)
    if len(torn):
        ids[torn, : stage.keep] = propose(index, queries[torn], stage).ids
    return ids[:, : stage.keep]


def ask(
    index: Index, queries: NDArray[np.float32], stage: Stage, allowed: Rows | None = None
) -> tuple[NDArray[np.float32], Rows]:
    """What the FAISS index of a prefix says: its scores and ids, each (n, stage.keep), in its own order; `allowed` only if it is flat."""
    return index.ask(prefix(queries, stage.dims), stage.keep, stage.effort, allowed)


def rescore(
    index: Index, queries: NDArray[np.float32], ids: Rows, dims: int, keep: int
) -> BatchHits:
    """The best `keep` of the candidates `ids` (n, m) of each query, by the cosine of their prefixes."""
    return best(ids, pair_scores(index, queries, ids, dims), keep)


def pair_scores(
    index: Index, queries: NDArray[np.float32], ids: Rows, dims: int
) -> NDArray[np.float32]:
    """Cosine of the prefix of each query (n, dim) and those of its own candidates `ids` (n, m): (n, m) float32; -inf for an id of -1."""
    vectors, unit = np.asarray(index.embeddings.vectors), prefix(queries, dims)
    parts = [
        pair_cosines(vectors, unit[some], ids[some])
        for some in index.embeddings.mapped.in_turn(*ids.shape)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def exact(
    index: Index,
    queries: NDArray[np.floating],
    k: int,
    dims: int | None = None,
    allowed: Rows | None = None,
) -> BatchHits:
    """The true `k` nearest by the cosine of the first `dims` numbers (all by default), by comparing with every allowed vector.

    Needs no FAISS index: the baseline that plans are measured against. Products are summed in float64, so that rounding decides no
    order. Arguments, result and errors are as those of `search`.
    """
    dims = index.dim if dims is None else dims
    unit = prefix(query_rows(queries, index.dim), dims)
    found = BatchHits(
        np.empty((len(unit), 0), dtype=np.int64), np.empty((len(unit), 0), dtype=np.float32)
    )
    for rows in blocks(count_of(index, allowed), max(dims, 1024)):
        ids = np.arange(rows.start, rows.stop) if allowed is None else allowed[rows]
        index.embeddings.mapped.read(len(ids))
        parts = []
        for some, scores in _compared(index, unit, rows if allowed is None else ids):
            both = np.concatenate([found.ids[some], np.broadcast_to(ids, scores.shape)], axis=1)
            parts.append(best(both, np.concatenate([found.scores[some], scores], axis=1), k))
        found = joined(parts, min(k, rows.stop))
    return found


def _compared(
    index: Index, unit: NDArray[np.float32], rows: Rows | slice
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Cosines of queries `unit` (n, dims) and all vectors at `rows`, some queries at a time: (some, rows) float32."""
    if len(unit) < FEW:
        whole = index.embeddings.stored(index.dim, rows)
        yield (
            slice(0, len(unit)),
            pair_cosines(
                whole, unit, np.broadcast_to(np.arange(len(whole)), (len(unit), len(whole)))
            ),
        )
        return
    corpus = directions(index, unit.shape[1], rows).T
    for some in blocks(len(unit), corpus.shape[1]):
        yield some, settled((unit[some].astype(np.float64) @ corpus).astype(np.float32))


def directions(index: Index, dims: int, rows: Rows | slice) -> NDArray[np.float64]:
    """The first `dims` numbers of the stored vectors at `rows`, at unit length: (rows, dims) float64."""
    some = index.embeddings.stored(dims, rows).astype(np.float64)
    lengths = np.linalg.norm(some, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    some /= lengths
    return some


def is_exact(index: Index, dims: int, allowed: Rows | None) -> bool:
    """Whether a first stage at `dims` finds the true nearest at its prefix: it does not where an approximate index is asked."""
    return (
        allowed is not None
        or index.scans(dims)
        or isinstance(index.prefix_index(dims), faiss.IndexFlat)
    )


def count_of(index: Index, allowed: Rows | None) -> int:
    """How many rows may be answers."""
    return len(index) if allowed is None else len(allowed)


def joined(parts: list[BatchHits], keep: int) -> BatchHits:
    """Answers to some queries and then to others, as one; no answers at all have `keep` columns."""
    if not parts:
        return BatchHits(np.empty((0, keep), dtype=np.int64), np.empty((0, keep), dtype=np.float32))
    columns = {
        name: [getattr(part, name) for part in parts]
        for name in ("ids", "scores", "proven", "dims")
    }
    whole: dict[str, Any] = {
        name: None if column[0] is None else np.concatenate(column)
        for name, column in columns.items()
    }
    return BatchHits(**whole)
