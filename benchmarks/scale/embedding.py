"""Embed photographs in one process, in four parts, and in two processes of one launch; compare.

    python benchmarks/scale/embedding.py PICTURES WORK >> benchmarks/scale/embedding.jsonl

One of the four parts is killed (SIGKILL) after its first commit, and run again: `--count` gives
each more than 1,024 pictures, after which a build commits. All run with one thread; the four parts
at the same time. Rates are pictures for each second of processor time, in a process and its
children, so that other work on the machine counts little: start-up apart, which is that of a part
with one picture. The vectors are compared by path.
"""

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import mrl_search as mrl
from mrl_search.files import PROGRESS, building_folder
from mrl_search.mapping import read_json
from mrl_search.measure.environment import environment
from mrl_search.provenance import now

PARTS, RANKS = 4, 2
COMMIT = 1024  # pictures, of the writer
LIMIT = 3600  # seconds of one process


def write_pictures(where: str, folder: Path, count: int) -> None:
    """Write `count` pictures of a source as files, written long ago."""
    source = mrl.open_source(where)
    for row in np.linspace(0, len(source.paths) - 1, count).astype(int):
        path = folder / str(source.labels[row]) / f"{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(int(row)))
        os.utime(path, (1e9, 1e9))


def command(*args: object, ranks: int = 1) -> list[str]:
    """The command line that runs `mrl-search ARGS` in `ranks` processes."""
    start = ["-m", "mrl_search"]
    if ranks > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        start = [*launch, "-m", "mrl_search"]
    return [sys.executable, *start, *map(str, args)]


def run(*args: object, ranks: int = 1) -> dict[str, float]:
    """Run `mrl-search ARGS` to its end: seconds of the clock and of processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command(*args, ranks=ranks), check=True, capture_output=True, timeout=LIMIT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.perf_counter() - start, "cpu_seconds": cpu}


def parts_at_once(pictures: Path, work: Path) -> dict[str, object]:
    """Build all parts at the same time; kill the first one after a commit, and run it again."""
    outs = [work / f"part-{number}" for number in range(1, PARTS + 1)]
    tasks = [
        ("build-index", pictures, "--model", "bundled", "--dtype", "float32", "--shard",
         f"{number}/{PARTS}", "--out", out)
        for number, out in enumerate(outs, 1)
    ]  # fmt: skip
    start = time.perf_counter()
    cpu, running = {}, {}
    for number, task in enumerate(tasks):
        running[subprocess.Popen(command(*task), stderr=subprocess.DEVNULL).pid] = number
    first, kept = min(running), 0
    assert running[first] == 0, "numbers of processes began anew"
    note = building_folder(outs[0]) / PROGRESS
    while not kept and first in running:
        if note.exists():
            kept = read_json(note)["read"]
        time.sleep(0.05)
    os.kill(first, signal.SIGKILL)
    while running:
        pid, status, usage = os.wait4(-1, 0)
        number = running.pop(pid)
        cpu[pid] = usage.ru_utime + usage.ru_stime
        assert pid == first or os.waitstatus_to_exitcode(status) == 0, number
    assert not outs[0].exists()
    again = run(*tasks[0])
    return {
        "seconds": time.perf_counter() - start, "killed_after": kept,
        "cpu_seconds": sum(cpu.values()) + again["cpu_seconds"],
        "cpu_seconds_of_parts": [cpu[pid] for pid in sorted(cpu)], "again": again,
        "pictures": [len(mrl.Index.open(out)) for out in outs],
    }  # fmt: skip


def difference(one: Path, other: Path) -> dict[str, object]:
    """How far the vectors of two indexes are apart, and whether their items are the same."""
    a, b = mrl.Index.open(one), mrl.Index.open(other)
    apart = np.abs(a.corpus.vectors.rows() - b.corpus.vectors.rows())
    names = ("path", "hash", "label", "id")
    same = {name: a.items[name].equals(b.items[name]) for name in names}
    equal = int((apart.max(axis=1) == 0).sum())
    return {"largest": float(apart.max()), "rows_equal_bitwise": equal, "rows": len(a), **same}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pictures")
    parser.add_argument("work", type=Path)
    parser.add_argument("--count", type=int, default=PARTS * COMMIT + 300)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    shutil.rmtree(args.work, ignore_errors=True)
    folder, work = args.work / "pictures", args.work
    write_pictures(args.pictures, folder, args.count)
    write_pictures(args.pictures, work / "one", 1)
    how = ("--model", "bundled", "--dtype", "float32")
    started = run("build-index", work / "one", *how, "--shard", "1/1", "--out", work / "start")
    alone = run("build-index", folder, *how, "--axes", "none", "--out", work / "alone")
    parts = parts_at_once(folder, work)
    outs = [work / f"part-{number}" for number in range(1, PARTS + 1)]
    joined = run("join", *outs, "--out", work / "joined")
    ranks = run("build-index", folder, *how, "--axes", "none", "--out", work / "ranks", ranks=RANKS)
    begin = started["cpu_seconds"]
    one = args.count / (alone["cpu_seconds"] - begin)
    lost = parts["cpu_seconds_of_parts"][0]  # of the part that was killed
    whole = parts["cpu_seconds"] - lost - parts["again"]["cpu_seconds"] - (PARTS - 1) * begin
    rate = sum(parts["pictures"][1:]) / whole
    together = args.count / (ranks["cpu_seconds"] - RANKS * begin)
    print(json.dumps({
        "kind": "embedding", "pictures": args.count, "model": "bundled", "threads": 1,
        "start": started, "alone": alone, "parts": parts, "join": joined, "ranks": ranks,
        "per_cpu_second": {"alone": one, "parts": rate, "ranks": together},
        "against_alone": {"parts": rate / one, "ranks": together / one},
        "joined_and_alone": difference(work / "joined", work / "alone"),
        "ranks_and_alone": difference(work / "ranks", work / "alone"),
        "created": now(), "environment": environment(),
    }))  # fmt: skip
