"""Two ratios, as one JSON record on stdout, each the median of several runs.

Embedding with decoding against the bare forward pass of the same network; and a cold `query`
against `python -c "import torch, torchvision"`, in turn.

    python benchmarks/main_job/rates.py PICTURES INDEX
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from mrl_search import load_encoder, open_source
from mrl_search.encoders.embed import embed
from mrl_search.images.sources import subset
from mrl_search.measure.environment import environment

IMAGES, ROUNDS, COLD = 1536, 3, 5
IMPORT = (
    "import torch\n"
    "from mrl_search.encoders.torchvision_import import import_torchvision\n"
    "import_torchvision()"
)


def embedding() -> dict[str, float]:
    encoder = load_encoder()
    source = open_source(sys.argv[1])
    part = subset(source, range(min(IMAGES, len(source.paths))), "first")
    pictures = np.random.default_rng(0).integers(
        0, 255, (64, *(encoder.preprocessing.size,) * 2, 3), dtype=np.uint8
    )
    encoder.encode(pictures)
    bare, whole = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(len(part.paths) // 64):
            encoder.encode(pictures)
        bare.append(len(part.paths) // 64 * 64 / (time.perf_counter() - start))
        start = time.perf_counter()
        for _ in embed(part, encoder):
            pass
        whole.append(len(part.paths) / (time.perf_counter() - start))
    forward, rate = statistics.median(bare), statistics.median(whole)
    return {
        "images": len(part.paths),
        "forward_per_s": forward,
        "embed_per_s": rate,
        "ratio": rate / forward,
    }


def cold_query() -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "query.jpg"
        image.write_bytes(open_source(sys.argv[1]).read(0))
        query = [
            str(Path(sys.executable).with_name("mrl-search")),
            "query",
            str(image),
            "--index",
            sys.argv[2],
        ]
        times: dict[str, list[float]] = {"import": [], "query": []}
        for i in range(COLD + 1):
            for name, command in (("import", [sys.executable, "-c", IMPORT]), ("query", query)):
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                if i:
                    times[name].append(time.perf_counter() - start)
    a, b = (statistics.median(times[name]) for name in ("import", "query"))
    return {"import_s": a, "query_s": b, "ratio": b / a, "runs": COLD}


if __name__ == "__main__":
    where = {**environment(), "torch_threads": torch.get_num_threads()}
    print(json.dumps({"embedding": embedding(), "cold_query": cold_query(), "environment": where}))
