"""What each choice of axes keeps of the vectors of an encoder, on pictures that fitted nothing.

    python benchmarks/encoders/axes.py MODEL SRC OUT [MOST [VALIDATION]]

SRC is `photographs` (the split of ../shared/data/cats_vs_dogs) or a data set with a validation
part. Appends a record a choice and prefix to OUT: 20-NN accuracy with n, and the share of changed
copies, standard and hard, whose nearest picture is their original. MOST limits the pictures that
fit the axes and are searched, VALIDATION those that search them.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.axes import CHOICES, FITTED, VIEWED, fit_axes
from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import embed
from mrl_search.encoders.registry import load_encoder
from mrl_search.images.reading import Picture
from mrl_search.images.sources import Source, open_source, subset
from mrl_search.measure.copies import PROTOCOLS, changed_copies
from mrl_search.measure.environment import provenance
from mrl_search.progress import silent
from mrl_search.store.transform import Transform
from mrl_search.training.config import DataConfig
from mrl_search.training.corpus_axes import Sample, changed_views
from mrl_search.training.split import split_rows
from mrl_search.vectors import default_dims, l2_normalize

K = 20
PHOTOGRAPHS = "../shared/data/cats_vs_dogs"


def parts(name: str, most: int, validation: int) -> tuple[Source, Source]:
    """The pictures that are searched, and those that search them."""
    if name != "photographs":
        source = open_source(name)
        rows = np.array(["validation" in path for path in source.paths])
        train, held_out = np.flatnonzero(~rows), np.flatnonzero(rows)
    else:
        from mrl_search.images.decode import content_hash

        source = open_source(PHOTOGRAPHS)
        hashes = [content_hash(source.read(row)) for row in range(len(source.paths))]
        train, held_out = split_rows(source.labels, hashes, DataConfig())
    train = np.random.default_rng(0).permutation(train)[:most]
    held_out = np.sort(np.random.default_rng(1).permutation(held_out)[:validation])
    return (
        subset(source, train.tolist(), "train part"),
        subset(source, held_out.tolist(), "validation part"),
    )


def rows_of(source: Source, encoder: Encoder) -> tuple[NDArray, NDArray, NDArray]:
    """Raw rows (n, dim) float32, labels and content hashes of all pictures."""
    rows, labels, hashes = [], [], []
    for batch in embed(source, encoder):
        rows.append(batch.rows.astype(np.float16))
        labels += [e.label for e in batch.entries if isinstance(e, Picture)]
        hashes += [e.hash for e in batch.entries if isinstance(e, Picture)]
    raw = np.concatenate(rows).astype(np.float32)
    return raw, np.array(labels, dtype=object), np.array(hashes, dtype=object)


def accuracy(corpus: NDArray, labels: NDArray, queries: NDArray, truth: NDArray) -> float:
    """Share of queries whose label most of the 20 nearest have."""
    names, numbers = np.unique(labels.astype(str), return_inverse=True)
    right = 0
    for i in range(0, len(queries), 256):
        scores = queries[i : i + 256] @ corpus.T
        near = numbers[np.argpartition(-scores, K, axis=1)[:, :K]]
        votes = np.stack([(near == c).sum(1) for c in range(len(names))], 1)
        right += int((names[votes.argmax(1)] == truth[i : i + 256].astype(str)).sum())
    return right / len(queries)


def found(everything: NDArray, hashes: NDArray, copies: NDArray, originals: NDArray) -> float:
    """Share of copies whose nearest picture is their original."""
    starts = range(0, len(copies), 256)
    first = [(copies[i : i + 256] @ everything.T).argmax(1) for i in starts]
    return float((hashes[np.concatenate(first)] == originals).mean())


def main(model: str, name: str, out: Path, most: int = 10**9, validation: int = 10**9) -> None:
    start = time.perf_counter()
    encoder = load_encoder(model)
    train, held_out = parts(name, most, validation)
    rows, labels, hashes = rows_of(train, encoder)
    queries, truth, own = rows_of(held_out, encoder)
    hashes = np.concatenate([own, hashes])
    copies = {}
    for kind, protocol in PROTOCOLS.items():
        changed, _ = changed_copies(held_out, encoder, set(held_out.paths), protocol)
        copies[kind] = changed.rows, changed.originals
    viewed = changed_views(encoder, train, range(min(VIEWED, len(rows))), silent)
    sample = Sample(rows[:FITTED], labels[:FITTED], *viewed)
    head = {
        **provenance(encoder), "model": model.partition("@")[0], "data": name,
        "train": len(rows), "n": len(queries),
    }  # fmt: skip
    with out.open("a") as file:
        for choice in CHOICES:
            transform: Transform = fit_axes(choice, sample)
            a, b = transform(rows), transform(queries)
            c = {kind: (transform(x), at) for kind, (x, at) in copies.items()}
            for d in default_dims(transform.dim):
                unit, asked = l2_normalize(a[:, :d]), l2_normalize(b[:, :d])
                everything = np.concatenate([asked, unit])
                shares = {
                    kind: round(found(everything, hashes, l2_normalize(x[:, :d]), at), 5)
                    for kind, (x, at) in c.items()
                }
                record = {
                    **head, "axes": choice, "dims": d,
                    "nn20": round(accuracy(unit, labels, asked, truth), 5), **shares,
                }  # fmt: skip
                file.write(json.dumps(record) + "\n")
                file.flush()
                print(model, name, choice, d, record["nn20"], shares, flush=True)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *map(int, sys.argv[4:]))
