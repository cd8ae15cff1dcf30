"""Write an index of generated vectors, without ever holding all of them in memory.

    python benchmarks/engine/corpus.py easy 1000000 /big/disk/easy-1m [--dims 64,128,1024] [--factory 64=HNSW16,SQ8]

Prints one JSON record: how long writing the vectors took, and building each prefix index from them (two cores).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from mrl_search.bench.vectors import DIM, Kind, Tree, blocks_of_rows
from mrl_search.config import DIMS, IndexSpec
from mrl_search.embeddings import write_rows
from mrl_search.index import add_prefix_indexes
from mrl_search.items import ITEMS_SCHEMA, write_items
from mrl_search.manifest import OWN_VECTORS, VECTORS, Manifest, write_manifest
from mrl_search.storage import fresh_folder

SEED = 100  # queries are rows of seed 1


def build(kind: Kind, n: int, out: Path, spec: IndexSpec) -> dict[str, object]:
    """Build the index `out` of `n` vectors; returns its record."""
    with fresh_folder(out) as folder:
        start = time.perf_counter()
        write_rows(folder / VECTORS, (n, DIM), np.dtype(spec.dtype), blocks_of_rows(Tree.of(kind), n, SEED))
        columns = [
            pa.array(np.arange(n)),
            *(pa.nulls(n, field.type) for field in list(ITEMS_SCHEMA)[1:-1]),
            pa.array(np.ones(n, np.float32)),
        ]
        write_items(folder, pa.table(columns, schema=ITEMS_SCHEMA))
        written = time.perf_counter() - start
        seconds: dict[str, float] = {}
        last = time.perf_counter()

        def tell(dims: int, done: int, total: int) -> None:
            nonlocal last
            if done == total:
                seconds[str(dims)], last = round(time.perf_counter() - last, 2), time.perf_counter()

        factory = add_prefix_indexes(folder, spec, tell)
        sieve = time.perf_counter() - last
        manifest = Manifest(
            encoder=OWN_VECTORS, fingerprint=f"{kind}-{n}", dim=DIM, dims=spec.dims, count=n, dtype=spec.dtype,
            source=f"generated: {kind}, {n} rows, seed {SEED}", model="", factory=factory,
        )  # fmt: skip
        write_manifest(folder, manifest)
    return {
        "kind": "corpus", "vectors": str(kind), "n": n, "factory": factory, "write_s": round(written, 1), "build_s": seconds,
        "sieve_s": round(sieve, 1),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", type=Kind)
    parser.add_argument("n", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dims", default=",".join(map(str, DIMS)))
    parser.add_argument("--factory", action="append", default=[], metavar="DIMS=KIND")
    args = parser.parse_args()
    dims = tuple(map(int, args.dims.split(",")))
    spec = IndexSpec(dims, factories=dict(text.split("=", 1) for text in args.factory))
    print(json.dumps(build(args.vectors, args.n, args.out, spec)))
