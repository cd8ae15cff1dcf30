"""A query by a server that runs, as a new process, against a Python that does nothing.

    python benchmarks/serve/cold.py PICTURES INDEX OUT

Starts `mrl-search serve INDEX`, then runs in turns `python -c pass`, `mrl-search query` of one
picture, which finds the server by itself, and the same with `--server URL`; `RUNS` times after two
rounds that do not count. Appends a record to OUT (JSON lines).
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from serve import served

from mrl_search import open_source
from mrl_search.measure.environment import check_clean, environment
from mrl_search.provenance import now
from mrl_search.store.manifest import read_manifest

RUNS, UNCOUNTED = 21, 2


def main(pictures: str, folder: Path, out: Path) -> None:
    where = environment()
    check_clean(where["commit"], out)
    command = [str(Path(sys.executable).with_name("mrl-search"))]
    with tempfile.TemporaryDirectory() as scratch, served(folder) as (port, _):
        image = Path(scratch) / "query.jpg"
        image.write_bytes(open_source(pictures).read(0))
        query = [*command, "query", str(image)]
        commands = {
            "python": [sys.executable, "-c", "pass"],
            "found": [*query, "--index", str(folder)],
            "named": [*query, "--server", f"http://127.0.0.1:{port}"],
        }
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(RUNS + UNCOUNTED):
            for name, parts in commands.items():
                start = time.perf_counter()
                done = subprocess.run(parts, check=True, capture_output=True, text=True)
                if run >= UNCOUNTED:
                    seconds[name].append(round(time.perf_counter() - start, 4))
                if name != "python" and "http://127.0.0.1" not in done.stderr:
                    raise RuntimeError(f"The server was not asked: {done.stderr}")
    record = {
        "part": "cold", "index": folder.name, "items": read_manifest(folder).count,
        **{f"{name}_s": statistics.median(found) for name, found in seconds.items()},
        "seconds": seconds, "created": now(), "environment": where,
    }  # fmt: skip
    print(json.dumps({name: value for name, value in record.items() if name.endswith("_s")}))
    with out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
