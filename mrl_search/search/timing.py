"""The one clock: times of single queries and of batches, on a set number of threads."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

__all__ = ["Answer", "Pace", "batch_seconds", "median_ms", "pace_of", "threads", "time_round"]

WARM_UP = 10  # queries
LONGEST_WARM_UP = 2.0  # seconds
BUDGET = 60.0  # seconds for one searcher in all rounds, unless FEWEST queries take longer
FEWEST = 10

Answer = Callable[[NDArray[np.float32]], object]  # searches with queries (n, dim)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the threads of OpenMP (FAISS) and BLAS (numpy) inside the block."""
    with threadpool_limits(count):
        yield


@dataclass(frozen=True, slots=True)
class Pace:
    """How one searcher is timed: `count` queries a round, after `warm_up` of them."""

    count: int
    warm_up: int = WARM_UP


def pace_of(answer: Answer, queries: NDArray[np.float32], rounds: int) -> Pace:
    """The pace that keeps a slow searcher within its budget of `rounds` rounds."""
    answer(queries[:1])
    start = time.perf_counter()
    answer(queries[1:2])
    seconds = max(time.perf_counter() - start, 1e-6)
    count = min(len(queries), max(FEWEST, int(BUDGET / rounds / seconds)))
    return Pace(count, max(1, min(WARM_UP, int(LONGEST_WARM_UP / seconds))))


def time_round(
    answers: Mapping[str, Answer],
    queries: NDArray[np.float32],
    paces: Mapping[str, Pace],
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of single queries by name.

    A searcher answers its queries in a row, as in ann-benchmarks and in use: the next one does not
    find its data in the cache.
    """
    times: dict[str, list[float]] = {name: [] for name in answers}
    for done, (name, answer) in enumerate(answers.items(), 1):
        for i in range(-paces[name].warm_up, paces[name].count):
            row = queries[i % len(queries)][None]
            start = time.perf_counter()
            answer(row)
            if i >= 0:
                times[name].append((time.perf_counter() - start) * 1e3)
        if progress:
            progress(done, len(answers))
    return times


def median_ms(rounds: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Each query's median over the rounds: (rounds, n) milliseconds to (n,)."""
    return np.median(np.asarray(rounds, dtype=np.float64), axis=0)


def batch_seconds(answer: Answer, queries: NDArray[np.float32]) -> float:
    """Seconds for all `queries` (n, dim) in one call."""
    start = time.perf_counter()
    answer(queries)
    return time.perf_counter() - start
