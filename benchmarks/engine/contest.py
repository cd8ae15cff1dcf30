"""The engine against exact search and against graphs on all dims: single queries on one core, all contestants in one run.

    python benchmarks/engine/contest.py INDEX [--peers] >> benchmarks/engine/records.jsonl

INDEX is what `corpus.py` wrote, or any other index. Each contestant answers the same fresh queries; a record tells recall@10
against exact cosine at 1024 dims, p50 and p99 in ms, bytes of memory a vector for its coarse part, seconds to build, what a process
of its own has in memory after answering all queries by a tuned plan, and the environment. Queries of generated vectors are rows of
another seed; of real ones, items with some noise, so that none is its own answer.
`--peers` adds graphs on all dims: faiss HNSW32, and hnswlib and usearch where they are installed (the extra `peers`).
"""

import argparse
import importlib.util
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray
from vectors import Kind, Tree

from mrl_search.engines import Index
from mrl_search.measure.records import environment
from mrl_search.metrics import recall_at_k
from mrl_search.search import exact_pruned, kernels, search
from mrl_search.search.plan import Plan
from mrl_search.search.tune import Goal, ram_of, sample, tune

K, QUERIES, TIMED, ROUNDS, BATCH = 10, 1000, 100, 3, 256
EF = (32, 48, 64, 96, 128, 192, 256, 384, 512)
Answer = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # (n, dim) queries to (n, k) ids


@dataclass(frozen=True)
class Contestant:
    """One way to answer: bytes of memory a vector for what it searches first, and seconds to build that where it is built here."""

    name: str
    answer: Answer
    bytes_per_vector: float
    build_s: float | None = None
    note: str = ""
    plan: Plan | None = None


def queries_of(index: Index) -> tuple[str, NDArray[np.float32]]:
    """What the vectors are called, and (n, dim) queries."""
    name = index.manifest.fingerprint.split("-")[0]
    if name in set(Kind):
        return name, Tree.of(Kind(name)).rows(QUERIES, 1)
    rng = np.random.default_rng(0)
    rows = index.embeddings.prefix(
        index.dim, rng.choice(len(index), min(QUERIES, len(index)), replace=False)
    )
    noise = rng.standard_normal(rows.shape).astype(np.float32) * np.abs(rows).mean(
        axis=0
    )  # as strong as the vectors are in each dim
    return Path(index.manifest.source).name, rows + np.float32(0.2) * noise


def full(index: Index) -> NDArray[np.float32]:
    """All vectors as float32, rows of unit length."""
    return index.embeddings.prefix(index.dim)


def exact_contestants(index: Index, x: NDArray[np.float32]) -> list[Contestant]:
    found = []
    for name, make in (
        ("IndexFlatIP", faiss.IndexFlatIP),
        ("IndexFlatIPPanorama", lambda d: faiss.IndexFlatIPPanorama(d, 32)),
    ):
        start = time.perf_counter()
        flat = make(index.dim)
        flat.add(x)
        found.append(
            Contestant(
                name,
                lambda q, f=flat: f.search(q, K)[1],
                4 * index.dim,
                time.perf_counter() - start,
                "exact",
            )
        )
    sieve = index.sieve
    coarse = 4 + (0 if sieve.codes is None else sieve.codes.shape[1])
    found.append(
        Contestant(
            "mrl-search exact", lambda q: exact_pruned(index, q, K).ids, coarse, None, "exact"
        )
    )
    return found


def tuned_contestants(index: Index, targets: list[float], items: int) -> list[Contestant]:
    goal = Goal.recall(index, sample(index, items), K)
    found = []
    for target in targets:
        chosen = tune(index, goal, target).chosen
        note = f"{chosen.plan}; {index.manifest.factory[str(chosen.plan.dims[0])]}"
        ids = lambda q, plan=chosen.plan: search(index, q, plan).ids  # noqa: E731
        per_vector = ram_of(index, chosen.plan.dims[0]) / len(index)
        found.append(
            Contestant(f"mrl-search tuned {target}", ids, per_vector, None, note, chosen.plan)
        )
    return found


def peers(
    x: NDArray[np.float32], queries: NDArray[np.float32], truth: NDArray[np.int64]
) -> list[Contestant]:
    """Graphs with 32 links on all dims, each with the smallest ef that reaches .99."""
    dim = x.shape[1]
    graph = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
    made: list[tuple[str, Callable[[int], Answer], float]] = []
    start = time.perf_counter()
    graph.add(x)
    seconds = time.perf_counter() - start

    def faiss_answer(ef: int) -> Answer:
        return lambda q: graph.search(q, K, params=faiss.SearchParametersHNSW(efSearch=ef))[1]

    made.append(("faiss HNSW32", faiss_answer, seconds))
    if importlib.util.find_spec("hnswlib"):
        import hnswlib

        own = hnswlib.Index("ip", dim)
        own.init_index(len(x), M=16, ef_construction=200)
        start = time.perf_counter()
        own.add_items(x, num_threads=2)
        seconds = time.perf_counter() - start

        def hnswlib_answer(ef: int) -> Answer:
            def answer(q: NDArray[np.float32]) -> NDArray[np.int64]:
                own.set_ef(ef)
                return own.knn_query(q, K, num_threads=1)[0].astype(np.int64)

            return answer

        made.append(("hnswlib M16", hnswlib_answer, seconds))
    if importlib.util.find_spec("usearch"):
        from usearch.index import Index as Usearch

        there = Usearch(ndim=dim, metric="ip", dtype="f32", connectivity=16)
        start = time.perf_counter()
        there.add(np.arange(len(x)), x, threads=2)
        seconds = time.perf_counter() - start

        def usearch_answer(ef: int) -> Answer:
            def answer(q: NDArray[np.float32]) -> NDArray[np.int64]:
                there.expansion_search = ef
                return there.search(q, K, threads=1).keys.reshape(len(q), -1).astype(np.int64)

            return answer

        made.append(("usearch f32 M16", usearch_answer, seconds))
    found = []
    for name, make, seconds in made:
        ef = next((ef for ef in EF if recall_at_k(make(ef)(queries), truth) >= 0.99), EF[-1])
        links = 2 * 32 * 4 if name.startswith("faiss") else 2 * 16 * 4
        found.append(Contestant(name, make(ef), 4 * dim + links, seconds, f"ef {ef}"))
    return found


def serve(folder: Path, plan: Plan, queries: NDArray[np.float32]) -> dict[str, int]:
    """Answer `queries` one by one; bytes in memory at the most, and without what is mapped from files in the end, as Linux counts them."""
    index = Index.open(folder)
    kernels.load()
    faiss.omp_set_num_threads(1)
    for query in queries:
        search(index, query[None], plan)
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {
        key: 1024 * int(status[name][0])
        for key, name in (("rss_bytes", "VmHWM"), ("anonymous_bytes", "RssAnon"))
    }


def timed(contestants: list[Contestant], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """(contestants, queries) ms, the median of the rounds; the slowest contestant gets fewer queries (the rest is NaN).

    In each round every contestant answers all queries in a row, as in ann-benchmarks: what one reads is not what another finds cached.
    """
    times = np.full((len(contestants), ROUNDS, len(queries)), np.nan)
    for c in contestants:
        c.answer(queries[:2])
    for round_ in range(ROUNDS):
        for number, c in enumerate(contestants):
            for i, query in enumerate(
                queries[: len(queries) // 5] if c.name == "IndexFlatIP" else queries
            ):
                start = time.perf_counter()
                c.answer(query[None])
                times[number, round_, i] = (time.perf_counter() - start) * 1e3
    return np.median(times, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument(
        "--exact-up-to",
        type=int,
        default=2_000_000,
        help="vectors up to which exact indexes of FAISS are built in memory",
    )
    parser.add_argument("--targets", default="0.95,0.99,0.999", help="what plans are tuned for")
    parser.add_argument("--tuning", type=int, default=2000, help="items that plans are tuned with")
    args = parser.parse_args()
    targets = [float(text) for text in args.targets.split(",")]
    start = time.perf_counter()
    index = Index.open(args.index)
    open_s = time.perf_counter() - start
    vectors, queries = queries_of(index)
    kernels.load()
    faiss.omp_set_num_threads(2)
    truth = exact_pruned(index, queries, K).ids
    contestants = tuned_contestants(index, targets, args.tuning)
    if len(index) <= args.exact_up_to:
        x = full(index)
        contestants += exact_contestants(index, x)
        if args.peers:
            contestants += peers(x, queries, truth)
    found = [c.answer(queries[:100] if c.note == "exact" else queries) for c in contestants]
    batch = {}
    for c in contestants[: len(targets)]:
        seconds = []
        for part in range(3):
            start = time.perf_counter()
            c.answer(queries[part * BATCH : (part + 1) * BATCH])
            seconds.append(time.perf_counter() - start)
        batch[c.name] = BATCH / float(np.median(seconds))
    faiss.omp_set_num_threads(1)
    times = timed(contestants, queries[:TIMED])
    common = {
        "kind": "contest", "vectors": vectors, "n": len(index), "queries": QUERIES, "tuning": args.tuning, "timed": TIMED,
        "rounds": ROUNDS, "threads": 1, "open_s": round(open_s, 4), "environment": environment(),
    }  # fmt: skip
    for c, ids, ms in zip(contestants, found, times, strict=True):
        known = ms[~np.isnan(ms)]
        memory = {}
        if c.plan:
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                memory = alone.apply(serve, (args.index, c.plan, queries))
        record = {
            **common, "contestant": c.name, "note": c.note, "recall": recall_at_k(ids, truth[: len(ids)]),
            "p50_ms": float(np.median(known)), "p99_ms": float(np.percentile(known, 99)), "bytes_per_vector": c.bytes_per_vector,
            "build_s": c.build_s, "batch_per_s_2_threads": batch.get(c.name), **memory,
        }  # fmt: skip
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
