"""`mrl-search evaluate`: accuracy of every prefix by heads, neighbours and changed copies."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli import options
from mrl_search.cli.options import option
from mrl_search.cli.render import (
    json_line,
    note,
    percent,
    progress_bars,
    show_skipped,
    show_source,
    show_table,
)
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.measure.evaluate import Evaluation

__all__ = ["evaluate"]

COLUMNS = {
    "linear head": "linear_top1",
    "1-NN": "nearest_top1",
    "vote": "knn_top1",
    "mAP@10": "map_at_10",
    "instance recall@1": "instance_recall_at_1",
}
MODEL_HELP = "A model (mrl-search models); default: that of the index, or bundled."
ADAPTIVE_HELP = "Also measure adaptive classification, which reads more dims only if unsure."


def evaluate(
    src: options.Src,
    model: Annotated[str | None, option("--model", MODEL_HELP)] = None,
    index: Annotated[
        Path | None, option("--index DIR", "Index to search; default: SRC itself.")
    ] = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    yes: options.Yes = False,
    k: Annotated[int, option("-k", "Neighbours that vote.", min=1)] = 20,
    instance: options.Instance = False,
    hard: Annotated[
        bool, option("--hard", "With --instance: copies that are changed much more.")
    ] = False,
    split: options.Split = None,
    labels: options.Labels = "",
    column: options.Column = None,
    hidden: options.Hidden = False,
    adaptive: Annotated[bool, option("--adaptive", ADAPTIVE_HELP)] = False,
    as_json: options.Json = False,
) -> None:
    """Measure the accuracy of every prefix on pictures.

    A picture of SRC is left out of its own answer.
    """
    if hard and not instance:
        raise ConfigError("--hard is about changed copies.", "Use it with --instance.")
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.images.sources import open_source
    from mrl_search.index import Index
    from mrl_search.mapping import to_mapping
    from mrl_search.measure import evaluate as module
    from mrl_search.measure.copies import HARD, STANDARD
    from mrl_search.measure.environment import provenance
    from mrl_search.training.split import part_of

    access = options.access_of(device, offline, yes)
    opened = Index.open(index, model, access) if index else None
    encoder = opened.encoder if opened else load_encoder(model or "bundled", access)
    show_source(source := open_source(src, labels=labels, column=column, hidden=hidden))
    with progress_bars() as progress:
        part = part_of(source, split, encoder, progress)
        copies = (HARD if hard else STANDARD) if instance else None
        result = module.evaluate(opened, part, encoder, k=k, instance=copies, progress=progress)
    show_skipped(result.skipped)
    if result.doubt:
        note(result.doubt)
    if as_json:
        maker = provenance(encoder)
        for p in result.prefixes:
            recall = {"thumbnail_recall_at_1": result.thumbnail_recall_at_1}
            json_line({**to_mapping(p), **recall, **maker})
        for t in result.adaptive if adaptive else ():
            json_line({**t.record(), **maker})
        return
    _show(result, k, ("hard" if hard else "standard") if instance else "")
    if adaptive:
        _show_adaptive(result, k)


def _show(result: "Evaluation", k: int, copies: str) -> None:

    columns = {f"{k}-NN" if c == "vote" else c: name for c, name in COLUMNS.items()}
    if not copies:
        del columns["instance recall@1"]
    rows = [
        (str(p.dims), *(percent(getattr(p, s), p.ci95.get(s)) for s in columns.values()))
        for p in result.prefixes
    ]
    show_table(("dims", *columns), rows)
    p = result.prefixes[0]
    changed = f"; {p.n_instance:,} changed copies, {copies}" if copies else ""
    note(f"n = {p.n:,}, with 95% intervals{changed}")
    if result.thumbnail_recall_at_1 is not None:
        recall = result.thumbnail_recall_at_1
        note(f"for comparison, 8x8 thumbnails: instance recall@1 {recall:.1%}")


def _show_adaptive(result: "Evaluation", k: int) -> None:

    if not result.adaptive:
        raise ConfigError(
            "Adaptive classification needs labels, of the pictures and of the index.",
            "Sort the pictures into one folder a class.",
        )
    rows = [
        (f"{t.give:.1%}", *(f"{share:.1%}" for share in (t.point.accuracy, t.fixed[-1])),
         f"{t.point.expected_dims:.1f}")
        for t in result.adaptive
    ]  # fmt: skip
    show_table(("may lose", f"{k}-NN, adaptive", f"{k}-NN, all dims", "mean dims"), rows)
    n = result.adaptive[0].point.n
    note(f"thresholds learnt on one half of the pictures, measured on the other: n = {n:,}")
