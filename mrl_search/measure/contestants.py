"""The ways to search that a benchmark compares, and what each computes and keeps in memory."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.scan import scan
from mrl_search.measure.queries import QuerySet
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import search_others
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.run import default_plan, search
from mrl_search.store.manifest import CODES, SUFFIX
from mrl_search.vectors import prefix

__all__ = [
    "BRUTE", "EXACT", "Contestant", "answers", "contestants", "find", "memory",
    "multiply_adds",
]  # fmt: skip

BRUTE, EXACT = "brute force", "exact"
SHORTLIST = 200
ADAPTIVE = (8, 16, 64)  # dims that a shortlist is made with
FUNNEL = ((8, 200), (16, 100), (32, 50), (64, 25), (128, 10))  # arXiv 2205.13147, section 4.3.1
CHUNK = 2048  # queries between two reports of progress


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to search: a plan, or brute force where `plan` is None.

    `exact` says whether it finds the true neighbours at full length.
    """

    name: str
    plan: Plan | None
    exact: bool = False

    def __str__(self) -> str:
        return str(self.plan or "every stored vector")

    @property
    def single(self) -> int | None:
        """The only prefix it reads; None for other ways."""
        return self.plan.dims[0] if self.plan and len(self.plan.stages) == 1 else None


def find(corpus: Corpus, rows: NDArray[np.floating], plan: Plan | None, k: int) -> BatchHits:
    """The best `k` hits of `rows` (n, dim), by a plan or by brute force."""
    if plan:
        return search(corpus, rows, plan, k)
    live = None if corpus.alive is None else corpus.alive.ids
    scores, ids = scan(corpus.vectors, prefix(rows, corpus.dim), k, live)
    return BatchHits(ids, scores, corpus.items)


def answers(
    corpus: Corpus,
    queries: QuerySet,
    plan: Plan | None,
    k: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchHits:
    """The best `k` hits of every query, without the query's own content: (n, k).

    A `plan` of None is brute force. Apart from its clock, a benchmark searches only here.
    """
    parts = []
    for start in range(0, len(queries), CHUNK):
        rows = slice(start, start + CHUNK)
        parts.append(search_others(
            corpus, queries.vectors[rows], queries.hashes[rows], plan or Plan.EXACT, k,
            lambda some, wider, more: find(corpus, some, plan and wider, more),
        ))  # fmt: skip
        progress(min(start + CHUNK, len(queries)), len(queries))
    found = np.concatenate([p.rows for p in parts]), np.concatenate([p.scores for p in parts])
    return BatchHits(*found, corpus.items)


def contestants(corpus: Corpus, k: int) -> list[Contestant]:
    """All ways to search a corpus for `k` hits; exact ones come first.

    Plans that begin at a prefix without an index are left out.
    """
    full = corpus.dim
    found = [Contestant(BRUTE, None, exact=True), Contestant(EXACT, Plan.EXACT, exact=True)]
    for d in reversed(corpus.dims):
        exact = d == full and corpus.prefix_index(d).exact
        found.append(Contestant(f"{d} dims", Plan.single(d), exact))
    for d in ADAPTIVE:
        if d in corpus.dims and d < full:
            plan = Plan.rerank(d, SHORTLIST, full).at_least(k)
            found.append(Contestant(f"adaptive {d}→{full}", plan))
    funnel = [Stage(d, keep) for d, keep in FUNNEL if d < full]
    if len(funnel) > 1 and funnel[0].dims in corpus.dims:
        plan = Plan((*funnel, Stage(full))).at_least(k)
        found.append(Contestant("funnel", plan))
    for use in sorted(corpus.manifest.plans):
        plan = default_plan(corpus, k, use)
        if plan != Plan.EXACT:  # it was tuned for fewer hits
            found.append(Contestant(f"tuned for {use}", plan))
    return found


def multiply_adds(corpus: Corpus, contestant: Contestant) -> float | None:
    """Multiply-adds of one query: dims times vectors compared, added up over the stages.

    As in the MRL paper (arXiv 2205.13147, section 4.3): exact search costs d·N, reranking K
    candidates d·K. None where that depends on the query, or on FAISS.
    """
    if contestant.plan is None:
        return float(corpus.dim * len(corpus.live_rows))
    if not contestant.plan.stages:
        return None
    first, *later = stages = contestant.plan.stages
    compared = corpus.prefix_index(first.dims).cost(first.effort, corpus.alive)
    if compared is None:
        return None
    kept = (
        min(before.keep or 0, len(corpus.live_rows)) * stage.dims
        for before, stage in zip(stages, later, strict=False)
    )
    return float(compared * first.dims + sum(kept))


def memory(corpus: Corpus, contestant: Contestant) -> int:
    """Bytes that the first stage reads: its index, the sieve, or all stored vectors."""
    if contestant.plan and contestant.plan.stages:
        return corpus.prefix_index(contestant.plan.dims[0]).ram_bytes
    if contestant.plan and corpus.sieve is not None:
        files = corpus.manifest.files
        return sum(files[name].bytes for name in (SUFFIX, CODES) if name in files)
    return corpus.vectors.nbytes
