"""`mrl-search classify`: let the nearest pictures of an index vote for a label."""

from typing import Annotated

import typer

from mrl_search.cli.options import Dims, Ids, IndexFolder, Json, K, PlanText, Where, allowed_of, open_index, plan_of
from mrl_search.errors import DataError

__all__ = ["classify"]


def classify(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE…", help="Pictures to classify.")],
    index: IndexFolder = None,
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
    chosen = plan_of(opened, dims, plan, k)
    allowed = allowed_of(opened, where, ids)
    from mrl_search.cli.render import json_line, note, show_skipped, show_table
    from mrl_search.models.encoder import load_encoder
    from mrl_search.search import Weighting, vote
    from mrl_search.workflow import search_images

    weighting = Weighting.MAJORITY if majority else Weighting.SOFTMAX
    answers = search_images(opened, load_encoder(opened.manifest.model), images, chosen, allowed)
    votes = vote(answers.hits, opened.embeddings.labels, temperature, weighting)
    if as_json:
        for path, v in zip(answers.paths, votes, strict=True):
            shares = {label: round(share, 6) for label, share in v.shares.items()}
            json_line({"image": path, "plan": str(chosen), "label": v.label, "confidence": round(v.confidence, 6), "votes": shares})
    elif votes:
        rows = [
            (v.label or "?", f"{v.confidence:.1%}", ", ".join(f"{label} {share:.1%}" for label, share in v.shares.items()), path)
            for path, v in zip(answers.paths, votes, strict=True)
        ]
        show_table(("label", "confidence", "votes", "image"), rows)
        among = len(opened) if allowed is None else len(allowed)
        note(f"{k} neighbours among {among:,} pictures in {opened.folder}, plan {chosen}")
    show_skipped(answers.skipped)
    if not votes:
        raise DataError("None of the images could be read.", "Name pictures in JPEG, PNG, WebP, GIF, BMP or TIFF.")
