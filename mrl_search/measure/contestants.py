"""The ways to search that a benchmark compares, and what each computes and keeps in memory."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.engines.effort import SHARE
from mrl_search.measure.queries import QuerySet
from mrl_search.search import exact, exact_pruned, search, widened, without_copies
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.tune import default_plan, ram_of
from mrl_search.store.manifest import SUFFIX

__all__ = [
    "BRUTE", "EXACT", "PRUNED", "Contestant", "answers", "contestants", "memory", "multiply_adds",
    "stored_bytes",
]  # fmt: skip

BRUTE, EXACT, PRUNED = "brute force", "exact", "pruned"  # the three that search exactly
SHORTLIST = 200
ADAPTIVE = (8, 16, 64)  # dims that a shortlist is made with
FUNNEL = ((8, 200), (16, 100), (32, 50), (64, 25), (128, 10))  # arXiv 2205.13147, section 4.3.1
CHUNK = 2048  # queries between two reports of progress


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to search; `plan` is None for exact search that needs no prefix index."""

    name: str
    plan: Plan | None = None

    def __str__(self) -> str:
        if self.plan:
            return str(self.plan)
        return "every stored vector" if self.name == BRUTE else "vectors that can still be hits"

    @property
    def is_exact(self) -> bool:
        """Whether it finds the true neighbours at full length."""
        return self.name in (BRUTE, EXACT, PRUNED)

    @property
    def single(self) -> int | None:
        """The only prefix it reads; None for other ways."""
        return self.plan.dims[0] if self.plan and len(self.plan.stages) == 1 else None

    def search(self, index: Index, queries: NDArray[np.floating], k: int) -> BatchHits:
        """The best `k` hits, or as many as the plan keeps, of `queries` (n, dim)."""
        if self.plan:
            return search(index, queries, self.plan)
        return (exact if self.name == BRUTE else exact_pruned)(index, queries, k)


def answers(
    index: Index,
    queries: QuerySet,
    contestant: Contestant,
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchHits:
    """The best `k` hits of every query, without the query's own content: (n, k).

    The only place where a benchmark searches, apart from its clock.
    """

    def find(some: NDArray[np.floating], copies: int) -> BatchHits:
        plan = contestant.plan and widened(contestant.plan, copies)
        return replace(contestant, plan=plan).search(index, some, k + copies)

    parts = []
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        hashes = queries.hashes[rows]
        parts.append(without_copies(index, queries.vectors[rows], hashes, k, find).first(k))
        progress(min(start + CHUNK, len(queries)), len(queries))
    return BatchHits(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def contestants(index: Index, k: int) -> list[Contestant]:
    """All ways to search an index for `k` hits; exact ones come first.

    Plans that begin at a prefix without an index are left out.
    """
    found = [Contestant(BRUTE)]
    if SUFFIX in index.manifest.files and not _scans_full(index):
        found.append(Contestant(PRUNED))
    for d in reversed(index.dims):
        name = EXACT if d == index.dim and _is_exact(index, d) else f"{d} dims"
        found.append(Contestant(name, Plan.single(d, k)))
    for d in ADAPTIVE:
        if d in index.dims and d < index.dim:
            plan = Plan.adaptive(d, SHORTLIST, index.dim, k)
            found.append(Contestant(f"adaptive {d}→{index.dim}", plan))
    funnel = [Stage(d, max(keep, k)) for d, keep in FUNNEL if d < index.dim]
    if len(funnel) > 1 and funnel[0].dims in index.dims:
        found.append(Contestant("funnel", Plan((*funnel, Stage(index.dim, k)))))
    for use in sorted(index.manifest.plans):
        plan = default_plan(index, k, use)
        if plan != Plan.single(index.dim, k):  # it was tuned for fewer hits
            found.append(Contestant(f"tuned for {use}", plan))
    return found


def multiply_adds(index: Index, contestant: Contestant) -> float | None:
    """Multiply-adds of one query: dims times vectors compared, added up over the stages.

    As in the MRL paper (arXiv 2205.13147, section 4.3): exact search costs d·N, reranking K
    candidates d·K. None where that depends on the query, or on FAISS.
    """
    if contestant.name == BRUTE:
        return float(index.dim * len(index))
    if not contestant.plan or (contestant.single == index.dim and _scans_full(index)):
        return None
    first, *later = stages = contestant.plan.stages
    compared = _compared(index, first)
    if compared is None:
        return None
    kept = (
        min(before.keep, len(index)) * stage.dims
        for before, stage in zip(stages, later, strict=False)
    )
    return float(compared * first.dims + sum(kept))


def memory(index: Index, contestant: Contestant) -> int:
    """Bytes that the first stage reads: its index, or all stored vectors where there is none."""
    return ram_of(index, contestant.plan.dims[0]) if contestant.plan else stored_bytes(index)


def stored_bytes(index: Index) -> int:
    """Bytes of the stored vectors, without the header of their file."""
    return int(index.embeddings.vectors.nbytes)


# What an index knows of itself; the traits of `PrefixIndex` answer these.


def _scans_full(index: Index) -> bool:
    return index.dim in index.dims and index.scans(index.dim)


def _is_exact(index: Index, dims: int) -> bool:
    return index.manifest.factory[str(dims)] in ("Flat", "Scan")


def _compared(index: Index, first: Stage) -> float | None:
    """Vectors that a first stage compares, centroids included."""
    factory, count = index.manifest.factory[str(first.dims)], len(index)
    if re.fullmatch(r"(RR\d+,)?(Flat|Scan|SQ\w+|PQ\w+)", factory):
        return count
    if match := re.fullmatch(r"(?:RR\d+,)?IVF(\d+)(?:_HNSW\d+)?,.*", factory):
        clusters = int(match[1])
        visited = min(first.effort or max(1, clusters // SHARE), clusters)
        return clusters + math.ceil(count * visited / clusters)
    return None
