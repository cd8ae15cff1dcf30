"""`mrl-search query`: find the items of an index that are most like a picture or a vector."""

from pathlib import Path
from typing import Annotated

import typer

from mrl_search.cli import options
from mrl_search.cli.asking import NONE, Question, answered, with_words
from mrl_search.cli.options import option
from mrl_search.errors import ConfigError

__all__ = ["query"]


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
    server: options.Server = None,
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
        "--sheet": sheet, "--vector": vector and asked, "--model": model, "--ids": ids,
        "--not-itself": not_itself, "--device": device != "auto",
    }  # fmt: skip
    here_only = next((name for name, given in here.items() if given), None)
    if here_only and server not in (None, NONE):
        raise ConfigError(f"{here_only} is not for a --server.", "Leave one of them out.")
    how = {
        "plan": plan, "dims": dims, "k": k, "where": where or [],
        "cutoff": options.cutoff_of(cutoff), "expected": expected, "explain": explain,
    }  # fmt: skip
    access = None if vector else options.access_of(device, offline, yes)
    local = vector, model, access, ids, sheet, not_itself
    question = Question(asked, how, index, server, as_json, *local)
    code = answered(question) if here_only is None else None
    if code is None:
        from mrl_search.cli.here import answer_here

        code = answer_here(question)
    raise typer.Exit(code)
