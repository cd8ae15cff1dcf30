"""Running a plan: the FAISS index of the first stage's prefix proposes, every stage scores and keeps its best.

All searches of this package are `search`, or follow its `stages`.
"""

from collections.abc import Iterator, Sized

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index, efforts
from mrl_search.errors import ConfigError
from mrl_search.search.exact.pruned import exact_pruned
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.scoring import Rows, count_of, joined, opening, propose, rescore, shortlist
from mrl_search.store.rows import blocks
from mrl_search.vectors import query_rows

__all__ = ["check_queries", "query_blocks", "search", "stages"]

CANDIDATE = 4  # numbers that a candidate of a query takes while it is ranked: ids and sorting keys are eight bytes wide


def search(
    index: Index, queries: NDArray[np.floating], plan: Plan, allowed: Rows | None = None
) -> BatchHits:
    """Search `index` for the neighbours of `queries` as `plan` says.

    The first stage asks the FAISS index of its prefix; each later one re-scores the survivors on a longer prefix, which needs no
    index of its own. Equal scores are ordered by id, at the cut of a stage too. A batch gives what its queries give singly.

    Args:
        index: what is searched.
        queries: (n, dim) numbers, of any length but zero; a single vector is a batch of one.
        plan: what each stage reads and keeps; a stage keeps the whole corpus where that is smaller.
        allowed: ids that may be answers, ascending and distinct; all by default. The first stage is then exact on every kind of index.

    Returns:
        (n, min(plan.keep, allowed)) ids and cosines at the last stage's prefix, best first. Where an approximate index found fewer, a
        row is filled up with id -1 and score -inf.

    Raises:
        ConfigError: the index has no prefix index for the first stage, or none that takes its effort, or vectors shorter than a later one.
        DataError: queries that are not finite, zero, or of another length than the vectors.
    """
    queries = check_queries(index, queries, plan)
    if plan.dims == (index.dim,) and index.scans(index.dim):
        found = exact_pruned(index, queries, plan.keep, allowed)
        return BatchHits(found.ids, found.scores)
    parts = []
    first, *later = plan.stages
    for rows in query_blocks(queries, plan):
        some = queries[rows]
        if not later:
            parts.append(propose(index, some, first, allowed))
            continue
        ids = shortlist(index, some, first, allowed)
        for stage in later:
            hits = rescore(index, some, ids, stage.dims, stage.keep)
            ids = hits.ids
        parts.append(hits)
    return joined(parts, min(plan.keep, count_of(index, allowed)))


def check_queries(index: Index, queries: NDArray[np.floating], plan: Plan) -> NDArray[np.float32]:
    """Queries as (n, dim) float32, and a plan that this index can run; raises as `search` does."""
    queries = query_rows(queries, index.dim)
    if plan.dims[-1] > index.dim:
        raise ConfigError(
            f"Plan {plan} reads {plan.dims[-1]} dims; the vectors have {index.dim}.",
            f"End it with {index.dim} dims or fewer.",
        )
    first = plan.stages[0]
    if first.effort and (
        index.scans(first.dims) or efforts(index.prefix_index(first.dims)) == (0,)
    ):
        kind = index.manifest.factory[str(first.dims)]
        raise ConfigError(
            f"Plan {plan} asks for an effort at {first.dims} dims, where {kind} takes none.",
            "Leave its @ out.",
        )
    return queries


def query_blocks(queries: Sized, plan: Plan) -> Iterator[slice]:
    """Slices of queries few enough that the candidates of `plan` for them fit in memory."""
    return blocks(len(queries), CANDIDATE * plan.stages[0].keep)


def stages(
    index: Index, queries: NDArray[np.float32], plan: Plan, allowed: Rows | None = None
) -> Iterator[tuple[int, BatchHits]]:
    """Run `plan` stage by stage, for queries that were checked: the dims of each stage and what it keeps, best first."""
    first, *later = plan.stages
    hits = opening(index, queries, plan, allowed)
    yield first.dims, hits
    for stage in later:
        hits = rescore(index, queries, hits.ids, stage.dims, stage.keep)
        yield stage.dims, hits
