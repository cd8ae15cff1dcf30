"""What each kind of generated vectors is like, in numbers.

    python benchmarks/engine/kinds.py 200000 [KIND…] >> benchmarks/engine/kinds.jsonl

A record has, of n vectors and 500 queries of another seed: the energy of the first dims; the share
of the true ten neighbours in the query's own topic; the intrinsic dimension by the estimator of
Levina and Bickel (2004) over 20 neighbours; the median ratio of the eleventh distance to the tenth
(1: no gap); recall@10 of 4,096 clusters of which 16 are read; and the share of the true ten among
the first 200 and 1,000 by the first 128 dims.
"""

import argparse
import json

import faiss
import numpy as np
from numpy.typing import NDArray
from vectors import BLOCK, DIM, Kind, Tree, blocks_of_rows

from mrl_search.measure.environment import environment
from mrl_search.vectors import prefix

SEED, QUERIES, K, NEAR = 100, 500, 10, 20
LISTS, PROBE, PER_LIST, ROUNDS = 4096, 16, 24, 5
FIRST, SHORT = 128, (200, 1000)
ENERGY = (8, 16, 32, 64, 128)
IP = faiss.METRIC_INNER_PRODUCT


def nearest(
    x: NDArray[np.float32], queries: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return faiss.knn(queries, x, count, IP)


def intrinsic(distances: NDArray[np.float32]) -> float:
    """Levina and Bickel's estimate of the dimension, from (n, NEAR) rising distances."""
    logs = np.log(distances[:, -1:] / distances[:, :-1])
    return float(1 / (logs.sum(axis=1) / (distances.shape[1] - 2)).mean())


def found(ids: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    return float((ids[:, :, None] == truth[:, None, :]).any(axis=1).mean())


def clusters(x: NDArray[np.float32], lists: int) -> faiss.IndexIVFFlat:
    """Spherical clusters over all dims."""
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(x.shape[1]), x.shape[1], lists, IP)
    index.cp.spherical, index.cp.niter, index.cp.max_points_per_centroid = True, ROUNDS, PER_LIST
    index.train(x)
    index.add(x)
    return index


def measured(kind: Kind, n: int, lists: int = LISTS) -> dict[str, object]:
    """The record of `n` vectors of a kind."""
    tree = Tree.of(kind)
    x = np.empty((n, DIM), np.float32)
    for start, block in zip(range(0, n, BLOCK), blocks_of_rows(tree, n, SEED), strict=True):
        x[start : start + len(block)] = block
    topics = np.concatenate([
        tree.topics(min(BLOCK, n - start), SEED + i) for i, start in enumerate(range(0, n, BLOCK))
    ])  # fmt: skip
    queries, own = tree.rows(QUERIES, 1), tree.topics(QUERIES, 1)
    scores, ids = nearest(x, queries, NEAR)
    distances, truth = np.sqrt(np.maximum(2 - 2 * scores, 1e-9)), ids[:, :K]
    _, short = nearest(prefix(x, FIRST), prefix(queries, FIRST), min(SHORT[-1], n))
    index = clusters(x, lists)
    index.nprobe = PROBE
    return {
        "kind": "kind", "vectors": str(kind), "n": n, "queries": QUERIES,
        "energy": [round(float((x[:10_000, :d] ** 2).sum(axis=1).mean()), 3) for d in ENERGY],
        "own_topic": float((topics[truth] == own[:, None]).mean()),
        "dimension": intrinsic(distances),
        "gap": float(np.median(distances[:, K] / distances[:, K - 1])),
        "lists": lists, "probe": PROBE,
        "clusters_recall": found(index.search(queries, K)[1], truth),
        "prefix_recall": {str(s): found(short[:, :s], truth) for s in SHORT},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("n", type=int)
    parser.add_argument("kinds", type=Kind, nargs="*", default=list(Kind))
    args = parser.parse_args()
    for kind in args.kinds:
        record = {**measured(kind, args.n), "environment": environment()}
        print(json.dumps(record), flush=True)


if __name__ == "__main__":
    main()
