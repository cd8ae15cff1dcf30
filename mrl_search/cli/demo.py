"""`mrl-search demo`: train, index, search and measure on drawn animals, offline."""

import re
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli.options import option
from mrl_search.cli.render import note, percent, progress_bars, show_tables
from mrl_search.cli.serve import serve
from mrl_search.search.plan import Plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mrl_search.encoders.base import Encoder
    from mrl_search.index import Index
    from mrl_search.search.results import BatchHits
    from mrl_search.training.config import Recipe, TrainConfig

__all__ = ["demo"]

OUT = Path("demo")
INDIVIDUALS_HELP = "Individuals of each breed in the index."
SIDE = 128  # of a drawn picture, in pixels
PICTURES = 8  # of each individual in the index; one more is the query
TRAINED = (3, 4)  # individuals that train for each one in the index, and pictures of each
K, VOTERS, NEAR = 10, 20, 3  # hits timed; hits that vote; hits that should hold the individual
SHOWN = 7  # hits in a row of the sheet
COPIES = 720  # changed copies that are searched
LEVELS = {8: "species", 64: "breed", 1024: "individual"}  # what each row of the sheet looks for
TIMED, FINE = (8, 64, 128, 1024), Plan.parse("128:100,1024")
COLUMNS = {
    "species": "species", "breed": "breed", "individual": f"individual in {NEAR}",
    "copy": "copy first",
}  # fmt: skip
COMMANDS = (
    (
        "mrl-search build-index PICTURES --out indexes/mine",
        "Embed a folder of pictures, and index it.",
    ),
    ("mrl-search query PICTURE.jpg --sheet hits.png", "Find the most similar pictures."),
    ("mrl-search classify PICTURE.jpg", "Label a picture; folder names are the labels."),
    ("mrl-search evaluate PICTURES --instance", "Measure each prefix on your pictures."),
)


def demo(
    out: Annotated[Path, option("--out DIR", "Folder for everything the demo makes.")] = OUT,
    individuals: Annotated[int, option("--individuals", INDIVIDUALS_HELP, min=2)] = 30,
    epochs: Annotated[
        int | None, option("--epochs", "Passes over the training pictures.", min=1)
    ] = None,
    serve_it: Annotated[bool, option("--serve", "Then show its index in the browser.")] = False,
) -> None:
    """Show all of it on drawn animals, offline, in a few minutes."""
    from mrl_search.images.drawn import write_individuals
    from mrl_search.training.recipes import load_recipe

    started = time.perf_counter()
    place = out / f"pictures-{individuals}"
    note("1  Drawing cats and dogs of 12 breeds: some to train on, others to search.")
    more, pictures = TRAINED
    write_individuals(place / "train", more * individuals, range(pictures), seed=0, size=SIDE)
    write_individuals(place / "corpus", individuals, range(PICTURES), seed=1, size=SIDE)
    last = range(PICTURES, PICTURES + 1)
    queries = write_individuals(place / "queries", individuals, last, seed=1, size=SIDE)

    recipe = load_recipe("levels", [f"schedule.epochs={epochs}"] if epochs else [])
    run = out / f"run-{individuals}-{recipe.steps[0].schedule.epochs}"
    note("2  Training a Matryoshka network from random weights, on other animals than it searches.")
    if not (run / "model.json").exists():
        _train(place / "train", run, recipe)

    from mrl_search.encoders.registry import load_encoder
    from mrl_search.index import Index

    encoder = load_encoder(str(run))
    note("3  Embedding the corpus and indexing every prefix.")
    folder = out / f"index-{run.name}-{encoder.fingerprint[:8]}"
    if folder.exists():
        index = Index.open(folder, encoder)
    else:
        with progress_bars() as progress:
            index = Index.build(place / "corpus", folder, model=encoder, progress=progress)
    note(f"4  Searching with {len(queries)} new pictures, one of each animal in the index.")
    measured = _measure(index, encoder, place / "corpus", list(map(str, queries)))
    about = _sheet(measured, index, out / "hits.png")
    _show(measured, index, encoder, about, out)
    note(f"\nhits: {out / 'hits.png'}\npage: {out / 'summary.html'}")
    note(f"done in {time.perf_counter() - started:.0f} s; now with your own pictures:")
    for command, what in COMMANDS:
        note(f"  {command:<52}{what}")
    note("See the index of the demo in the browser, by `mrl-search demo --serve` or:")
    note(f"  mrl-search serve {shlex.quote(str(folder))}")
    if serve_it:
        serve([folder])


def _train(pictures: Path, run: Path, recipe: "Recipe") -> None:
    """Train with one progress bar over all epochs, and note the rate of the last one."""
    from mrl_search.training.records import EpochRecord, Record, StepRecord
    from mrl_search.training.steps import train

    with progress_bars() as progress:

        def show(config: "TrainConfig", record: Record) -> None:
            if isinstance(record, EpochRecord) and not sys.stderr.isatty():
                note(f"   epoch {record.epoch}/{record.epochs}  {record.seconds:.0f} s")
            if isinstance(record, StepRecord) and record.epoch:
                done = (record.epoch - 1) * record.total + record.done
                progress("training", done, record.total * config.schedule.epochs)
            elif isinstance(record, StepRecord):
                progress(record.what, record.done, record.total)
            elif isinstance(record, EpochRecord) and record.epoch == record.epochs:
                rate = record.images_per_second
                note(f"   {rate:.0f} pictures a second in the last of {record.epochs} epochs")

        train(pictures, recipe, run, on_record=show)


def _names(paths: "Sequence[str] | NDArray[np.object_]") -> "dict[str, NDArray[np.object_]]":
    """Species, breed and individual of each picture, as its path names them."""
    import numpy as np

    from mrl_search.images.drawn import INDIVIDUAL

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

    queries: list[str]  # paths of the query pictures
    right: "dict[str, dict[int, NDArray[np.bool_]]]"  # by column and prefix, which queries are
    hits: "dict[int, BatchHits]"  # by prefix
    ms: "dict[str, NDArray[np.float64]]"  # by search, milliseconds of each query
    recall: dict[str, float]  # by search, of what all dims find
    found: dict[str, float]  # by search, queries with their individual among the first hits


def _measure(index: "Index", encoder: "Encoder", corpus: Path, queries: list[str]) -> _Measured:
    import numpy as np

    from mrl_search.images.sources import open_source
    from mrl_search.measure.accuracy import copies_found
    from mrl_search.measure.copies import STANDARD, changed_copies
    from mrl_search.metrics import recall_at_k
    from mrl_search.search.classify import Ballot, vote
    from mrl_search.search.run import search
    from mrl_search.search.timing import Pace, median_ms, threads, time_round

    truth, known = _names(queries), _names(index.corpus.collection.paths)
    rows = index.embed(queries).rows
    source = open_source(str(corpus))
    step = max(1, len(source.paths) // COPIES)
    with progress_bars() as progress:
        copies, _ = changed_copies(source, encoder, set(source.paths[::step]), STANDARD, progress)

    def near(hits: "BatchHits") -> "NDArray[np.bool_]":
        same = known["individual"][hits.rows[:, :NEAR]] == truth["individual"][:, None]
        return np.asarray(same.any(axis=1), dtype=np.bool_)

    right: dict[str, dict[int, NDArray[np.bool_]]] = {column: {} for column in COLUMNS}
    hits = {d: search(index.corpus, rows, Plan.single(d), VOTERS) for d in index.dims}
    for d, found in hits.items():
        for level in ("species", "breed"):
            votes = vote(found, known[level], Ballot(VOTERS))
            right[level][d] = np.array([v.label for v in votes], dtype=object) == truth[level]
        right["individual"][d] = near(found)
        right["copy"][d] = copies_found(index.corpus, copies, d)
    plans = {f"{d} dims": Plan.single(d) for d in TIMED} | {"coarse to fine": FINE}

    def searcher(plan: Plan) -> "Callable[[NDArray[np.float32]], BatchHits]":
        return lambda x: search(index.corpus, x, plan, K)

    answers = {name: searcher(plan) for name, plan in plans.items()}
    with threads(1):
        paces = dict.fromkeys(plans, Pace(len(rows)))
        rounds = [time_round(answers, rows, paces) for _ in range(3)]
    ms = {name: median_ms([r[name] for r in rounds]) for name in plans}
    best = {name: answer(rows) for name, answer in answers.items()}
    exact = best[f"{index.dims[-1]} dims"].rows
    recall = {name: recall_at_k(answer.rows, exact) for name, answer in best.items()}
    shares = {name: float(near(answer).mean()) for name, answer in best.items()}
    return _Measured(queries, right, hits, ms, recall, shares)


def _sheet(measured: _Measured, index: "Index", out: Path) -> str:
    """Write the contact sheet of one query, and return what it shows."""
    import numpy as np

    from mrl_search.report.sheet import Row, Tile, save_sheet

    truth, known = _names(measured.queries), _names(index.corpus.collection.paths)
    rows = {d: level for d, level in LEVELS.items() if d in measured.hits}
    right = {
        d: known[level][measured.hits[d].rows[:, :SHOWN]] == truth[level][:, None]
        for d, level in rows.items()
    }
    perfect = np.all([r.all(axis=1) for r in right.values()], axis=0)
    total = np.sum([r.sum(axis=1) for r in right.values()], axis=0)
    first = next(iter(rows))
    breeds, animals = (
        [len(set(known[level][ids[:SHOWN]])) for ids in measured.hits[first].rows]
        for level in ("breed", "individual")
    )
    chosen = max(range(len(total)), key=lambda i: (total[i], breeds[i], animals[i]))
    query = measured.queries[chosen]
    sheet = []
    for d, level in rows.items():
        hits = measured.hits[d][chosen]
        tiles = [Tile(query, f"query: {truth[level][chosen]}", "query")]
        for hit, good in zip(list(hits)[:SHOWN], right[d][chosen], strict=True):
            caption = f"{hit.rank}  {hit.score:.2f}  {known[level][hit.id]}"
            tiles.append(Tile(hit.path or "", caption, "right" if good else "wrong"))
        sheet.append(Row(f"{d} of {index.dims[-1]} dims: the same {level}?", tiles))
    save_sheet(sheet, out, "One query, three prefixes of its vector", thumb=128)
    return (
        f"One query and its {SHOWN} nearest pictures. All hits are right in all three rows for "
        f"{perfect.sum()} of {len(perfect)} queries. This one has the most right hits; among "
        f"equals it has the most breeds, then individuals, at {first} dims."
    )


def _show(measured: _Measured, index: "Index", encoder: "Encoder", about: str, out: Path) -> None:
    """Print the tables, and write the summary page with them, the sheet and the plots."""
    import platform

    import numpy as np

    from mrl_search.metrics import Share
    from mrl_search.report.page import Figure, Figures, Page, Table, write_page
    from mrl_search.report.plots import accuracy_plot, latency_plot

    lines = {
        title: {d: Share.of(measured.right[name][d]) for d in index.dims}
        for name, title in COLUMNS.items()
    }
    cells = [
        (str(d), *(percent(s[d].value, (s[d].low, s[d].high)) for s in lines.values()))
        for d in index.dims
    ]
    n, copies = len(measured.queries), len(measured.right["copy"][index.dims[-1]])
    quality = Table(
        "What each prefix tells",
        ("dims", *COLUMNS.values()),
        tuple(cells),
        f"n = {n} queries, one of each individual, and {copies} changed copies; 95% intervals "
        f"(Wilson). Species and breed: a vote of the {VOTERS} nearest. Individual: another "
        f"picture of it is among the first {NEAR} of {len(index)}. Copy: a copy that was cut, "
        "mirrored and recoloured finds its original first. The network was trained on pictures of "
        "the same breeds, but of other individuals.",
    )
    p50 = {name: float(np.median(ms)) for name, ms in measured.ms.items()}
    full = p50[f"{index.dims[-1]} dims"]
    times = Table(
        "Coarse to fine",
        ("search", "p50 ms", "speed-up", f"recall@{K}", COLUMNS["individual"]),
        tuple(
            (name, f"{ms:.2f}", f"{full / ms:.1f}×", percent(measured.recall[name]),
             percent(measured.found[name]))
            for name, ms in p50.items()
        ),
        _verdict(full / p50["coarse to fine"], n),
    )  # fmt: skip
    show_tables((quality, times))
    accuracy_plot(lines, out / "accuracy.png")
    p99 = {name: float(np.percentile(ms, 99)) for name, ms in measured.ms.items()}
    latency_plot({name: (p50[name], p99[name]) for name in p50}, out / "latency.png")
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
        f"A picture is a vector of {index.dims[-1]} dims, and each prefix of it is a vector, too. "
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


def _verdict(ratio: float, n: int) -> str:
    """What coarse to fine gains, and how it was timed."""
    gain = "In an index this small that is as fast as all dims for every picture"
    if ratio > 1.1:
        gain = f"That is {ratio:.1f} times as fast as all dims for every picture"
    return (
        f"Coarse to fine is the plan {FINE}: 128 dims choose 100 candidates, all dims rank them. "
        f"{gain}. Medians of {n} single queries on one thread, without embedding; recall of what "
        "all dims find."
    )
