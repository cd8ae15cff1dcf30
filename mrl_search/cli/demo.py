"""`mrl-search demo`: the whole job on drawn animals, offline, with the functions that the other commands call."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.search.plan import Plan
from mrl_search.training.recipes import load_recipe

if TYPE_CHECKING:
    from mrl_search.encoders.base import Encoder
    from mrl_search.engines import Index
    from mrl_search.measure.evaluate import Evaluation
    from mrl_search.measure.timing import PlanLatency

__all__ = ["demo"]

K = 6


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for everything the demo makes.")
    ] = Path("demo"),
    pictures: Annotated[
        int,
        typer.Option(
            "--pictures", min=20, help="Drawn pictures of each species, to train on and to search."
        ),
    ] = 600,
    epochs: Annotated[
        int, typer.Option("--epochs", min=1, help="Passes over the training pictures.")
    ] = 14,
) -> None:
    """Run the whole job on drawn animals: train, embed, index, search, classify, measure; offline, in about a minute."""
    from mrl_search.cli.render import note, progress_bars, show_table
    from mrl_search.encoders.registry import load_encoder
    from mrl_search.images.drawn import write_corpus
    from mrl_search.index import embed_queries, search_images
    from mrl_search.measure.copies import STANDARD
    from mrl_search.measure.evaluate import evaluate
    from mrl_search.measure.timing import latency_per_plan
    from mrl_search.report.sheet import Row, Tile, save_sheet
    from mrl_search.search import vote

    started = time.perf_counter()
    note(
        f"1  drawing {4 * pictures} animals: half to train on, half to search, and two to search with"
    )
    for name, seed in (("train", 0), ("corpus", 1)):
        write_corpus(out / f"pictures-{pictures}" / name, pictures, seed)
    query = write_corpus(out / f"pictures-{pictures}" / "queries", 1, 2)[0]
    run = out / f"run-{pictures}-{epochs}"
    note(f"2  training a small Matryoshka network: {run}")
    _train(out / f"pictures-{pictures}" / "train", run, epochs)

    encoder = load_encoder(str(run))
    note("3  embedding the corpus and building an index for every prefix")
    index = _index(out, run, encoder, pictures)

    note(f"4  searching with {query}, a picture the index does not hold")
    plans = {
        "8 dims": Plan.single(8, K),
        "64 dims": Plan.single(64, K),
        "adaptive": Plan.adaptive(8, 100, index.dim, K),
    }
    labels, paths = index.embeddings.labels, index.embeddings.paths
    tiles = []
    for name, plan in plans.items():
        hits = search_images(index, encoder, [query], plan).hits[0]
        show_table(
            ("rank", "score", "label", "path"),
            [(str(h.rank), f"{h.score:.3f}", labels[h.id], paths[h.id]) for h in hits],
            name,
        )
        marks = ["right" if labels[h.id] == query.parent.name else "wrong" for h in hits]
        found = [
            Tile(paths[h.id], f"{h.rank}  {h.score:.2f}  {labels[h.id]}", mark)
            for h, mark in zip(hits, marks, strict=True)
        ]
        tiles.append(Row(f"{name}, plan {plan}", [Tile(str(query), "query", "query"), *found]))
    sheet = out / "hits.png"
    save_sheet(tiles, sheet, "One query, three plans")
    ballot = vote(search_images(index, encoder, [query], Plan.single(index.dim, 20)).hits, labels)[
        0
    ]
    note(
        f"   classified by its 20 nearest neighbours as a {ballot.label}, confidence {ballot.confidence:.0%}"
    )

    note(
        "5  measuring every prefix on the corpus, each picture left out of its own answer; no picture of it was trained on"
    )
    with progress_bars() as progress:
        result = evaluate(
            str(out / f"pictures-{pictures}" / "corpus"),
            encoder,
            index,
            instance=STANDARD,
            progress=progress,
        )
    every = {f"{d} dims": Plan.single(d, 10) for d in index.dims} | {
        "adaptive": Plan.adaptive(8, 100, index.dim, 10)
    }
    others = sorted(
        (out / f"pictures-{pictures}" / "train").rglob("*.jpg")
    )  # which the index does not hold
    times = latency_per_plan(
        index,
        embed_queries(index, encoder, others[:: max(1, len(others) // 100)][:100]).rows,
        every,
    )
    _show(out, sheet, result, times, index, encoder)
    note(
        f"\nhits: {sheet}\npage: {out / 'summary.html'}\ndone in {time.perf_counter() - started:.0f} s; now with your own pictures:"
    )
    for command, what in COMMANDS:
        note(f"  {command:<60}{what}")


COMMANDS = (
    (
        "mrl-search build-index PICTURES --out indexes/mine",
        "embed a folder of pictures with the bundled model",
    ),
    ("mrl-search query PICTURE.jpg --sheet hits.png", "find what is most like it"),
    ("mrl-search classify PICTURE.jpg", "where the folders' names are labels"),
    ("mrl-search evaluate PICTURES --instance", "how good is each prefix on them?"),
)


def _train(pictures: Path, run: Path, epochs: int) -> None:
    from mrl_search.cli.train import run_training

    if not (run / "model.json").exists():
        run_training(str(pictures), load_recipe("drawn", [f"schedule.epochs={epochs}"]), run)


def _index(out: Path, run: Path, encoder: "Encoder", pictures: int) -> "Index":
    from mrl_search.cli.render import progress_bars
    from mrl_search.engines import Index
    from mrl_search.index import build_index

    folder = out / f"index-{run.name}-{encoder.fingerprint[:8]}"
    if folder.exists():
        return Index.open(folder)
    with progress_bars() as progress:
        return build_index(
            str(out / f"pictures-{pictures}" / "corpus"), encoder, folder, progress=progress
        )


def _show(
    out: Path,
    sheet: Path,
    result: "Evaluation",
    times: "list[PlanLatency]",
    index: "Index",
    encoder: "Encoder",
) -> None:
    """The table of accuracy and latency in the terminal, and the summary page with its plots."""
    import platform

    from mrl_search.cli.render import percent, show_table
    from mrl_search.report.page import Block, Figure, Figures, Page, Table, write_page
    from mrl_search.report.plots import AccuracyPoint, LatencyPoint, accuracy_plot, latency_plot

    series = {
        "linear head": "linear_top1",
        "20-NN": "knn_top1",
        "instance recall@1": "instance_recall_at_1",
    }
    by_name = {t.name: t for t in times}
    columns = ("dims", *series, "p50 ms", "p99 ms", "recall@10 of exact")
    rows = []
    for p in result.prefixes:
        t = by_name[f"{p.dims} dims"]
        shares = (percent(getattr(p, s), p.ci95.get(s)) for s in series.values())
        rows.append((str(p.dims), *shares, f"{t.p50_ms:.2f}", f"{t.p99_ms:.2f}", f"{t.recall:.1%}"))
    t = by_name["adaptive"]
    rows.append((f"{t.plan}", "", "", "", f"{t.p50_ms:.2f}", f"{t.p99_ms:.2f}", f"{t.recall:.1%}"))
    show_table(columns, rows, "Accuracy and latency per prefix")
    points = [
        AccuracyPoint(p.dims, name, getattr(p, s), *p.ci95[s])
        for p in result.prefixes
        for name, s in series.items()
        if s in p.ci95
    ]
    accuracy_plot(points, out / "accuracy.png")
    latency_plot([LatencyPoint(t.name, t.p50_ms, t.p99_ms) for t in times], out / "latency.png")
    n = result.prefixes[0].n
    table_note = (
        f"n = {n}, shares with 95% Wilson intervals; single queries on one thread, {t.queries} queries, without embedding. "
        f"Instance recall@1 of comparing 8x8 thumbnails: {result.thumbnail_recall_at_1:.1%}."
    )
    facts = {
        "pictures": f"{len(index)} drawn, none of them trained on", "model": f"{encoder.name} {encoder.fingerprint[:12]}",
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}", **index.manifest.versions,
        "made": index.manifest.created,
    }  # fmt: skip
    accuracy = Figure(
        "Accuracy", out / "accuracy.png", "Top-1 accuracy and instance recall by prefix length."
    )
    latency = Figure(
        "Latency", out / "latency.png", "Median and 99th percentile of single queries."
    )
    hits = Figure(
        "Hits",
        sheet,
        "One query and its nearest pictures at 8 dims, at 64 dims, and coarse to fine.",
    )
    table = Table("Accuracy and latency per prefix", columns, tuple(rows), table_note)
    intro = (
        "A small network was trained on drawn cats and dogs so that every prefix of its 1024 numbers is an embedding too. "
        "It had not seen these pictures before."
    )
    blocks: list[Block] = [Figures((hits,)), table, Figures((accuracy, latency))]
    write_page(out / "summary.html", Page("mrl-search: the demo", [intro], blocks, COMMANDS, facts))
