"""A flat FAISS index behind FastAPI and uvicorn, with nothing else: what `serve` is compared with.

python benchmarks/serve/bare.py VECTORS.npy PORT
"""

import sys
import time

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

BLOCK = 50_000  # rows in memory twice


class Asked(BaseModel):
    """A search."""

    vector: list[float]
    k: int = 10


class Hit(BaseModel):
    """An answer."""

    id: int
    score: float


class Found(BaseModel):
    """The answers, and the milliseconds that FAISS took."""

    ms: float
    hits: list[Hit]


def main(path: str, port: int) -> None:
    faiss.omp_set_num_threads(1)
    stored = np.load(path, mmap_mode="r")
    index = faiss.IndexFlatIP(stored.shape[1])
    for start in range(0, len(stored), BLOCK):
        rows = stored[start : start + BLOCK].astype(np.float32)
        faiss.normalize_L2(rows)
        index.add(rows)
    app = FastAPI()

    @app.post("/search")
    async def search(asked: Asked) -> Found:
        start = time.perf_counter()
        scores, ids = index.search(np.asarray([asked.vector], np.float32), asked.k)
        ms = (time.perf_counter() - start) * 1e3
        found = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
        return Found(ms=ms, hits=[Hit(id=i, score=s) for i, s in found])

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
