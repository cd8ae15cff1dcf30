"""Search in a real server of Milvus, against FAISS on the same machine; kill it on the way.

    python benchmarks/scale/milvus_server.py WORK --server PATH/milvus-server \
        >> benchmarks/scale/milvus.jsonl

`milvus-server` is of the wheel `milvus` 2.3.5, asked over loopback; its ports are open to others,
too, as it has no option against that. `easy` vectors (benchmarks/engine) are indexed by FAISS in
WORK, and copied to the server by `copy_to`. Both answer the same queries by the same plans, in
turns, one thread asking. Then the index is copied once more, and the server is killed (SIGKILL) on
the way and started again: every row of the first copy and every acknowledged one of the second is
looked for. The server is stopped at the end.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from milvus_process import Server
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from corpus import SEED, build
from vectors import DIM, Kind, Tree

from mrl_search.engines import milvus_client
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place, connected
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.index import Index
from mrl_search.measure.environment import environment
from mrl_search.mirror import copy_to
from mrl_search.provenance import now
from mrl_search.search.timing import threads

DIMS, PLANS = (8, 64, DIM), ("8:200,1024", "64:200,1024")
K, ROUNDS = 10, 3
MOST = 10  # times that a copy is resumed
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
        begin = time.monotonic()
        resumed = copied(theirs, place)
        filled = time.monotonic()
        for name in names(place):
            connected(place).flush(name, timeout=600)
        indexed(place)
        spent = {
            "fill_s": round(filled - begin, 1), "index_s": round(time.monotonic() - filled, 1),
            "resumed": resumed,
        }  # fmt: skip
        indexes = {"faiss": Index.open(ours), "milvus": Index.open(theirs)}
        queries = Tree.of(Kind.EASY).rows(count, 2)
        with threads(1):
            truth = indexes["faiss"].search(queries, K, plan="exact").ids
            for record in timed(indexes, queries, truth):
                kinds = dict(indexes[str(record["engine"])].manifest.factory)
                sizes = {**spent, **described(server, place, work)}
                yield {"kind": "milvus-query", **known, **record, "kinds": kinds, **sizes}
        lost = killed(server, work, ours, place, n)
        yield {"kind": "milvus-kill", **known, **lost, **described(server, place, work)}


def copied(folder: Path, place: Place) -> list[str]:
    """Copy an index, again where it was stopped; returns what stopped it."""
    failures = list[str]()
    while len(failures) < MOST:
        try:
            copy_to(folder, f"milvus:{place.uri}#{place.name}")
            return failures
        except EngineError as error:
            failures.append(str(error))
    raise RuntimeError(failures)


def killed(server: Server, work: Path, ours: Path, place: Place, n: int) -> dict[str, object]:
    """Copy the index a second time, kill the server on the way, and look for all rows."""
    second, sent, send = Place(place.uri, "again"), [0], Remote.upsert
    folder = work / "again"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ours, folder)

    def upsert(self: Remote, ids: NDArray[np.int64], *rest: object) -> None:
        if sent[0] >= n // 20:
            server.kill()
        send(self, ids, *rest)
        sent[0] += len(ids)

    Remote.upsert, milvus_client.SECONDS = upsert, 10.0
    try:
        copy_to(folder, f"milvus:{second.uri}#{second.name}")
        raise AssertionError("the server was not killed")
    except EngineError as error:
        message = f"{error} {error.hint}".replace(str(work), "WORK")
    milvus_client.SECONDS = 60.0
    begin, stopped = time.monotonic(), 0
    server.start()
    while True:
        try:
            found = {one.name: held(one, n if one is place else sent[0]) for one in (place, second)}
            break
        except EngineError:
            if time.monotonic() > begin + RECOVERY:
                raise
            stopped += server.revive()
            time.sleep(1)
    return {
        "message": message, "recovery_s": round(time.monotonic() - begin, 1), "stopped": stopped,
        "acknowledged": {place.name: n, second.name: sent[0]}, "found": found,
    }  # fmt: skip


def held(place: Place, count: int) -> dict[str, int]:
    """How many of the ids below `count` a collection has, and how many rows with these ids."""
    remote = Remote(place)
    ids = [
        row[0] for at in range(0, count, BLOCK) for row in remote.rows(at, min(at + BLOCK, count))
    ]
    return {"ids": len(set(ids)), "rows": len(ids)}


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
