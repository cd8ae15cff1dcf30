"""Does the cut-off `auto` keep what it says? Unrelated queries, and changed copies.

    python benchmarks/living/cutoff.py INDEX FOREIGN OUT [COPIES]

FOREIGN is an index of other pictures by the same model, whose axes are the model's own: its items
are queries that have no related item in INDEX. Changed copies of pictures of INDEX are made and
embedded, and kept in the folder COPIES. Appends a record a prefix to OUT.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.index import Index
from mrl_search.measure.copies import PROTOCOLS, changed_copies, corpus_of
from mrl_search.measure.environment import environment
from mrl_search.measure.queries import QuerySet, shuffled
from mrl_search.metrics import Share
from mrl_search.search.chance import UNLIKELY
from mrl_search.search.others import others_than
from mrl_search.search.plan import Plan
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import Queries
from mrl_search.search.run import answer

QUERIES, CHANGED, SEED = 2500, 1000, 1  # seed 0 drew the queries by which the method was chosen
LEVELS = (0.001, 0.01, 0.1, 1.0, 10.0)
TIMED = 50


def main(folder: Path, other: Path, out: Path, kept: Path) -> None:
    index, foreign = Index.open(folder), Index.open(other)
    corpus = index.corpus
    queries = QuerySet.of_collection(foreign.corpus.collection, other.name, corpus, QUERIES, SEED)
    changed = {name: copies(index, name, kept) for name in PROTOCOLS}
    head = {
        "index": folder.name, "items": len(index), "foreign": other.name, "queries": len(queries),
        "model": index.manifest.encoder, "fingerprint": index.manifest.fingerprint,
        "environment": environment(),
    }  # fmt: skip
    for d in index.dims:
        plan = Plan.single(d)
        ask = SearchRequest(plan, k=100, expected=True)
        start = time.process_time()
        answer(corpus, queries.vectors[:1], ask)
        learn_ms = (time.process_time() - start) * 1e3
        hits = answer(corpus, queries.vectors, ask)
        record = {**head, "dims": d, "learn_ms": round(learn_ms)}
        record["ms"] = {on: milliseconds(index, queries.vectors, plan, on) for on in (False, True)}
        record["unrelated"] = share((hits.expected < UNLIKELY).any(axis=1))
        counts = {level: (hits.expected < level).sum(axis=1) for level in LEVELS}
        record["hits"] = {
            level: [round(n.mean(), 5), round(1.96 * n.std() / len(n) ** 0.5, 5)]
            for level, n in counts.items()
        }
        own = QuerySet.of_corpus(corpus, CHANGED, SEED)
        left = others_than(Queries([], own.vectors, hashes=own.hashes))
        found = answer(corpus, own.vectors, ask, left)
        record["own"] = share((found.expected < UNLIKELY).any(axis=1))
        for name, (rows, originals) in changed.items():
            found = answer(corpus, rows, ask)
            original = corpus.collection.hashes[found.rows] == originals[:, None]
            passes = original & (found.expected < UNLIKELY)
            record[name] = {
                "first": share(original[:, 0]), "passes": share(passes.any(axis=1)),
                "others": round(float(((found.expected < UNLIKELY) & ~original).sum(1).mean()), 4),
            }  # fmt: skip
        with out.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps({k: v for k, v in record.items() if k != "environment"}), flush=True)


def copies(index: Index, name: str, kept: Path) -> tuple[NDArray[np.float32], NDArray[np.object_]]:
    """Changed copies of pictures of the index as queries, and the hashes of their originals."""
    file = kept / f"{index.folder.name}-{name}.npz"
    if not file.exists():
        source = corpus_of(index.corpus)
        wanted = {source.paths[i] for i in shuffled(len(index), CHANGED, SEED)}
        made, _ = changed_copies(source, index.encoder, wanted, PROTOCOLS[name])
        rows = index.corpus.to_space(made.rows)
        np.savez(file, rows=rows, originals=made.originals.astype(str))
    with np.load(file) as stored:
        return stored["rows"], stored["originals"].astype(object)


def milliseconds(index: Index, rows: NDArray[np.float32], plan: Plan, expected: bool) -> float:
    """Median processor time of a single query."""
    request, times = SearchRequest(plan, expected=expected), []
    for i in range(TIMED):
        start = time.process_time()
        answer(index.corpus, rows[i : i + 1], request)
        times.append((time.process_time() - start) * 1e3)
    return round(float(np.median(times)), 2)


def share(right: NDArray[np.bool_]) -> list[float]:
    """A share with its 95% interval."""
    found = Share.of(right)
    return [round(found.value, 4), round(found.low, 4), round(found.high, 4)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        main(*map(Path, sys.argv[1:4]), Path(sys.argv[4] if len(sys.argv) > 4 else place))
