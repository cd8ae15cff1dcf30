"""Measure `duplicates`: what it finds in an index, and how many changed copies it would know.

python benchmarks/living/duplicates.py INDEX PICTURES > benchmarks/living/duplicates.jsonl

INDEX is of all of PICTURES, with the bundled model. Records are printed as JSON: `groups` (all
groups, by row numbers), `candidates` (the likeness of all near pairs, and those that
just fail), and `copies` (how many of 1,000 changed copies are near, and pass the second look).
"""

import json
import resource
import sys
import time

import numpy as np
from PIL import Image

from mrl_search.encoders.embed import embed_pictures
from mrl_search.images.decode import decode
from mrl_search.images.look import SAME, likeness, look_of
from mrl_search.images.sources import Source, open_source
from mrl_search.index import Index
from mrl_search.measure.copies import PROTOCOLS, changed_copy
from mrl_search.measure.environment import environment
from mrl_search.metrics import wilson_interval
from mrl_search.search.exact.pairs import Side, close_pairs
from mrl_search.vectors import prefix, sample

RATES = (1e-5, 1e-6, 1e-7, None)  # None: the default
COPIES = 1000
SEED = 7


def main(folder: str, where: str) -> None:
    index, source = Index.open(folder), open_source(where)
    show("environment", **environment())
    thresholds: dict[float | None, float] = {}
    for fpr in RATES:
        thresholds[fpr] = found(index, fpr)
    candidates(index, source, 1e-6, thresholds[1e-6])
    for name in PROTOCOLS:
        copies(index, source, name, thresholds)


def show(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind, **values}), flush=True)


def found(index: Index, fpr: float | None) -> float:
    """Record the groups at a rate; returns the threshold."""
    start, busy = time.perf_counter(), time.process_time()
    result = index.duplicates(fpr=fpr)
    seconds, busy = time.perf_counter() - start, time.process_time() - busy
    groups = [
        [g.keep.id, *([c.file.id, str(c.level), round(c.likeness or 0, 4)] for c in g.copies)]
        for g in result.groups
    ]
    show(
        "groups", fpr=fpr, threshold=round(result.threshold or 0, 4), compared=result.compared,
        candidates=result.candidates, expected=round(result.expected, 2), count=len(groups),
        copies=result.copies, seconds=round(seconds, 1), cpu_seconds=round(busy, 1),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, groups=groups,
    )  # fmt: skip
    return float(result.threshold or 0)


def candidates(index: Index, source: Source, fpr: float, threshold: float) -> None:
    """Record the likeness of the pairs of different pictures at a rate, without groups."""
    corpus = index.corpus
    own = corpus.collection.hashes
    _, rows = np.unique(own.astype(str), return_index=True)
    pairs = close_pairs(Side(corpus.vectors, rows), threshold)
    looks = {
        row: look_of(decode(source.read(row))[0])
        for row in np.unique(rows[np.stack([pairs.left, pairs.right])]).tolist()
    }
    ends = np.stack([rows[pairs.left], rows[pairs.right]], axis=1).tolist()
    seen = np.array([likeness(looks[a], looks[b]) for a, b in ends])
    order = np.argsort(-seen)
    near = [[*ends[i], round(float(seen[i]), 3)] for i in order if 0.5 <= seen[i] < SAME]
    tenths = np.bincount((np.clip(seen, 0, 0.999) * 10).astype(int), minlength=10)
    show("candidates", fpr=fpr, count=len(seen), tenths=tenths.tolist(), just_failed=near)


def copies(index: Index, source: Source, name: str, thresholds: dict[float | None, float]) -> None:
    """Record the share of changed copies that are candidates, and that pass the second look."""
    encoder, corpus = index.encoder, index.corpus
    side = max(encoder.preprocessing.size, encoder.preprocessing.resize)
    rows = sample(len(corpus), COPIES, SEED)
    pixels, seen = [], []
    for row in rows.tolist():
        image, _ = decode(source.read(row))
        copy = Image.fromarray(changed_copy(image, side, seed=row, protocol=PROTOCOLS[name]))
        pixels.append(encoder.preprocessing.pixels(copy))
        seen.append(likeness(look_of(image), look_of(copy)))
    vectors = prefix(corpus.to_space(embed_pictures(encoder, np.stack(pixels))), corpus.dim)
    scores = np.vecdot(vectors, corpus.vectors.prefix(corpus.dim, rows))
    passed = np.array(seen) >= SAME
    for fpr, threshold in thresholds.items():
        near = scores >= threshold
        show(
            "copies", protocol=name, fpr=fpr, n=len(rows), vectors=share(near),
            look=share(passed), both=share(near & passed),
        )  # fmt: skip


def share(right: np.ndarray) -> list[float]:
    """A share and its 95% interval."""
    values = (right.mean(), *wilson_interval(int(right.sum()), len(right)))
    return [round(float(value), 4) for value in values]


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
