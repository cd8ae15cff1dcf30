"""What changes cost an index of generated vectors, and whether its answers stay right.

    python benchmarks/engine/corpus.py easy 200000 SMALL --dims 64,1024
    python benchmarks/engine/corpus.py easy 210000 FRESH --dims 64,1024
    python benchmarks/engine/corpus.py easy 1000000 LARGE --dims 64,1024
    python benchmarks/living/engine.py add LARGE
    python benchmarks/living/engine.py tail SMALL FRESH
    python benchmarks/living/engine.py deleted SMALL
    python benchmarks/living/engine.py rounds SMALL
    python benchmarks/living/engine.py doubled SMALL

Each works on a copy, and appends a record to `engine.jsonl`. Times are of single queries on one
thread, the median over three rounds of 200 queries, interleaved.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search import Index, IndexSpec, Plan, living
from mrl_search.measure.environment import environment
from mrl_search.metrics import recall_at_k
from mrl_search.provenance import now
from mrl_search.search.corpus import Corpus
from mrl_search.search.run import search
from mrl_search.search.timing import Pace, median_ms, threads, time_round
from mrl_search.vectors import l2_normalize

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
from vectors import noisy_items

RECORDS = Path(__file__).with_name("engine.jsonl")
PLAN = Plan.parse("64:250,1024")
K, QUERIES, ROUNDS = 10, 200, 3


def copy_of(index: Path, place: str) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(index, Path(place) / index.name))


def new_rows(corpus: Corpus, count: int, seed: int) -> NDArray[np.float32]:
    """Vectors like those of a corpus, which are not in it."""
    rows = np.random.default_rng(seed).choice(len(corpus), count)
    noise = np.random.default_rng(seed + 1).standard_normal((count, corpus.dim), np.float32)
    return l2_normalize(corpus.vectors.rows(rows).astype(np.float32) + noise * np.float32(0.01))


def paces(corpora: dict[str, Corpus], queries: NDArray[np.float32]) -> dict[str, Any]:
    """p50 and p99 of a plan on each corpus, and recall@10 of it."""
    answers: dict[str, Callable[[Any], object]] = {
        name: lambda q, corpus=corpus: search(corpus, q, PLAN, K)
        for name, corpus in corpora.items()
    }
    with threads(1):
        timed = [
            time_round(answers, queries, dict.fromkeys(answers, Pace(QUERIES)))
            for _ in range(ROUNDS)
        ]
    found: dict[str, Any] = {}
    for name, corpus in corpora.items():
        ms = median_ms([r[name] for r in timed])
        truth = search(corpus, queries, Plan.EXACT, K).ids
        found[name] = {
            "n": corpus.manifest.alive, "p50_ms": float(np.median(ms)),
            "p99_ms": float(np.percentile(ms, 99)),
            "recall": recall_at_k(search(corpus, queries, PLAN, K).ids, truth),
        }  # fmt: skip
    return found


def add(large: Path) -> dict[str, Any]:
    """Seconds to add 1,000 vectors to a large index, five times."""
    with tempfile.TemporaryDirectory(dir=large.parent) as place:
        index = Index.open(copy_of(large, place))
        rows = new_rows(index.corpus, 1000, 7)
        seconds, written = [], []
        for _ in range(5):
            before = set(index.folder.rglob("*.faiss"))
            start = time.perf_counter()
            index.add(rows)
            seconds.append(round(time.perf_counter() - start, 3))
            written.append(len(set(index.folder.rglob("*.faiss")) - before))
        return {"n": len(index), "seconds": seconds, "faiss_files_written": sum(written)}


def tail(small: Path, fresh: Path) -> dict[str, Any]:
    """A query with a tail of 5% against a fresh build of the same vectors."""
    with tempfile.TemporaryDirectory(dir=small.parent) as place:
        index, whole = Index.open(copy_of(small, place)), Index.open(fresh)
        count = len(index)
        some = np.array([5, count - 1])
        assert (index.corpus.vectors.rows(some) == whole.corpus.vectors.rows(some)).all()
        index.add(whole.corpus.vectors.rows(slice(count, None)).astype(np.float32))
        assert index.manifest.indexed == count
        queries = noisy_items(whole.corpus, QUERIES)
        found = paces({"tail": index.corpus, "fresh": whole.corpus}, queries)
        found["ratio"] = found["tail"]["p50_ms"] / found["fresh"]["p50_ms"]
        return found


def deleted(small: Path) -> dict[str, Any]:
    """A query with 20% of the rows deleted against the same index with all of them."""
    with tempfile.TemporaryDirectory(dir=small.parent) as place:
        index, whole = Index.open(copy_of(small, place)), Index.open(small)
        gone = np.random.default_rng(5).choice(len(whole), len(whole) // 5, replace=False)
        index.remove(ids=gone)
        assert index.manifest.deleted == len(gone)
        found = paces(
            {"deleted": index.corpus, "whole": whole.corpus}, noisy_items(whole.corpus, QUERIES)
        )
        found["ratio"] = found["deleted"]["p50_ms"] / found["whole"]["p50_ms"]
        return found


def rounds(small: Path) -> dict[str, Any]:
    """50 rounds of changes at random; exact answers against brute force over what is alive."""
    rng = np.random.default_rng(11)
    with tempfile.TemporaryDirectory(dir=small.parent) as place:
        index = Index.open(copy_of(small, place))
        store = index.corpus.vectors
        alive = dict(enumerate(store.rows()))
        equal, done = 0, dict.fromkeys(("add", "remove", "fold", "compact"), 0)
        next_id = len(alive)
        for number in range(50):
            rows = new_rows(index.corpus, int(rng.integers(100, 6000)), number)
            before = index.manifest
            index.add(rows)
            for row in rows.astype(np.float16):
                alive[next_id], next_id = row, next_id + 1
            gone = rng.choice(list(alive), int(rng.integers(100, 6000)), replace=False)
            index.remove(ids=gone)
            for i in gone.tolist():
                del alive[i]
            done["add"] += 1
            done["remove"] += 1
            done["fold"] += index.manifest.indexed > before.indexed > 0
            if number % 20 == 19:
                index.compact()
                done["compact"] += 1
            queries = noisy_items(index.corpus, 4)
            ids, corpus = np.array(list(alive)), np.array(list(alive.values()))
            scores = _cosines(corpus, queries)
            order = np.lexsort((np.broadcast_to(ids, scores.shape), -scores), axis=1)[:, :K]
            got = index.search(queries, K, plan="exact")
            best = np.take_along_axis(scores, order, axis=1)
            equal += bool(np.allclose(best, got.scores, atol=2e-6) and len(index) == len(alive))
        return {"rounds": 50, "equal": equal, "n": len(alive), **done}


def _cosines(corpus: NDArray[np.float16], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    unit = l2_normalize(queries).T.astype(np.float32)
    parts = []
    for start in range(0, len(corpus), 20_000):
        part = corpus[start : start + 20_000].astype(np.float32)
        parts.append((part @ unit / np.linalg.norm(part, axis=1, keepdims=True)).T)
    return np.concatenate(parts, axis=1).astype(np.float64)


def doubled(small: Path) -> dict[str, Any]:
    """Recall of the tuned plan after an index has doubled, and in a fresh build of the same."""
    whole = Index.open(small)
    half = len(whole) // 2
    rows = whole.corpus.vectors.rows().astype(np.float32)
    with tempfile.TemporaryDirectory(dir=small.parent) as place:
        spec = IndexSpec((64, 1024))
        index = Index.from_vectors(rows[:half], Path(place) / "half", spec=spec)
        plan = index.tune(queries=400).chosen.plan
        queries, found = noisy_items(whole.corpus, 1000), {"plan": str(plan)}
        for start in range(half, len(rows), half // 20):
            index.add(rows[start : start + half // 20])
        m = index.manifest
        found |= {"n": m.alive, "trained": m.trained, "indexed": m.indexed}
        for name, corpus in (("doubled", index.corpus), ("fresh", whole.corpus)):
            truth = search(corpus, queries, Plan.EXACT, K).ids
            found[name] = recall_at_k(search(corpus, queries, plan, K).ids, truth)
        return found


def main() -> None:
    part, *folders = sys.argv[1:]
    found = globals()[part](*map(Path, folders))
    record = {"part": part, "plan": str(PLAN), "threads": 1, "created": now(), **found,
              "thresholds": [living.TAIL, living.DEAD, living.GROWN],
              "environment": environment()}  # fmt: skip
    with RECORDS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
