"""Measure the memory and time that joining parts takes for each item.

    python benchmarks/scale/join_memory.py WORK >> benchmarks/scale/join.jsonl

Two corpora of pictures with 8 dims, in four parts each, are joined in a process of their own. The
difference of the two, for each item, is what an item costs.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import mrl_search as mrl
from mrl_search.measure.environment import environment
from mrl_search.provenance import now
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.manifest import Manifest
from mrl_search.store.shard import PATH, Shard
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import l2_normalize

SIZES, PARTS, DIM = (200_000, 1_000_000), 4, 8


def write_parts(folder: Path, count: int) -> None:
    """Write parts of `count` items in all, with paths of about 50 characters."""
    paths = [f"/pictures/of/some/camera/{i % 977:04d}/IMG_{i:012d}.jpg" for i in range(count)]
    rng = np.random.default_rng(0)
    for number in range(1, PARTS + 1):
        shard = Shard(number, PARTS, PATH, count, "", "none")
        own = [path for path in paths if shard.takes(path)]
        n = len(own)
        columns = {
            "id": range(n), "path": own, "label": [path[25:29] for path in own],
            "hash": [f"{hash(path) & (1 << 63) - 1:032x}" for path in own], "width": [640] * n,
            "height": [480] * n, "norm": np.ones(n, np.float32),
        }  # fmt: skip
        with CollectionWriter.open(folder / str(number), DIM, "float16") as writer:
            rows = l2_normalize(rng.standard_normal((n, DIM), np.float32))
            writer.write_vectors(n, [rows])
            writer.write_items(pa.table(columns, schema=ITEMS_SCHEMA))
            writer.publish(Manifest(
                encoder="none", fingerprint="0" * 32, dim=DIM, dims=(DIM,), count=n,
                dtype="float16", source="/pictures", model="", shard=shard,
            ))  # fmt: skip


def join(folder: Path) -> dict[str, float]:
    """Join the parts in this process: its largest memory, and processor time."""
    start = time.process_time()
    parts = [folder / str(number) for number in range(1, PARTS + 1)]
    mrl.join_parts(parts, folder / "joined", spec=mrl.IndexSpec((DIM,), "Scan"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"rss": usage.ru_maxrss * 1024, "cpu_seconds": time.process_time() - start}


if __name__ == "__main__":
    if sys.argv[1] == "join":
        print(json.dumps(join(Path(sys.argv[2]))))
        raise SystemExit
    found = []
    os.environ["OMP_NUM_THREADS"] = "1"
    for count in SIZES:
        folder = Path(sys.argv[1]) / str(count)
        write_parts(folder, count)
        command = [sys.executable, __file__, "join", str(folder)]
        run = subprocess.run(command, capture_output=True, text=True, check=True)
        found.append(json.loads(run.stdout))
    more = SIZES[1] - SIZES[0]
    print(json.dumps({
        "kind": "join", "items": SIZES, "parts": PARTS, "dims": DIM, "measured": found,
        "bytes_of_an_item": (found[1]["rss"] - found[0]["rss"]) / more,
        "cpu_us_of_an_item": (found[1]["cpu_seconds"] - found[0]["cpu_seconds"]) / more * 1e6,
        "created": now(), "environment": environment(),
    }))  # fmt: skip
