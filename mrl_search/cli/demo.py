"""`mrl-search demo`: train, index, search and measure on drawn animals, offline."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.config import Plan
from mrl_search.recipes import load_recipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.bench.latency import PlanLatency
    from mrl_search.bench.page import Block
    from mrl_search.index import Index
    from mrl_search.models.encoder import NetworkEncoder
    from mrl_search.results import BatchHits

__all__ = ["demo"]

SHOWN = 6  # hits in a row of the sheet: as many as the index has pictures of each individual
NEIGHBOURS = 20  # that vote for species and breed
NEAR = 3  # hits among which another picture of the individual counts as found
COPIES = 960  # changed copies that are searched
LEVELS = {"species": 8, "breed": 64, "individual": 1024}  # a level and the prefix that should tell it
COMMANDS = (
    ("mrl-search build-index PICTURES --out indexes/mine", "Embed a folder with the bundled model."),
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
    ] = 40,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training pictures.")
    ] = None,
) -> None:
    """Run the whole job on drawn animals: train, index, search, measure; offline, under 2 minutes."""
    from mrl_search.cli.render import note
    from mrl_search.data.drawn import write_individuals

    started = time.perf_counter()
    place = out / f"pictures-{individuals}"
    note("1  Drawing cats and dogs of 12 breeds: some to train on, others to search.")
    write_individuals(place / "train", 3 * individuals // 2, range(5), seed=0)
    write_individuals(place / "corpus", individuals, range(SHOWN), seed=1)
    queries = write_individuals(place / "queries", individuals, range(SHOWN, SHOWN + 1), seed=1)

    from mrl_search.models.encoder import load_encoder  # after drawing: other processes use the cores

    config = load_recipe("drawn", [f"schedule.epochs={epochs}"] if epochs else [])
    run = out / f"run-{individuals}-{config.schedule.epochs}"
    note("2  Training a Matryoshka network from random weights, on other animals than are searched.")
    _train(place / "train", run, config)
    encoder = load_encoder(str(run))
    note("3  Embedding the corpus and building an index for each prefix.")
    index = _index(place / "corpus", out, run, encoder)
    note(f"4  Searching with {len(queries)} new pictures, one of each animal in the index.")
    measured = _measure(index, encoder, place / "corpus", queries)
    sheet, text = _sheet(measured, index, out / "hits.png")
    _show(measured, index, encoder, Figure("One query, three prefixes", sheet, text), out)
    note(f"\nhits: {sheet}\npage: {out / 'summary.html'}")
    note(f"done in {time.perf_counter() - started:.0f} s; now with your own pictures:")
    for command, what in COMMANDS:
        note(f"  {command:<52}{what}")


def _train(pictures: Path, run: Path, config: TrainConfig) -> None:
    from mrl_search.cli.render import progress_bars
    from mrl_search.data.pixels import load_pixels
    from mrl_search.data.sources import open_source
    from mrl_search.training import EpochRecord, StepRecord, pixel_side, train

    if (run / "model.json").exists():
        return
    source = open_source(str(pictures))
    with progress_bars() as progress:
        pixels = load_pixels(
            source, pixel_side(config), progress=lambda done, total: progress("decoding", done, total)
        )
        for record in train(pixels, config, run, source.name):
            if isinstance(record, StepRecord):
                done, total = (record.epoch - 1) * record.steps + record.step, record.steps
                progress("training", done, total * config.schedule.epochs)
            elif isinstance(record, EpochRecord):
                last = record
    right = last.accuracy
    note(
        f"   Breeds of {last.n_validation} training pictures set aside: "
        + ", ".join(f"{right[d]:.0%} right by {d} dims" for d in (8, 64, 1024) if d in right)
    )


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
        "individual": [re.search(INDIVIDUAL, str(path))[1] for path in paths],
    }
    return {level: np.array(values, dtype=object) for level, values in names.items()}


@dataclass(frozen=True, eq=False)
class _Measured:
    """What the demo measured: shares by column and prefix, the hits of the queries by prefix, and times by plan."""

    queries: list[str]
    right: "dict[str, dict[int, NDArray[np.bool_]]]"
    hits: "dict[int, BatchHits]"
    times: "list[PlanLatency]"
    found: dict[str, float]  # share of queries that find the individual among the first three, by plan


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
        return (known["individual"][hits.ids[:, :NEAR]] == asked["individual"][:, None]).any(axis=1)

    right: dict[str, dict[int, NDArray[np.bool_]]] = {column: {} for column in COLUMNS}
    hits = {d: search(index, rows, Plan.single(d, NEIGHBOURS)) for d in index.dims}
    for d, found in hits.items():
        for level in ("species", "breed"):
            votes = np.array([v.label for v in vote(found, known[level])], dtype=object)
            right[level][d] = votes == asked[level]
        right["individual"][d] = near(found)
        first = search(index, copied, Plan.single(d, 1)).ids[:, 0]
        right["copy"][d] = index.embeddings.hashes[first] == copies.originals
    plans = {f"{d} dims": Plan.single(d, K) for d in LEVELS.values()}
    plans |= {"coarse to fine": Plan.parse(COARSE_TO_FINE, K)}
    times = latency_per_plan(index, rows, plans)
    found = {name: float(near(search(index, rows, plan)).mean()) for name, plan in plans.items()}
    return _Measured(list(map(str, queries)), right, hits, times, found)
