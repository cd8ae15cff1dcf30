"""What a candidate costs, and what stays in memory, where rows are mapped and where they are read.

    python benchmarks/scale/large_files.py INDEX PLAN… >> benchmarks/scale/large_files.jsonl

Rows of a file are mapped up to 4 GiB; of a larger one, compiled code reads them (store/blocks.py).
Here one INDEX is opened either way, each time in a new process, and answers 1,000 queries of
another seed, one by one on one thread, its file being in the page cache. Times are the median
of the fastest of five rounds.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

import numpy as np
from vectors import Kind, Tree

from mrl_search.index import Index
from mrl_search.measure.environment import environment
from mrl_search.provenance import now
from mrl_search.search.timing import threads
from mrl_search.store import blocks

QUERIES, ROUNDS, K = 1000, 5, 10


def measure(folder: str, plan: str, large: int) -> dict[str, object]:
    """p50 of a query and memory of this process, where files from `large` bytes on are read."""
    blocks.LARGE = large
    index, queries = Index.open(folder), Tree.of(Kind.EASY).rows(QUERIES, 2)
    medians = []
    with threads(1):
        for _ in range(ROUNDS):
            times = []
            for query in queries:
                start = time.perf_counter()
                index.search(query, K, plan=plan)
                times.append(time.perf_counter() - start)
            medians.append(float(np.median(times)) * 1e6)
    resident = Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]
    return {"p50_us": round(min(medians), 1), "rss_bytes": 1024 * int(resident)}


def main(folder: str, *plans: str) -> None:
    for plan in plans:
        for how, large in (("mapped", 1 << 62), ("read", 0)):
            command = [sys.executable, __file__, "one", folder, plan, str(large)]
            one = subprocess.run(command, check=True, capture_output=True, text=True)
            about = {"kind": "large-file", "index": Path(folder).name, "plan": plan, "rows": how}
            record = {**about, **json.loads(one.stdout), "created": now()}
            print(json.dumps({**record, "environment": environment()}), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "one":
        print(json.dumps(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
    else:
        main(*sys.argv[1:])
