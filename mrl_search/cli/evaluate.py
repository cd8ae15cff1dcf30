"""`mrl-search evaluate`: accuracy of every prefix, by linear heads, by neighbours, and as search for changed copies."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from mrl_search.cli.options import Json, Src
from mrl_search.errors import ConfigError

__all__ = ["EvaluateCommand", "evaluate"]


class EvaluateCommand(TyperCommand):
    """Lets `--instance` stand without a value, for the standard protocol; typer itself has no options of that kind."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own click has no public name
        given = []
        for i, arg in enumerate(args):
            given.append(arg)
            if arg == "--instance" and args[i + 1 : i + 2] not in (["standard"], ["hard"]):
                given.append("standard")
        return super().parse_args(ctx, given)


def evaluate(
    src: Src,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="bundled, a run folder, or torchvision:NAME; default: that of the index, else bundled.",
        ),
    ] = None,
    index: Annotated[
        Path | None,
        typer.Option(
            "--index",
            metavar="DIR",
            help="Index to search in; default: the images of SRC themselves.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 20,
    instance: Annotated[
        str | None,
        typer.Option(
            "--instance",
            metavar="[standard|hard]",
            help="Also search with changed copies: is the original found first?",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            metavar="PART",
            help="Only the train or validation part, as the model's training divided SRC.",
        ),
    ] = None,
    adaptive: Annotated[
        bool,
        typer.Option(
            "--adaptive",
            help="Also tell accuracy and dims of reading longer prefixes only where the vote is not sure.",
        ),
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure every prefix on the images of SRC: searched in the index, or in SRC itself, each left out of its own answer."""
    from mrl_search.measure.copies import PROTOCOLS

    if instance is not None and instance not in PROTOCOLS:
        raise ConfigError(
            f"There is no protocol {instance!r} for changed copies.",
            f"Protocols: {', '.join(PROTOCOLS)}.",
        )
    from mrl_search.cli.render import (
        json_line,
        note,
        percent,
        progress_bars,
        show_skipped,
        show_table,
    )
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.engines import Index
    from mrl_search.images.sources import open_source
    from mrl_search.mapping import to_mapping
    from mrl_search.measure.evaluate import evaluate as measure
    from mrl_search.measure.parts import part_of

    opened = Index.open(index) if index else None
    if opened:
        opened.check_takes_images()
    encoder = load_encoder(model or (opened.manifest.model if opened else "bundled"))
    if opened:
        opened.check_encoder(encoder.fingerprint)
    source = open_source(src)
    with progress_bars() as progress:
        result = measure(
            part_of(source, split, encoder, progress),
            encoder,
            opened,
            k=k,
            instance=PROTOCOLS[instance] if instance else None,
            adaptive=adaptive,
            progress=progress,
        )
    show_skipped(result.skipped)
    if as_json:
        for p in result.prefixes:
            json_line({**to_mapping(p), "thumbnail_recall_at_1": result.thumbnail_recall_at_1})
        for t in result.adaptive:
            json_line(t.record())
        return
    shares = ("linear_top1", "knn_top1", "map_at_10", "instance_recall_at_1")
    rows = [
        (str(p.dims), *(percent(getattr(p, s), p.ci95.get(s)) for s in shares))
        for p in result.prefixes
    ]
    columns = ("dims", "linear head", f"{k}-NN", "mAP@10", "instance recall@1")
    show_table(columns if instance else columns[:4], [row if instance else row[:4] for row in rows])
    p = result.prefixes[0]
    note(
        f"n = {p.n:,}, with 95% intervals"
        + (f"; {p.n_instance:,} changed copies, {instance}" if instance else "")
    )
    if result.thumbnail_recall_at_1 is not None:
        note(
            f"for comparison, 8x8 thumbnails: instance recall@1 {result.thumbnail_recall_at_1:.1%}"
        )
    if result.adaptive:
        table = [
            (
                f"{t.give:.1%}",
                f"{t.point.accuracy:.1%}",
                f"{t.fixed[-1]:.1%}",
                f"{t.point.expected_dims:.1f}",
            )
            for t in result.adaptive
        ]
        show_table(
            ("may give up", f"{k}-NN, adaptive", f"{k}-NN, all dims", "expected dims"), table
        )
        note(
            f"thresholds learnt on one half of the images, measured on the other, n = {result.adaptive[0].point.n:,}"
        )
