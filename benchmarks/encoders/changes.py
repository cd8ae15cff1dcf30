"""Do changed copies of a picture find it, and is the nearest other picture of its class?

    python benchmarks/encoders/changes.py MODEL[+AXES] FOLDER OUT

FOLDER has a folder a class, as `other.py` writes it. The axes are fitted to all its pictures, as
`build-index` does, but for a tenth that is held out. Appends a record a prefix to OUT.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from other import changed
from PIL import Image

from mrl_search.index import Index
from mrl_search.measure.environment import provenance

QUERIES, SEED = 100, 0


def main(model: str, folder: Path, out: Path) -> None:
    name, _, axes = model.partition("+")
    with tempfile.TemporaryDirectory() as place:
        index = Index.build(folder, Path(place) / "index", model=name, axes=axes or None)
        collection = index.corpus.collection
        rows = np.sort(np.random.default_rng(SEED).choice(len(index), QUERIES, replace=False))
        kinds: dict[str, list[Image.Image]] = {}
        for row in rows:
            for kind, copy in changed(Image.open(collection.paths[row]).convert("RGB")).items():
                kinds.setdefault(kind, []).append(copy)
        copies = {kind: index.embed(images).rows for kind, images in kinds.items()}
        head = {
            **provenance(index.encoder), "model": name,
            "axes": index.manifest.axes.get("choice", "none"), "pictures": len(index),
            "queries": QUERIES,
        }  # fmt: skip
        labels = collection.labels
        for d in index.dims:
            unit = index.corpus.vectors.prefix(d)
            scores = unit @ unit.T
            np.fill_diagonal(scores, -np.inf)
            same = float((labels[scores.argmax(1)] == labels).mean())
            found = {}
            for kind, queries in copies.items():
                near = (queries[:, :d] @ unit.T).argmax(1)  # the norm of a query changes nothing
                hashes = collection.hashes
                found[kind] = round(float((hashes[near] == hashes[rows]).mean()), 4)
            mean = round(float(np.mean(list(found.values()))), 4)
            record = {**head, "dims": d, "found": mean, "same_class": round(same, 4), **found}
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(model, d, mean, round(same, 3), found, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
