"""mrl-search against exact search and its strongest peers: recall, time, memory and build.

    python benchmarks/engine/contest.py INDEX WORK >> benchmarks/engine/records.jsonl

INDEX is what `corpus.py` wrote, or any other index; WORK a folder for rows, queries, truth and the
indexes of others, kept for the next run. Everything goes on where it stopped; what was built or
swept is not done again, unless `--again NAME` wants it.

1. Each contestant is built in a process of its own. One whose package is not installed, or that
   fails, gets a record with the reason.
2. Settings are found on the tuning queries, the same for all (`sweep.py`).
3. Rounds: in every round each contestant, in random order and a new process, answers another part
   of 1,000 fresh queries, warm, one by one on one thread, then batches of 256. So p50, p99 and
   recall come from 1,000 single timings, spread over the run.
4. Cold: files are dropped from the page cache, the index is opened, each query asked once; then
   the memory is counted.

Queries of generated vectors are rows of another seed; `--queries FILE` gives others (1,000
fresh ones first); without it they are items with noise.
"""

import argparse
import fcntl
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from ours import OURS
from rounds import CONTESTANTS, build, cold, sweep, warm
from work import QUERIES, TUNING, Work, prepare

from mrl_search.measure.environment import environment
from mrl_search.metrics import Share

ROUNDS, MIDDLE = 5, 0.99  # the target that is asked from cold
Record = dict[str, Any]


def alone(function: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
    """What `function` returns in a new process; an error there is one here."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(function, *args).result()


def say(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


@contextmanager
def held(file: Path) -> Iterator[None]:
    """Hold the lock of a file, so that whoever else takes it waits."""
    with file.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def stored(file: Path, make: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What a JSON file holds; it is made first where it is missing."""
    if not file.exists():
        made = make()
        file.write_text(json.dumps(made))
    return json.loads(file.read_text())


class Contest:
    """One run over a working folder."""

    def __init__(self, work: Work, args: argparse.Namespace) -> None:
        self.work, self.cores, self.targets = work, args.cores, args.targets
        self.environment, self.rounds = environment(), args.rounds
        self.environment["commit"] = commit(self.environment["commit"], args.dirty)
        self.run = work.folder / f"run-{self.environment['commit']}"
        self.again: list[str] = args.again
        self.absent: dict[str, str] = dict(args.leave_out)
        self.lock: Path | None = args.lock
        self.run.mkdir(exist_ok=True)

    def ready(self, name: str) -> list[Record] | str:
        """The settings of a contestant, built if it must be; or why it takes no part."""
        contestant, folder = CONTESTANTS[name], self.work.of(name)
        if name in self.absent:
            return f"left out: {self.absent[name]}"
        if contestant.missing:
            return f"not installed: {contestant.missing}"
        settings = (self.run if name.startswith("mrl-search") else folder) / f"{folder.name}.json"
        if name in self.again:
            shutil.rmtree(folder, ignore_errors=True)
            settings.unlink(missing_ok=True)
        try:
            if not (folder / "built.json").exists():
                shutil.rmtree(folder, ignore_errors=True)
                say("building", name)
                alone(build, self.work, name, self.cores)
            say("sweeping", name)
            with self.quiet():
                return stored(
                    settings, lambda: alone(sweep, self.work, name, self.targets, self.cores)
                )
        except BrokenProcessPool:
            return "its process ended; what the library wrote to stderr tells why"
        except Exception as error:  # a library's own
            return f"{type(error).__name__}: {error}".splitlines()[0][:300]

    def quiet(self) -> AbstractContextManager[None]:
        """The lock that is held while a contestant is timed."""
        return held(self.lock) if self.lock else nullcontext()

    def answer(self, ready: dict[str, list[Record]]) -> None:
        """All rounds, then every contestant from cold; what is there is kept."""
        size = QUERIES // self.rounds
        for number in range(self.rounds):
            order = list(ready)
            np.random.default_rng(number).shuffle(order)
            for name in order:
                part = slice(number * size, (number + 1) * size)
                say("round", number, name)
                with self.quiet():
                    stored(
                        self.result(name, number),
                        lambda n=name, p=part: alone(warm, self.work, n, ready[n], p, self.cores),
                    )
        for name, chosen in ready.items():
            say("cold", name)
            choice = next((c for c in chosen if c["target"] in (None, MIDDLE)), chosen[-1])
            with self.quiet():
                stored(
                    self.result(name, "cold"), lambda n=name, c=choice: alone(cold, self.work, n, c)
                )

    def result(self, name: str, what: int | str) -> Path:
        """The file of a round, or of `cold`."""
        return self.run / f"{self.work.of(name).name}-{what}.json"

    def records(self, name: str, chosen: list[Record]) -> list[Record]:
        """One record a target."""
        part = lambda what: json.loads(self.result(name, what).read_text())  # noqa: E731
        rounds, found = [part(number) for number in range(self.rounds)], []
        built = json.loads((self.work.of(name) / "built.json").read_text())
        for i, choice in enumerate(chosen):
            parts = [r[i] for r in rounds]
            ms = np.concatenate([p["ms"] for p in parts])
            recall = Share.mean_of(np.concatenate([p["hits"] for p in parts]))
            batch = {k: QUERIES_OF_BATCH / np.median([p[k] for p in parts]) for k in BATCHES}
            found.append({
                **choice, "recall": recall.value, "recall_low": recall.low,
                "recall_high": min(recall.high, 1.0), "timings": len(ms),
                "p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99)),
                "batch_per_s_1_thread": batch["batch_ms_1"],
                "batch_per_s_all_threads": batch["batch_ms_all"], **built, **part("cold"),
            })  # fmt: skip
        return found


BATCHES, QUERIES_OF_BATCH = ("batch_ms_1", "batch_ms_all"), 256_000  # queries times ms a second


def commit(described: str | None, dirty: bool) -> str | None:
    """The commit, if nothing but records and tables differs from it.

    Raises:
        SystemExit: other files differ, and `dirty` does not allow it.
    """
    if not described or not described.endswith("-dirty"):
        return described
    records = (":(exclude,top)*.jsonl", ":(exclude,top)*.md")
    command = ["git", "diff", "--stat", "HEAD", "--", ":(top)", *records]
    changed = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    if not changed.stdout.strip():
        return described.removesuffix("-dirty")
    if not dirty:
        raise SystemExit("error: files differ from the commit.\nhint: commit, or allow it: --dirty")
    return described


def simd() -> list[str]:
    """Vector instructions of this processor that libraries here may use."""
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    return [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_fp16", "amx_int8") if f in flags]


def reason(text: str) -> tuple[str, str]:
    """NAME=REASON in two."""
    name, found, why = text.partition("=")
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} has no reason: NAME=REASON")
    return name, why


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--queries", type=Path, help="(n, dim) .npy: 1,000 fresh, then tuning ones")
    parser.add_argument("--tuning", type=int, default=TUNING, help="tuning queries, at most")
    parser.add_argument("--targets", type=float, nargs="+", default=[0.95, 0.99, 0.999])
    parser.add_argument("--only", nargs="+", default=list(CONTESTANTS), metavar="NAME")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], type=reason, metavar="NAME=REASON",
        help="the record tells the reason",
    )  # fmt: skip
    parser.add_argument("--again", nargs="+", default=[], metavar="NAME", help="redo")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--cores", type=int, default=os.cpu_count(), help="for builds and batches")
    parser.add_argument("--lock", type=Path, help="a file whose lock is held while one is timed")
    parser.add_argument("--dirty", action="store_true", help="allow uncommitted changes")
    args = parser.parse_args()
    unknown = {*args.only, *dict(args.leave_out), *args.again} - set(CONTESTANTS)
    if unknown:
        parser.error(f"no such contestants: {', '.join(sorted(unknown))}; {', '.join(CONTESTANTS)}")
    work = Work(args.work.resolve(), args.index.resolve())
    alone(prepare, work, args.queries, args.tuning)
    contest = Contest(work, args)
    names = [n for n in CONTESTANTS if n in args.only]
    if not work.about["peers"]:
        names = [n for n in names if n in {c.name for c in OURS}]
    states = {name: contest.ready(name) for name in names}
    told = {n: chosen for n, chosen in states.items() if not isinstance(chosen, str)}
    reached = {n: [c for c in chosen if c["setting"] is not None] for n, chosen in told.items()}
    ready = {n: chosen for n, chosen in reached.items() if chosen}
    contest.answer(ready)
    common = {
        "kind": "contest", "run": f"{contest.environment['commit']}", **work.about,
        "rounds": args.rounds, "cores": args.cores, "simd": simd(),
        "environment": contest.environment,
    }  # fmt: skip
    for name, chosen in states.items():
        if isinstance(chosen, str):
            records = [{"absent": chosen}]
        else:
            records = contest.records(name, ready[name]) if name in ready else []
            records += [c for c in chosen if c["setting"] is None]
        for record in records:
            print(json.dumps({**common, "contestant": name, **record}), flush=True)


if __name__ == "__main__":
    main()
