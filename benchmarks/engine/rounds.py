"""What the processes of a contest do: build, sweep, answer from cold, answer warm.

Each function runs in a process of its own, so that memory and caches are those of one contestant.
"""

import json
import os
import time
from pathlib import Path

import faiss
import numpy as np
from contestants import Contestant, bytes_in, installed
from ours import OURS
from peers_faiss import FAISS
from peers_other import OTHERS
from sweep import choose
from work import K, Work

__all__ = ["CONTESTANTS", "build", "cold", "sweep", "warm"]

CONTESTANTS: dict[str, Contestant] = {c.name: c for c in (*OURS, *FAISS, *OTHERS)}
BATCH, WARM_S, ROUND_S, COLD_S = 256, 5.0, 20.0, 60.0
Record = dict[str, object]


def build(work: Work, name: str, cores: int) -> None:
    """Build a contestant; `built.json` is written last."""
    contestant, folder = CONTESTANTS[name], work.of(name)
    folder.mkdir(parents=True)
    faiss.omp_set_num_threads(cores)
    start = time.perf_counter()
    contestant.build(work, folder, cores)
    seconds = time.perf_counter() - start
    versions = {p: installed(p) for p in contestant.packages}
    built = {"build_s": seconds, "build_cores": cores, "versions": versions}
    (folder / "built.json").write_text(json.dumps(built))


def opened(work: Work, name: str) -> Contestant:
    contestant = CONTESTANTS[name]
    contestant.open(work, work.of(name))
    return contestant


def sweep(work: Work, name: str, targets: list[float], cores: int) -> list[Record]:
    """Its settings for the targets, found on the tuning queries."""
    return choose(opened(work, name), work, targets, cores)


def warm(work: Work, name: str, chosen: list[Record], part: slice, cores: int) -> list[Record]:
    """One round: for each setting, milliseconds and hits of the fresh queries in `part`.

    They are asked once before, for at most WARM_S seconds; then the clock runs, until ROUND_S: of a
    million vectors IndexFlatIP compares with fewer queries than others do. Batches follow.
    """
    contestant, every = opened(work, name), work.queries("fresh")
    queries, results = every[part], []
    batch = np.take(every, range(part.start, part.start + BATCH), axis=0, mode="wrap")
    for choice in chosen:
        contestant.use(choice["setting"])
        contestant.use_threads(1)
        asked = time.perf_counter()
        for query in queries:
            contestant.search(query[None])
            if time.perf_counter() - asked > WARM_S:
                break
        ms, found = single(contestant, queries, ROUND_S)
        asked_of = slice(part.start, part.start + len(ms))
        found_of = work.hits("fresh", asked_of, found[: len(ms)])
        record: Record = {**choice, "ms": ms, "hits": found_of.tolist()}
        for name_of, threads in (("batch_ms_1", 1), ("batch_ms_all", cores)):
            contestant.use_threads(threads)
            start = time.perf_counter()
            contestant.search(batch)
            record[name_of] = (time.perf_counter() - start) * 1e3
        results.append(record)
    return results


def cold(work: Work, name: str, choice: Record) -> Record:
    """Open what is on disk alone and ask every fresh query once; then count the memory.

    The files are dropped from the system's page cache first, so that pages come from the disk.
    """
    for folder in (work.of(name), work.index, work.folder):
        for file in (f for f in folder.glob("*") if f.is_file()):
            drop(file)
    for file in (f for f in work.of(name).rglob("*") if f.is_file()):
        drop(file)
    queries, before = work.queries("fresh"), memory()
    start = time.perf_counter()
    contestant = opened(work, name)
    seconds = time.perf_counter() - start
    contestant.use(choice["setting"])
    contestant.use_threads(1)
    ms, _ = single(contestant, queries, COLD_S)
    after = memory()
    return {
        "effort": contestant.effort, "open_cold_s": seconds, "first_query_ms": ms[0],
        "cold_queries": len(ms), "cold_p50_ms": float(np.median(ms)),
        "cold_p99_ms": float(np.percentile(ms, 99)), "coarse_bytes": contestant.coarse_bytes,
        "rows_bytes": contestant.rows_bytes, "mapped_bytes": contestant.mapped_bytes,
        "disk_bytes": bytes_in(work.of(name)), "empty_rss_bytes": before["VmRSS"],
        "rss_bytes": after["VmRSS"], "anonymous_bytes": after["RssAnon"],
        "peak_bytes": after["VmHWM"],
    }  # fmt: skip


def single(
    contestant: Contestant, queries: np.ndarray, limit_s: float = np.inf
) -> tuple[list[float], np.ndarray]:
    """Milliseconds of each query, asked one by one, and (n, K) rows."""
    ms, found, begin = [], np.full((len(queries), K), -1), time.perf_counter()
    for i, query in enumerate(queries):
        row = query[None]
        start = time.perf_counter()
        answer = contestant.search(row)
        ms.append((time.perf_counter() - start) * 1e3)
        found[i] = answer[0]
        if time.perf_counter() - begin > limit_s:
            break
    return ms, found


def drop(file: Path) -> None:
    """Drop a file from the page cache."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def memory() -> dict[str, int]:
    """Bytes of this process: resident, resident without files, and the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    status = {name: value.split() for name, _, value in (line.partition(":") for line in lines)}
    return {name: 1024 * int(status[name][0]) for name in ("VmRSS", "RssAnon", "VmHWM")}
