"""Running a plan: the FAISS index of the first stage's prefix proposes, every stage scores and keeps its best.

All searches of this package are `search`. A stage scores by the cosine of its own prefix, of the query's and of the stored
vectors', both normalised again; so scores and order depend neither on the kind of FAISS index nor on the size of the batch.
"""

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.config import Plan
from mrl_search.embeddings import blocks
from mrl_search.errors import ConfigError
from mrl_search.index import Index
from mrl_search.results import BatchHits
from mrl_search.search.ranking import best
from mrl_search.vectors import prefix, rows_of

__all__ = ["exact", "search"]

CACHED = 1 << 18  # numbers re-scored at once: small enough to stay in a processor's cache
MARGIN = 8  # candidates that FAISS is asked for beyond those a first stage keeps
TIE = 1e-6  # scores this close are one to a flat index: its sums of up to 1,024 products in float32 are no surer
WIDEST = 1 << 16  # a tie among more candidates than this is cut as FAISS cut it


def search(index: Index, queries: NDArray[np.floating], plan: Plan) -> BatchHits:
    """Search `index` for the neighbours of `queries` as `plan` says.

    The first stage asks the FAISS index of its prefix; each later one re-scores the survivors on a longer prefix, which needs no
    index of its own. Equal scores are ordered by id, at the cut of a stage too. A batch gives what its queries give singly.

    Args:
        index: what is searched.
        queries: (n, dim) numbers, of any length but zero; a single vector is a batch of one.
        plan: what each stage reads and keeps; a stage keeps the whole corpus where that is smaller.

    Returns:
        (n, min(plan.keep, corpus)) ids and cosines at the last stage's prefix, best first. Where an approximate index found fewer, a
        row is filled up with id -1 and score -inf.

    Raises:
        ConfigError: the index has no prefix index for the first stage, or vectors shorter than a later one.
        DataError: queries that are not finite, or of another length than the vectors.
    """
    queries = rows_of(queries, index.dim)
    first, *later = plan.stages
    if plan.dims[-1] > index.dim:
        raise ConfigError(
            f"Plan {plan} reads {plan.dims[-1]} dims; the vectors have {index.dim}.", f"End it with {index.dim} dims or fewer."
        )
    parts = []
    for rows in blocks(len(queries), 4 * (first.keep + MARGIN)):  # ids and sorting keys are eight bytes wide
        hits = _propose(index, queries[rows], first.dims, first.keep)
        for stage in later:
            hits = _rescore(index, queries[rows], hits.ids, stage.dims, stage.keep)
        parts.append(hits)
    return _joined(parts, min(plan.keep, len(index)))


def exact(index: Index, queries: NDArray[np.floating], k: int, dims: int | None = None) -> BatchHits:
    """The true `k` nearest by the cosine of the first `dims` numbers (all by default), by comparing with every vector.

    Needs no FAISS index: the baseline that plans are measured against. Products are summed in float64, so that rounding decides no
    order. Arguments, result and errors are as those of `search`.
    """
    dims = index.dim if dims is None else dims
    unit = prefix(rows_of(queries, index.dim), dims).astype(np.float64)
    found = BatchHits(np.empty((len(unit), 0), dtype=np.int64), np.empty((len(unit), 0), dtype=np.float32))
    for rows in blocks(len(index), max(dims, 1024)):
        corpus = index.embeddings.prefix(dims, rows).astype(np.float64).T
        ids = np.arange(rows.start, rows.stop)
        parts = []
        for some in blocks(len(unit), len(ids)):
            scores = (unit[some] @ corpus).astype(np.float32)
            both = np.concatenate([found.ids[some], np.broadcast_to(ids, scores.shape)], axis=1)
            parts.append(best(both, np.concatenate([found.scores[some], scores], axis=1), k))
        found = _joined(parts, min(k, rows.stop))
    return found


def _propose(index: Index, queries: NDArray[np.float32], dims: int, keep: int, margin: int = MARGIN) -> BatchHits:
    """The first stage: the best `keep` of what FAISS finds.

    Where the cut of a flat index falls among scores that it cannot tell apart, it is asked again for four times as many; an
    approximate index promises nothing at its cut.
    """
    coarse = index.prefix_index(dims)
    keep = min(keep, len(index))
    wide = min(keep + margin, len(index))
    said, ids = coarse.search(prefix(queries, dims), wide)
    hits = _rescore(index, queries, ids, dims, keep)
    if isinstance(coarse, faiss.IndexFlat) and keep < wide < min(len(index), WIDEST):
        torn = np.flatnonzero(said[:, keep - 1] - said[:, -1] <= TIE)
        for some in blocks(len(torn), 4 * 4 * wide):
            deeper = _propose(index, queries[torn[some]], dims, keep, 4 * wide - keep)
            hits.ids[torn[some]], hits.scores[torn[some]] = deeper.ids, deeper.scores
    return hits


def _rescore(index: Index, queries: NDArray[np.float32], ids: NDArray[np.int64], dims: int, keep: int) -> BatchHits:
    """The best `keep` of the candidates `ids` (n, m) of each query, by the cosine of their prefixes."""
    unit = prefix(queries, dims)[:, None]
    scores = np.empty(ids.shape, dtype=np.float32)
    for rows in blocks(len(ids), ids.shape[1] * dims, CACHED):
        for columns in blocks(ids.shape[1], (rows.stop - rows.start) * dims, CACHED):
            some = ids[rows, columns]
            corpus = index.embeddings.prefix(dims, some.ravel()).reshape(*some.shape, dims)
            scores[rows, columns] = np.vecdot(corpus, unit[rows], dtype=np.float64)
    scores[ids < 0] = -np.inf
    return best(ids, scores, keep)


def _joined(parts: list[BatchHits], keep: int) -> BatchHits:
    if not parts:
        return BatchHits(np.empty((0, keep), dtype=np.int64), np.empty((0, keep), dtype=np.float32))
    return BatchHits(np.concatenate([p.ids for p in parts]), np.concatenate([p.scores for p in parts]))
