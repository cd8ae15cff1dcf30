"""`mrl-search classify`: let the nearest pictures of an index vote for a label."""

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
from mrl_search.errors import ConfigError, ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.engines import Index

__all__ = ["classify"]


def classify(
    images: Images = None,
    index: IndexFolder = None,
    vector: VectorFile = None,
    model: IndexModel = None,
    dims: Dims = None,
    plan: PlanText = None,
    k: K = 20,
    majority: Annotated[
        bool,
        typer.Option("--majority", help="One neighbour, one vote, instead of softmax weights."),
    ] = False,
    temperature: Annotated[
        float | None,
        typer.Option(
            "--temperature",
            help="Of the softmax weights; the lower, the more the nearest decide; default: 0.07.",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Read longer prefixes only while the vote is not sure; thresholds are learnt from the index.",
        ),
    ] = False,
    give: Annotated[
        float | None,
        typer.Option(
            "--give",
            min=0,
            max=1,
            help="Share of answers that --adaptive may give up against all dims; default: 0.01.",
        ),
    ] = None,
    where: Where = None,
    ids: Ids = None,
    as_json: Json = False,
) -> None:
    """Classify IMAGE by a vote of its nearest neighbours in an index."""
    if majority and temperature is not None:
        raise ConfigError(
            "--majority and --temperature were both given.",
            "Where every neighbour has one vote there is no temperature.",
        )
    if give is not None and not adaptive:
        raise ConfigError("--give says what --adaptive may give up.", "Give both, or none.")
    opened = open_index(index)
    chosen = (
        ladder_of(opened, dims, plan, k, 1)
        if adaptive
        else plan_of(opened, dims, plan, k, "classify")
    )
    allowed = allowed_of(opened, where, ids)
    from mrl_search.cli.render import json_line, note, show_skipped, show_table
    from mrl_search.search import (
        Ballot,
        Weighting,
        classify_adaptive,
        exact_pruned,
        learn_thresholds,
        search,
        vote,
    )
    from mrl_search.search.cascade import GIVE
    from mrl_search.search.tune import exact_by_default
    from mrl_search.search.vote import TEMPERATURE

    ballot = Ballot(
        k,
        TEMPERATURE if temperature is None else temperature,
        Weighting.MAJORITY if majority else Weighting.SOFTMAX,
    )
    exact = (
        dims is None and plan is None and not adaptive and exact_by_default(opened, k, "classify")
    )
    named = "exact" if exact else str(chosen)
    queries = queries_of(opened, images, vector, model)
    read: list[dict[str, int]] = [{} for _ in queries.names]
    if adaptive:
        learned = learn_thresholds(
            opened,
            chosen,
            ballot,
            allowed,
            GIVE if give is None else give,
            _held_out(opened, model),
        )
        votes, dims_read = classify_adaptive(
            opened, queries.rows, chosen, learned.cascade, ballot, allowed
        )
        read = [{"dims_read": int(d)} for d in dims_read]
    else:
        hits = (
            exact_pruned(opened, queries.rows, k, allowed)
            if exact
            else search(opened, queries.rows, chosen, allowed).first(k)
        )
        votes = vote(hits, opened.embeddings.labels, ballot.temperature, ballot.weighting)
    rows = []
    for name, v, extra in zip(queries.names, votes, read, strict=True):
        if as_json:
            shares = {label: round(share, 6) for label, share in v.shares.items()}
            sure = {"confidence": round(v.confidence, 6), **extra}
            json_line({"image": name, "plan": named, "label": v.label, **sure, "votes": shares})
        else:
            shown = ", ".join(f"{label} {share:.1%}" for label, share in v.shares.items())
            rows.append(
                (v.label or "?", f"{v.confidence:.1%}", *map(str, extra.values()), shown, name)
            )
    if not as_json:
        show_table(
            ("label", "confidence", *(["dims read"] if adaptive else []), "votes", "image"), rows
        )
        among = len(opened) if allowed is None else len(allowed)
        note(f"{k} neighbours among {among:,} items of {opened.folder}, plan {named}")
        if adaptive:
            p = learned.point
            note(
                f"thresholds learnt from {p.n:,} items of the index, each without itself; of these {p.accuracy:.1%} are right "
                f"with {p.expected_dims:.0f} dims on average, {learned.full_accuracy:.1%} with {chosen.dims[-1]}"
            )
            if p.expected_dims == chosen.dims[-1]:
                note(
                    "that is too few, or prefixes are too much worse, to stop early for so little; --give 0.05 may give up more"
                )
    show_skipped(queries.skipped)


def _held_out(index: "Index", model: str | None) -> "NDArray[np.int64] | None":
    """Items that the model of the index was not trained on, where it can be known."""
    if index.manifest.own_vectors:
        return None
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.measure.parts import held_out_rows

    try:
        return held_out_rows(index, load_encoder(model or index.manifest.model))
    except ModelError:  # it is gone; vectors can be asked with all the same
        return None
