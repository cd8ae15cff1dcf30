"""Real vectors: an index of photographs, grown by noised and turned copies, and queries held out.

    python benchmarks/engine/photographs.py INDEX OUT [N] >> benchmarks/engine/records.jsonl
    python benchmarks/engine/contest.py OUT/photographs WORK --queries OUT/queries.npy

INDEX has the vectors of the photographs (`mrl-search build-index .../cats_vs_dogs`). 4,000 of them,
drawn with a fixed seed, are queries, and not in the corpus; the others are, and with N rows also
copies of them. A copy is a photograph's vector turned by the angle between that and its tenth
neighbour, toward the difference of two other photographs, with a little noise in each
dim: so copies have the energy of the photographs by dim, and lie as far apart as they do.
The record tells the share of the queries' ten neighbours that come from one photograph, and their
intrinsic dimension.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import faiss
import numpy as np
from corpus import write
from kinds import NEAR, K, intrinsic
from numpy.typing import NDArray
from vectors import BLOCK

from mrl_search.engines.spec import IndexSpec
from mrl_search.search.corpus import Corpus
from mrl_search.vectors import DIMS

HELD_OUT, SEED, NOISE = 4000, 11, 0.2  # noise in parts of the mean size of a dim
Rows = NDArray[np.float32]


def tenth_angles(rows: Rows) -> NDArray[np.float32]:
    """(n,) angle in radians between each row and its tenth neighbour."""
    scores, _ = faiss.knn(rows, rows, K + 1, faiss.METRIC_INNER_PRODUCT)
    return np.arccos(np.clip(scores[:, K], -1, 1))


def copies(rows: Rows, n: int) -> Iterator[Rows]:
    """The rows, then turned and noised copies of them in turn, `n` together, in blocks."""
    yield rows[:n]
    angles, sizes = tenth_angles(rows), np.abs(rows).mean(axis=0)
    for start in range(len(rows), n, BLOCK):
        rng = np.random.default_rng((SEED, start))
        of = np.arange(start, min(start + BLOCK, n)) % len(rows)
        x, angle = rows[of], angles[of][:, None]
        pair = rng.integers(len(rows), size=(2, len(of)))
        aside = rows[pair[0]] - rows[pair[1]] + np.float32(1e-6)
        aside -= (aside * x).sum(axis=1, keepdims=True) * x
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        noise = rng.standard_normal(x.shape, dtype=np.float32) * sizes * np.float32(NOISE)
        copy = np.cos(angle) * x + np.sin(angle) * aside + noise
        yield copy / np.linalg.norm(copy, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("n", type=int, nargs="?", help="rows; default: the photographs alone")
    args = parser.parse_args()
    corpus = Corpus.open(args.index)
    every = corpus.vectors.prefix(corpus.dim, np.arange(len(corpus)))
    order = np.random.default_rng(SEED).permutation(len(every))
    queries, rows = every[order[:HELD_OUT]], every[order[HELD_OUT:]]
    n = args.n or len(rows)
    args.out.mkdir(parents=True)
    np.save(args.out / "queries.npy", queries)
    source = f"{corpus.manifest.source}, {n} rows"
    index, spec = args.out / "photographs", IndexSpec(DIMS)
    record = write("photographs", n, copies(rows, n), source, index, spec)
    grown = np.concatenate(list(copies(rows, n)))
    scores, ids = faiss.knn(queries[:500], grown, NEAR, faiss.METRIC_INNER_PRODUCT)
    same = [K - len(np.unique(of)) for of in ids[:, :K] % len(rows)]
    record["from_one_photograph"] = float(np.mean(same)) / K
    record["dimension"] = intrinsic(np.sqrt(np.maximum(2 - 2 * scores, 1e-9)))
    print(json.dumps(record))


if __name__ == "__main__":
    main()
