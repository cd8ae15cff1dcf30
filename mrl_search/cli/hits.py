"""How hits look: as JSON, as tables in a terminal, and as rows of a contact sheet."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mrl_search.cli.render import show_table
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.engines import Index
    from mrl_search.report.sheet import Row
    from mrl_search.search import Explanation
    from mrl_search.search.results import Hits

__all__ = ["hit_lines", "ladder_rows", "sheet_row", "show_explanation", "show_hits"]

LADDER = (8, 64)  # prefixes shown beside full length


def hit_lines(
    index: "Index", hits: "Hits", told: "Explanation | None", query: int
) -> list[dict[str, object]]:
    """The hits of one query for JSON; with `told`, rank and score of each at every prefix."""
    labels, paths = index.embeddings.labels, index.embeddings.paths
    lines: list[dict[str, object]] = []
    for i, h in enumerate(hits):
        if h.id < 0:
            continue
        line = {
            "rank": h.rank,
            "id": h.id,
            "score": round(h.score, 6),
            "label": labels[h.id],
            "path": paths[h.id],
        }
        if h.proven is not None:
            line["proven"] = h.proven
        if told is not None:
            line["explain"] = [
                {
                    "dims": d,
                    "rank": int(told.ranks[query, i, level]),
                    "score": round(float(told.scores[query, i, level]), 6),
                }
                for level, d in enumerate(told.dims)
            ]
        lines.append(line)
    return lines


def show_hits(index: "Index", hits: "Hits", title: str, proofs: bool) -> None:
    """A table of the hits of one query; with `proofs`, which of them are proven to be among the true nearest."""
    labels, paths = index.embeddings.labels, index.embeddings.paths
    columns = ("rank", "score", *(["proven"] if proofs else []), "label", "path")
    rows = [
        (
            str(h.rank),
            f"{h.score:.4f}",
            *(["proven" if h.proven else "likely"] if proofs else []),
            labels[h.id] or "",
            paths[h.id] or f"item {h.id}",
        )
        for h in hits
        if h.id >= 0
    ]
    show_table(columns, rows, title)


def show_explanation(index: "Index", hits: "Hits", told: "Explanation", query: int) -> None:
    """A table of the rank, and the score, that each hit of one query has at every prefix."""
    paths = index.embeddings.paths
    rows = []
    for i, h in enumerate(hits):
        if h.id >= 0:
            cells = [
                f"{r:,} ({s:.2f})"
                for r, s in zip(
                    told.ranks[query, i].tolist(), told.scores[query, i].tolist(), strict=True
                )
            ]
            rows.append((str(h.rank), *cells, Path(paths[h.id] or str(h.id)).name))
    show_table(
        ("rank", *(f"{d} dims" for d in told.dims), "path"),
        rows,
        "rank (score) of each hit at every prefix",
    )


def sheet_row(index: "Index", title: str, picture: str | None, hits: "Hits") -> "Row":
    """The query, if it is a picture, and its hits as one row of pictures."""
    from mrl_search.report.sheet import Row, Tile

    labels, paths = index.embeddings.labels, index.embeddings.paths
    query = [Tile(picture, "query", "query")] if picture else []
    found = [
        Tile(paths[h.id] or f"item {h.id}", f"{h.rank}  {h.score:.2f}  {labels[h.id] or ''}")
        for h in hits
        if h.id >= 0
    ]
    return Row(title, [*query, *found])


def ladder_rows(
    index: "Index",
    name: str,
    picture: str | None,
    query: "NDArray[np.float32]",
    k: int,
    allowed: "NDArray[np.int64] | None",
) -> "Sequence[Row]":
    """One query with its hits at 8, at 64 and at all dims, or what the index has nearest to them: a row of pictures each."""
    from mrl_search.search import search
    from mrl_search.vectors import nearest

    dims = sorted({*(nearest(index.dims, d) for d in LADDER), index.dims[-1]})
    return [
        sheet_row(
            index,
            f"{Path(name).name}, {d} dims",
            picture,
            search(index, query, Plan.single(d, k), allowed)[0],
        )
        for d in dims
    ]
