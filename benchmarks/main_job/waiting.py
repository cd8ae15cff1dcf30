"""Embedding on a busy machine, by what threads of OpenMP do while they wait for each other.

    python benchmarks/main_job/waiting.py OUT

Embeds random pictures by `general`, each time in a new process: with the default of OpenMP, which
spins, and with OMP_WAIT_POLICY=PASSIVE, as the command line sets it; alone, and beside as many
processes that only count as there are processors. Appends a record a combination to OUT (JSON
lines).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from mrl_search.measure.environment import check_clean, environment
from mrl_search.provenance import now

CHILD = """
import time, numpy as np
from mrl_search.encoders.registry import load_encoder
encoder = load_encoder("general")
pictures = np.random.default_rng(0).integers(0, 255, (56, 192, 192, 3), dtype=np.uint8)
encoder.encode(pictures[:8])
took = []
for _ in range(3):
    start, cpu = time.perf_counter(), time.process_time()
    encoder.encode(pictures)
    took.append((time.perf_counter() - start, time.process_time() - cpu))
print(*(1e3 * t / len(pictures) for t in sorted(took)[1]))
"""
COUNTING = "while True: pass"
VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT")


def main(out: Path) -> None:
    where = environment()
    check_clean(where["commit"], out)
    plain = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    for beside in (0, os.cpu_count() or 1):
        for policy in ("", "PASSIVE"):
            others = [subprocess.Popen([sys.executable, "-c", COUNTING]) for _ in range(beside)]
            try:
                child = subprocess.run(
                    [sys.executable, "-P", "-c", CHILD], check=True, capture_output=True, text=True,
                    env={**plain, **({"OMP_WAIT_POLICY": policy} if policy else {})},
                )  # fmt: skip
            finally:
                for other in others:
                    other.kill()
                    other.wait()
            wall, cpu = map(float, child.stdout.split())
            record = {
                "part": "waiting", "policy": policy or "default", "busy_beside": beside,
                "ms_a_picture": round(wall, 1), "cpu_ms": round(cpu, 1),
                "created": now(), "environment": where,
            }  # fmt: skip
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(record["policy"], beside, record["ms_a_picture"], flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
