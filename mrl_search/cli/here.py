"""A query answered by this process. Imports no typer: loading it takes half as long as a search."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mrl_search.cli.asking import Question
from mrl_search.cli.hits import by_chance, conclude, show_answer
from mrl_search.cli.opening import open_index, queries_of, request_of
from mrl_search.cli.render import note, show_skipped
from mrl_search.errors import ConfigError
from mrl_search.search.chance import FEWEST_ITEMS
from mrl_search.search.plan import Plan
from mrl_search.search.results import hit_records

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.index import Index
    from mrl_search.report.sheet import Row
    from mrl_search.search.request import SearchRequest
    from mrl_search.search.results import Hits

__all__ = ["answer_here"]

LADDER = (8, 64)  # prefixes that a sheet shows with full length


def answer_here(question: Question) -> int:
    """Answer a question and show the hits; the exit code.

    Raises:
        MrlSearchError: what is wrong with it.
    """
    how, sheet = question.how, question.sheet
    opened = open_index(question.index, question.model, question.access)
    if sheet and opened.manifest.own_vectors and not opened.items["path"].drop_null():
        message = f"{opened.folder} holds vectors without paths of pictures, which a sheet shows."
        raise ConfigError(message, "Leave --sheet out, or give paths with --items when you build.")
    request = request_of(
        opened, how["dims"], how["plan"], how["k"], how["where"], question.ids, how["cutoff"],
        how["explain"], question.not_itself, how["expected"],
    )  # fmt: skip
    queries = queries_of(opened, question.asked, question.vector, question.model)
    asked = {str(one): one for one in question.asked}
    pictures = {n: one if isinstance(one, str) else one.picture for n, one in asked.items()}
    start = time.perf_counter()
    hits = opened.answer(queries, request)
    ms = (time.perf_counter() - start) * 1e3 / len(queries.names)
    rows: list[Row] = []
    for i, (name, found) in enumerate(zip(queries.names, hits, strict=True)):
        records = hit_records(found, hits.explanation, i, opened.manifest.own_vectors)
        answer = {"plan": str(hits.plan), "k": how["k"], "found": len(found), "ms": round(ms, 3)}
        show_answer(asked.get(name, name), {**answer, "hits": records}, question.as_json)
        picture = pictures.get(name)
        path = picture or question.vector or ""
        short = name.replace(path, Path(path).name, 1)
        if sheet and how["explain"]:
            rows += _ladder_rows(opened, short, picture, queries.rows[i], request)
        elif sheet:
            rows.append(_sheet_row(short, picture, found))
    if sheet:
        from mrl_search.images.sources import read_path, read_recorded
        from mrl_search.report.sheet import save_sheet

        def read(path: str) -> bytes:
            named = path in pictures.values()
            return read_path(path) if named else read_recorded(path, *opened.manifest.places)

        title = "prefix by prefix" if how["explain"] else f"plan {hits.plan}"
        save_sheet(rows, sheet, f"{opened.folder.name}, {title}", read=read)
    if not question.as_json:
        embedded = ""
        if queries.embed_ms is not None:
            embedded = f"embedding {queries.embed_ms / len(queries.names):.0f} ms, "
        note(f"{len(opened):,} items in {opened.folder}; {embedded}search {ms:.1f} ms")
    if how["expected"] and hits.expected is None:
        note(f"--expected takes {FEWEST_ITEMS:,} items; fewer were searched.")
    if sheet:
        note(f"pictures of the hits: {sheet}")
    show_skipped(queries.skipped)
    counts = [len(found) for found in hits]
    approximate = str(hits.plan) != "exact" and min(counts) < hits.rows.shape[1]
    more = " --exact finds more." if approximate else ""
    return conclude(counts, how["k"], how["cutoff"], more)


def _sheet_row(title: str, picture: str | None, hits: "Hits") -> "Row":
    """The query, if it is a picture, and its hits as one row of pictures."""
    from mrl_search.report.sheet import Row, Tile

    tiles = [Tile(picture, "query", "query")] if picture else []
    for h in hits:
        chance = "" if h.expected is None else f" ({by_chance(h.expected)})"
        text = f"{h.rank}  {h.score:.2f}{chance}  {h.label or ''}"
        tiles.append(Tile(h.path or f"item {h.id}", text))
    return Row(title, tiles)


def _ladder_rows(
    index: "Index", name: str, picture: str | None, query: "NDArray[np.float32]",
    request: "SearchRequest",
) -> "list[Row]":  # fmt: skip
    """One query with its hits at 8, at 64 and at all dims, or at the nearest prefixes."""
    from mrl_search.search.run import answer
    from mrl_search.vectors import nearest

    rows = []
    for d in sorted({*(nearest(index.dims, d) for d in LADDER), index.dims[-1]}):
        at = replace(request, plan=Plan.single(d), explain=False)
        hits = answer(index.corpus, query[None], at)[0]
        rows.append(_sheet_row(f"{name}, {d} dims", picture, hits))
    return rows
