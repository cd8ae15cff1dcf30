"""How hits are shown: as JSON, as tables in a terminal, and as rows of a contact sheet."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mrl_search.cli.render import show_table
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.index import Index
    from mrl_search.report.sheet import Row
    from mrl_search.search.explain import Explanation
    from mrl_search.search.request import SearchRequest
    from mrl_search.search.results import Hits

__all__ = ["hit_lines", "ladder_rows", "sheet_row", "show_explanation", "show_hits"]

LADDER = (8, 64)  # prefixes shown beside full length


def hit_lines(
    hits: "Hits", explanation: "Explanation | None", query: int
) -> list[dict[str, object]]:
    """The hits of one query for JSON; with rank and score of each at every prefix, if explained."""
    lines: list[dict[str, object]] = []
    for i, h in enumerate(hits):
        line: dict[str, object] = {
            "rank": h.rank, "id": h.id, "score": round(h.score, 6), "label": h.label,
            "path": h.path,
        }  # fmt: skip
        if explanation is not None:
            ranks, scores = (
                explanation.ranks[query, i].tolist(),
                explanation.scores[query, i].tolist(),
            )
            line["explain"] = [
                {"dims": d, "rank": rank, "score": round(score, 6)}
                for d, rank, score in zip(explanation.dims, ranks, scores, strict=True)
            ]
        lines.append(line)
    return lines


def show_hits(hits: "Hits", title: str) -> None:
    """Print a table of the hits of one query."""
    rows = [(str(h.rank), f"{h.score:.4f}", h.label or "", h.path or f"item {h.id}") for h in hits]
    show_table(("rank", "score", "label", "path"), rows, title)


def show_explanation(hits: "Hits", explanation: "Explanation", query: int) -> None:
    """Print a table of rank and score of each hit of one query at every prefix."""
    rows = []
    for i, h in enumerate(hits):
        ranks, scores = explanation.ranks[query, i].tolist(), explanation.scores[query, i].tolist()
        cells = [f"{r:,} ({s:.2f})" for r, s in zip(ranks, scores, strict=True)]
        rows.append((str(h.rank), *cells, Path(h.path or str(h.id)).name))
    columns = ("rank", *(f"{d} dims" for d in explanation.dims), "path")
    show_table(columns, rows, "rank (score) of each hit at every prefix")


def sheet_row(title: str, picture: str | None, hits: "Hits") -> "Row":
    """The query, if it is a picture, and its hits as one row of pictures."""
    from mrl_search.report.sheet import Row, Tile

    query = [Tile(picture, "query", "query")] if picture else []
    tiles = [
        Tile(h.path or f"item {h.id}", f"{h.rank}  {h.score:.2f}  {h.label or ''}") for h in hits
    ]
    return Row(title, [*query, *tiles])


def ladder_rows(
    index: "Index",
    name: str,
    picture: str | None,
    query: "NDArray[np.float32]",
    request: "SearchRequest",
) -> "list[Row]":
    """One query with its hits at 8, at 64 and at all dims, or at the nearest prefixes."""
    from mrl_search.search.run import answer
    from mrl_search.vectors import nearest

    rows = []
    for d in sorted({*(nearest(index.dims, d) for d in LADDER), index.dims[-1]}):
        at = replace(request, plan=Plan.single(d), explain=False)
        hits = answer(index.corpus, query[None], at)[0]
        rows.append(sheet_row(f"{Path(name).name}, {d} dims", picture, hits))
    return rows
