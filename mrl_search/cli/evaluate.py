"""`mrl-search evaluate`: accuracy of every prefix, by linear heads, by neighbours, and as search for changed copies."""

from typing import Annotated

import typer

from mrl_search.cli.options import IndexFolder, Json, Model, Src

__all__ = ["evaluate"]


def evaluate(
    src: Src,
    model: Model = "bundled",
    index: IndexFolder = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours that vote.")] = 20,
    instance: Annotated[bool, typer.Option("--instance", help="Also search with changed copies: is the original found first?")] = False,
    split: Annotated[
        str | None, typer.Option("--split", metavar="PART", help="Only the train or validation part, as the model's training divided SRC.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure every prefix on the images of SRC: searched in the index, or in SRC itself, each left out of its own answer."""
    from mrl_search.cli.render import json_line, note, percent, progress_bars, show_table
    from mrl_search.config import to_mapping
    from mrl_search.data.copies import STANDARD
    from mrl_search.data.sources import open_source
    from mrl_search.index import Index
    from mrl_search.models.encoder import load_encoder
    from mrl_search.workflow import evaluate as measure
    from mrl_search.workflow import part_of

    opened = Index.open(index) if index else None
    if opened:
        opened.check_takes_images()
    encoder = load_encoder(opened.manifest.model if opened and model == "bundled" else model)
    if opened:
        opened.check_encoder(encoder.fingerprint)
    source = open_source(src)
    with progress_bars() as progress:
        result = measure(
            part_of(source, split, encoder, progress), encoder, opened, k=k, instance=STANDARD if instance else None, progress=progress
        )
    if as_json:
        for p in result.prefixes:
            json_line({**to_mapping(p), "thumbnail_recall_at_1": result.thumbnail_recall_at_1})
        return
    shares = ("linear_top1", "knn_top1", "instance_recall_at_1")
    rows = [(str(p.dims), *(percent(getattr(p, s), p.ci95.get(s)) for s in shares)) for p in result.prefixes]
    columns = ("dims", "linear head", f"{k}-NN", "instance recall@1")
    show_table(columns if instance else columns[:3], [row if instance else row[:3] for row in rows])
    p = result.prefixes[0]
    note(f"n = {p.n:,}, top-1 accuracy with 95% Wilson interval" + (f"; {p.n_instance:,} changed copies" if instance else ""))
    if result.thumbnail_recall_at_1 is not None:
        note(f"for comparison, 8x8 thumbnails: instance recall@1 {result.thumbnail_recall_at_1:.1%}")
