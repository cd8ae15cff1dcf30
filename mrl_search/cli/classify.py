"""`mrl-search classify`: let the nearest pictures of an index vote for a label."""

from typing import Annotated

import typer

from mrl_search.cli.options import (
    Dims,
    Ids,
    Images,
    IndexFolder,
    Json,
    K,
    PlanText,
    VectorFile,
    Where,
    allowed_of,
    open_index,
    plan_of,
    queries_of,
)  # fmt: skip

__all__ = ["classify"]


def classify(
    images: Images = None,
    index: IndexFolder = None,
    vector: VectorFile = None,
    dims: Dims = None,
    plan: PlanText = None,
    k: K = 20,
    majority: Annotated[bool, typer.Option("--majority", help="One neighbour, one vote, instead of softmax weights.")] = False,
    temperature: Annotated[
        float, typer.Option("--temperature", help="Of the softmax weights; the lower, the more the nearest decide.")
    ] = 0.07,
    where: Where = None,
    ids: Ids = None,
    as_json: Json = False,
) -> None:
    """Classify IMAGE by a vote of its nearest neighbours in an index."""
    opened = open_index(index)
    chosen = plan_of(opened, dims, plan, k, "classify")
    allowed = allowed_of(opened, where, ids)
    from mrl_search.cli.render import json_line, note, show_skipped, show_table
    from mrl_search.search import Weighting, search, vote

    queries = queries_of(opened, images, vector)
    hits = search(opened, queries.rows, chosen, allowed)
    votes = vote(hits, opened.embeddings.labels, temperature, Weighting.MAJORITY if majority else Weighting.SOFTMAX)
    if as_json:
        for name, v in zip(queries.names, votes, strict=True):
            shares = {label: round(share, 6) for label, share in v.shares.items()}
            json_line({"image": name, "plan": str(chosen), "label": v.label, "confidence": round(v.confidence, 6), "votes": shares})
    else:
        rows = [
            (v.label or "?", f"{v.confidence:.1%}", ", ".join(f"{label} {share:.1%}" for label, share in v.shares.items()), name)
            for name, v in zip(queries.names, votes, strict=True)
        ]
        show_table(("label", "confidence", "votes", "image"), rows)
        among = len(opened) if allowed is None else len(allowed)
        note(f"{k} neighbours among {among:,} items of {opened.folder}, plan {chosen}")
    show_skipped(queries.skipped)
