"""Records that show pictures: prefixes in two dimensions, hits of queries, likely mislabels.

A record holds captions, marks and thumbnails; a report lays them out.
"""

import base64
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import MrlSearchError
from mrl_search.images.decode import decode
from mrl_search.images.sources import read_recorded
from mrl_search.measure.contestants import answers
from mrl_search.measure.controls import centred_axes
from mrl_search.measure.queries import QuerySet, shuffled
from mrl_search.search.classify import vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.vectors import nearest, sample

__all__ = [
    "LADDERS", "SCATTERED", "ladder_record", "mislabel_record", "scatter_record", "shown_dims",
]  # fmt: skip

SCATTERED = (8, 64, 512, 1024)
LADDER = (8, 64, 1024)
LADDERS, LADDER_HITS = 3, 8  # queries, and hits of each at a prefix
POINTS = 1000
COMMON = 6  # labels with a colour of their own
LISTED, SHOWN = 200, 36  # likely mislabels in the record, and on the sheet
THUMBNAIL = 112  # pixels


def shown_dims(corpus: Corpus, wanted: Sequence[int]) -> list[int]:
    """The prefixes of the index nearest to those that are wanted, ascending."""
    return sorted({nearest(corpus.dims, min(d, corpus.dim)) for d in wanted})


def scatter_record(corpus: Corpus, dims: int, seed: int) -> dict[str, Any]:
    """A prefix of a sample of the corpus on its two principal axes, with their variance."""
    live = corpus.live_rows
    rows = live[sample(len(live), POINTS, seed)]
    x = corpus.vectors.prefix(dims, rows)
    centre, axes = centred_axes(x)
    points = np.zeros((len(x), 2), dtype=np.float32)
    points[:, : min(dims, 2)] = (x - centre) @ axes[:, :2]
    total = float(((x - centre) ** 2).sum()) or 1.0
    labels = corpus.collection.labels
    counts = Counter(label for label in labels[live] if label is not None)
    common = [name for name, _ in counts.most_common(COMMON)]
    names = [*common, "other", ""]  # the last: no label
    place = {name: i for i, name in enumerate(common)} | {None: len(common) + 1}
    return {
        "dims": dims,
        "x": points[:, 0].round(3).tolist(),
        "y": points[:, 1].round(3).tolist(),
        "labels": [place.get(label, len(common)) for label in labels[rows]],
        "names": names,
        "variance": [float((points[:, i] ** 2).sum() / total) for i in (0, 1)],
    }


def ladder_record(corpus: Corpus, queries: QuerySet, number: int, seed: int) -> dict[str, Any]:
    """The `number`-th of some random queries, with its hits at a few prefixes.

    Where its picture cannot be read, there are no rows, and `why` says so.
    """
    at = shuffled(len(queries), len(queries), seed)[number % len(queries)]
    path, label = queries.paths[at], queries.labels[at]
    own, thumbnails = queries.collection.manifest.places, dict[str, str]()
    record: dict[str, Any] = {
        "number": number, "title": Path(path).name if path else "", "rows": [],
        "thumbnails": thumbnails, "why": _add_thumbnail(path, own, thumbnails),
    }  # fmt: skip
    for d in [] if record["why"] else shown_dims(corpus, LADDER):
        (hits,) = _hits(corpus, queries, np.array([at]), d, LADDER_HITS)
        tiles = [{"path": path, "caption": f"query  {label or ''}", "mark": "query"}]
        for h in hits:
            mark = "" if None in (label, h.label) else "right" if h.label == label else "wrong"
            caption = f"{h.rank}  {h.score:.2f}  {h.label or ''}"
            tiles.append({"path": h.path or "", "caption": caption, "mark": mark})
            _add_thumbnail(h.path, corpus.manifest.places, thumbnails)
        record["rows"].append({"title": f"{d} dims", "tiles": tiles})
    return record


def mislabel_record(
    corpus: Corpus, queries: QuerySet, wrong: NDArray[np.int64], voters: int
) -> dict[str, Any]:
    """The queries at positions `wrong`, whose neighbours vote against their label everywhere.

    Those whose neighbours have no label, at any prefix, are left out. `against` is the mean share
    of the votes for other labels over all prefixes, largest first; `says` wins at full length.
    """
    labels = corpus.collection.labels
    ballots = [
        vote(_hits(corpus, queries, wrong, d, voters), labels) if len(wrong) else []
        for d in corpus.dims
    ]
    found, ids = [], queries.collection.items.all_ids
    for at, votes in zip(wrong.tolist(), zip(*ballots, strict=True), strict=True):
        own = queries.labels[at]
        if all(v.label is not None for v in votes):
            against = float(np.mean([1 - v.shares.get(own, 0.0) for v in votes]))
            found.append({
                "id": int(ids[queries.rows[at]]), "path": queries.paths[at], "label": own,
                "says": votes[-1].label, "against": round(against, 4),
            })  # fmt: skip
    found.sort(key=lambda item: (-item["against"], item["id"]))
    shown, thumbnails = found[:LISTED], dict[str, str]()
    own = queries.collection.manifest.places
    tiles: list[dict[str, str]] = []
    for item in shown:
        if len(tiles) < SHOWN and not _add_thumbnail(item["path"], own, thumbnails):
            caption = f"is {item['label']}, they say {item['says']}"
            tiles.append({"path": item["path"], "caption": caption, "mark": "wrong"})
    title = "contradicted by their neighbours at every prefix"
    rows = [{"title": title, "tiles": tiles}] if tiles else []
    return {"count": len(found), "shown": shown, "rows": rows, "thumbnails": thumbnails}


def _hits(corpus: Corpus, queries: QuerySet, at: NDArray[np.int64], dims: int, k: int) -> BatchHits:
    """Hits of the queries at some positions by one prefix, without their own content."""
    some = QuerySet(queries.collection, queries.rows[at], "", queries.own, queries.corpus)
    return answers(corpus, some, Plan.single(dims), k)


def _add_thumbnail(path: str | None, sources: Sequence[str], thumbnails: dict[str, str]) -> str:
    """Add the picture at `path`, recorded from `sources`, as WebP in base64.

    Returns why it cannot be read, or nothing.
    """
    if not path:
        return "the index does not say where its pictures are"
    try:
        picture, _ = decode(read_recorded(path, *sources), THUMBNAIL)
    except MrlSearchError as error:
        return error.message
    except (OSError, ValueError):
        return "it cannot be read"
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=82)
    thumbnails[path] = base64.b64encode(buffer.getvalue()).decode()
    return ""
