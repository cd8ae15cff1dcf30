"""What a steeper spectrum would buy: neighbours found by short prefixes, against copies found.

    python benchmarks/encoders/spectrum.py INDEX >> benchmarks/encoders/spectrum.jsonl

INDEX holds the photographs of ../shared/data/cats_vs_dogs, by the bundled model. Its vectors are
turned along their principal axes, and each axis is multiplied by a power of its share of the
variance, so that cosines depend more on the first ones: a training objective on the spectrum would
have this effect. Axes and variances are of the pictures that trained; those held out ask. A record
for each power and prefix: the share of the ten nearest by all dims that are among the first 200 by
the prefix, 20-NN accuracy, and the share of changed copies whose nearest picture is their original.
"""

import json
import sys
from pathlib import Path

import numpy as np
from axes import accuracy, found
from numpy.typing import NDArray

from mrl_search.encoders.registry import load_encoder
from mrl_search.index import Index
from mrl_search.measure.copies import PROTOCOLS, changed_copies, corpus_of
from mrl_search.measure.environment import provenance
from mrl_search.vectors import l2_normalize

POWERS, DIMS = (None, 0.0, 0.1, 0.15, 0.2, 0.3, 0.5), (8, 16, 32, 64, 1024)  # None: as they are
NEAREST, SHORTLIST = 10, 200


def shortlisted(corpus: NDArray, queries: NDArray, dims: int) -> float:
    """Share of each query's nearest rows by all dims that are in the shortlist by `dims`."""

    def first(d: int, keep: int) -> NDArray:
        scores = l2_normalize(queries[:, :d]) @ l2_normalize(corpus[:, :d]).T
        return np.argpartition(-scores, keep, axis=1)[:, :keep]

    pairs = zip(first(corpus.shape[1], NEAREST), first(dims, SHORTLIST), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) for a, b in pairs])) / NEAREST


def main(folder: Path) -> None:
    index, encoder = Index.open(folder), load_encoder()
    corpus, held_out = index.corpus, index.held_out()
    if held_out is None:
        raise SystemExit(
            f"{folder} does not hold the pictures that the bundled model was split by."
        )
    rows = np.asarray(corpus.vectors.rows(), dtype=np.float32)
    known = np.setdiff1d(np.arange(len(rows)), held_out)
    labels = np.array(corpus.collection.labels.tolist(), dtype=object)
    hashes = np.array(corpus.collection.hashes.tolist(), dtype=object)
    source = corpus_of(corpus, held_out)
    copies = {
        kind: changed_copies(source, encoder, set(source.paths), protocol)[0]
        for kind, protocol in PROTOCOLS.items()
    }
    variances, axes = np.linalg.eigh(np.cov(rows[known].T))
    variances, axes = variances[::-1].clip(1e-12) / variances[-1], axes[:, ::-1]
    head = {**provenance(encoder), "pictures": len(known), "n": len(held_out)}
    for power in POWERS:

        def turned(x: NDArray, power: float | None = power) -> NDArray:
            return x if power is None else l2_normalize(x @ axes * variances**power)

        searched, queries = turned(rows[known]), turned(rows[held_out])
        changed = {kind: turned(some.rows) for kind, some in copies.items()}
        for d in DIMS:
            unit, asked = l2_normalize(searched[:, :d]), l2_normalize(queries[:, :d])
            everything, names = np.concatenate([asked, unit]), hashes[[*held_out, *known]]
            shares = {
                kind: found(everything, names, l2_normalize(x[:, :d]), copies[kind].originals)
                for kind, x in changed.items()
            }
            nn20 = accuracy(unit, labels[known], asked, labels[held_out])
            shortlist = shortlisted(searched, queries, d)
            record = {"power": power, "dims": d, "shortlist": shortlist, "nn20": nn20, **shares}
            print(json.dumps({**head, **record}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
