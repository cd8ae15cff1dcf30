"""Who takes part in a bench: exact search, every single prefix, adaptive and funnel retrieval, the tuned plan; and what each computes."""

import math
import re
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.engines.effort import SHARE
from mrl_search.measure.records import BRUTE, EXACT
from mrl_search.search import exact, exact_pruned, search, search_adaptive, widened, without_copies
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.tune import default_plan, ram_of
from mrl_search.store.manifest import SUFFIX

__all__ = [
    "Contestant",
    "How",
    "contestants",
    "memory",
    "multiply_adds",
    "prefix_name",
    "stored_bytes",
]

PRUNED = "pruned"
SHORTLIST, EARLIEST = 200, 16  # an early stop begins at so many dims
ADAPTIVE = (8, 16, 64)
FUNNEL = (
    (8, 200),
    (16, 100),
    (32, 50),
    (64, 25),
    (128, 10),
)  # the MRL paper's, section 4.3.1: what each stage leaves for the next
COMPARING_ALL = re.compile(
    r"(RR\d+,)?(Flat|Scan|SQ\w+|PQ\w+)"
)  # factory strings of indexes that compare with every vector
CLUSTERED = re.compile(r"(?:RR\d+,)?IVF(\d+)(?:_HNSW\d+)?,.*")


class How(StrEnum):
    """What a contestant runs: its `plan`; `brute` force, a comparison with every stored vector without FAISS; the `pruned` exact search,
    which reads as little as it can; or its plan with an `early` stop where the answers no longer change.
    """

    PLAN = "plan"
    BRUTE = "brute"
    PRUNED = "pruned"
    EARLY = "early"


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to search, by name; `plan` is None for those that need none."""

    name: str
    plan: Plan | None
    how: How = How.PLAN

    def __str__(self) -> str:
        return (
            str(self.plan)
            if self.plan
            else "every stored vector"
            if self.how is How.BRUTE
            else "what may still be an answer"
        )

    @property
    def single(self) -> int | None:
        """The prefix that is searched alone; None for all others."""
        return self.plan.dims[0] if self.plan and len(self.plan.stages) == 1 else None

    def search(self, index: Index, queries: NDArray[np.floating], k: int) -> BatchHits:
        """The best answers to `queries` (n, dim): as many as the plan keeps, or `k`."""
        if self.plan is None:
            return (
                exact(index, queries, k)
                if self.how is How.BRUTE
                else exact_pruned(index, queries, k)
            )
        return (
            search_adaptive(index, queries, self.plan, k)
            if self.how is How.EARLY
            else search(index, queries, self.plan)
        )

    def others(
        self, index: Index, queries: NDArray[np.float32], hashes: NDArray[np.object_], k: int
    ) -> BatchHits:
        """The same, but each query's own picture is left out of its answer (see `search_others`)."""

        def find(some: NDArray[np.floating], extra: int) -> BatchHits:
            return replace(self, plan=self.plan and widened(self.plan, extra)).search(
                index, some, k + extra
            )

        return without_copies(index, queries, hashes, k, find)


def prefix_name(index: Index, dims: int) -> str:
    """The name of the contestant that searches one prefix: `64 dims`, or `exact` at full length where its index compares with all."""
    whole = dims == index.dim and index.manifest.factory[str(dims)] in ("Flat", "Scan")
    return EXACT if whole else f"{dims} dims"


def contestants(index: Index, k: int) -> list[Contestant]:
    """All that an index can be searched with, for `k` answers; exact search is always among them, and comes first.

    Plans that begin at a prefix which the index does not have are left out, and stages at dims that its vectors do not have.
    """
    result = [Contestant(BRUTE, None, How.BRUTE)]
    bounded = (
        SUFFIX in index.manifest.files
    )  # without it nothing is known of what a prefix leaves out
    if bounded and not (
        index.dim in index.dims and index.scans(index.dim)
    ):  # there it is the search at full length
        result.append(Contestant(PRUNED, None, How.PRUNED))
    result += [Contestant(prefix_name(index, d), Plan.single(d, k)) for d in reversed(index.dims)]
    result += [
        Contestant(f"adaptive {d}→{index.dim}", Plan.adaptive(d, SHORTLIST, index.dim, k))
        for d in ADAPTIVE
        if d in index.dims and d < index.dim
    ]
    funnel = [Stage(d, max(keep, k)) for d, keep in FUNNEL if d < index.dim]
    if len(funnel) > 1 and funnel[0].dims in index.dims:
        result.append(Contestant("funnel", Plan((*funnel, Stage(index.dim, k)))))
    steps = [d for d in index.dims if d >= EARLIEST]
    if bounded and len(steps) > 1:
        result.append(
            Contestant("early stop", Plan.ladder(steps, max(SHORTLIST, 20 * k), k), How.EARLY)
        )
    for use in sorted(index.manifest.plans):
        plan = default_plan(index, k, use)
        if plan != Plan.single(
            index.dim, k
        ):  # what stands for a plan that was tuned for fewer answers
            result.append(Contestant(f"tuned for {use}", plan))
    return result


def multiply_adds(index: Index, contestant: Contestant) -> float | None:
    """Multiply-adds of one query: dims x vectors compared, summed over the stages; None where that depends on the query, or on FAISS.

    As MFLOPs are counted in the MRL paper (arXiv 2205.13147, section 4.3 and appendix), a multiply-add is one operation: exact search
    costs d·N, a re-rank of K candidates d·K. A first stage with n clusters, of which p are visited, costs d·(n + N·p/n).
    """
    if contestant.how is How.BRUTE:
        return float(index.dim * len(index))
    if contestant.plan is None or contestant.how is How.EARLY:
        return None
    if contestant.plan.dims == (index.dim,) and index.scans(
        index.dim
    ):  # which reads as little as it can
        return None
    first, *later = stages = contestant.plan.stages
    begin = _compared(index.manifest.factory[str(first.dims)], len(index), first)
    if begin is None:
        return None
    kept = sum(
        min(before.keep, len(index)) * stage.dims
        for before, stage in zip(stages, later, strict=False)
    )
    return float(begin * first.dims + kept)


def _compared(factory: str, count: int, first: Stage) -> float | None:
    if COMPARING_ALL.fullmatch(factory):
        return count
    if match := CLUSTERED.fullmatch(factory):
        clusters = int(match[1])
        visited = min(first.effort or max(1, clusters // SHARE), clusters)
        return clusters + math.ceil(count * visited / clusters)
    return None


def memory(index: Index, plan: Plan | None) -> int:
    """Bytes that a search should find in RAM: what its first stage reads; for those without a plan, all stored vectors.

    Later stages read a few stored vectors of each query, which are memory-mapped.
    """
    return ram_of(index, plan.dims[0]) if plan else stored_bytes(index)


def stored_bytes(index: Index) -> int:
    """Bytes of the stored vectors, without the header of their file."""
    vectors = index.embeddings.vectors
    return int(vectors.shape[0] * vectors.shape[1] * vectors.dtype.itemsize)
