"""What a query on the command line costs where Milvus Lite searches, beside FAISS.

    python benchmarks/scale/lite_cold.py FAISS LITE PICTURE VECTOR PLAN [RUNS] >> …/lite_cold.jsonl

FAISS and LITE are index folders of the same pictures; `mrl-search copy` moved the second one to a
file of Milvus Lite. Commands run in turn, RUNS times after one round that does not count: a
query by VECTOR and by PICTURE, each in a process of its own, then by PICTURE while `mrl-search
serve` runs on the index; at last Python alone, with pymilvus imported, and with the collection
looked for, too. Medians of the whole command on the clock, of its processor time, and of the search
alone as the command tells it.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from mrl_search.engines.milvus_client import Place
from mrl_search.measure.environment import environment
from mrl_search.provenance import now
from mrl_search.store.manifest import read_manifest
from mrl_search.web.beside import server_of

COMMAND = [sys.executable, "-m", "mrl_search"]
RUNS = 5
PATIENCE = 120  # seconds until a server answers


def processor() -> float:
    """Seconds of the processor that finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measured(command: Sequence[str]) -> dict[str, float]:
    """Seconds of a command, on the clock and of the processor; of a query, also of its search."""
    start, used = time.perf_counter(), processor()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    found = {"clock_s": time.perf_counter() - start, "processor_s": processor() - used}
    return found | ({"search_ms": json.loads(done.stdout)["ms"]} if done.stdout else {})


def main(faiss: str, lite: str, picture: str, vector: str, plan: str, runs: int = RUNS) -> None:
    indexes = {"faiss": faiss, "lite": lite}
    found = defaultdict[str, list[dict[str, float]]](list)

    def time_all(kind: str, *command: str) -> None:
        for run in range(runs + 1):
            one = measured(command)
            if run:
                found[kind].append(one)

    def ask(kind: str, *arguments: str) -> None:
        time_all(kind, *COMMAND, "query", "--json", *arguments, "--plan", plan)

    for name, folder in indexes.items():
        ask(f"{name}, vector", "--index", folder, "--vector", vector)
        ask(f"{name}, picture", "--index", folder, picture, "--server", "none")
        server = subprocess.Popen(
            [*COMMAND, "serve", folder, "--port", "0"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            end = time.monotonic() + PATIENCE
            while server_of(Path(folder)) is None:
                assert server.poll() is None and time.monotonic() < end, "no server"
                time.sleep(0.2)
            ask(f"{name}, picture, served", "--index", folder, picture)
        finally:
            server.terminate()
            server.wait()
    place = Place.parse(read_manifest(Path(lite)).engine)
    imported = "from pymilvus import MilvusClient"
    time_all("python", sys.executable, "-c", "pass")
    time_all("import pymilvus", sys.executable, "-c", imported)
    opened = f"{imported}; MilvusClient({place.uri!r}).has_collection({place.name!r})"
    time_all("open the collection", sys.executable, "-c", opened)
    medians = {
        kind: {name: round(statistics.median(one[name] for one in every), 4) for name in every[0]}
        for kind, every in found.items()
    }
    m = read_manifest(Path(faiss))
    record = {
        "kind": "lite-cold", "items": m.alive, "dims": list(m.dims), "model": m.model, "plan": plan,
        "runs": runs, "medians": medians, "load": round(os.getloadavg()[0], 2),
        "pymilvus": version("pymilvus"), "milvus_lite": version("milvus-lite"), "created": now(),
        "environment": environment(),
    }  # fmt: skip
    print(json.dumps(record))


if __name__ == "__main__":
    main(*sys.argv[1:6], runs=int(sys.argv[6]) if len(sys.argv) > 6 else RUNS)
