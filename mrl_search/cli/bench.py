"""`mrl-search bench`: measure an index, and compare with an earlier measurement."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import Instance, Split, argument, option
from mrl_search.cli.render import note, progress_bars, show_skipped, show_table, show_tables
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.measure.compare import Comparison

__all__ = ["bench"]

COPIES = 2_000  # changed copies of --instance
QUERIES_HELP = "Pictures to search with; default: those of the index, each left out."
COMPARE_HELP = "Earlier records: exit with 1 if something became worse."
TOLERANCE_HELP = "With --compare: allowed growth of a time as a share; 0.5 is half."


def bench(
    folder: Annotated[Path, argument("DIR", "The index to measure.")],
    queries: Annotated[str | None, option("--queries SRC", QUERIES_HELP)] = None,
    split: Split = None,
    out: Annotated[
        Path | None, option("--out FILE", "Records, JSON Lines; default: bench-NAME.jsonl.")
    ] = None,
    instance: Instance = False,
    sample: Annotated[
        int, option("--sample", "Queries, drawn with a fixed seed, at most.", min=1)
    ] = 25_000,
    k: Annotated[int, option("-k", "Hits of a plan.", min=1)] = 10,
    rounds: Annotated[int, option("--rounds", "Rounds of timing.", min=1)] = 3,
    threads: Annotated[int, option("--threads", "Threads while times are taken.", min=1)] = 1,
    base: Annotated[Path | None, option("--compare BASE", COMPARE_HELP)] = None,
    tolerance: Annotated[float, option("--tolerance", TOLERANCE_HELP, min=0)] = 0.5,
) -> None:
    """Measure accuracy, recall and time of prefixes and plans.

    The same command continues a benchmark that was stopped.
    """
    if split and not queries:
        raise ConfigError("--split is about pictures to search with.", "Name them: --queries SRC.")
    from mrl_search.index import Index
    from mrl_search.measure.bench import measure, measure_training
    from mrl_search.measure.compare import check_same_queries, compare
    from mrl_search.measure.queries import QuerySet
    from mrl_search.measure.records import Journal, read_run
    from mrl_search.measure.settings import BenchSettings, about

    before = read_run(base) if base else None
    index = Index.open(folder)
    corpus = index.corpus
    copies = COPIES if instance else 0
    settings = BenchSettings(k=k, sample=sample, rounds=rounds, threads=threads, copies=copies)
    out = out or Path(f"bench-{index.folder.resolve().name}.jsonl")
    with progress_bars() as progress:
        if queries is None and not instance:
            query_set = QuerySet.of_corpus(corpus, sample, settings.seed)
            journal = Journal.open(out, about(corpus, query_set, settings))
        else:
            from mrl_search.images.sources import open_source
            from mrl_search.measure.copies import bench_pictures
            from mrl_search.training.split import part_of

            source = None
            if queries:
                source = part_of(open_source(queries), split, index.encoder, progress)
            query_set, journal = bench_pictures(index, settings, out, source, progress)
            if queries is not None:
                show_skipped(query_set.collection.skipped)
        if before is not None:
            check_same_queries(journal.run, before)
        note(
            f"{len(query_set):,} queries ({query_set.source}) in {len(index):,} items, "
            f"records in {out}"
        )
        measure_training(index, query_set, journal)
        run = measure(corpus, query_set, settings, journal, progress)
        journal.close()
    from mrl_search.report.tables import run_tables
    from mrl_search.report.write import introduction

    show_tables(run_tables(run), introduction(run))
    note(f"next: mrl-search report {out}")
    if before is not None:
        _show_comparison(compare(run, before, tolerance))


def _show_comparison(found: "Comparison") -> None:
    """Show what changed; exit with 1 if something is worse."""
    rows = []
    for d in found.differences:
        if d.worse or d.base != d.new:
            values = (f"{x:.4g}" if d.p is None else f"{x:.2%}" for x in (d.base, d.new))
            p = "" if d.p is None else f"{d.p:.3g}"
            rows.append((d.what, d.measure, *values, p, "worse" if d.worse else ""))
    show_table(("what", "measure", "base", "now", "p", ""), rows, "Compared with the base")
    for text in found.notes:
        note(text)
    times = sum(d.p is None for d in found.worse)
    note(
        f"{len(found.differences)} measures compared: {len(found.worse) - times} shares are"
        f" significantly worse, {times} times slower than the tolerance"
    )
    if found.worse:
        raise typer.Exit(1)
