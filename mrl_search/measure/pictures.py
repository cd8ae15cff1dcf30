"""What a reader should see for themselves: prefixes in two dimensions, ladders of hits, and pictures that their neighbours contradict.

Sheets go into the records as WebP in base64, so that a report needs nothing but the records.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import MrlSearchError
from mrl_search.images.decode import decode
from mrl_search.images.sources import read_path
from mrl_search.measure.controls import centred_axes
from mrl_search.measure.queries import QuerySet
from mrl_search.report.sheet import Row, Tile, contact_sheet
from mrl_search.search import search_others, vote
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.vectors import nearest

__all__ = [
    "LADDERS",
    "SCATTERED",
    "ladder_record",
    "mislabel_record",
    "scatter_record",
    "shown_dims",
]

SCATTERED = (8, 64, 512, 1024)
LADDER = (8, 64, 1024)
LADDERS, RUNGS = 3, 8  # queries, and hits of each at a prefix
POINTS = 1000
NAMED = 6  # labels that get a colour of their own
LISTED, SEEN = 200, 36  # likely mislabels in the record, and on the sheet
THUMB = 112


def shown_dims(index: Index, wanted: Sequence[int]) -> list[int]:
    """What the index has nearest to the prefixes that are wanted, ascending; never longer than its vectors."""
    return sorted({nearest(index.dims, min(d, index.dim)) for d in wanted})


def scatter_record(index: Index, dims: int, seed: int) -> dict[str, object]:
    """The prefixes of a sample of the corpus along their two principal axes, with the share of the variance that each axis has."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(index))[:POINTS])
    x = index.embeddings.prefix(dims, rows)
    centre, axes = centred_axes(x)
    flat = np.zeros((len(x), 2), dtype=np.float32)
    flat[:, : min(dims, 2)] = (x - centre) @ axes[:, :2]
    total = float(((x - centre) ** 2).sum())
    labels = index.embeddings.labels
    common = [
        name
        for name, _ in Counter(label for label in labels if label is not None).most_common(NAMED)
    ]
    names = [*common, "other", ""]  # the last one: no label
    of = [
        names.index(label) if label in common else -1 if label is None else -2
        for label in labels[rows]
    ]
    return {
        "dims": dims, "x": flat[:, 0].round(3).tolist(), "y": flat[:, 1].round(3).tolist(),
        "labels": [i % len(names) for i in of], "names": names,
        "variance": [float((flat[:, i] ** 2).sum() / total) if total else 0.0 for i in (0, 1)],
    }  # fmt: skip


def ladder_record(index: Index, queries: QuerySet, number: int, seed: int) -> dict[str, object]:
    """The `number`-th query of a fixed-seed draw, and its hits at a few dims, at some more, and at all, as a sheet.

    Where the pictures are gone, or there never were any, `sheet` is None and `why` says so.
    """
    at = int(np.random.default_rng(seed).permutation(len(queries))[number % len(queries)])
    path, label = queries.embeddings.paths[queries.rows[at]], queries.labels[at]
    title = "" if path is None else Path(path).name
    if why := _unseen(path):
        return {"number": number, "title": title, "sheet": None, "why": why}
    rows = []
    for d in shown_dims(index, LADDER):
        hits = search_others(
            index, queries.vectors[at : at + 1], queries.hashes[at : at + 1], Plan.single(d, RUNGS)
        )[0]
        found = [(h, index.embeddings.labels[h.id]) for h in hits if h.id >= 0]
        marks = [
            "" if label is None or own is None else "right" if own == label else "wrong"
            for _, own in found
        ]
        tiles = [
            Tile(index.embeddings.paths[h.id] or "", f"{h.rank}  {h.score:.2f}  {own or ''}", mark)
            for (h, own), mark in zip(found, marks, strict=True)
        ]
        rows.append(Row(f"{d} dims", [Tile(path, f"query  {label or ''}", "query"), *tiles]))
    return {"number": number, "title": title, "sheet": _sheet(rows), "why": ""}


def mislabel_record(
    index: Index, queries: QuerySet, wrong: NDArray[np.int64], neighbours: int
) -> dict[str, object]:
    """The queries at the positions `wrong`, whose neighbours vote against their label at every prefix, most clearly contradicted first.

    Where no neighbour has a label, at any prefix, nobody contradicts.

    `against` is the share of the votes that other labels get, as the mean over all prefixes; `says` is the winner at full length.
    """
    said = [
        vote(_others(index, queries, wrong, Plan.single(d, neighbours)), index.embeddings.labels)
        for d in index.dims
        if len(wrong)
    ]
    heard = np.array(
        [all(ballots[i].label is not None for ballots in said) for i in range(len(wrong))],
        dtype=bool,
    )
    wrong, said = wrong[heard], [[ballots[i] for i in np.flatnonzero(heard)] for ballots in said]
    if not len(wrong):
        return {"count": 0, "shown": [], "sheet": None}
    own, paths = queries.labels[wrong], queries.embeddings.paths[queries.rows[wrong]]
    against = np.mean(
        [
            [1 - b.shares.get(label, 0.0) for b, label in zip(ballots, own, strict=True)]
            for ballots in said
        ],
        axis=0,
    )
    order = np.lexsort((queries.rows[wrong], -against))[:LISTED]
    shown = [
        {
            "id": int(queries.rows[wrong[i]]),
            "path": paths[i],
            "label": own[i],
            "says": said[-1][i].label,
            "against": round(float(against[i]), 4),
        }
        for i in order
    ]
    seen = [item for item in shown if not _unseen(item["path"])][:SEEN]
    tiles = [
        Tile(str(item["path"]), f"is {item['label']}, they say {item['says']}", "wrong")
        for item in seen
    ]
    title = "contradicted by their neighbours at every prefix"
    return {
        "count": len(wrong),
        "shown": shown,
        "sheet": _sheet([Row(title, tiles)]) if tiles else None,
    }


def _others(index: Index, queries: QuerySet, at: NDArray[np.int64], plan: Plan) -> BatchHits:
    return search_others(index, queries.vectors[at], queries.hashes[at], plan)


def _unseen(path: str | None) -> str:
    """Why the picture of a path cannot be shown; empty where it can."""
    if not path:
        return "the index does not say where its pictures are"
    try:
        decode(read_path(path), THUMB)
    except (MrlSearchError, OSError, ValueError) as error:
        return error.message if isinstance(error, MrlSearchError) else "it cannot be read"
    return ""


def _sheet(rows: Sequence[Row]) -> str:
    """A contact sheet as WebP in base64."""
    buffer = io.BytesIO()
    contact_sheet(rows, thumb=THUMB).save(buffer, "WEBP", quality=82)
    return base64.b64encode(buffer.getvalue()).decode()
