"""Search in a real server of Milvus, against FAISS on the same machine; kill it on the way.

    python benchmarks/scale/milvus_server.py WORK --server PATH/milvus-server \
        >> benchmarks/scale/milvus.jsonl

`milvus-server` is of the wheel `milvus` 2.3.5, asked over loopback; its ports are open to others,
too, as it has no option against that. `easy` vectors (benchmarks/engine) are indexed by FAISS in
WORK, and copied to the server by `copy_to`. It is killed (SIGKILL) when half of the rows are there,
and again when all are; every id is then read. Both then answer the same queries by the same plans,
in turns, one thread asking. The server is stopped at the end.
"""

import argparse
import json
import shutil
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from milvus_process import Server
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from corpus import SEED, build
from vectors import DIM, Kind, Tree

from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place, connected
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.index import Index
from mrl_search.measure.environment import environment
from mrl_search.mirror import copy_to
from mrl_search.search.timing import threads
from mrl_search.store.manifest import now

DIMS, PLANS = (8, 64, DIM), ("8:200,1024", "64:200,1024")
K, ROUNDS = 10, 3
RECOVERY = 600.0  # seconds that a killed server may take
BLOCK = 2000  # ids that are read at once


def run(work: Path, command: str, n: int, count: int) -> Iterator[dict[str, object]]:
    """The records: of filling and killing, then of each engine and plan."""
    known = {"vectors": f"generated: easy, {n} rows, seed {SEED}", "n": n, "dims": DIMS}
    ours, theirs = work / "faiss", work / "milvus"
    if not ours.exists():
        build(Kind.EASY, n, ours, IndexSpec(DIMS))
    shutil.rmtree(theirs, ignore_errors=True)
    shutil.copytree(ours, theirs)
    shutil.rmtree(work / "server", ignore_errors=True)
    with Server(command, work / "server") as server:
        place = Place(server.uri, "easy")
        filled = filling(server, theirs, place, n)
        yield {"kind": "milvus-kill", **known, **filled, **described(server, place, work)}
        for name in names(place):
            connected(place).flush(name, timeout=600)
        waited = indexed(place)
        indexes = {"faiss": Index.open(ours), "milvus": Index.open(theirs)}
        tree = Tree.of(Kind.EASY)
        queries = tree.rows(count, 2)
        with threads(1):
            truth = indexes["faiss"].search(queries, K, plan="exact").ids
            for record in timed(indexes, queries, truth):
                kinds = dict(indexes[str(record["engine"])].manifest.factory)
                yield {
                    "kind": "milvus-query", **known, **record, "kinds": kinds,
                    "index_wait_s": waited, **described(server, place, work),
                }  # fmt: skip


def filling(server: Server, folder: Path, place: Place, n: int) -> dict[str, object]:
    """Copy an index to the server, which is killed at half of the rows and when it has all."""
    sent, send, killed = [0], Remote.upsert, threading.Event()

    def upsert(self: Remote, ids: NDArray[np.int64], *rest: object) -> None:
        if sent[0] >= n // 2 and not killed.is_set():
            killed.set()
            server.kill()
        send(self, ids, *rest)
        sent[0] += len(ids)

    Remote.upsert = upsert
    begin, told, recoveries = time.monotonic(), list[str](), list[float]()
    try:
        copy_to(folder, f"milvus:{place.uri}#{place.name}")
    except EngineError as error:
        told.append(str(error))
    half = time.monotonic() - begin
    assert killed.is_set()
    recoveries.append(server.start() + answers(place))
    resumed, already = time.monotonic(), sent[0]
    copy_to(folder, f"milvus:{place.uri}#{place.name}")
    rest = time.monotonic() - resumed
    server.kill()  # right after the last row was acknowledged
    recoveries.append(server.start() + answers(place))
    remote = Remote(place)
    ids = [row[0] for start in range(0, n, BLOCK) for row in remote.rows(start, start + BLOCK)]
    once = len(set(ids))
    return {
        "rows_s": round((n - already) / rest, 1), "sent": sent[0], "half_s": round(half, 1),
        "rest_s": round(rest, 1), "message": told, "recovery_s": recoveries,
        "rows": len(ids), "lost": n - once, "doubled": len(ids) - once,
    }  # fmt: skip


def answers(place: Place) -> float:
    """Seconds until a server that was started answers."""
    begin = time.monotonic()
    while True:
        try:
            Remote(place).count()
            return round(time.monotonic() - begin, 1)
        except EngineError:
            if time.monotonic() > begin + RECOVERY:
                raise
            time.sleep(1)


def names(place: Place) -> Sequence[str]:
    """The collections of vectors."""
    found = connected(place).list_collections()
    return [name for name in found if not name.endswith("_files")]


def indexed(place: Place) -> float:
    """Seconds until the server has indexed all rows."""
    begin = time.monotonic()
    for name in names(place):
        client = connected(place)
        for index in client.list_indexes(name):
            while client.describe_index(name, index).get("pending_index_rows", 0):
                time.sleep(1)
                if time.monotonic() > begin + RECOVERY:
                    raise TimeoutError(f"{name} is not indexed.")
    return round(time.monotonic() - begin, 1)


def timed(
    indexes: dict[str, Index], queries: NDArray[np.float32], truth: NDArray[np.int64]
) -> Iterator[dict[str, object]]:
    """Recall and times of both, in turns; of several rounds the least p50 and p99."""
    runs = [(name, plan) for name in indexes for plan in PLANS]
    ms: dict[tuple[str, str], list[list[float]]] = {run: [] for run in runs}
    recall: dict[tuple[str, str], float] = {}
    for _ in range(ROUNDS):
        for name, plan in runs:
            indexes[name].search(queries[0], K, plan=plan)
            times, hit = list[float](), 0.0
            for query, best in zip(queries, truth, strict=True):
                start = time.perf_counter()
                found = indexes[name].search(query, K, plan=plan)
                times.append((time.perf_counter() - start) * 1e3)
                hit += float(np.isin(best, found.ids).mean())
            ms[name, plan].append(times)
            recall[name, plan] = hit / len(queries)
    for name, plan in runs:
        every = np.array(ms[name, plan])
        yield {
            "engine": name, "plan": plan, "queries": len(queries),
            "recall": round(recall[name, plan], 4),
            "p50_ms": round(float(np.median(every, axis=1).min()), 3),
            "p99_ms": round(float(np.percentile(every, 99, axis=1).min()), 3),
        }  # fmt: skip


def described(server: Server, place: Place, work: Path) -> dict[str, object]:
    """Size of the server, and where all this was measured."""
    files = [path for path in (work / "server").rglob("*") if path.is_file()]
    return {
        "server": connected(place).get_server_version(), "server_bytes": server.memory(),
        "server_disk": sum(path.stat().st_size for path in files),
        "created": now(), "environment": environment(),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--server", default="milvus-server")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=300)
    args = parser.parse_args()
    for record in run(args.work, args.server, args.rows, args.queries):
        print(json.dumps(record), flush=True)
