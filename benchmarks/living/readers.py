"""Search an index without pause while other processes change it, and kill some of these.

    OMP_NUM_THREADS=1 python benchmarks/living/readers.py --generations 200

Three processes search, one of them in four threads. Each compares every answer with brute force
over the generation that it has, now and then takes the newest one by `refresh` or by opening the
folder again, and also keeps one generation to the end. One writer after another adds, removes,
compacts, restores and folds; every fifth is killed at a random moment. Appends a record to
`readers.jsonl`; exit 1 if an answer was wrong or there was an error.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from mrl_search import Index, IndexSpec, living
from mrl_search.measure.environment import environment
from mrl_search.store.intact import verify

HERE = Path(__file__).resolve().parent
DIM, ROWS = 16, 400
SMALL = {"FEW": 10, "TAIL": 0.1, "DEAD": 0.2}
THREADS = (1, 1, 4)  # of each process that searches
KILLED = 5  # every so-manieth writer


class Torn(Exception):
    """An answer that is not that of the reader's generation."""


class Truth:
    """What a generation holds, read once, for brute force."""

    def __init__(self, index: Index) -> None:
        self.generation = index.generation
        rows = index.corpus.live_rows
        self.ids = index.items.all_ids[rows]
        self.vectors = index.corpus.vectors.rows(rows).astype(np.float64)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)

    def check(self, index: Index, rng: np.random.Generator) -> None:
        """Search, and compare."""
        query = rng.standard_normal(DIM).astype(np.float32)
        k = int(rng.integers(1, 12))
        hits = index.search(query, k, plan="exact")
        cosines = self.vectors @ query / np.linalg.norm(query)
        best = -np.sort(-cosines)[:k]
        if len(hits) != len(best) or abs(hits.scores - best).max(initial=0) > 1e-5:
            raise Torn(f"generation {self.generation}, exact")
        where = dict(zip(self.ids.tolist(), cosines.tolist(), strict=True))
        by_prefix = index.search(query, k, plan=f"8:{len(self.ids)},{DIM}")
        for found in (hits, by_prefix):
            for hit in found:
                if abs(where.get(hit.id, 9) - hit.score) > 1e-5:
                    raise Torn(f"generation {self.generation}, id {hit.id}")


def read(folder: Path, threads: int, seed: int, done: Any, out: Any) -> None:  # noqa: ANN401
    """Search in some threads until `done`; (answers, generations, errors) into `out`."""
    kept = Index.open(folder)
    kept_truth, errors, counts = Truth(kept), list[str](), [0] * threads
    generations = set[int]()

    def work(number: int) -> None:
        rng = np.random.default_rng([seed, number])
        try:
            index = Index.open(folder)
            truth = Truth(index)
            while not done.is_set():
                truth.check(index, rng)
                counts[number] += 1
                if not rng.integers(8):
                    if rng.integers(2):
                        index.refresh()
                    else:
                        index = Index.open(folder)
                    truth = Truth(index)
                    generations.add(truth.generation)
                    kept_truth.check(kept, rng)
        except BaseException:
            errors.append(traceback.format_exc())

    pool = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    try:
        kept_truth.check(kept, np.random.default_rng(seed))
    except Exception:
        errors.append(traceback.format_exc())
    out.put((sum(counts), len(generations), errors))


def write(folder: Path, seed: int) -> None:
    """Change the index some times."""
    for name, value in SMALL.items():
        setattr(living, name, value)
    rng = random.Random(seed)
    index = Index.open(folder)
    for _ in range(rng.randint(1, 6)):
        kind = rng.choice(["add", "add", "add", "remove", "remove", "compact", "restore"])
        if kind == "remove" and len(index) > ROWS // 2:
            ids = index.items.all_ids[index.corpus.live_rows].tolist()
            index.remove(ids=np.array(rng.sample(ids, rng.randint(1, 60))))
        elif kind == "compact":
            index.compact()
        elif kind == "restore" and index.generations:
            index.restore(rng.choice(index.generations))
        else:
            rows = np.random.default_rng(seed).standard_normal((rng.randint(1, 40), DIM))
            index.add(rows.astype(np.float32))


def measure(goal: int, seconds: float = 1e9) -> dict[str, Any]:
    """Search during `goal` generations: what there was, and what was wrong."""
    context = multiprocessing.get_context("spawn")
    start, writers, killed, failed = time.monotonic(), 0, 0, list[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "index"
        rows = np.random.default_rng(0).standard_normal((ROWS, DIM)).astype(np.float32)
        spec = IndexSpec((8, DIM), "auto", {"8": "SQ8"}, "float32")
        Index.from_vectors(rows, folder, spec=spec)
        done, out = context.Event(), context.Queue()
        readers = [
            context.Process(target=read, args=(folder, threads, seed, done, out))
            for seed, threads in enumerate(THREADS)
        ]
        for reader in readers:
            reader.start()
        rng = random.Random(0)
        generation = 0
        while generation < goal and time.monotonic() - start < seconds:
            writers += 1
            pid = os.fork()
            if not pid:
                try:
                    write(folder, writers)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            if writers % KILLED == 0:
                time.sleep(rng.random() * 0.3)
                os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            killed += code == -signal.SIGKILL
            if code not in (0, -signal.SIGKILL):
                failed.append(f"writer {writers} ended with {code}")
            generation = verify(folder).generation
        done.set()
        told = [out.get(timeout=120) for _ in readers]
        for reader in readers:
            reader.join()
    return {
        "kind": "readers", "generations": generation, "writers": writers, "killed": killed,
        "answers": sum(answers for answers, _, _ in told),
        "opened": sum(opened for _, opened, _ in told),
        "errors": [*failed, *(error for _, _, errors in told for error in errors)],
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    """Measure, and append a record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--generations", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1e9, help="ends before, if that is less")
    options = parser.parse_args()
    found = measure(options.generations, options.seconds)
    print(json.dumps(found))
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (HERE / "readers.jsonl").open("a") as file:
        file.write(json.dumps({**found, "time": at, "environment": environment()}) + "\n")
    sys.exit(bool(found["errors"]))


if __name__ == "__main__":
    main()
