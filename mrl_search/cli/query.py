"""`mrl-search query`: find the items of an index that are most like a picture or a vector."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli import options
from mrl_search.cli.options import open_index, option, queries_of, request_of, with_words
from mrl_search.errors import ConfigError
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.index import Index
    from mrl_search.report.sheet import Row
    from mrl_search.search.explain import Explanation
    from mrl_search.search.request import SearchRequest
    from mrl_search.search.results import Hits

__all__ = ["query"]

NOTHING_FOUND = 3  # exit code, where a cut-off was given
SHOWN, WIDTH = 4, 24  # own columns in a table, and characters of a value
UNSHOWN = ("folder", "latitude", "longitude", "bytes", "modified", "inode")  # of pictures
LADDER = (8, 64)  # prefixes that a sheet shows with full length


def query(
    images: options.Images = None,
    text: options.Text = None,
    minus: options.Minus = None,
    index: options.IndexFolder = None,
    vector: options.VectorFile = None,
    model: options.IndexModel = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    yes: options.Yes = False,
    dims: options.Dims = None,
    plan: options.PlanText = None,
    exact: Annotated[bool, option("--exact", "Short for --plan exact.")] = False,
    k: options.K = 10,
    where: options.Where = None,
    ids: options.Ids = None,
    cutoff: options.CutoffText = None,
    expected: Annotated[
        bool, option("--expected", "Show how many unrelated items would score as high as each hit.")
    ] = False,
    explain: Annotated[
        bool, option("--explain", "Show rank and score of each hit at every prefix.")
    ] = False,
    sheet: Annotated[
        Path | None, option("--sheet PNG", "Save the pictures of the hits, side by side.")
    ] = None,
    not_itself: Annotated[
        bool, option("--not-itself", "Leave out items with the same content as IMAGE.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Find the items of an index most like IMAGE, or like words.

    With --cutoff, the exit code is 3 if no query has an answer. The cut-off auto and --expected
    take 1,000 items: each score is compared with those that unrelated items reach by chance.
    """
    if sheet:
        from mrl_search.report.sheet import format_of

        format_of(sheet)
    if exact and plan is None and dims is None:
        plan = "exact"
    elif exact:
        raise ConfigError("--exact is given with --dims or --plan.", "Leave one of them out.")
    opened = open_index(index, model, options.access_of(device, offline, yes))
    if sheet and opened.manifest.own_vectors and not opened.items["path"].drop_null():
        message = f"{opened.folder} holds vectors without paths of pictures, which a sheet shows."
        raise ConfigError(message, "Leave --sheet out, or give paths with --items when you build.")
    if not_itself and not images:
        raise ConfigError("--not-itself is for pictures; there is none.", "Leave it out.")
    how = (cutoff, explain, not_itself, expected)
    request = request_of(opened, dims, plan, k, where, ids, *how)
    from mrl_search.cli.render import json_line, note, show_skipped
    from mrl_search.search.as_json import hit_records
    from mrl_search.search.chance import FEWEST_ITEMS

    asked = with_words(images, text, minus)
    queries = queries_of(opened, asked, vector, model)
    pictures = {str(one): one if isinstance(one, str) else one.picture for one in asked}
    start = time.perf_counter()
    hits = opened.answer(queries, request)
    ms = (time.perf_counter() - start) * 1e3 / len(queries.names)
    shown = opened.items.own_columns
    if not opened.manifest.own_vectors:
        shown = [column for column in shown if column not in UNSHOWN]
    rows: list[Row] = []
    for i, (name, found) in enumerate(zip(queries.names, hits, strict=True)):
        if as_json:
            lines = hit_records(found, hits.explanation, i, opened.manifest.own_vectors)
            about = {"plan": str(hits.plan), "k": k, "found": len(found), "ms": round(ms, 3)}
            words = {"text": text or [], "minus": minus or []} if text or minus else {}
            image = {"image": pictures.get(name, name), **words}
            json_line({**image, **about, "hits": lines})
        else:
            title = f"{name}  ·  plan {hits.plan}"
            _show_hits(found, title, shown, opened.manifest.own_vectors)
            if hits.explanation is not None:
                _show_explanation(found, hits.explanation, i)
        picture = pictures.get(name)
        path = picture or vector or ""
        short = name.replace(path, Path(path).name, 1)
        if sheet and explain:
            rows += _ladder_rows(opened, short, picture, queries.rows[i], request)
        elif sheet:
            rows.append(_sheet_row(short, picture, found))
    if sheet:
        from mrl_search.images.sources import read_path, read_recorded
        from mrl_search.report.sheet import save_sheet

        def read(path: str) -> bytes:
            named = path in pictures.values()
            return read_path(path) if named else read_recorded(path, *opened.manifest.places)

        title = "prefix by prefix" if explain else f"plan {hits.plan}"
        save_sheet(rows, sheet, f"{opened.folder.name}, {title}", read=read)
    if not as_json:
        embedded = ""
        if queries.embed_ms is not None:
            embedded = f"embedding {queries.embed_ms / len(queries.names):.0f} ms, "
        note(f"{len(opened):,} items in {opened.folder}; {embedded}search {ms:.1f} ms")
    fewest = min((len(found) for found in hits), default=0)
    if cutoff is None and fewest < k:
        more = "" if fewest == hits.rows.shape[1] else " --exact finds more."
        note(f"Only {fewest:,} of the {k:,} asked for were found.{more}")
    if expected and hits.expected is None:
        note(f"--expected takes {FEWEST_ITEMS:,} items; fewer were searched.")
    if sheet:
        note(f"pictures of the hits: {sheet}")
    show_skipped(queries.skipped)
    if cutoff is not None and not any(len(found) for found in hits):
        cosine = f"No item has a cosine of at least {cutoff}."
        note("Nothing here looks like this." if cutoff == "auto" else cosine)
        raise typer.Exit(NOTHING_FOUND)


def _show_hits(hits: "Hits", title: str, own: Sequence[str], own_vectors: bool) -> None:
    """Print a table of the hits of one query, with the first `own` columns."""
    from mrl_search.cli.render import show_table
    from mrl_search.images.sources import is_gone

    rows = []
    for h in hits:
        path = h.path or f"item {h.id}"
        if h.path and not own_vectors and is_gone(h.path):
            path += "  (gone)"
        cells = ("" if h[name] is None else str(h[name]) for name in own[:SHOWN])
        short = (cell if len(cell) <= WIDTH else f"{cell[: WIDTH - 1]}…" for cell in cells)
        chance = () if h.expected is None else (by_chance(h.expected),)
        rows.append((str(h.rank), f"{h.score:.4f}", *chance, h.label or "", *short, path))
    added = () if hits.expected is None else ("expected by chance",)
    show_table(("rank", "score", *added, "label", *own[:SHOWN], "path"), rows, title)


def by_chance(expected: float) -> str:
    """`0.02`, `3`, or `<0.001` unrelated items."""
    return (
        "<0.001" if expected < 0.001 else f"{expected:.1g}" if expected < 1 else f"{expected:,.0f}"
    )


def _show_explanation(hits: "Hits", explanation: "Explanation", query: int) -> None:
    """Print a table of rank and score of each hit of one query at every prefix."""
    from mrl_search.cli.render import show_table
    from mrl_search.search.as_json import levels

    rows = []
    for i, h in enumerate(hits):
        cells = [f"{rank:,} ({score:.2f})" for _, rank, score in levels(explanation, query, i)]
        rows.append((str(h.rank), *cells, Path(h.path or str(h.id)).name))
    columns = ("rank", *(f"{d} dims" for d in explanation.dims), "path")
    show_table(columns, rows, "rank (score) of each hit at every prefix")


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
