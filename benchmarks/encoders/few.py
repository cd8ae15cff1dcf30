"""How many changed views the axes `views` of a small collection need.

    python benchmarks/encoders/few.py SRC OUT [PICTURES [SEEDS]]

Embeds PICTURES (default: 250) of a data set, a changed view of every kind of each, and two changed
copies, standard and hard. Then fits the axes to fewer views: to all kinds of some pictures
(`viewed`), and to some kinds of each (`kinds`), in turn. Appends a record a choice and prefix to
OUT: the share of changed copies whose nearest picture is their original.
"""

import json
import sys
from pathlib import Path

import numpy as np
from axes import found, rows_of
from numpy.typing import NDArray

from mrl_search.axes import fit_axes
from mrl_search.encoders.base import Encoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.images.sources import Source, open_source, subset
from mrl_search.measure.copies import PROTOCOLS, changed_copies
from mrl_search.measure.environment import environment, provenance
from mrl_search.progress import silent
from mrl_search.training.corpus_axes import KINDS, Sample, changed_views
from mrl_search.vectors import l2_normalize

MODEL = "general"
DIMS = (8, 16, 32, 64, 128, 256, 1024)
CHOICES = ((0, 0), (1.0, 7), (0.64, 7), (0.4, 7), (0.24, 7), (0.12, 7), (1.0, 4), (1.0, 3),
           (1.0, 2), (1.0, 1))  # fmt: skip


def some_views(changed: NDArray[np.float32], count: int, kinds: int) -> NDArray[np.float32]:
    """Of the first `count` pictures `kinds` views each, of kinds that take turns."""
    at = (np.arange(count)[:, None] * kinds + np.arange(kinds)) % changed.shape[1]
    return changed[np.arange(count)[:, None], at]


def measure(source: Source, encoder: Encoder, head: dict, out: Path) -> None:
    rows, labels, hashes = rows_of(source, encoder)
    _, changed = changed_views(encoder, source, range(len(rows)), silent)
    assert len(changed) == len(rows) and changed.shape[1] == KINDS
    copies = {}
    for kind, protocol in PROTOCOLS.items():
        told, _ = changed_copies(source, encoder, set(source.paths), protocol)
        copies[kind] = told.rows, told.originals
    for share, kinds in CHOICES:
        count = round(share * len(rows))
        views = some_views(changed, count, kinds or KINDS)
        sample = Sample(rows, labels, np.arange(count), views)
        transform = fit_axes("views" if kinds else "pca", sample)
        a = transform(rows)
        for d in DIMS:
            unit = l2_normalize(a[:, :d])
            shares = {
                kind: round(found(unit, hashes, l2_normalize(transform(x)[:, :d]), at), 5)
                for kind, (x, at) in copies.items()
            }
            record = {**head, "axes": "views" if kinds else "pca", "viewed": count,
                      "kinds": kinds, "dims": d, **shares}  # fmt: skip
            with out.open("a") as file:
                file.write(json.dumps(record) + "\n")
        print(head["data"], head["seed"], count, kinds, shares, flush=True)


def main(src: str, out: Path, count: int = 250, seeds: int = 3) -> None:
    encoder = load_encoder(MODEL)
    whole = open_source(src)
    train = [i for i, path in enumerate(whole.paths) if "validation" not in path]
    for seed in range(seeds):
        chosen = np.sort(np.random.default_rng(seed).permutation(train)[:count]).tolist()
        head = {
            **provenance(encoder), "model": MODEL, "data": Path(src).name, "pictures": count,
            "seed": seed, "environment": environment(),
        }  # fmt: skip
        measure(subset(whole, chosen, f"{count} of {src}"), encoder, head, out)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
