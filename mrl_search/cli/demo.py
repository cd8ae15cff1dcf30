"""`mrl-search demo`: train, index, search and measure on drawn animals, offline."""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.config import Plan, TrainConfig
from mrl_search.recipes import load_recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.bench.latency import PlanLatency
    from mrl_search.index import Index
    from mrl_search.models.encoder import NetworkEncoder
    from mrl_search.results import BatchHits

__all__ = ["demo"]

SIDE = 128  # of a drawn picture, in pixels
PICTURES = 8  # of each individual in the index; one more is the query
TRAINED = (3, 4)  # individuals that train for each one in the index, and pictures of each
K, NEIGHBOURS, NEAR = 10, 20, 3  # hits timed; hits that vote; hits that should hold the individual
SHOWN = 7  # hits in a row of the sheet
COPIES = 720  # changed copies that are searched
LEVELS = {8: "species", 64: "breed", 1024: "individual"}  # what each row of the sheet looks for
TIMED, COARSE_TO_FINE = (8, 64, 128, 1024), "128:100,1024"
COLUMNS = {
    "species": "species",
    "breed": "breed",
    "individual": f"individual in {NEAR}",
    "copy": "copy first",
}
COMMANDS = (
    (
        "mrl-search build-index PICTURES --out indexes/mine",
        "Embed a folder with the bundled model.",
    ),
    ("mrl-search query PICTURE.jpg --sheet hits.png", "Find the most similar pictures."),
    ("mrl-search classify PICTURE.jpg", "Label a picture; folder names are the labels."),
    ("mrl-search evaluate PICTURES --instance", "Measure each prefix on your pictures."),
)


def demo(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for everything the demo makes.")
    ] = Path("demo"),
    individuals: Annotated[
        int, typer.Option("--individuals", min=2, help="Individuals of each breed in the index.")
    ] = 30,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures.")
    ] = None,
) -> None:
    """Run the whole job on drawn animals: train, index, search and measure; offline, 2 minutes."""
    from mrl_search.cli.render import note
    from mrl_search.data.drawn import write_individuals

    started = time.perf_counter()
    place = out / f"pictures-{individuals}"
    note("1  Drawing cats and dogs of 12 breeds: some to train on, others to search.")
    more, pictures = TRAINED
    write_individuals(place / "train", more * individuals, range(pictures), seed=0, size=SIDE)
    write_individuals(place / "corpus", individuals, range(PICTURES), seed=1, size=SIDE)
    last = range(PICTURES, PICTURES + 1)
    queries = write_individuals(place / "queries", individuals, last, seed=1, size=SIDE)

    from mrl_search.models.encoder import (
        load_encoder,
    )  # after drawing: other processes use the cores

    config = load_recipe("levels", [f"schedule.epochs={epochs}"] if epochs else [])
    run = out / f"run-{individuals}-{config.schedule.epochs}"
    note(
        "2  Training a Matryoshka network from random weights, on other animals than are searched."
    )
    _train(place / "train", run, config)
    encoder = load_encoder(str(run))
    note("3  Embedding the corpus and building an index for each prefix.")
    index = _index(place / "corpus", out, run, encoder)
    note(f"4  Searching with {len(queries)} new pictures, one of each animal in the index.")
    measured = _measure(index, encoder, place / "corpus", queries)
    about = _sheet(measured, index, out / "hits.png")
    _show(measured, index, encoder, about, out)
    note(f"\nhits: {out / 'hits.png'}\npage: {out / 'summary.html'}")
    note(f"done in {time.perf_counter() - started:.0f} s; now with your own pictures:")
    for command, what in COMMANDS:
        note(f"  {command:<52}{what}")


def _train(pictures: Path, run: Path, config: TrainConfig) -> None:
    from mrl_search.cli.render import note, progress_bars
    from mrl_search.data.pixels import load_pixels
    from mrl_search.data.sources import open_source
    from mrl_search.training import EpochRecord, StepRecord, pixel_side, train

    if (run / "model.json").exists():
        return
    source = open_source(str(pictures))
    with progress_bars() as progress:
        pixels = load_pixels(
            source,
            pixel_side(config),
            progress=lambda done, total: progress("decoding", done, total),
        )
        for record in train(pixels, config, run, source.name):
            if isinstance(record, StepRecord):
                done, total = (record.epoch - 1) * record.steps + record.step, record.steps
                progress("training", done, total * config.schedule.epochs)
            elif isinstance(record, EpochRecord):
                last = record
    note(f"   {last.images_per_second:.0f} pictures a second in the last of {last.epochs} epochs")


def _index(pictures: Path, out: Path, run: Path, encoder: "NetworkEncoder") -> "Index":
    from mrl_search.cli.render import progress_bars
    from mrl_search.index import Index
    from mrl_search.workflow import build_index

    folder = out / f"index-{run.name}-{encoder.fingerprint[:8]}"
    if folder.exists():
        return Index.open(folder)
    with progress_bars() as progress:
        return build_index(str(pictures), encoder, folder, progress=progress)


def _names(paths: "Sequence[str] | NDArray[np.object_]") -> "dict[str, NDArray[np.object_]]":
    """Species, breed and individual of each picture, as its path names them."""
    import numpy as np

    from mrl_search.data.drawn import INDIVIDUAL

    parts = [Path(path).parts[-3:] for path in paths]
    names = {
        "species": [species for species, _, _ in parts],
        "breed": [breed for _, breed, _ in parts],
        "individual": [re.findall(INDIVIDUAL, str(path))[0] for path in paths],
    }
    return {level: np.array(values, dtype=object) for level, values in names.items()}


@dataclass(frozen=True, eq=False)
class _Measured:
    """What the demo measured."""

    queries: list[str]
    right: "dict[str, dict[int, NDArray[np.bool_]]]"
    hits: "dict[int, BatchHits]"
    times: "list[PlanLatency]"
    found: dict[
        str, float
    ]  # share of queries that find the individual among the first three, by plan


def _measure(
    index: "Index", encoder: "NetworkEncoder", corpus: Path, queries: "Sequence[Path]"
) -> _Measured:
    import numpy as np

    from mrl_search.bench.latency import latency_per_plan
    from mrl_search.cli.render import progress_bars
    from mrl_search.data.copies import STANDARD
    from mrl_search.data.sources import open_source
    from mrl_search.search import search, vote
    from mrl_search.workflow import changed_copies, embed_queries

    asked, known = _names(list(map(str, queries))), _names(index.embeddings.paths)
    rows = embed_queries(index, encoder, queries).rows
    source = open_source(str(corpus))
    step = max(1, len(source.paths) // COPIES)
    with progress_bars() as progress:
        copies, _ = changed_copies(source, encoder, set(source.paths[::step]), STANDARD, progress)
    copied = index.to_space(copies.rows)

    def near(hits: "BatchHits") -> "NDArray[np.bool_]":
        same = known["individual"][hits.ids[:, :NEAR]] == asked["individual"][:, None]
        return np.asarray(same.any(axis=1), dtype=np.bool_)

    right: dict[str, dict[int, NDArray[np.bool_]]] = {column: {} for column in COLUMNS}
    hits = {d: search(index, rows, Plan.single(d, NEIGHBOURS)) for d in index.dims}
    for d, found in hits.items():
        for level in ("species", "breed"):
            votes = np.array([v.label for v in vote(found, known[level])], dtype=object)
            right[level][d] = votes == asked[level]
        right["individual"][d] = near(found)
        first = search(index, copied, Plan.single(d, 1)).ids[:, 0]
        right["copy"][d] = index.embeddings.hashes[first] == copies.originals
    plans = {f"{d} dims": Plan.single(d, K) for d in TIMED}
    plans |= {"coarse to fine": Plan.parse(COARSE_TO_FINE, K)}
    times = latency_per_plan(index, rows, plans)
    shares = {name: float(near(search(index, rows, plan)).mean()) for name, plan in plans.items()}
    return _Measured(list(map(str, queries)), right, hits, times, shares)


def _sheet(measured: _Measured, index: "Index", out: Path) -> str:
    """Write the contact sheet of one query, and return what it shows."""
    import numpy as np

    from mrl_search.sheet import Row, Tile, save_sheet

    asked, known = _names(measured.queries), _names(index.embeddings.paths)
    rows = {d: level for d, level in LEVELS.items() if d in measured.hits}
    right = {
        d: known[level][measured.hits[d].ids[:, :SHOWN]] == asked[level][:, None]
        for d, level in rows.items()
    }
    perfect = np.all([r.all(axis=1) for r in right.values()], axis=0)
    total = np.sum([r.sum(axis=1) for r in right.values()], axis=0)
    first = next(iter(rows))
    breeds, animals = (
        [len(set(known[level][ids[:SHOWN]])) for ids in measured.hits[first].ids]
        for level in ("breed", "individual")
    )
    chosen = max(range(len(total)), key=lambda i: (total[i], breeds[i], animals[i]))
    query = measured.queries[chosen]
    sheet = []
    for d, level in rows.items():
        hits = measured.hits[d][chosen]
        tiles = [Tile(query, f"query: {asked[level][chosen]}", "query")]
        for hit, good in zip(list(hits)[:SHOWN], right[d][chosen], strict=True):
            caption = f"{hit.rank}  {hit.score:.2f}  {known[level][hit.id]}"
            tiles.append(
                Tile(index.embeddings.paths[hit.id], caption, "right" if good else "wrong")
            )
        sheet.append(Row(f"{d} of {index.dim} dims: the same {level}?", tiles))
    save_sheet(sheet, out, "One query, three prefixes of its vector", thumb=128)
    return (
        f"One query and its {SHOWN} nearest pictures. All hits are right in all three rows for "
        f"{perfect.sum()} of {len(perfect)} queries. This one has the most right hits; among equals "
        f"it has the most breeds, then individuals, at {first} dims."
    )


def _show(
    measured: _Measured, index: "Index", encoder: "NetworkEncoder", about: str, out: Path
) -> None:
    """Print the tables, and write the summary page with them, the sheet and the plots."""
    import platform

    from mrl_search.bench.page import Figure, Figures, Page, Table, write_page
    from mrl_search.bench.plots import AccuracyPoint, LatencyPoint, accuracy_plot, latency_plot
    from mrl_search.cli.render import percent, show_tables
    from mrl_search.metrics import wilson_interval

    points, cells = [], []
    for d in index.dims:
        row = [str(d)]
        for name, title in COLUMNS.items():
            right = measured.right[name][d]
            share, bounds = float(right.mean()), wilson_interval(int(right.sum()), len(right))
            points.append(AccuracyPoint(d, title, share, *bounds))
            row.append(percent(share, bounds))
        cells.append(tuple(row))
    n, copies = len(measured.queries), len(measured.right["copy"][index.dim])
    quality = Table(
        "What each prefix tells",
        ("dims", *COLUMNS.values()),
        tuple(cells),
        f"n = {n} queries, one of each individual, and {copies} changed copies; 95% intervals "
        f"(Wilson). Species and breed: a vote of the {NEIGHBOURS} nearest. Individual: another "
        f"picture of it is among the first {NEAR} of {len(index)}. Copy: a copy that was cut, "
        "mirrored and recoloured finds its original first. The network was trained on pictures of "
        "the same breeds, but of other individuals.",
    )
    full = next(t for t in measured.times if t.plan == str(Plan.single(index.dim, K)))
    times = Table(
        "Coarse to fine",
        ("search", "p50 ms", "speed-up", f"recall@{K}", COLUMNS["individual"]),
        tuple(
            (t.name, f"{t.p50_ms:.2f}", f"{full.p50_ms / t.p50_ms:.1f}×", percent(t.recall),
             percent(measured.found[t.name]))
            for t in measured.times
        ),
        _verdict(measured, full),
    )  # fmt: skip
    show_tables((quality, times))
    accuracy_plot(points, out / "accuracy.png")
    latency_plot(
        [LatencyPoint(t.name, t.p50_ms, t.p99_ms) for t in measured.times], out / "latency.png"
    )
    facts = {
        "index": f"{len(index)} pictures of {n} individuals",
        "model": f"{encoder.name} {encoder.fingerprint[:12]}",
        "machine": f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        **index.manifest.versions,
        "made": index.manifest.created,
    }
    tell = [
        f"the first {d} tell the {level} of {measured.right[level][d].mean():.0%}"
        for d, level in LEVELS.items()
        if d in index.dims
    ]
    intro = (
        f"A picture is a vector of {index.dim} numbers, and each beginning of it is a vector, too. "
        f"Of {n} new pictures, {', '.join(tell)}.",
        "A small network was trained for this on drawn animals, from random weights. "
        "The index and the queries show other individuals of the same breeds.",
    )
    page = Page(
        "Matryoshka search, coarse to fine",
        intro,
        [
            Figures((Figure("One query, three prefixes", out / "hits.png", about),)),
            quality,
            times,
            Figures((
                Figure("Accuracy", out / "accuracy.png", "Shares of the first table, by prefix."),
                Figure("Latency", out / "latency.png", "Single queries on one thread."),
            )),
        ],
        COMMANDS,
        facts,
    )  # fmt: skip
    write_page(out / "summary.html", page)


def _verdict(measured: _Measured, full: "PlanLatency") -> str:
    """What coarse to fine gained or did not, and how it was timed."""
    fine = next(t for t in measured.times if t.name == "coarse to fine")
    ratio = full.p50_ms / fine.p50_ms
    if ratio > 1.1:
        gain = f"That is {ratio:.1f} times as fast as all dims for every picture"
    else:
        gain = "In an index this small that is no faster than all dims for every picture"
    return (
        f"Coarse to fine is the plan {fine.plan}: 128 dims choose 100 candidates, all dims rank "
        f"them. {gain}. Medians of {fine.queries} single queries on one thread, without embedding; "
        "recall of what all dims find."
    )
