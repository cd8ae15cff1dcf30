"""The engine against exact search and against graphs on all dims: single queries on one core.

    python benchmarks/engine/contest.py INDEX [--peers] >> benchmarks/engine/records.jsonl

INDEX is what `corpus.py` wrote, or any other index. All contestants answer the same new queries in
one run. A record has recall@10 against exact search at full length, p50 and p99 in milliseconds,
bytes a vector that the coarse search keeps in memory, seconds to build, the memory of a process
that answers all queries by a tuned plan, and the environment. Queries of generated vectors are
rows of another seed; queries of others are items with noise, so that none is its own answer.
`--peers` adds graphs on all dims: faiss HNSW32, and hnswlib and usearch where they are installed
(the extra `peers`).
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
from vectors import Kind, Tree, noisy_items

from mrl_search.measure.environment import environment
from mrl_search.metrics import recall_at_k
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.search.timing import Pace, batch_seconds, median_ms, threads, time_round
from mrl_search.search.tune import Goal, queries_to_tune, tune
from mrl_search.store.manifest import CODES, SUFFIX

K, QUERIES, TIMED, ROUNDS, BATCH = 10, 1000, 100, 3, 256
WARM_UP = 2  # queries
EF = (32, 48, 64, 96, 128, 192, 256, 384, 512)
BRUTE = "IndexFlatIP"  # so slow that it answers a fifth of the queries
Answer = Callable[[NDArray[np.float32]], NDArray[np.int64]]  # (n, dim) queries to (n, k) ids


@dataclass(frozen=True)
class Contestant:
    """One way to search.

    Attributes:
        name: of the contestant.
        answer: the search.
        bytes_per_vector: memory for what it searches first.
        build_s: seconds to build that, if it is built here.
        note: plan or setting.
        plan: the tuned plan, if it is one.
    """

    name: str
    answer: Answer
    bytes_per_vector: float
    build_s: float | None = None
    note: str = ""
    plan: Plan | None = None


def searcher(corpus: Corpus, plan: Plan) -> Answer:
    return lambda q: search(corpus, q, plan, K).ids


def queries_of(corpus: Corpus) -> tuple[str, NDArray[np.float32]]:
    """The name of the vectors, and (n, dim) queries."""
    name = corpus.manifest.fingerprint.split("-")[0]
    if name in set(Kind):
        return name, Tree.of(Kind(name)).rows(QUERIES, 1)
    return Path(corpus.manifest.source).name, noisy_items(corpus, QUERIES)


def exact_contestants(corpus: Corpus, x: NDArray[np.float32]) -> list[Contestant]:
    found = []
    for name, make in (
        (BRUTE, faiss.IndexFlatIP),
        ("IndexFlatIPPanorama", lambda d: faiss.IndexFlatIPPanorama(d, 32)),
    ):
        start = time.perf_counter()
        flat = make(corpus.dim)
        flat.add(x)
        seconds = time.perf_counter() - start
        answer = lambda q, f=flat: f.search(q, K)[1]  # noqa: E731
        found.append(Contestant(name, answer, 4 * corpus.dim, seconds, "exact"))
    files = corpus.manifest.files
    sieve = sum(files[name].bytes for name in (SUFFIX, CODES) if name in files)
    coarse = sieve or corpus.prefix_index(corpus.dim).ram_bytes
    answer, note = searcher(corpus, Plan.EXACT), "exact"
    return [*found, Contestant("mrl-search exact", answer, coarse / len(corpus), None, note)]


def tuned_contestants(corpus: Corpus, targets: list[float], items: int) -> list[Contestant]:
    goal = Goal.recall(corpus, queries_to_tune(corpus, items), K)
    found = []
    for target in targets:
        plan = tune(corpus, goal, target).chosen.plan
        first = corpus.prefix_index(plan.dims[0])
        note, size = f"{plan}; {first.kind}", first.ram_bytes / len(corpus)
        name = f"mrl-search tuned {target}"
        found.append(Contestant(name, searcher(corpus, plan), size, None, note, plan))
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
    """Answer `queries` one by one; peak memory, and memory without mapped files."""
    corpus = Corpus.open(folder)
    with threads(1):
        for query in queries:
            search(corpus, query[None], plan, K)
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    names = {"rss_bytes": "VmHWM", "anonymous_bytes": "RssAnon"}
    return {key: 1024 * int(status[name][0]) for key, name in names.items()}


def timed(
    contestants: list[Contestant], queries: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each query by contestant: the median of the rounds."""
    answers = {c.name: c.answer for c in contestants}
    paces = {name: Pace(len(queries) // (5 if name == BRUTE else 1), WARM_UP) for name in answers}
    with threads(1):
        rounds = [time_round(answers, queries, paces) for _ in range(ROUNDS)]
    return {name: median_ms([ms[name] for ms in rounds]) for name in answers}


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
    corpus = Corpus.open(args.index)
    open_s = time.perf_counter() - start
    vectors, queries = queries_of(corpus)
    with threads(2):
        truth = search(corpus, queries, Plan.EXACT, K).ids
        contestants = tuned_contestants(corpus, targets, args.tuning)
        if len(corpus) <= args.exact_up_to:
            x = corpus.vectors.prefix(corpus.dim)
            contestants += exact_contestants(corpus, x)
            if args.peers:
                contestants += peers(x, queries, truth)
        found = [c.answer(queries[:100] if c.note == "exact" else queries) for c in contestants]
        batch = {}
        for c in contestants[: len(targets)]:
            parts = [queries[part * BATCH : (part + 1) * BATCH] for part in range(3)]
            seconds = [batch_seconds(c.answer, part) for part in parts]
            batch[c.name] = BATCH / float(np.median(seconds))
    times = timed(contestants, queries[:TIMED])
    common = {
        "kind": "contest", "vectors": vectors, "n": len(corpus), "queries": QUERIES,
        "tuning": args.tuning, "timed": TIMED, "rounds": ROUNDS, "threads": 1,
        "open_s": round(open_s, 4), "environment": environment(),
    }  # fmt: skip
    for c, ids in zip(contestants, found, strict=True):
        memory = {}
        if c.plan:
            with multiprocessing.get_context("spawn").Pool(1) as alone:
                memory = alone.apply(serve, (args.index, c.plan, queries))
        ms = times[c.name]
        record = {
            **common, "contestant": c.name, "note": c.note,
            "recall": recall_at_k(ids, truth[: len(ids)]), "p50_ms": float(np.median(ms)),
            "p99_ms": float(np.percentile(ms, 99)), "bytes_per_vector": c.bytes_per_vector,
            "build_s": c.build_s, "batch_per_s_2_threads": batch.get(c.name), **memory,
        }  # fmt: skip
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
