"""A flat FAISS index behind FastAPI and uvicorn, with nothing else: what `serve` is compared with.

python benchmarks/serve/bare.py VECTORS.npy PORT
"""

import sys

import faiss
import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Asked(BaseModel):
    """A search."""

    vector: list[float]
    k: int = 10


def main(path: str, port: int) -> None:
    faiss.omp_set_num_threads(1)
    rows = np.load(path).astype(np.float32)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    app = FastAPI()

    @app.post("/search")
    def search(asked: Asked) -> dict[str, list[dict[str, float]]]:
        scores, ids = index.search(np.asarray([asked.vector], np.float32), asked.k)
        found = zip(ids[0].tolist(), scores[0].tolist(), strict=True)
        return {"hits": [{"id": i, "score": s} for i, s in found]}

    uvicorn.run(app, port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
