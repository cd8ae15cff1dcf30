"""Cold queries of a vector and of a picture against bare imports, as one JSON record on stdout.

Commands run in turn, `RUNS` times after one round that does not count: imports, a query of one
vector, and a query of one picture with the graph that `mrl-search export-model` wrote and with
torch. Medians and smallest of the time on the clock, and of the processor's, which other programs
on the machine disturb less. All modules are compiled to bytecode before, as pip does it.

    python benchmarks/main_job/cold.py PICTURES INDEX [RUNS]
"""

import compileall
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

import mrl_search
from mrl_search import Index, open_source
from mrl_search.encoders.onnx import cached_graph
from mrl_search.measure.environment import environment
from mrl_search.store.manifest import read_manifest

RUNS = 7
IMPORTS = ("pass", "import numpy", "import torch")


def processor() -> float:
    """Seconds of the processor that finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Medians and smallest seconds of each command, and its ratio to the import of torch."""
    whole = statistics.median(seconds["import_torch"])
    found = {f"{name}_s": round(statistics.median(s), 3) for name, s in seconds.items()}
    found |= {f"{name}_least_s": round(min(s), 3) for name, s in seconds.items()}
    for name in ("query_vector", "query_graph", "query_torch"):
        pairs = zip(seconds[name], seconds["import_torch"], strict=True)
        found[f"{name}_ratio"] = round(statistics.median(seconds[name]) / whole, 3)
        found[f"{name}_ratio_in_pairs"] = round(statistics.median(q / t for q, t in pairs), 3)
    return found


def main() -> None:
    command = [sys.executable, "-m", "mrl_search"]
    manifest = read_manifest(Path(sys.argv[2]))
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else RUNS
    compileall.compile_dir(str(Path(mrl_search.__file__).parent), quiet=2)
    with tempfile.TemporaryDirectory() as folder:
        image, vector = Path(folder) / "query.jpg", Path(folder) / "query.npy"
        image.write_bytes(open_source(sys.argv[1]).read(0))
        np.save(vector, np.random.default_rng(0).standard_normal(1024, dtype=np.float32))
        rows = np.random.default_rng(1).standard_normal((3000, 1024), dtype=np.float32)
        Index.from_vectors(rows, Path(folder) / "vectors")
        with_graph = {**os.environ, "XDG_CACHE_HOME": folder}
        without = {**os.environ, "XDG_CACHE_HOME": f"{folder}/none"}
        subprocess.run(
            [*command, "export-model", manifest.model], env=with_graph, check=True,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        os.environ["XDG_CACHE_HOME"] = folder
        graph = cached_graph(manifest.fingerprint)
        query = [*command, "query", str(image), "--index", sys.argv[2]]
        by_vector = [*command, "query", "--vector", str(vector), "--index", f"{folder}/vectors"]
        bare = {code.replace(" ", "_"): [sys.executable, "-c", code] for code in IMPORTS}
        commands = {
            **{name: (command, without) for name, command in bare.items()},
            "query_vector": (by_vector, without),
            "query_graph": (query, with_graph),
            "query_torch": (query, without),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(runs + 1):
            for name, (command, variables) in commands.items():
                start = time.perf_counter(), processor()
                subprocess.run(command, env=variables, check=True, capture_output=True)
                if run:
                    times[name].append((time.perf_counter() - start[0], processor() - start[1]))
        size = graph.stat().st_size
    record = {
        "cold_query": {
            kind: ratios({name: [pair[which] for pair in pairs] for name, pairs in times.items()})
            for which, kind in enumerate(("clock", "processor"))
        },
        "runs": runs,
        "model": manifest.model,
        "graph_bytes": size,
        "items": manifest.count,
        "vectors": len(rows),
        "load": os.getloadavg()[0],
        "onnxruntime": version("onnxruntime"),
        "environment": environment(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
