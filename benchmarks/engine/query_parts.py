"""Where the time of a single query goes, on one thread.

    python benchmarks/engine/query_parts.py INDEX PLAN [CHECKOUT] >> OUT.jsonl

PLAN has two stages, a shortlist from clusters and full length. The parts of a compiled query are
differences: a search of one cluster (rotation, centroids, tables), of all clusters of the plan
(their codes), the whole compiled call (re-rank), and `search` (Python: checks, results). CHECKOUT
is an earlier version, which answers the same queries in turn with this one (`versions.py`). Times
are in microseconds: each query's least of seven rounds, then the median over 200 queries.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from vectors import noisy_items
from versions import pair

from mrl_search.engines import kernels
from mrl_search.measure.environment import environment
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.prepared import Prepared
from mrl_search.search.run import search
from mrl_search.search.timing import threads
from mrl_search.vectors import prefix

K, QUERIES, ROUNDS = 10, 200, 7
Part = Callable[[NDArray[np.float32]], object]


def parts(corpus: Corpus, plan: Plan, queries: NDArray[np.float32]) -> dict[str, float]:
    """Microseconds of each part of a single query."""
    stage, prepared = plan.stages[0], Prepared.of(corpus, plan)
    index, keep = corpus.prefix_index(stage.dims), stage.keep or K
    if prepared is None or index.lists is None:
        raise SystemExit(f"{plan} is not answered by compiled code on {corpus.folder}.")
    out = [np.empty((1, K), np.float32), np.empty((1, K), np.int64)]
    lists, visits = index.lists, index.visits(stage.effort, None)
    calls: dict[str, Part] = {
        "one cluster": lambda x: lists.search(prefix(x, stage.dims), keep, (1, 1, 1.0), None),
        "codes": lambda x: lists.search(prefix(x, stage.dims), keep, visits, None),
        "prefix": lambda x: lists.search(prefix(x, stage.dims)[:0], keep, visits, None),
        "compiled": lambda x: prepared._answer([x, *out], visits, None, slice(0, 1)),
        "search": lambda x: search(corpus, x, plan, K),
    }
    times = {name: np.full((ROUNDS, len(queries)), np.inf) for name in calls}
    with threads(1):
        for number in range(ROUNDS):
            for name, call in calls.items():
                for i, query in enumerate(queries):
                    start = time.perf_counter()
                    call(query[None])
                    times[name][number, i] = (time.perf_counter() - start) * 1e6
    us = {name: float(np.median(t.min(axis=0))) for name, t in times.items()}
    bare = us["codes"] - us["prefix"]  # without the glue of a shortlist alone
    return {
        "centroids": round(us["one cluster"] - us["prefix"], 1),
        "codes": round(us["codes"] - us["one cluster"], 1),
        "rerank": round(us["compiled"] - bare, 1),
        "python": round(us["search"] - us["compiled"], 1),
        "search": round(us["search"], 1),
    }


def main() -> None:
    folder, text, *old = sys.argv[1:]
    corpus, plan = Corpus.open(Path(folder)), Plan.parse(text)
    record: dict[str, object] = {
        "kind": "query parts", "vectors": Path(folder).name, "n": len(corpus), "plan": text,
        "code": kernels.instructions(), "us": parts(corpus, plan, noisy_items(corpus, QUERIES)),
    }  # fmt: skip
    if old:
        before = pair(Path(old[0]), Path(folder), [text])[text]
        record["old_ms"], record["new_ms"] = (np.round(before[v], 4).tolist() for v in before)
    print(json.dumps({**record, "environment": environment()}))


if __name__ == "__main__":
    main()
