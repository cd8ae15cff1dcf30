"""`mrl-search query`: find the pictures of an index that are most like one's own."""

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
    allowed_of,
    ladder_of,
    open_index,
    plan_of,
    queries_of,
)  # fmt: skip
from mrl_search.errors import ConfigError
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    from mrl_search.engines import Index
    from mrl_search.report.sheet import Row

__all__ = ["query"]

FIRST = 16  # an early stop starts at so many dims


def query(
    images: Images = None,
    index: IndexFolder = None,
    vector: VectorFile = None,
    model: IndexModel = None,
    dims: Dims = None,
    plan: PlanText = None,
    k: K = 10,
    exact: Annotated[
        bool,
        typer.Option(
            "--exact", help="Find the true nearest at full length, reading as little as that takes."
        ),
    ] = False,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive", help="Read longer prefixes only while the answers still change."
        ),
    ] = False,
    certify: Annotated[
        bool,
        typer.Option("--certify", help="Say which hits are proven to be among the true nearest."),
    ] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show rank and score of each hit at every prefix.")
    ] = False,
    where: Where = None,
    ids: Ids = None,
    sheet: Annotated[
        Path | None,
        typer.Option(
            "--sheet", metavar="PNG", help="Also save the pictures of the hits, side by side."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Find the items of an index that are most like IMAGE."""
    if sheet:
        from mrl_search.report.sheet import format_of

        format_of(sheet)
    opened = open_index(index)
    chosen = _plan(opened, dims, plan, k, exact, adaptive)
    allowed = allowed_of(opened, where, ids)
    from mrl_search import search
    from mrl_search.cli.hits import hit_lines, ladder_rows, sheet_row, show_explanation, show_hits
    from mrl_search.cli.render import json_line, note, show_skipped
    from mrl_search.search.tune import exact_by_default

    exact = exact or (
        dims is None and plan is None and not adaptive and exact_by_default(opened, k)
    )
    queries = queries_of(opened, images, vector, model)
    start = time.perf_counter()
    if exact:
        hits = search.exact_pruned(opened, queries.rows, k, allowed)
    elif adaptive:
        hits = search.search_adaptive(opened, queries.rows, chosen, k, allowed)
    elif certify:
        hits = search.certify(opened, queries.rows, chosen, allowed, k)
    else:
        hits = search.search(opened, queries.rows, chosen, allowed).first(k)
    ms = (time.perf_counter() - start) * 1e3 / len(queries.names)
    told = search.explain(opened, queries.rows, hits.ids, allowed) if explain else None
    named = "exact" if exact else str(chosen)
    rows: list[Row] = []
    for i, (name, found) in enumerate(zip(queries.names, hits, strict=True)):
        if as_json:
            read = {} if found.dims is None else {"dims_read": found.dims}
            json_line(
                {
                    "image": name,
                    "plan": named,
                    "ms": round(ms, 3),
                    **read,
                    "hits": hit_lines(opened, found, told, i),
                }
            )
        else:
            read_up_to = "" if found.dims is None else f", {found.dims} dims read"
            show_hits(opened, found, f"{name}  ·  plan {named}{read_up_to}", certify)
            if told is not None:
                show_explanation(opened, found, told, i)
        picture = None if vector else name
        if sheet and explain:
            rows += ladder_rows(opened, name, picture, queries.rows[i], k, allowed)
        elif sheet:
            rows.append(sheet_row(opened, Path(name).name, picture, found))
    if sheet:
        from mrl_search.report.sheet import save_sheet

        save_sheet(
            rows,
            sheet,
            f"{opened.folder.name}, " + ("prefix by prefix" if explain else f"plan {named}"),
        )
    if not as_json:
        among = (
            f"{len(opened):,} items"
            if allowed is None
            else f"{len(allowed):,} of {len(opened):,} items"
        )
        embedded = (
            ""
            if queries.embed_ms is None
            else f"embedded in {queries.embed_ms / len(queries.names):.0f} ms, "
        )
        note(f"{among} in {opened.folder}; {embedded}searched in {ms:.1f} ms")
    wanted = min(k, len(opened) if allowed is None else len(allowed))
    fewest = (hits.ids >= 0).sum(axis=1).min(initial=wanted)
    if fewest < wanted:
        note(
            f"{fewest} of the {wanted} asked for were found{' by some queries' if len(hits) > 1 else ''}; --exact finds all."
        )
    if sheet:
        note(f"pictures of the hits: {sheet}")
    show_skipped(queries.skipped)


def _plan(
    index: "Index", dims: int | None, plan: str | None, k: int, exact: bool, adaptive: bool
) -> Plan:
    """The plan to run; `--exact` needs none, and `--adaptive` climbs all prefixes from 16 dims on unless told otherwise."""
    if exact and (adaptive or dims is not None or plan is not None):
        raise ConfigError(
            "--exact was given with another way to search.",
            "Leave out --dims, --plan and --adaptive.",
        )
    return ladder_of(index, dims, plan, k, FIRST) if adaptive else plan_of(index, dims, plan, k)
