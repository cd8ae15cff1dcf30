"""How long `sync` takes where nothing has changed, against `find`, which asks the same of files.

    python benchmarks/living/sync.py ../shared/data/cats_vs_dogs PLACE

writes the pictures of a data set as files below PLACE, indexes them (by their thumbnails, as the
model does not matter here), and runs both commands in turn, warm, nine times each. Appends a record
to `sync.jsonl`: seconds of the whole processes and of `Index.sync` alone, medians. `compared` is
a sync that has no note of an earlier walk and compares file by file.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search import Index, IndexSpec
from mrl_search.encoders.base import LinearHeads, Preprocessing
from mrl_search.images.sources import open_source
from mrl_search.measure.environment import environment
from mrl_search.provenance import now
from mrl_search.synced import WALKED

RECORDS, ROUNDS = Path(__file__).with_name("sync.jsonl"), 9


class Thumbnails:
    """An encoder that is quick: grey values of 8 by 8 pixels."""

    name, model, fingerprint, dims, device = "thumbnails", "", "0" * 32, (8, 64), "cpu"
    preprocessing = Preprocessing(16)
    heads, axes = LinearHeads(), "none"

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, 16, 16, 3) uint8 to (n, 64) float32."""
        grey = pictures.astype(np.float32).mean(axis=3) + 1
        return grey.reshape(len(grey), 8, 2, 8, 2).mean(axis=(2, 4)).reshape(len(grey), 64)


def seconds(*command: str) -> float:
    """How long a process runs."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    source, place = open_source(sys.argv[1]), Path(sys.argv[2])
    pictures, index = place / "pictures", place / "index"
    if not index.exists():
        old = time.time() - 86400
        for row, label in enumerate(source.labels):
            path = pictures / str(label) / f"{row:05d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.read(row))
            os.utime(path, (old, old))
        Index.build(pictures, index, model=Thumbnails(), spec=IndexSpec((8, 64)))
    mrl = (sys.executable, "-m", "mrl_search")  # as the command, without a script's own file
    commands = {
        "find": ("find", str(pictures), "-type", "f", "-printf", "%p %s %T@ %i\n"),
        "compared": (*mrl, "sync", str(index)),
        "sync": (*mrl, "sync", str(index)),
        "start": (*mrl, "--version"),
        "python": (sys.executable, "-c", "pass"),
    }
    opened, alone = Index.open(index), []
    opened.sync()  # notes what its walk met
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            if name == "compared":  # file by file, as after a change
                (index / WALKED).unlink()
            times[name].append(seconds(*command))
        start = time.perf_counter()
        done = opened.sync()
        alone.append(time.perf_counter() - start)
        assert not done.changed and done.same == len(opened)
    medians = {name: round(statistics.median(values), 4) for name, values in times.items()}
    record = {
        "files": len(opened), "rounds": ROUNDS, "seconds": medians,
        "sync_in_process": round(statistics.median(alone), 4),
        "ratio": round(medians["sync"] / medians["find"], 2),
        "ratio_in_process": round(statistics.median(alone) / medians["find"], 2),
        "created": now(), "environment": environment(),
    }  # fmt: skip
    with RECORDS.open("a") as file:
        file.write(json.dumps(record) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
