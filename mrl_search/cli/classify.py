"""`mrl-search classify`: let the nearest items of an index vote for a label."""

from typing import Annotated, Any

from mrl_search.cli import options
from mrl_search.cli.options import open_index, option, queries_of, request_of
from mrl_search.errors import ConfigError

__all__ = ["classify"]

TEMPERATURE_HELP = "Of the softmax weights: the lower, the more the nearest decide. Default: 0.07."
ADAPTIVE_HELP = (
    "Stop at the prefix where the vote is sure, by thresholds that `tune --objective adaptive` "
    "has learnt."
)


def classify(
    images: options.Images = None,
    index: options.IndexFolder = None,
    vector: options.VectorFile = None,
    model: options.IndexModel = None,
    dims: options.Dims = None,
    plan: options.PlanText = None,
    k: options.K = 20,
    majority: Annotated[
        bool, option("--majority", "One vote a neighbour, instead of softmax weights.")
    ] = False,
    temperature: Annotated[float | None, option("--temperature", TEMPERATURE_HELP)] = None,
    adaptive: Annotated[bool, option("--adaptive", ADAPTIVE_HELP)] = False,
    where: options.Where = None,
    ids: options.Ids = None,
    as_json: options.Json = False,
) -> None:
    """Classify IMAGE by a vote of its nearest neighbours."""
    if majority and temperature is not None:
        raise ConfigError("A --majority vote has no --temperature.", "Leave one of them out.")
    opened = open_index(index, model)
    request = request_of(opened, dims, plan, k, where, ids)
    from mrl_search.cli.render import json_line, note, show_skipped, show_table
    from mrl_search.search.classify import TEMPERATURE, Ballot, Weighting
    from mrl_search.search.classify import classify as vote_of_neighbours
    from mrl_search.search.labels import label_doubt
    from mrl_search.search.run import default_plan

    weighting = Weighting.MAJORITY if majority else Weighting.SOFTMAX
    ballot = Ballot(k, TEMPERATURE if temperature is None else temperature, weighting)
    stored: Any = opened.manifest.plans.get("adaptive")
    queries = queries_of(opened, images or (), vector, model)
    votes = vote_of_neighbours(opened.corpus, queries.rows, request, ballot, adaptive)
    named = stored["plan"] if adaptive else str(request.plan)
    if named == "auto":
        named = str(default_plan(opened.corpus, k, "classify"))
    rows = []
    for name, v in zip(queries.names, votes, strict=True):
        read = {} if v.dims is None else {"dims_read": v.dims}
        if as_json:
            shares = {label: round(share, 6) for label, share in v.shares.items()}
            sure = {"confidence": round(v.confidence, 6), **read}
            json_line({"image": name, "plan": named, "label": v.label, **sure, "votes": shares})
        else:
            shown = ", ".join(f"{label} {share:.1%}" for label, share in v.shares.items())
            cells = (v.label or "?", f"{v.confidence:.1%}", *map(str, read.values()), shown, name)
            rows.append(cells)
    if not as_json:
        columns = ("label", "confidence", *(["dims read"] if adaptive else []), "votes", "image")
        show_table(columns, rows)
        note(f"{k} neighbours among {len(opened):,} items of {opened.folder}, plan {named}")
        if adaptive and (where or ids):
            note("The thresholds were learnt without a filter; with one they promise nothing.")
    if doubt := label_doubt(opened.corpus):
        note(doubt)
    show_skipped(queries.skipped)
