"""`mrl-search query`: find the items of an index that are most like a picture or a vector."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli import options
from mrl_search.cli.asking import NONE, Question, answered, with_words
from mrl_search.cli.hits import by_chance, conclude, show_hits
from mrl_search.cli.options import cutoff_of, open_index, option, queries_of, request_of
from mrl_search.errors import ConfigError
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.index import Index
    from mrl_search.report.sheet import Row
    from mrl_search.search.request import SearchRequest
    from mrl_search.search.results import Hits

__all__ = ["query"]

SERVER_HELP = (
    "Ask this server, as mrl-search serve prints its address. Default: one that runs on the index "
    "on this machine; none: do not ask it."
)
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
    server: Annotated[str | None, option("--server URL", SERVER_HELP)] = None,
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
    if dims is not None and plan is not None:
        raise ConfigError("--dims and --plan are both given.", "--dims 64 is short for --plan 64.")
    if not_itself and not images:
        raise ConfigError("--not-itself is for pictures; there is none.", "Leave it out.")
    asked = with_words(images, text, minus)
    here = {
        "--sheet": sheet, "--vector": vector, "--model": model, "--ids": ids,
        "--not-itself": not_itself, "--device": device != "auto",
    }  # fmt: skip
    here_only = next((name for name, given in here.items() if given), None)
    if here_only and server not in (None, NONE):
        raise ConfigError(f"{here_only} is not for a --server.", "Leave one of them out.")
    if here_only is None:
        how = {
            "plan": plan, "dims": dims, "k": k, "where": where or [], "cutoff": cutoff_of(cutoff),
            "expected": expected, "explain": explain,
        }  # fmt: skip
        code = answered(Question(asked, how, index, server, as_json))
        if code is not None:
            raise typer.Exit(code)
    words = {"text": text or [], "minus": minus or []} if text or minus else {}
    opened = open_index(index, model, options.access_of(device, offline, yes))
    if sheet and opened.manifest.own_vectors and not opened.items["path"].drop_null():
        message = f"{opened.folder} holds vectors without paths of pictures, which a sheet shows."
        raise ConfigError(message, "Leave --sheet out, or give paths with --items when you build.")
    request = request_of(opened, dims, plan, k, where, ids, cutoff, explain, not_itself, expected)
    from mrl_search.cli.render import json_line, note, show_skipped
    from mrl_search.search.as_json import hit_records
    from mrl_search.search.chance import FEWEST_ITEMS

    queries = queries_of(opened, asked, vector, model)
    pictures = {str(one): one if isinstance(one, str) else one.picture for one in asked}
    start = time.perf_counter()
    hits = opened.answer(queries, request)
    ms = (time.perf_counter() - start) * 1e3 / len(queries.names)
    rows: list[Row] = []
    for i, (name, found) in enumerate(zip(queries.names, hits, strict=True)):
        records = hit_records(found, hits.explanation, i, opened.manifest.own_vectors)
        if as_json:
            about = {"plan": str(hits.plan), "k": k, "found": len(found), "ms": round(ms, 3)}
            json_line({"image": pictures.get(name, name), **words, **about, "hits": records})
        else:
            show_hits(records, f"{name}  ·  plan {hits.plan}")
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
    if expected and hits.expected is None:
        note(f"--expected takes {FEWEST_ITEMS:,} items; fewer were searched.")
    if sheet:
        note(f"pictures of the hits: {sheet}")
    show_skipped(queries.skipped)
    counts = [len(found) for found in hits]
    more = " --exact finds more." if min(counts) < hits.rows.shape[1] else ""
    raise typer.Exit(conclude(counts, k, cutoff, more))


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
