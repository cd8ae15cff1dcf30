"""Search that stops early: each query reads a longer prefix only while its answers still change."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import ConfigError
from mrl_search.search.certify import outside, proofs
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import check_queries, query_blocks
from mrl_search.search.scoring import Rows, count_of, is_exact, joined, opening, rescore

__all__ = ["search_adaptive"]


def search_adaptive(
    index: Index, queries: NDArray[np.floating], plan: Plan, k: int, allowed: Rows | None = None
) -> BatchHits:
    """Search stage by stage as `plan` says, and let each query stop where its best `k` are those of the stage before, or are proven.

    The sibling of adaptive classification (arXiv 2205.13147, section 4.2.1): an easy query is answered by a short prefix, a hard one
    reads on. Agreement of two stages is no proof; only `proven` is, and costs nothing here, so it is not to be had where the first
    stage asks an approximate index.

    Args:
        index: what is searched.
        queries: (n, dim) numbers.
        plan: the stages to go through, two at least for anything to be decided.
        k: answers wanted; every stage keeps at least as many.
        allowed: as in `search`.

    Returns:
        (n, min(k, allowed)) answers, with `proven`, and with `dims`, the prefix at which each query stopped; its scores are cosines there.

    Raises:
        ConfigError: the plan keeps fewer than `k`, or as `search` raises it.
        DataError: as `search`.
    """
    if plan.keep < k:
        raise ConfigError(
            f"Plan {plan} keeps {plan.keep} at the end, fewer than the {k} asked for."
        )
    queries = check_queries(index, queries, plan)
    parts = [_climb(index, queries[rows], plan, k, allowed) for rows in query_blocks(queries, plan)]
    return joined(parts, min(k, count_of(index, allowed)))


def _climb(
    index: Index, queries: NDArray[np.float32], plan: Plan, k: int, allowed: Rows | None
) -> BatchHits:
    n, width = len(queries), min(k, count_of(index, allowed))
    ids, scores = np.full((n, width), -1, np.int64), np.full((n, width), -np.inf, np.float32)
    sure, read = np.zeros((n, width), bool), np.zeros(n, np.int64)
    known = is_exact(index, plan.dims[0], allowed)
    going = np.arange(n)
    limit = np.full((n, 1), -np.inf if known else np.inf, dtype=np.float32)
    hits: BatchHits | None = None
    before = np.empty((n, width), dtype=np.int64)
    for stage in plan.stages:
        some, candidates = queries[going], 0 if hits is None else hits.ids.shape[1]
        hits = (
            opening(index, some, plan, allowed)
            if hits is None
            else rescore(index, some, hits.ids, stage.dims, stage.keep)
        )
        if known:
            limit[going] = np.maximum(
                limit[going], outside(index, some, stage.dims, hits, candidates, allowed)
            )
        top, proven = (
            hits.ids[:, :width],
            proofs(index, some, stage.dims, hits, width, limit[going]),
        )
        ids[going], scores[going], sure[going], read[going] = (
            top,
            hits.scores[:, :width],
            proven,
            stage.dims,
        )
        now = np.sort(top, axis=1)
        done = proven.all(axis=1) | ((candidates > 0) & (now == before).all(axis=1))
        going, before, hits = (
            going[~done],
            now[~done],
            BatchHits(hits.ids[~done], hits.scores[~done]),
        )
        if not len(going):
            break
    return BatchHits(ids, scores, sure, read)
