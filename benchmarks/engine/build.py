"""Build an index of generated vectors with two versions: seconds by step, recall by equal plans.

    git worktree add OLD VERSION    # and copy mrl_search/engines/compiled*.so into it
    python benchmarks/engine/build.py easy 1000000 WORK --old OLD >> build.jsonl

Each version builds from one float32 .npy file, as `mrl-search build-index` does, in a process of
its own, in turn. Seconds are on the clock and of the processors; steps: the first pass over the
rows (`checking`), the stored rows (`writing`), `training`, `filling` all prefixes in one pass, and
files and manifest (`finishing`). Recall@10 is of fresh queries against exact search, the same for
both; its difference comes with a 95% interval.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from vectors import DIM, Kind, Tree, blocks_of_rows

from mrl_search.index import Index
from mrl_search.measure.environment import environment

SEED, QUERY_SEED = 100, 77
PLANS = (
    "128:75@14,1024", "128:300@40,1024", "64:300@40,1024", "32:1000@64,1024", "16:2000@64,1024",
    "8:4000@64,1024",
)  # fmt: skip
BUILD = """
import json, sys, time
from pathlib import Path
from mrl_search.building import build_from_vectors
from mrl_search.engines.spec import IndexSpec
marks = [("", time.perf_counter(), time.process_time())]
def tell(step, done, total):
    last = step == "indexing" and done < total and marks[-1][0] != "training"
    if done == total or last:
        name = {"checking rows": "checking", "writing vectors": "writing"}.get(step, "filling")
        marks.append(("training" if last else name, time.perf_counter(), time.process_time()))
file, out, dims = sys.argv[1], Path(sys.argv[2]), tuple(json.loads(sys.argv[3]))
build_from_vectors(file, out, None, None, IndexSpec(dims) if dims else None, tell)
marks.append(("finishing", time.perf_counter(), time.process_time()))
steps = {name: (w - marks[i][1], c - marks[i][2]) for i, (name, w, c) in enumerate(marks[1:])}
print(json.dumps(steps))
"""


def write_corpus(kind: Kind, count: int, file: Path) -> None:
    """Write the vectors, (count, DIM) float32, unless they are there."""
    if file.exists():
        return
    out, at = open_memmap(f"{file}.writing", "w+", np.float32, (count, DIM)), 0
    for block in blocks_of_rows(Tree.of(kind), count, SEED):
        out[at : at + len(block)], at = block, at + len(block)
    out.flush()
    Path(f"{file}.writing").rename(file)


def build(checkout: Path, file: Path, out: Path, dims: list[int]) -> dict[str, object]:
    """Build with the package of a checkout; seconds on the clock and of the processors by step."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", BUILD, str(file), str(out), json.dumps(dims)]
    # with -c, the working directory comes first among the places of packages
    done = subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.PIPE, text=True)
    steps = json.loads(done.stdout)
    indexing = [
        sum(steps[name][i] for name in ("training", "filling", "finishing")) for i in (0, 1)
    ]
    whole = [sum(pair[i] for pair in steps.values()) for i in (0, 1)]
    git = ["git", "-C", str(checkout), "rev-parse", "--short=10", "HEAD"]
    commit = subprocess.run(git, check=True, capture_output=True, text=True).stdout.strip()
    rounded = {name: [round(s, 2) for s in pair] for name, pair in steps.items()}
    return {
        "commit": commit, "steps_s": rounded, "indexing_s": [round(s, 2) for s in indexing],
        "whole_s": [round(s, 2) for s in whole],
    }  # fmt: skip


def recalls(folders: list[Path], kind: Kind, dims: list[int], queries: int) -> dict[str, object]:
    """Recall@10 of both indexes by equal plans, and their difference with its 95% interval."""
    rows = np.concatenate(list(blocks_of_rows(Tree.of(kind), queries, QUERY_SEED)))
    opened = [Index.open(folder) for folder in folders]
    truth = opened[-1].search(rows, k=10, plan="exact").ids
    found: dict[str, object] = {}
    for plan in PLANS:
        if dims and int(plan.partition(":")[0]) not in dims:
            continue
        shares = []
        for index in opened:
            ids = index.search(rows, k=10, plan=plan).ids
            shares.append((ids[:, :, None] == truth[:, None]).any(axis=2).mean(axis=1))
        less = shares[-1] - shares[0]
        error = 1.96 * float(less.std(ddof=1)) / queries**0.5
        found[plan] = {
            "recall": [round(float(share.mean()), 5) for share in shares],
            "difference": round(float(less.mean()), 5), "error": round(error, 5),
        }  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("vectors", type=Kind)
    parser.add_argument("count", type=int)
    parser.add_argument("work", type=Path)
    parser.add_argument("--old", type=Path, help="checkout of the version to compare with")
    parser.add_argument("--dims", type=int, nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--queries", type=int, default=2000)
    parser.add_argument("--keep", action="store_true", help="do not build what is there")
    args = parser.parse_args()
    args.work = args.work.resolve()
    args.work.mkdir(exist_ok=True)
    file = args.work / f"{args.vectors}-{args.count}.npy"
    write_corpus(args.vectors, args.count, file)
    here = Path(__file__).resolve().parents[2]
    versions = {name: checkout for name, checkout in (("old", args.old), ("new", here)) if checkout}
    folders = {name: args.work / f"{file.stem}-{name}" for name in versions}
    built: dict[str, list[object]] = {name: [] for name in versions}
    for _ in range(args.rounds):
        for name, checkout in versions.items():
            if not (args.keep and folders[name].exists()):
                built[name].append(build(checkout, file, folders[name], args.dims))
    found = recalls(list(folders.values()), args.vectors, args.dims, args.queries)
    record = {
        "kind": "build", "vectors": str(args.vectors), "n": args.count, "dims": args.dims or "all",
        "threads": len(os.sched_getaffinity(0)), "load": os.getloadavg()[0], "built": built,
        "queries": args.queries, "recall": found, "environment": environment(),
    }  # fmt: skip
    print(json.dumps(record))


if __name__ == "__main__":
    main()
