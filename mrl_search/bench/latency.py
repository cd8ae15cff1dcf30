"""How long a plan takes for one query: median and 99th percentile, in one run, on a stated number of threads."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.config import Plan
from mrl_search.index import Index
from mrl_search.search import search

__all__ = ["PlanLatency", "latency_per_plan"]

WARM_UP = 10


@dataclass(frozen=True, slots=True)
class PlanLatency:
    """One plan, single queries: milliseconds without embedding, and recall@k against exact search at full length."""

    name: str
    plan: str
    p50_ms: float
    p99_ms: float
    queries: int
    threads: int
    recall: float


def latency_per_plan(
    index: Index, queries: NDArray[np.float32], plans: Mapping[str, Plan], rounds: int = 3, threads: int = 1
) -> list[PlanLatency]:
    """Time every plan on every query, `rounds` times, plans in turn so that a slow moment of the machine meets all of them.

    Args:
        index: what is searched.
        queries: (n, dim) float32.
        plans: by name.
        rounds: repetitions; each query counts with its median over the rounds.
        threads: of FAISS.
    """
    k = min(plan.keep for plan in plans.values())
    exact = search(index, queries, Plan.single(index.dim, k)).ids[:, :k]
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        times = {name: np.empty((rounds, len(queries))) for name in plans}
        for i in range(-WARM_UP, rounds * len(queries)):
            row = queries[i % len(queries)][None]
            for name, plan in plans.items():
                start = time.perf_counter()
                search(index, row, plan)
                if i >= 0:
                    times[name][i // len(queries), i % len(queries)] = (time.perf_counter() - start) * 1e3
    finally:
        faiss.omp_set_num_threads(before)
    return [_summary(name, plan, times[name], search(index, queries, plan).ids[:, :k], exact, threads) for name, plan in plans.items()]


def _summary(
    name: str, plan: Plan, times: NDArray[np.float64], found: NDArray[np.int64], exact: NDArray[np.int64], threads: int
) -> PlanLatency:
    each: Sequence[float] = np.median(times, axis=0).tolist()
    recall = float(np.mean([np.isin(e, f).mean() for e, f in zip(exact, found, strict=True)]))
    return PlanLatency(name, str(plan), float(np.median(each)), float(np.percentile(each, 99)), len(each), threads, recall)
