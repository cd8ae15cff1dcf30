"""How long a search takes, in one run, on a stated number of threads: single queries and batches, each contestant by itself."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mrl_search.engines import Index
from mrl_search.metrics import recall_at_k
from mrl_search.search import kernels, search
from mrl_search.search.plan import Plan

__all__ = [
    "PlanLatency",
    "Round",
    "batch_seconds",
    "latency_per_plan",
    "rehearse",
    "threads_of",
    "time_round",
]

WARM_UP = 10
LONGEST_WARM_UP = 2.0  # seconds; what is slow needs no more of it
BUDGET = 60.0  # seconds that one contestant may take in all rounds, while it answers FEWEST queries at least
FEWEST = 10

Answer = Callable[[NDArray[np.float32]], object]  # searches with (n, dim) queries


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """Let FAISS, and the matrix products of numpy, use so many threads."""
    before = faiss.omp_get_max_threads()
    with threadpool_limits(count):
        faiss.omp_set_num_threads(count)
        try:
            yield
        finally:
            faiss.omp_set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Round:
    """How one contestant is timed: `count` queries a round, after `warm_up` of them."""

    count: int
    warm_up: int


def rehearse(answer: Answer, queries: NDArray[np.float32], rounds: int) -> Round:
    """How many queries a contestant is to answer: all, or fewer where it is slow (see BUDGET).

    Args:
        answer: searches with one query, (1, dim).
        queries: (n, dim) float32.
        rounds: how often it will be timed.
    """
    answer(queries[:1])
    start = time.perf_counter()
    answer(queries[1:2])
    seconds = max(time.perf_counter() - start, 1e-6)
    count = min(len(queries), max(FEWEST, int(BUDGET / rounds / seconds)))
    return Round(count, max(1, min(WARM_UP, int(LONGEST_WARM_UP / seconds))))


def time_round(
    answers: Mapping[str, Answer],
    queries: NDArray[np.float32],
    plan: Mapping[str, Round],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Time single queries: milliseconds by name.

    A contestant answers all of them in a row, as in ann-benchmarks and in use: what one reads is not what another finds cached.
    """
    times: dict[str, list[float]] = {name: [] for name in answers}
    for done, (name, answer) in enumerate(answers.items(), 1):
        for i in range(-plan[name].warm_up, plan[name].count):
            row = queries[i % len(queries)][None]
            start = time.perf_counter()
            answer(row)
            if i >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
        if progress:
            progress(done, len(answers))
    return times


def batch_seconds(answer: Answer, queries: NDArray[np.float32]) -> float:
    """Seconds for all `queries` (n, dim) in one call."""
    start = time.perf_counter()
    answer(queries)
    return time.perf_counter() - start


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
    index: Index,
    queries: NDArray[np.float32],
    plans: Mapping[str, Plan],
    rounds: int = 3,
    threads: int = 1,
) -> list[PlanLatency]:
    """Time every plan on every query, `rounds` times; each query counts with its median over the rounds.

    Args:
        index: what is searched.
        queries: (n, dim) float32.
        plans: by name.
        rounds: repetitions.
        threads: of FAISS.
    """
    k = min(plan.keep for plan in plans.values())
    exact = search(index, queries, Plan.single(index.dim, k)).ids[:, :k]
    answers: dict[str, Answer] = {name: _searcher(index, plan) for name, plan in plans.items()}
    kernels.load()
    with threads_of(threads):
        how = dict.fromkeys(plans, Round(len(queries), WARM_UP))
        times = [time_round(answers, queries, how) for _ in range(rounds)]
    return [
        _summary(
            name,
            plan,
            [t[name] for t in times],
            recall_at_k(search(index, queries, plan).ids[:, :k], exact),
            threads,
        )
        for name, plan in plans.items()
    ]


def _searcher(index: Index, plan: Plan) -> Answer:
    return lambda rows: search(index, rows, plan)


def _summary(
    name: str, plan: Plan, times: Sequence[Sequence[float]], recall: float, threads: int
) -> PlanLatency:
    each = np.median(np.array(times), axis=0)
    return PlanLatency(
        name,
        str(plan),
        float(np.median(each)),
        float(np.percentile(each, 99)),
        len(each),
        threads,
        recall,
    )
