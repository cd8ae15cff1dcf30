"""Version 0.1 against this one: the same plans on the same index, in turn, so that load hits both.

    python benchmarks/engine/versions.py CHECKOUT INDEX PLAN… >> benchmarks/engine/versions.jsonl

CHECKOUT is a worktree of version 0.1, such as commit 1cc1588a7a. One process a version answers the
same 300 noisy items, one by one on one thread, four times in turn; a query counts with the median
of its rounds. Where a process lies in memory changes its times by a tenth and more, so this is done
with five pairs of processes. A record has p50 and p99 in ms of both and the ratio of the p50, each
the median of the pairs, and the ratio of every pair.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

HERE = Path(__file__).parents[2]
K, QUERIES, PAIRS, ROUNDS, WARM_UP = 10, 300, 5, 4, 20


def opened(folder: Path) -> tuple[Any, int, Callable[[str], Callable[[Any], Any]]]:
    """The stored vectors, their dims, and a function from a plan to one that answers a query."""
    try:
        from mrl_search.engines import kernels
        from mrl_search.search.corpus import Corpus
        from mrl_search.search.plan import Plan
        from mrl_search.search.run import search
    except ImportError:  # version 0.1
        from mrl_search.config import Plan

        from mrl_search.index import Index
        from mrl_search.search import exact_pruned, kernel, search

        index = Index.open(folder)
        kernel.load()

        def answer(text: str) -> Callable[[Any], Any]:
            if text == "exact":
                return lambda x: exact_pruned(index, x, K)
            plan = Plan.parse(text, K)
            return lambda x: search(index, x, plan)

        return index.embeddings, index.dim, answer
    corpus = Corpus.open(folder)
    getattr(kernels, "load", str)()  # before 0.3, numba's

    def answer(text: str) -> Callable[[Any], Any]:
        plan = Plan.parse(text)
        return lambda x: search(corpus, x, plan, K)

    return corpus.vectors, corpus.dim, answer


def work(folder: Path) -> None:
    """For every plan on stdin, write the seconds of each query to stdout."""
    vectors, dim, answer = opened(folder)
    faiss.omp_set_num_threads(1)
    rows = vectors.prefix(dim, np.linspace(0, len(vectors) - 1, QUERIES).astype(int))
    noise = np.random.default_rng(0).standard_normal(rows.shape).astype(np.float32)
    queries = rows + np.float32(0.2) * noise * np.abs(rows).mean(axis=0)
    for line in sys.stdin:
        ask, seconds = answer(line.strip()), []
        for x in queries[:WARM_UP]:
            ask(x[None])
        for x in queries:
            start = time.perf_counter()
            ask(x[None])
            seconds.append(time.perf_counter() - start)
        print(json.dumps(seconds), flush=True)


def pair(checkout: Path, folder: Path, plans: list[str]) -> dict[str, dict[str, list[float]]]:
    """By plan and version: p50 and p99 in ms, with two new processes."""
    workers = {}
    for name, root in (("old", checkout), ("new", HERE)):
        workers[name] = subprocess.Popen(
            [sys.executable, __file__, "--work", str(folder.resolve())], text=True, cwd=root,
            env={**os.environ, "PYTHONPATH": str(root.resolve())},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
    found = {}
    for plan in plans:
        seconds: dict[str, list[list[float]]] = {"old": [], "new": []}
        for number in range(ROUNDS):
            for name in ("old", "new") if number % 2 else ("new", "old"):
                print(plan, file=workers[name].stdin, flush=True)
                seconds[name].append(json.loads(workers[name].stdout.readline()))
        found[plan] = {
            name: np.percentile(1e3 * np.median(np.array(s), axis=0), (50, 99)).tolist()
            for name, s in seconds.items()
        }
    for worker in workers.values():
        worker.communicate()
    return found


def compare(checkout: Path, folder: Path, plans: list[str]) -> None:
    """Print a record a plan."""
    from mrl_search.measure.environment import environment

    pairs = [pair(checkout, folder, plans) for _ in range(PAIRS)]
    for plan in plans:
        old, new = (np.array([p[plan][name] for p in pairs]) for name in ("old", "new"))
        ratios = new[:, 0] / old[:, 0]
        record = {
            "kind": "versions", "vectors": folder.name, "plan": plan, "queries": QUERIES,
            "rounds": ROUNDS, "threads": 1, "old_ms": np.median(old, axis=0).round(4).tolist(),
            "new_ms": np.median(new, axis=0).round(4).tolist(),
            "ratio": round(float(np.median(ratios)), 3), "ratios": ratios.round(3).tolist(),
            "environment": environment(),
        }  # fmt: skip
        print(json.dumps(record))


if __name__ == "__main__":
    if sys.argv[1] == "--work":
        work(Path(sys.argv[2]))
    else:
        compare(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
