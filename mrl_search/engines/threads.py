"""The threads of FAISS and of the kernels: one pool, as large as FAISS may use."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import faiss

from mrl_search.vectors import blocks

__all__ = ["spread", "thread_count"]


def thread_count() -> int:
    """Threads that FAISS and the kernels may use."""
    count: int = faiss.omp_get_max_threads()
    return count


def spread(n: int, job: Callable[[slice], Any]) -> list[Any]:
    """The results of `job` for slices of n, one a thread, in order."""
    threads = min(n, thread_count())
    if threads < 2:
        return [job(slice(0, n))] if n else []
    return list(_pool(threads).map(job, blocks(n, 1, -(-n // threads))))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="search")
