"""The first build of a newcomer: `mrl-search build-index PICTURES`, all else by default.

    python benchmarks/main_job/first.py PICTURES OUT [COUNT] [NOTE]

PICTURES is a folder. Appends the wall time, the processor's time and the peak of memory to OUT
(JSON lines), COUNT times (default: once). PYTHONPATH chooses the code that is measured.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mrl_search.measure.environment import check_clean, environment
from mrl_search.provenance import now
from mrl_search.store.manifest import read_manifest


def main(pictures: str, out: Path, count: int = 1, note: str = "") -> None:
    where = environment()
    check_clean(where["commit"], out)
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            index = Path(folder) / "index"
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            command = [sys.executable, "-P", "-m", "mrl_search", "build-index", pictures]
            subprocess.run([*command, "--out", str(index)], check=True)
            seconds = time.perf_counter() - start
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            made = read_manifest(index)
            axes = {name: made.axes[name] for name in ("choice", "viewed", "views_held_out")}
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            record = {
                "part": "first build", "pictures": made.count, "model": made.encoder, **axes,
                "seconds": round(seconds, 1),
                "cpu_s": round(cpu, 1),
                "peak_mb": round(after.ru_maxrss / 1e3), "note": note,
                "created": now(), "environment": where,
            }  # fmt: skip
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record["seconds"], record["cpu_s"], flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if sys.argv[3:] else 1, *sys.argv[4:5])
