"""`mrl-search query`: find the items of an index that are most like a picture or a vector."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import (
    Dims,
    Ids,
    Images,
    IndexFolder,
    IndexModel,
    Json,
    K,
    PlanText,
    VectorFile,
    Where,
    open_index,
    queries_of,
    request_of,
)  # fmt: skip

if TYPE_CHECKING:
    from mrl_search.report.sheet import Row

__all__ = ["query"]

NOTHING_FOUND = 3  # exit code, where a cut-off was given


def query(
    images: Images = None,
    index: IndexFolder = None,
    vector: VectorFile = None,
    model: IndexModel = None,
    dims: Dims = None,
    plan: PlanText = None,
    exact: Annotated[bool, typer.Option("--exact", help="Short for --plan exact.")] = False,
    k: K = 10,
    where: Where = None,
    ids: Ids = None,
    cutoff: Annotated[
        float | None,
        typer.Option(
            "--cutoff", min=-1, max=1, help="Only answers with at least this cosine; 3 if none."
        ),
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show rank and score of each hit at every prefix.")
    ] = False,
    sheet: Annotated[
        Path | None,
        typer.Option("--sheet", metavar="PNG", help="Save the pictures of the hits, side by side."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the items of an index that are most like IMAGE.

    With --cutoff, the exit code is 3 if no query has an answer.
    """
    if sheet:
        from mrl_search.report.sheet import format_of

        format_of(sheet)
    if exact and plan is None and dims is None:
        plan = "exact"
    elif exact:
        from mrl_search.errors import ConfigError

        raise ConfigError("--exact is given with --dims or --plan.", "Leave one of them out.")
    opened = open_index(index, model)
    request = request_of(opened, dims, plan, k, where, ids, cutoff, explain)
    from mrl_search.cli.hits import hit_lines, ladder_rows, sheet_row, show_explanation, show_hits
    from mrl_search.cli.render import json_line, note, show_skipped

    queries = queries_of(opened, images, vector, model)
    start = time.perf_counter()
    hits = opened.answer(queries, request)
    ms = (time.perf_counter() - start) * 1e3 / len(queries.names)
    rows: list[Row] = []
    for i, (name, found) in enumerate(zip(queries.names, hits, strict=True)):
        if as_json:
            lines = hit_lines(found, hits.explanation, i)
            json_line({"image": name, "plan": str(hits.plan), "ms": round(ms, 3), "hits": lines})
        else:
            show_hits(found, f"{name}  ·  plan {hits.plan}")
            if hits.explanation is not None:
                show_explanation(found, hits.explanation, i)
        picture = None if vector else name
        if sheet and explain:
            rows += ladder_rows(opened, name, picture, queries.rows[i], request)
        elif sheet:
            rows.append(sheet_row(Path(name).name, picture, found))
    if sheet:
        from mrl_search.report.sheet import save_sheet

        title = "prefix by prefix" if explain else f"plan {hits.plan}"
        save_sheet(rows, sheet, f"{opened.folder.name}, {title}")
    if not as_json:
        embedded = ""
        if queries.embed_ms is not None:
            embedded = f"embedding {queries.embed_ms / len(queries.names):.0f} ms, "
        note(f"{len(opened):,} items in {opened.folder}; {embedded}search {ms:.1f} ms")
    fewest = min((len(found) for found in hits), default=0)
    if cutoff is None and fewest < hits.ids.shape[1]:
        note(f"Only {fewest} of {hits.ids.shape[1]} neighbours were found; --exact finds all.")
    if sheet:
        note(f"pictures of the hits: {sheet}")
    show_skipped(queries.skipped)
    if cutoff is not None and not any(len(found) for found in hits):
        note(f"No item has a cosine of at least {cutoff}.")
        raise typer.Exit(NOTHING_FOUND)
