"""Measure `duplicates`: what it finds in an index, and how many changed copies of pictures it knows.

python benchmarks/living/duplicates.py INDEX PICTURES > benchmarks/living/duplicates.jsonl

INDEX is of all pictures of the source PICTURES, with the bundled model. Records are printed as JSON:
`groups` (all groups, by row numbers), `candidates` (the likeness of the pairs that are near enough),
and `copies` (how many of 1,000 changed copies are near enough to their original, and pass the second
look).
"""

import json
import resource
import sys
import time

import numpy as np
from PIL import Image

from mrl_search.duplicates.finding import find_duplicates
from mrl_search.duplicates.groups import Level
from mrl_search.duplicates.pictures import Pictures
from mrl_search.encoders.embed import embed_pictures
from mrl_search.images.decode import decode
from mrl_search.images.look import SAME, Look, likeness
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.measure.copies import PROTOCOLS, changed_copy
from mrl_search.measure.environment import environment
from mrl_search.metrics import wilson_interval
from mrl_search.vectors import prefix, sample

RATES = (1e-5, 1e-6, 1e-7)
COPIES = 1000
SEED = 7


def main(folder: str, where: str) -> None:
    index, source = Index.open(folder), open_source(where)
    show("environment", **environment())
    thresholds = {}
    for fpr in RATES:
        thresholds[fpr] = found(index, fpr)
    for name in PROTOCOLS:
        copies(index, source, name, thresholds)


def show(kind: str, **values: object) -> None:
    print(json.dumps({"kind": kind, **values}), flush=True)


def found(index: Index, fpr: float) -> float:
    """Record the groups at a rate, and the likeness of all candidates; returns the threshold."""
    start = time.perf_counter()
    result = index.duplicates(fpr=fpr)
    seconds = time.perf_counter() - start
    groups = [
        [g.keep.id, *([c.file.id, str(c.level), round(c.likeness or 0, 4)] for c in g.copies)]
        for g in result.groups
    ]
    show(
        "groups", fpr=fpr, threshold=round(result.threshold or 0, 4), compared=result.compared,
        candidates=result.candidates, expected=round(result.expected, 2), count=len(groups),
        copies=result.copies, seconds=round(seconds, 1),
        peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, groups=groups,
    )  # fmt: skip
    pairs = find_duplicates(Pictures.of_index(index.corpus), Level.SIMILAR, fpr=fpr)
    seen = [c.likeness for g in pairs.groups for c in g.copies if c.likeness is not None]
    counts, _ = np.histogram(seen, bins=np.append(np.arange(-1, 1, 0.1), [1.0001]))
    show("candidates", fpr=fpr, count=len(seen), below_1_by_tenths=counts[::-1].tolist())
    return float(result.threshold or 0)


def copies(index: Index, source: object, name: str, thresholds: dict[float, float]) -> None:
    """Record the share of changed copies that are candidates, and that pass the second look."""
    encoder, corpus = index.encoder, index.corpus
    side = max(encoder.preprocessing.size, encoder.preprocessing.resize)
    rows = sample(len(corpus), COPIES, SEED)
    pixels, seen = [], []
    for row in rows.tolist():
        image, _ = decode(source.read(row))  # type: ignore[attr-defined]
        copy = Image.fromarray(changed_copy(image, side, seed=row, protocol=PROTOCOLS[name]))
        pixels.append(encoder.preprocessing.pixels(copy))
        seen.append(likeness(Look.of(image), Look.of(copy)))
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
