"""What a filter costs: a plan with all rows, and with some excluded, on three kinds of index.

    python benchmarks/engine/filters.py INDEX/vectors.npy >> benchmarks/engine/filters.jsonl

Each kind answers the same queries by the same plan, with 0, 1, 1%, 50%, 99% and 99.9% of the rows
excluded at random. A record has p50 and p99 of single queries on one thread, the ratio to the
unfiltered p50 of the same run, and recall@10 against the exact answer among the allowed rows.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from vectors import noisy_items

from mrl_search import Index, IndexSpec, Plan
from mrl_search.engines.base import Mask
from mrl_search.measure.environment import environment
from mrl_search.metrics import recall_at_k
from mrl_search.search.run import search
from mrl_search.search.timing import Pace, median_ms, threads, time_round

K, QUERIES, ROUNDS = 10, 200, 3
KINDS = {
    "flat": ("64=Flat", "64:200,1024"),
    "clusters": ("128=RR128,IVF2048,PQ128x4fsr", "128:200@40,1024"),
    "graph": ("96=HNSW16,SQ8", "96:200@256,1024"),
}
EXCLUDED = ("0", "1 row", "1%", "50%", "99%", "99.9%")


def mask_of(text: str, count: int) -> Mask | None:
    """Exclude `1 row`, or a share of all, drawn with a fixed seed."""
    if text == "0":
        return None
    number = 1 if text == "1 row" else round(float(text[:-1]) / 100 * count)
    allowed = np.ones(count, dtype=bool)
    allowed[np.random.default_rng(3).choice(count, number, replace=False)] = False
    return Mask(allowed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", type=Path)
    args = parser.parse_args()
    factories = dict(text.split("=", 1) for text, _ in KINDS.values())
    with tempfile.TemporaryDirectory(prefix="filters-") as folder:
        spec = IndexSpec((*map(int, factories), 1024), "Scan", factories)
        corpus = Index.from_vectors(args.vectors, Path(folder) / "index", spec=spec).corpus
        queries = noisy_items(corpus, QUERIES)
        masks = {text: mask_of(text, len(corpus)) for text in EXCLUDED}
        truth = {text: search(corpus, queries, Plan.EXACT, K, m).ids for text, m in masks.items()}
        for factory, text in KINDS.values():
            plan = Plan.parse(text)
            recall = {
                name: recall_at_k(search(corpus, queries, plan, K, mask).ids, truth[name])
                for name, mask in masks.items()
            }
            answers = {
                name: lambda q, mask=mask, plan=plan: search(corpus, q, plan, K, mask)
                for name, mask in masks.items()
            }
            paces = dict.fromkeys(answers, Pace(QUERIES))
            with threads(1):
                rounds = [time_round(answers, queries, paces) for _ in range(ROUNDS)]
            for name in answers:
                ms = median_ms([r[name] for r in rounds])
                plain = median_ms([r["0"] for r in rounds])
                print(json.dumps({
                    "kind": "filter", "index": factory, "plan": text, "n": len(corpus),
                    "excluded": name, "recall": recall[name], "queries": QUERIES,
                    "p50_ms": float(np.median(ms)), "p99_ms": float(np.percentile(ms, 99)),
                    "ratio": float(np.median(ms) / np.median(plain)), "threads": 1,
                    "environment": environment(),
                }), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
