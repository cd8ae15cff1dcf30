"""Certified answers: a plan that says which of its hits exact search is sure to find, too."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.search.exact.bounds import SLACK, Bounds
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.run import check_queries, query_blocks, stages
from mrl_search.search.scoring import Rows, count_of, exact, is_exact, joined

__all__ = ["certify", "outside", "proofs"]


def certify(
    index: Index,
    queries: NDArray[np.floating],
    plan: Plan,
    allowed: Rows | None = None,
    k: int | None = None,
) -> BatchHits:
    """The first `k` hits of `search` (all by default), each marked that is proven to be among the true `k` at full length.

    A hit is proven where it cannot score less, at full length, than the most that anything the plan left out can score; ranks are
    proven, too, where the plan ends at full length. What the first stage left out is known by the cosine at its cut if its index
    is flat; any other kind is checked by scoring every allowed prefix, at the price of a flat search.

    Arguments and errors are as those of `search`; the result has `proven`. Fewer hits are proven the less of a vector's length its
    first numbers hold: a proof needs a gap in the scores larger than what two tails can add.
    """
    queries = check_queries(index, queries, plan)
    keep = min(k or plan.keep, plan.keep, count_of(index, allowed))
    *early, last = plan.stages
    wide = plan
    if last.dims < index.dim and (
        early or is_exact(index, last.dims, allowed)
    ):  # what comes next sets the bound, not the last hit itself
        wide = Plan(
            (*early, Stage(last.dims, min([last.keep + 1, *(stage.keep for stage in early)])))
        )
    parts = []
    for rows in query_blocks(queries, wide):
        some, candidates = queries[rows], 0
        limit = np.full((len(some), 1), -np.inf, dtype=np.float32)
        for dims, hits in stages(index, some, wide, allowed):
            limit = np.maximum(limit, outside(index, some, dims, hits, candidates, allowed))
            candidates = hits.ids.shape[1]
        parts.append(
            BatchHits(
                hits.ids[:, :keep],
                hits.scores[:, :keep],
                proofs(index, some, last.dims, hits, keep, limit),
            )
        )
    return joined(parts, keep)


def outside(
    index: Index,
    queries: NDArray[np.float32],
    dims: int,
    hits: BatchHits,
    candidates: int,
    allowed: Rows | None = None,
) -> NDArray[np.float32]:
    """The most that anything which a stage at `dims` left out can score at full length: (n, 1) float32; -inf where it left out nothing.

    What a stage leaves out lies below its cut; at full length it ranks below the hits and is no rival. A first stage, which has no
    `candidates`, may ask an approximate index that promises nothing: then what it missed is looked for.
    """
    nothing = np.full((len(queries), 1), -np.inf, dtype=np.float32)
    sure = candidates > 0 or is_exact(index, dims, allowed)
    all_kept = hits.ids.shape[1] == (candidates or count_of(index, allowed)) and (
        candidates > 0 or bool((hits.ids >= 0).all())
    )
    if all_kept or (sure and dims == index.dim):
        return nothing
    cut = hits.scores[:, -1:]
    if not sure:
        true = exact(index, queries, hits.ids.shape[1] + 1, dims)
        missed = ~(true.ids[:, :, None] == hits.ids[:, None, :]).any(axis=2)
        cut = np.where(missed, true.scores, -np.inf).max(axis=1, keepdims=True).astype(np.float32)
    return np.where(
        np.isneginf(cut), nothing, Bounds.of(index, queries, dims).beyond(np.maximum(cut, -1))
    )


def proofs(
    index: Index,
    queries: NDArray[np.float32],
    dims: int,
    hits: BatchHits,
    k: int,
    limit: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Which of the first `k` hits of a stage at `dims` are among the true k: (n, k) bool.

    `limit` (n, 1) is the most that anything but the stage's hits can score; of the hits behind the first k the bounds are known.
    """
    top, rest = hits.ids[:, :k], hits.scores[:, k:]
    if dims == index.dim:
        return (top >= 0) & (hits.scores[:, :k] > limit + SLACK)
    bounds = Bounds.of(index, queries, dims)
    rivals = np.where(
        hits.ids[:, k:] >= 0,
        bounds.upper(np.maximum(rest, -1), bounds.norms[hits.ids[:, k:]]),
        -np.inf,
    )
    limit = np.maximum(limit, rivals.max(axis=1, keepdims=True, initial=-np.inf))
    least = bounds.lower(np.maximum(hits.scores[:, :k], -1), bounds.norms[top])
    return (top >= 0) & (least > limit + SLACK)
