"""Write an index of generated vectors, without ever holding all of them in memory; one that is there gets new prefix indexes.

    python benchmarks/engine/corpus.py easy 1000000 /big/disk/easy-1m [--dims 64,128,1024] [--factory 64=HNSW16,SQ8]

Prints one JSON record: how long writing the vectors took, and building each prefix index from them (two cores).
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from vectors import DIM, Kind, Tree, blocks_of_rows

from mrl_search.engines import add_prefix_indexes
from mrl_search.engines.spec import IndexSpec
from mrl_search.files import fresh_folder
from mrl_search.measure.records import environment
from mrl_search.store.items import ITEMS_SCHEMA, write_items
from mrl_search.store.manifest import MANIFEST, OWN_VECTORS, VECTORS, Manifest, write_manifest
from mrl_search.store.rows import write_rows
from mrl_search.vectors import DIMS

SEED = 100  # queries are rows of seed 1


def write(kind: Kind, n: int, out: Path, spec: IndexSpec) -> float:
    """Write `n` vectors into the index `out`, which has no prefix indexes yet; returns how many seconds it took."""
    start = time.perf_counter()
    with fresh_folder(out) as folder:
        write_rows(
            folder / VECTORS, (n, DIM), np.dtype(spec.dtype), blocks_of_rows(Tree.of(kind), n, SEED)
        )
        unknown = [pa.nulls(n, field.type) for field in list(ITEMS_SCHEMA)[1:-1]]
        columns = [pa.array(np.arange(n)), *unknown, pa.array(np.ones(n, np.float32))]
        write_items(folder, pa.table(columns, schema=ITEMS_SCHEMA))
        manifest = Manifest(
            encoder=OWN_VECTORS, fingerprint=f"{kind}-{n}", dim=DIM, dims=spec.dims, count=n, dtype=spec.dtype,
            source=f"generated: {kind}, {n} rows, seed {SEED}", model="", factory={},
        )  # fmt: skip
        write_manifest(folder, manifest)
    return time.perf_counter() - start


def build(kind: Kind, n: int, out: Path, spec: IndexSpec) -> dict[str, object]:
    """Build the index `out` of `n` vectors, or only its prefix indexes where it is there already; returns the record."""
    written = None if (out / MANIFEST).exists() else round(write(kind, n, out, spec), 1)
    seconds: dict[str, float] = {}
    last = time.perf_counter()

    def tell(dims: int, done: int, total: int) -> None:
        nonlocal last
        if done == total:
            seconds[str(dims)], last = round(time.perf_counter() - last, 2), time.perf_counter()

    factory = add_prefix_indexes(out, spec, tell)
    return {
        "kind": "corpus", "vectors": str(kind), "n": n, "factory": factory, "write_s": written, "build_s": seconds,
        "sieve_s": round(time.perf_counter() - last, 1), "environment": environment(),
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", type=Kind)
    parser.add_argument("n", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--dims", default=",".join(map(str, DIMS)))
    parser.add_argument("--factory", action="append", default=[], metavar="DIMS=KIND")
    args = parser.parse_args()
    dims = tuple(map(int, args.dims.split(",")))
    spec = IndexSpec(dims, factories=dict(text.split("=", 1) for text in args.factory))
    print(json.dumps(build(args.vectors, args.n, args.out, spec)))
