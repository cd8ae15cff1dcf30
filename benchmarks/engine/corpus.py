"""Write an index of generated vectors, a block at a time.

    python benchmarks/engine/corpus.py easy 1000000 /big/disk/easy-1m \
        [--dims 64,128,1024] [--factory 64=HNSW16,SQ8]

Prints one JSON record with the seconds to write the vectors and to build all prefix indexes.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from vectors import DIM, Kind, Tree, blocks_of_rows

from mrl_search.building import write_indexes
from mrl_search.engines.spec import IndexSpec
from mrl_search.measure.environment import environment
from mrl_search.progress import silent
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.manifest import OWN_VECTORS, Manifest
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import DIMS

SEED = 100  # queries are rows of seeds 1 and 2
Rows = NDArray[np.float32]


def build(kind: Kind, n: int, out: Path, spec: IndexSpec) -> dict[str, object]:
    """Build the index `out` of `n` generated vectors; returns the record."""
    source = f"generated: {kind}, {n} rows, seed {SEED}"
    return write(kind, n, blocks_of_rows(Tree.of(kind), n, SEED), source, out, spec)


def write(
    name: str, n: int, blocks: Iterator[Rows], source: str, out: Path, spec: IndexSpec,
    dim: int = DIM,
) -> dict[str, object]:  # fmt: skip
    """Build the index `out` of `n` rows (n, dim) that come in blocks; returns the record."""
    start = time.perf_counter()
    with CollectionWriter.open(out, dim, spec.dtype) as writer:
        store = writer.write_vectors(n, blocks)
        unknown = [pa.nulls(n, field.type) for field in list(ITEMS_SCHEMA)[1:-1]]
        columns = [pa.array(np.arange(n)), *unknown, pa.array(np.ones(n, np.float32))]
        writer.write_items(pa.table(columns, schema=ITEMS_SCHEMA))
        written = time.perf_counter()
        factory = write_indexes(writer, store, spec, silent)
        built = time.perf_counter()
        writer.publish(Manifest(
            encoder=OWN_VECTORS, fingerprint=f"{name}-{n}", dim=dim, dims=spec.dims, count=n,
            dtype=spec.dtype, source=source, model="",
            factory=factory,
        ))  # fmt: skip
    return {
        "kind": "corpus", "vectors": str(name), "n": n, "factory": factory,
        "write_s": round(written - start, 1), "build_s": round(built - written, 2),
        "environment": environment(),
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
