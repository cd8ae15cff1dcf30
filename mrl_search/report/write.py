"""A report: one page from the records of some benches, in words, tables and figures; from records alone, so it can be made anywhere."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mrl_search.errors import DataError, MrlSearchError
from mrl_search.files import write_atomically
from mrl_search.measure.records import BRUTE, Run, same_machine
from mrl_search.measure.values import enough, recall_of, times_of
from mrl_search.report.charts import Sketchbook
from mrl_search.report.numerals import bytes_of, count, digits, milliseconds, times
from mrl_search.report.page import (
    Block,
    Figure,
    Figures,
    Heading,
    Page,
    Table,
    render_markdown,
    write_page,
)
from mrl_search.report.tables import (
    accuracy_table,
    adaptive_table,
    control_table,
    cost_table,
    full_plan,
    mislabel_table,
    plan_cost_table,
    plan_table,
)

__all__ = ["HTML", "MARKDOWN", "introduction", "report_page", "write_report"]

HTML, MARKDOWN = "report.html", "report.md"


def write_report(runs: Sequence[Run], folder: Path) -> Page:
    """Draw the figures of `runs` into `folder`, and write the page beside them, as HTML and as Markdown.

    The same records give the same bytes.

    Raises:
        DataError: there is no run, or a record was altered.
        MrlSearchError: the place cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MrlSearchError(
            f"{folder} cannot be made: {error.strerror}.", "Choose another place with --out."
        ) from error
    page = report_page(runs, folder)
    write_page(folder / HTML, page)
    with write_atomically(folder / MARKDOWN) as draft:
        draft.write_text(render_markdown(page), encoding="utf-8", errors="replace")
    return page


def report_page(runs: Sequence[Run], folder: Path) -> Page:
    """The page of some runs, its figures drawn into `folder`; raises as `write_report`."""
    if not runs:
        raise DataError("There is nothing to report.", "Name a file that mrl-search bench wrote.")
    blocks: list[Block] = []
    facts: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        stem = f"{number}-" if len(runs) > 1 else ""
        if len(runs) > 1:
            blocks.append(Heading(run.name, tuple(introduction(run))))
        blocks += _blocks(run, Sketchbook(run, folder, stem))
        facts |= _facts(run, f"{run.name}: " if len(runs) > 1 else "")
    if len(runs) == 1:
        title, intro = f"{runs[0].name}: what each prefix is worth", introduction(runs[0])
    else:
        title, intro = (
            "What each prefix is worth",
            [f"Benches of {', '.join(run.name for run in runs)}, one after another."],
        )
        if not all(
            same_machine(runs[0].about["environment"], run.about["environment"]) for run in runs
        ):
            intro.append(
                "They were measured on different machines: their times cannot be compared with each other, only within one bench."
            )
    files = {
        run.name: shlex.quote(run.file.name if run.file else f"{run.name}.jsonl") for run in runs
    }
    commands = [
        (
            f"mrl-search bench {shlex.quote(str(run.about['name']))} --out {files[run.name]}",
            "measure the index again",
        )
        for run in runs
    ]
    commands.append(
        (
            f"mrl-search report {' '.join(dict.fromkeys(files.values()))}",
            "write this page from the records",
        )
    )
    return Page(title, intro, blocks, commands, facts)


def introduction(run: Run) -> list[str]:
    """What was measured and what came out, in sentences."""
    corpus, queries = run.about["corpus"], run.about["queries"]
    said = [
        f"{count(corpus['n'])} items of {corpus['dim']} dims by the model {corpus['encoder']}, searched with {count(queries['n'])} "
        f"queries ({queries['source']})."
    ]
    for e in enough(run):
        if e.dims == e.longest:
            said.append(
                f"{e.measure}: all {e.dims} dims are needed ({e.share.value:.1%}); {e.shorter} are significantly worse already."
            )
        else:
            low, high = (f"{100 * x:+.1f}" for x in (e.difference.low, e.difference.high))
            said.append(
                f"{e.measure}: {e.dims} dims are not significantly worse than all {e.longest}: "
                f"{e.share.value:.1%} beside {e.full.value:.1%}, a difference of {100 * e.difference.value:+.1f} points with a 95% "
                f"interval from {low} to {high} (McNemar's exact test: p = {digits(e.p, 2)}, n = {count(e.share.n)}). "
                "No longer prefix is significantly worse."
            )
    base = times_of(run, full_plan(run))
    plans = [
        (p, t, recall_of(p["found"], run.about["settings"]["k"]))
        for p in run.of("plan")
        if (t := times_of(run, p["name"]))
    ]
    good = [
        (t.p50, p, r)
        for p, t, r in plans
        if r.value >= 0.99 and p["name"] not in (BRUTE, full_plan(run))
    ]
    if base and good and min(g[0] for g in good) < base.p50:
        p50, plan, recall = min(good, key=lambda g: g[0])
        said.append(
            f"The fastest plan that finds 99% of the exact answer is {plan['name']} ({plan['plan']}): {recall.value:.1%} in "
            f"{milliseconds(p50)} ms, {times(base.p50 / p50)} as fast as the plan at full length."
        )
    embedding = run.one("embedding")
    if embedding and embedding["ms"]:
        ms = sorted(embedding["ms"])
        said.append(
            f"To embed a query picture takes {milliseconds(ms[len(ms) // 2])} ms (median of {len(ms)}), which no time here includes."
        )
    if not queries["labelled"] or not corpus["classes"]:
        said.append(
            "There are no labels, so there is no accuracy: what is told is how much of the exact answer each search finds."
        )
    if any(r["sheet"] is None for r in run.of("ladder")):
        said.append(
            f"Some pictures cannot be shown: {next(r['why'] for r in run.of('ladder') if r['sheet'] is None)}."
        )
    if run.done and not run.of("control"):
        said.append(
            "The corpus is too large for controls, which would be a second copy of it in memory."
        )
    if not run.done:
        said.append("This bench was not finished; the same command goes on with it.")
    return said


def _blocks(run: Run, book: Sketchbook) -> list[Block]:
    """The tables of a run, each after the figures that show it; what has no records is left out."""
    blocks: list[Block | None] = [
        _beside(book.accuracy(), book.recall()),
        accuracy_table(run),
        adaptive_table(run),
        _beside(book.prefixes(), book.latency()),
        cost_table(run),
        _beside(book.front()),
        plan_table(run),
        plan_cost_table(run),
        _beside(book.controls()),
        control_table(run),
        _beside(book.scatter()),
        *(_beside(ladder) for ladder in book.ladders()),
        mislabel_table(run),
        _beside(book.mislabels()),
    ]
    return [block for block in blocks if block and (not isinstance(block, Table) or block.rows)]


def _beside(*figures: Figure | None) -> Figures | None:
    there = tuple(figure for figure in figures if figure)
    return Figures(there) if there else None


def _facts(run: Run, before: str) -> dict[str, str]:
    """Where, when and with what the numbers of a run came about."""
    e, s, corpus = run.about["environment"], run.about["settings"], run.about["corpus"]
    facts = {
        "measured": run.about["when"], "machine": f"{e['cpu']}, {e['cores']} cores, {e['machine']}",
        "system": f"{e['os']}, Python {e['python']}",
        "threads": str(s["threads"]), "settings": ", ".join(f"{name} {value}" for name, value in s.items() if name != "threads"),
        "commit": e["commit"] or "none", "model": f"{corpus['encoder']} {corpus['fingerprint'][:12]}",
        "source": corpus["source"], "indexes": ", ".join(f"{d}: {factory}" for d, factory in corpus["factory"].items()),
        "size on disk": bytes_of(sum(corpus["files"].values())), **e["versions"],
    }  # fmt: skip
    return {before + name: value for name, value in facts.items()}
