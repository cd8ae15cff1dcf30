"""What proofs, early stops, exact search and filters do, and what they cost, on one index.

    python benchmarks/answers/measure.py INDEX >> benchmarks/answers/records.jsonl

Queries are items of the index (changed by a little noise, so that none is its own answer) drawn with a fixed seed. Times are p50 of
single queries on one thread, all contestants of a record in turn; ratios hold, milliseconds do not.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.measure.records import environment
from mrl_search.metrics import recall_at_k
from mrl_search.search import certify, exact, exact_pruned, kernels, search, search_adaptive
from mrl_search.search.plan import Plan

K, QUERIES, TIMED, ROUNDS = 10, 500, 50, 3
SHORTLISTS = (50, 200, 1000)
SHARES = (0.5, 0.1, 0.01, 0.0001)


def queries_of(index: Index) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    rows = index.embeddings.prefix(
        index.dim, rng.choice(len(index), min(QUERIES, len(index)), replace=False)
    )
    noise = rng.standard_normal(rows.shape).astype(np.float32) * np.abs(rows).mean(
        axis=0
    )  # as strong as the vectors are in each dim
    return rows + np.float32(0.2) * noise


def p50(
    jobs: Mapping[str, Callable[[NDArray[np.float32]], object]], queries: NDArray[np.float32]
) -> dict[str, float]:
    times = {name: np.empty((ROUNDS, TIMED)) for name in jobs}
    for job in jobs.values():
        job(queries[:1])
    for round_, i in np.ndindex(ROUNDS, TIMED):
        for name, job in jobs.items():
            start = time.perf_counter()
            job(queries[i % len(queries)][None])
            times[name][round_, i] = (time.perf_counter() - start) * 1e3
    return {name: float(np.median(np.median(t, axis=0))) for name, t in times.items()}


def proofs(index: Index, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    truth = exact(index, queries, K)
    found = []
    for dims in (d for d in index.dims if d < index.dim):
        for keep in SHORTLISTS:
            plan = Plan.adaptive(dims, min(keep, len(index)), index.dim, K)
            hits = certify(index, queries, plan)
            assert hits.proven is not None
            lies = sum(
                not set(i[p].tolist()) <= set(t.tolist())
                for i, p, t in zip(hits.ids, hits.proven, truth.ids, strict=True)
            )
            found.append({
                "what": "proofs", "plan": str(plan), "recall": recall_at_k(hits.ids, truth.ids), "hits_proven": float(hits.proven.mean()),
                "queries_proven": float(hits.proven.all(axis=1).mean()), "lies": lies,
            })  # fmt: skip
    return found


def stops(index: Index, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    truth, found = exact(index, queries, K).ids, []
    for first in (d for d in index.dims if d <= 64):
        for shortlist in SHORTLISTS:
            plan = Plan.ladder([d for d in index.dims if d >= first], min(shortlist, len(index)), K)
            hits = search_adaptive(index, queries, plan, K)
            assert hits.dims is not None
            assert hits.proven is not None
            found.append({
                "what": "early stop", "plan": str(plan), "recall": recall_at_k(hits.ids, truth), "mean_dims": float(hits.dims.mean()),
                "recall_of_whole_plan": recall_at_k(search(index, queries, plan).ids, truth),
                "queries_proven": float(hits.proven.all(axis=1).mean()),
            })  # fmt: skip
    return found


def costs(index: Index, queries: NDArray[np.float32]) -> list[dict[str, Any]]:
    flat: Any = faiss.IndexFlatIP(index.dim)
    flat.add(index.embeddings.prefix(index.dim))
    plan = Plan.adaptive(64 if 64 in index.dims else index.dims[0], 200, index.dim, K)
    jobs: dict[str, Callable[[NDArray[np.float32]], object]] = {
        "IndexFlatIP": lambda q: flat.search(q, K), "query --exact": lambda q: exact_pruned(index, q, K),
        f"plan {plan}": lambda q: search(index, q, plan), f"plan {plan}, certified": lambda q: certify(index, q, plan),
    }  # fmt: skip
    rng, allowed = np.random.default_rng(1), {}
    for share in SHARES:
        allowed[share] = np.sort(
            rng.choice(len(index), max(1, round(share * len(index))), replace=False)
        )
        jobs[f"plan {plan}, {share:.2%} allowed"] = lambda q, rows=allowed[share]: search(
            index, q, plan, rows
        )
    wrong = 0
    for rows in allowed.values():
        hits = search(index, queries[:100], Plan.single(plan.dims[0], K), rows)
        wrong += int(
            (hits.ids != exact(index, queries[:100], K, plan.dims[0], rows).ids).any(axis=1).sum()
        )
    return [
        {
            "what": "costs",
            "p50_ms": p50(jobs, queries),
            "filtered_answers_that_differ_from_brute_force": wrong,
        }
    ]


def main() -> None:
    index = Index.open(Path(sys.argv[1]))
    kernels.load()
    faiss.omp_set_num_threads(1)
    queries = queries_of(index)
    energy = {
        d: float((1 - index.sieve.norms_at(d).astype(np.float64) ** 2).mean()) for d in index.dims
    }
    common = {
        "kind": "answers", "corpus": index.manifest.source, "n": len(index), "factory": dict(index.manifest.factory),
        "queries": len(queries), "k": K, "threads": 1, "energy": energy, "environment": environment(),
    }  # fmt: skip
    for part in (proofs, stops, costs):
        for record in part(index, queries):
            print(json.dumps({**common, **record}), flush=True)


if __name__ == "__main__":
    main()
