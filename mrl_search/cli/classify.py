"""`mrl-search classify`: a vote of the nearest items of an index, or a comparison with words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrl_search.cli import options
from mrl_search.cli.asking import NONE, Answers, Question, asked_of_server
from mrl_search.cli.opening import check_readable, open_index, queries_of, request_of
from mrl_search.cli.options import option
from mrl_search.cli.render import json_line, note, show_skipped, show_table
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.encoders.base import Access

__all__ = ["classify"]

TEMPERATURE_HELP = "Of the softmax weights: the lower, the more the nearest decide. Default: 0.07."
LABELS_HELP = (
    "Compare IMAGE with these words instead, such as cat,dog,horse; for models of pictures and "
    "words. Takes --model without an index, too."
)
PROMPTS_HELP = (
    "For --labels: simple (7 prompts), imagenet (80), or your own, such as 'a photo of a {}.'. "
    "Default: simple."
)
SHOWN = 5  # labels of a picture in a table
ADAPTIVE_HELP = (
    "Stop at the prefix where the vote is sure, by thresholds that `tune --objective adaptive` "
    "has learnt: at most the share --give is lost, with 95% confidence."
)


def classify(
    context: typer.Context,
    images: options.Images = None,
    index: options.IndexFolder = None,
    vector: options.VectorFile = None,
    model: options.IndexModel = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    yes: options.Yes = False,
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
    cutoff: options.CutoffText = None,
    labels: Annotated[str | None, option("--labels WORDS", LABELS_HELP)] = None,
    prompts: Annotated[str | None, option("--prompts NAME", PROMPTS_HELP)] = None,
    server: options.Server = None,
    as_json: options.Json = False,
) -> None:
    """Classify IMAGE by a vote of its neighbours, or by words.

    With --cutoff, only neighbours that pass it vote, and a picture without any is unknown.
    """
    if labels is not None:
        loading = ("--index", "--model", "--device", "--offline", "--yes")
        taken = (*loading, "--labels", "--prompts", "--json")
        if other := [flag for flag in options.flags_given(context) if flag not in taken]:
            message = f"{other[0]} is for a vote of neighbours, and --labels is given."
            raise ConfigError(message, "Leave one of them out.")
        access = options.access_of(device, offline, yes)
        return _by_words(images or [], index, model, access, labels, prompts, as_json)
    if prompts is not None:
        raise ConfigError("--prompts is for --labels.", "For example --labels cat,dog.")
    if majority and temperature is not None:
        raise ConfigError("A --majority vote has no --temperature.", "Leave one of them out.")
    here = {
        "--majority": majority, "--temperature": temperature is not None, "--adaptive": adaptive,
        "--ids": ids, "--model": model, "--vector": vector and images, "--device": device != "auto",
    }  # fmt: skip
    here_only = next((name for name, given in here.items() if given), None)
    if here_only and server not in (None, NONE):
        raise ConfigError(f"{here_only} is not for a --server.", "Leave one of them out.")
    how = {
        "plan": plan,
        "dims": dims,
        "k": k,
        "where": where or [],
        "cutoff": options.cutoff_of(cutoff),
    }
    question = Question(images or (), how, index, server, as_json, vector)
    found = None if here_only else asked_of_server(question, "classify")
    if found is None:
        ballot = majority, temperature, adaptive
        found = _votes_here(question, model, options.access_of(device, offline, yes), ids, ballot)
    where_asked, asked, votes = found
    rows = []
    for one, v in zip(asked, votes, strict=True):
        read = {"dims_read": v["dims_read"]} if "dims_read" in v else {}
        if as_json:
            sure = {"confidence": round(v["confidence"], 6), **read}
            shares = {label: round(share, 6) for label, share in v["votes"].items()}
            about = {"image": str(one), "plan": v["plan"], "label": v["label"]}
            json_line({**about, **sure, "votes": shares})
        shown = ", ".join(f"{label} {share:.1%}" for label, share in v["votes"].items())
        label = v["label"] or ("?" if cutoff is None else "unknown")
        rows.append((label, f"{v['confidence']:.1%}", *map(str, read.values()), shown, str(one)))
    if not as_json:
        columns = ("label", "confidence", *(["dims read"] if adaptive else []), "votes", "image")
        show_table(columns, rows)
        note(f"{k} neighbours among {where_asked}, plan {votes[0]['plan']}")
        if adaptive and (where or ids):
            note("The thresholds were learnt without a filter; with one they promise nothing.")
    if doubt := votes[0]["doubt"]:
        note(doubt)


def _votes_here(
    question: Question, model: str | None, access: "Access", ids: Path | None,
    how_to_vote: tuple[bool, float | None, bool],
) -> Answers:  # fmt: skip
    """The votes of this process, as a server gives them: what was searched, queries, answers."""
    from mrl_search.search.classify import TEMPERATURE, Ballot, Weighting, label_doubt
    from mrl_search.search.classify import classify as vote_of_neighbours
    from mrl_search.search.run import default_plan

    how, (majority, temperature, adaptive) = question.how, how_to_vote
    k = how["k"]
    opened = open_index(question.index, model, access)
    request = request_of(opened, how["dims"], how["plan"], k, how["where"], ids, how["cutoff"])
    weighting = Weighting.MAJORITY if majority else Weighting.SOFTMAX
    ballot = Ballot(k, TEMPERATURE if temperature is None else temperature, weighting)
    stored: Any = opened.manifest.plans.get("adaptive")
    queries = queries_of(opened, question.asked, question.vector, model)
    votes = vote_of_neighbours(opened.corpus, queries.rows, request, ballot, adaptive)
    named = stored["plan"] if adaptive else str(request.plan)
    if named == "auto":
        named = str(default_plan(opened.corpus, k, "classify"))
    doubt = label_doubt(opened.corpus)
    answers = [
        {"plan": named, "label": v.label, "confidence": v.confidence, "votes": v.shares,
         **({} if v.dims is None else {"dims_read": v.dims}), "doubt": doubt}
        for v in votes
    ]  # fmt: skip
    show_skipped(queries.skipped)
    return f"{len(opened):,} items of {opened.folder}", queries.names, answers


def _by_words(
    images: list[str], index: Path | None, model: str | None, access: "Access", labels: str,
    prompts: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print the probability of each label for each picture."""
    from mrl_search.encoders.embed import embed_queries
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.encoders.zero_shot import check_labels, zero_shot

    if not images:
        raise ConfigError("There is nothing to classify.", "Name pictures.")
    classes = [label.strip() for label in labels.split(",") if label.strip()]
    check_labels(classes)
    alone = model is not None and index is None
    opened = None if alone else open_index(index, model, access)
    encoder = opened.encoder if opened else load_encoder(str(model), access)
    names, rows, skipped, _ = embed_queries(images, encoder, skip_broken=True)
    check_readable(names, skipped)
    prompts = "simple" if prompts is None else prompts
    cells = []
    for name, shares in zip(names, zero_shot(rows, classes, encoder, prompts), strict=True):
        ranked = {classes[i]: float(shares[i]) for i in (-shares).argsort(kind="stable")}
        label, share = next(iter(ranked.items()))
        if as_json:
            found = {"label": label, "probability": round(share, 6)}
            every = {each: round(value, 6) for each, value in ranked.items()}
            json_line({"image": name, **found, "probabilities": every, "prompts": prompts})
        shown = ", ".join(f"{each} {value:.1%}" for each, value in list(ranked.items())[:SHOWN])
        cells.append((label, f"{share:.1%}", shown, name))
    if not as_json:
        show_table(("label", "probability", "labels", "image"), cells)
        note(f"{len(classes)} labels, prompts {prompts}, model {encoder.model}")
    show_skipped(skipped)
