"""A cold `query` of one picture against `python -c "import torch"`, as one JSON record on stdout.

Three commands run in turn, `RUNS` times after one round that does not count: the import, the query
with the graph that `mrl-search export-model` wrote, and the query with torch. Medians of the time
on the clock, and of the processor's, which other programs on the machine disturb less.

    python benchmarks/main_job/cold.py PICTURES INDEX
"""

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

from mrl_search import open_source
from mrl_search.encoders.onnx import cached_graph
from mrl_search.measure.environment import environment
from mrl_search.store.manifest import read_manifest

RUNS = 7


def processor() -> float:
    """Seconds of the processor that finished child processes have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    medians = {f"{name}_s": statistics.median(values) for name, values in seconds.items()}
    whole = medians["import_torch_s"]
    graph, torch = medians["query_graph_s"] / whole, medians["query_torch_s"] / whole
    pairs = zip(seconds["query_graph"], seconds["import_torch"], strict=True)
    in_pairs = statistics.median(query / torch for query, torch in pairs)
    return {**medians, "ratio": graph, "ratio_in_pairs": in_pairs, "ratio_with_torch": torch}


def main() -> None:
    mrl_search = [str(Path(sys.executable).with_name("mrl-search"))]
    manifest = read_manifest(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "query.jpg"
        image.write_bytes(open_source(sys.argv[1]).read(0))
        with_graph = {**os.environ, "XDG_CACHE_HOME": folder}
        without = {**os.environ, "XDG_CACHE_HOME": f"{folder}/none"}
        subprocess.run([*mrl_search, "export-model", manifest.model], env=with_graph, check=True)
        os.environ["XDG_CACHE_HOME"] = folder
        graph = cached_graph(manifest.fingerprint)
        query = [*mrl_search, "query", str(image), "--index", sys.argv[2]]
        commands = {
            "import_torch": ([sys.executable, "-c", "import torch"], without),
            "query_graph": (query, with_graph),
            "query_torch": (query, without),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for run in range(RUNS + 1):
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
        "runs": RUNS,
        "model": manifest.model,
        "graph_bytes": size,
        "items": manifest.count,
        "onnxruntime": version("onnxruntime"),
        "environment": environment(),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
