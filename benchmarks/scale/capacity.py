"""Measure what a vector costs: bytes on disk and in memory, and microseconds of a query, by recall.

    python benchmarks/scale/capacity.py build 100000 /big/easy-100k
    python benchmarks/scale/capacity.py build 10000000 /big/easy-10m --dim 128
    python benchmarks/scale/capacity.py measure /big/easy-100k >> benchmarks/scale/capacity.jsonl

`build` writes an index of `easy` vectors (benchmarks/engine) with clusters of 64 and 128 dims; with
`--dim` of the first dims of these vectors. `measure` finds, for each of these first stages and for
recall@10 of .95, .99 and .999, the plan that reads least, by 1,000 queries. A new process then
answers 1,000 other queries by it: recall, times, memory, and what a query reads from a cold disk.
`--quietly COMMAND` runs that process by a command, such as one that stops other work meanwhile.

    python benchmarks/scale/capacity.py again /big/easy-100k RECORDS

answers by the plans in RECORDS once more; of several records of a plan, the least time counts.
"""

import argparse
import json
import mmap
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from corpus import SEED, write
from vectors import BLOCK, DIM, LEVELS, Kind, Tree

from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.measure.environment import environment
from mrl_search.provenance import now
from mrl_search.search.timing import threads
from mrl_search.vectors import l2_normalize, prefix

FIRST = (64, 128)  # dims of first stages
TARGETS = (0.95, 0.99, 0.999)
K, QUERIES, DEEPEST = 10, 1000, 2000
ROUNDS = 9  # of all queries; that of the least time is the one that other work disturbed least
COLD = 200  # queries from a cold disk
ROW_US, CODE_US = 0.3, 0.0053 / 128  # of a row, and a dim of a code: which plan reads least
MARGIN = 0.001  # of recall, as the plan is chosen among many
SHORTLISTS = np.unique(np.geomspace(K, DEEPEST, 60).astype(int))
Rows = NDArray[np.float32]


def rows_of(tree: Tree, n: int, seed: int, dim: int) -> Rows:
    """(n, dim) float32: as `Tree.rows`, or its first dims without making the others."""
    if dim == DIM:
        return tree.rows(n, seed)
    rng = np.random.default_rng(seed)
    topic = rng.choice(LEVELS[-1], size=n, p=tree.share)
    x = rng.standard_normal((n, dim), dtype=np.float32) * tree.noise[:dim]
    x *= np.exp(0.25 * rng.standard_normal((n, 1), dtype=np.float32))
    for mean in tree.means:
        x += mean[topic // (LEVELS[-1] // len(mean)), :dim]
    return l2_normalize(x + tree.offset[:dim])


def build(n: int, out: Path, dim: int) -> dict[str, object]:
    """Write the index; returns its record."""
    tree = Tree.of(Kind.EASY)

    def blocks() -> Iterator[Rows]:
        for number, start in enumerate(range(0, n, BLOCK)):
            yield rows_of(tree, min(BLOCK, n - start), SEED + number, dim)

    name = "easy" if dim == DIM else f"easy, first {dim} dims"
    first = [d for d in FIRST if d < dim]
    spec = IndexSpec((*first, dim), factories={str(dim): "Scan"})
    return write(name, n, blocks(), f"generated: {name}, {n} rows, seed {SEED}", out, spec, dim)


def measure(folder: Path, quietly: str, count: int = QUERIES) -> Iterator[dict[str, object]]:
    """The records of an index: one for each first stage and target."""
    index = Index.open(folder)
    dim, m = index.corpus.dim, index.manifest
    known = {
        "kind": "capacity", "vectors": m.source, "n": len(index), "dim": dim,
        "disk": {name: file.bytes for name, file in m.files.items()}, "quiet": bool(quietly),
        "queries": count,
    }  # fmt: skip
    tree, plans = Tree.of(Kind.EASY), list[dict[str, object]]()
    with threads(1), tempfile.TemporaryDirectory() as place:
        chosen, others = (rows_of(tree, QUERIES, seed, dim)[:count] for seed in (1, 2))
        truth = index.search(chosen, K, plan="exact").rows
        np.save(Path(place, "truth.npy"), index.search(others, K, plan="exact").rows)
        for d in (d for d in FIRST if d < dim):
            engine, kind = index.corpus.prefix_index(d), m.factory[str(d)]
            for target, (shortlist, effort) in cheapest(index, d, chosen, truth).items():
                plans.append({
                    "first": d, "target": target, "plan": f"{d}:{shortlist}@{effort},{dim}",
                    "index": kind, "lists": int(re.search(r"IVF(\d+)", kind)[1]),
                    "codes": engine.cost(effort), "shortlist": shortlist,
                })  # fmt: skip
        for part in index.corpus.vectors.parts:  # what one process maps stays in the cache of all
            part._mmap.madvise(mmap.MADV_DONTNEED)
        for plan in plans:
            measured = answered(quietly, folder, str(plan["plan"]), f"{place}/truth.npy")
            yield {**known, **plan, **measured}


def again(folder: Path, records: Path, quietly: str) -> Iterator[dict[str, object]]:
    """The records of an index once more, with new times: a machine may have been disturbed."""
    m = Index.open(folder).manifest
    for line in records.read_text().splitlines():
        before = json.loads(line)
        if (before["n"], before["dim"]) == (m.count, m.dim):
            yield {**before, **answered(quietly, folder, before["plan"])}


def answered(quietly: str, folder: Path, plan: str, *truth: str) -> dict[str, object]:
    """What `answer` finds in a process of its own."""
    answering = [sys.executable, __file__, "answer", str(folder), plan, *truth]
    command = [*quietly.split(), *answering]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(run.stdout.splitlines()[-1])
    return {**found, "created": now(), "environment": environment()}


def cheapest(
    index: Index, d: int, queries: Rows, truth: NDArray[np.int64]
) -> dict[float, tuple[int, int]]:
    """For each target the shortlist and effort that read least; none where no plan reaches it."""
    engine, x = index.corpus.prefix_index(d), prefix(queries, d)
    found: dict[float, tuple[float, tuple[int, int]]] = {}
    for effort in engine.efforts:
        ids = np.concatenate([engine.search(x[i : i + 100], DEEPEST, effort)[1]
                              for i in range(0, len(x), 100)])  # fmt: skip
        hit = (ids[:, :, None] == truth[:, None, :]).any(axis=2)
        recall = hit.cumsum(axis=1).mean(axis=0) / K
        for target in TARGETS:
            enough = SHORTLISTS[recall[SHORTLISTS - 1] >= target + min(MARGIN, (1 - target) / 2)]
            if len(enough):
                shortlist = int(enough[0])
                cost = engine.cost(effort) * d * CODE_US + shortlist * ROW_US
                found[target] = min(
                    found.get(target, (np.inf, (0, 0))), (cost, (shortlist, effort))
                )
    return {target: plan for target, (_, plan) in sorted(found.items())}


def answer(folder: Path, plan: str, truth: NDArray[np.int64] | None) -> dict[str, object]:
    """Answer other queries in this process; times in ms, memory in bytes, recall by the truth."""
    before = memory()
    start = time.perf_counter()
    index = Index.open(folder)
    queries = rows_of(Tree.of(Kind.EASY), QUERIES, 2, index.corpus.dim)
    made = time.perf_counter()
    with threads(1):
        index.search(queries[0], K, plan=plan)
        opened = time.perf_counter()
        rows = np.stack([index.search(query, K, plan=plan).rows for query in queries])
        timed = np.array([times(index, queries, plan) for _ in range(ROUNDS)])
        after = memory()
        cold, read = from_disk(index, queries[:COLD], plan)
    recall = dict[str, float]()
    if truth is not None:
        found = (rows[: len(truth), :, None] == truth[:, None, :]).any(axis=2).mean(axis=1)
        error = 1.96 * float(found.std() / len(found) ** 0.5)
        recall = {"recall": round(float(found.mean()), 5), "recall_ci95": round(error, 5)}
    rounds = np.median(timed, axis=1).tolist()
    return {
        **recall,
        "p50_ms": float(np.median(timed, axis=1).min()), "p50_rounds_ms": rounds,
        "p99_ms": float(np.percentile(timed, 99, axis=1).min()), "open_s": opened - made,
        "start_s": made - start, "before": before, "rss": after,
        "cold_p50_ms": float(np.median(cold)), "cold_read_bytes": read,
    }  # fmt: skip


def times(index: Index, queries: Rows, plan: str) -> list[float]:
    """Milliseconds of single queries."""
    found = []
    for query in queries:
        start = time.perf_counter()
        index.search(query, K, plan=plan)
        found.append((time.perf_counter() - start) * 1e3)
    return found


def from_disk(index: Index, queries: Rows, plan: str) -> tuple[list[float], float]:
    """Milliseconds of queries whose rows are in no cache, and bytes that one reads."""
    store = index.corpus.vectors
    path = index.folder / index.manifest.place("vectors.npy")
    for part in store.parts:
        part._mmap.madvise(mmap.MADV_DONTNEED)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    before = read_bytes()
    found = times(index, queries, plan)
    return found, (read_bytes() - before) / len(queries)


def read_bytes() -> int:
    """Bytes that this process has had read from the disk."""
    return int(re.search(r"^read_bytes: (\d+)", Path("/proc/self/io").read_text(), re.M)[1])


def memory() -> dict[str, int]:
    """Bytes of this process in memory, of its own and of mapped files."""
    status = Path("/proc/self/status").read_text()
    names = {"all": "VmRSS", "own": "RssAnon", "files": "RssFile"}
    return {k: int(re.search(rf"^{v}:\s+(\d+)", status, re.M)[1]) * 1024 for k, v in names.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("build")
    making.add_argument("n", type=int)
    making.add_argument("out", type=Path)
    making.add_argument("--dim", type=int, default=DIM)
    measuring = commands.add_parser("measure")
    measuring.add_argument("index", type=Path)
    measuring.add_argument("--quietly", default="")
    measuring.add_argument("--queries", type=int, default=QUERIES, help="that recall is of")
    answering = commands.add_parser("answer")
    answering.add_argument("index", type=Path)
    answering.add_argument("plan")
    answering.add_argument("truth", type=Path, nargs="?")
    repeating = commands.add_parser("again")
    repeating.add_argument("index", type=Path)
    repeating.add_argument("records", type=Path)
    repeating.add_argument("--quietly", default="")
    args = parser.parse_args()
    if args.command == "build":
        print(json.dumps(build(args.n, args.out, args.dim)))
    elif args.command == "answer":
        truth = None if args.truth is None else np.load(args.truth)
        print(json.dumps(answer(args.index, args.plan, truth)))
    else:
        if args.command == "again":
            records = again(args.index, args.records, args.quietly)
        else:
            records = measure(args.index, args.quietly, args.queries)
        for record in records:
            print(json.dumps(record), flush=True)
