"""A report: one page from the records of some runs, in words, tables and figures."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from mrl_search.errors import DataError
from mrl_search.files import make_folder, write_text
from mrl_search.measure.environment import same_machine
from mrl_search.measure.records import Run
from mrl_search.report import tables
from mrl_search.report.figures import Sketchbook
from mrl_search.report.page import (
    Block,
    Figure,
    Figures,
    Heading,
    Page,
    Table,
    render_markdown,
    write_page,
)  # fmt: skip
from mrl_search.report.values import baseline, dims_of, enough, recall_of, single_of, times_of

__all__ = ["HTML", "MARKDOWN", "introduction", "report_page", "rotation", "write_report"]

HTML, MARKDOWN = "report.html", "report.md"
GOOD = 0.99  # recall of a plan that the introduction names


def write_report(runs: Sequence[Run], folder: Path) -> Page:
    """Write figures and the page of `runs` into `folder`, as HTML and as Markdown.

    The same records give the same bytes.
    """
    make_folder(folder)
    page = report_page(runs, folder)
    write_page(folder / HTML, page)
    write_text(folder / MARKDOWN, render_markdown(page), errors="replace")
    return page


def report_page(runs: Sequence[Run], folder: Path) -> Page:
    """The page of some runs, with its figures in `folder`."""
    if not runs:
        raise DataError("There is nothing to report.", "Name a file that mrl-search bench wrote.")
    several = len(runs) > 1
    blocks: list[Block] = []
    facts: dict[str, str] = {}
    for number, run in enumerate(runs, 1):
        if several:
            blocks.append(Heading(run.name, tuple(introduction(run))))
        blocks += _blocks(run, Sketchbook(run, folder, f"{number}-" if several else ""))
        facts |= {f"{run.name}: {k}" if several else k: v for k, v in _facts(run).items()}
    title, intro = f"{runs[0].name}: what each prefix is worth", introduction(runs[0])
    if several:
        title = "What each prefix is worth"
        intro = [f"Benchmarks of {', '.join(run.name for run in runs)}."]
        first, *others = (run.about["environment"] for run in runs)
        if not all(same_machine(first, other) for other in others):
            intro.append("The machines differ: compare times only within a benchmark.")
    files = [shlex.quote(run.file.name if run.file else f"{run.name}.jsonl") for run in runs]
    commands = [
        (f"mrl-search bench INDEX --out {file}", f"measure the index {run.about['name']} again")
        for run, file in zip(runs, files, strict=True)
    ]
    report = f"mrl-search report {' '.join(dict.fromkeys(files))}"
    return Page(title, intro, blocks, [*commands, (report, "write this page again")], facts)


def introduction(run: Run) -> list[str]:
    """What was measured, and the main results, in sentences."""
    corpus, queries = run.about["corpus"], run.about["queries"]
    text = [
        f"{corpus['n']:,} items of {corpus['dim']} dims by the model {corpus['encoder']}, "
        f"searched with {queries['n']:,} queries ({queries['source']}). {tables.training_of(run)}"
    ]
    for e in enough(run):
        if e.dims == e.longest:
            needed = f"all {e.dims} dims are needed ({e.share.value:.1%})"
            text.append(f"{e.measure}: {needed}; {e.shorter} dims are significantly worse.")
            continue
        difference, low, high = (
            f"{100 * x:+.1f}" for x in (e.difference.value, e.difference.low, e.difference.high)
        )
        text.append(
            f"{e.measure}: {e.dims} dims are not significantly worse than {e.longest}: "
            f"{e.share.value:.1%} against {e.full.value:.1%}, a difference of {difference} points "
            f"(95% interval from {low} to {high}; McNemar's exact test: p = "
            f"{tables.digits(e.p, 2)}, n = {e.share.n:,}). The same is true of all longer prefixes."
        )
    text += [rotation(run)] if rotation(run) else []
    text += _speed(run)
    if ms := tables.embedding_ms(run):
        n = len(run.of("embedding")[0]["ms"])
        median = f"{tables.milliseconds(ms)} ms (median of {n})"
        text.append(f"Embedding a query picture takes {median}; search times do not include it.")
    if not queries["labelled"] or not corpus["classes"]:
        why = queries.get("doubt") or "There are no labels."
        text.append(f"{why} So recall of the exact hits stands for accuracy.")
    if hidden := [r["why"] for r in run.of("ladder") if r["why"]]:
        text.append(f"Some pictures cannot be shown: {hidden[0]}.")
    if run.done and not run.of("control"):
        text.append("The corpus is too large for controls: they copy its vectors into memory.")
    if not run.done:
        text.append("This benchmark is not finished; the same command continues it.")
    return text


def rotation(run: Run) -> str:
    """Where principal axes find most more than prefixes, beyond their intervals, or nothing."""
    better: list[tuple[float, int, str]] = []
    for d in dims_of(run):
        plan, control = single_of(run, d), run.one("control", name="pca", dims=d)
        if plan is None or control is None:
            continue
        prefix, pca = (recall_of(r["found"], run.k) for r in (plan, control))
        if pca.low > prefix.high:
            found = f"{pca.value:.1%} against {prefix.value:.1%} by {d}"
            better.append((prefix.value - pca.value, d, found))
    if not better:
        return ""
    most = sorted(sorted(better)[:3], key=lambda gain: gain[1])
    return (
        "As a shortlist, principal axes of these vectors (--axes pca) are better than their "
        f"prefixes: recall@{run.k} of exact is {', '.join(text for *_, text in most)} dims."
    )


def _speed(run: Run) -> list[str]:
    """The fastest plan with good recall, if it is faster than the fastest exact search."""
    base, k = baseline(run), run.k
    good = [
        (t.p50, p)
        for p in run.of("plan", exact=False)
        if (t := times_of(run, p["name"])) and recall_of(p["found"], k).value >= GOOD
    ]
    if base is None:
        return []
    name, exact_ms = base
    text = f"The fastest exact search ({name}) takes {tables.milliseconds(exact_ms)} ms a query."
    p50, plan = min(good, key=lambda pair: pair[0], default=(exact_ms, None))
    if plan is None or p50 >= exact_ms:
        return [text]
    recall = recall_of(plan["found"], k).value
    return [
        f"{text} The fastest plan with a recall of {GOOD:.0%} is {plan['name']} ({plan['plan']}): "
        f"{recall:.1%} in {tables.milliseconds(p50)} ms, {tables.times(exact_ms / p50)} as fast."
    ]


def _blocks(run: Run, book: Sketchbook) -> list[Block]:
    """The tables of a run, each after the figures that show it."""
    blocks: list[Block | None] = [
        _row(book.accuracy(), book.recall()),
        tables.accuracy_table(run),
        tables.trained_table(run),
        tables.cascade_table(run),
        _row(book.prefixes(), book.latency()),
        _row(book.front()),
        tables.plan_table(run),
        tables.cost_table(run),
        _row(book.controls()),
        tables.control_table(run),
        _row(book.scatter()),
        *(_row(ladder) for ladder in book.ladders()),
        tables.mislabel_table(run),
        _row(book.mislabels()),
    ]
    return [block for block in blocks if block and (not isinstance(block, Table) or block.rows)]


def _row(*figures: Figure | None) -> Figures | None:
    known = tuple(figure for figure in figures if figure)
    return Figures(known) if known else None


def _facts(run: Run) -> dict[str, str]:
    """Where, when and with what a run was measured."""
    e, s, corpus = run.about["environment"], run.about["settings"], run.about["corpus"]
    return {
        "measured": run.about["when"],
        "machine": f"{e['cpu']}, {e['cores']} cores, {e['machine']}",
        "system": f"{e['os']}, Python {e['python']}",
        "threads": str(s["threads"]),
        "settings": ", ".join(f"{name} {value}" for name, value in s.items() if name != "threads"),
        "commit": e["commit"] or "none",
        "model": f"{corpus['encoder']} {corpus['fingerprint'][:12]}",
        "source": corpus["source"],
        "indexes": ", ".join(f"{d}: {factory}" for d, factory in corpus["factory"].items()),
        "size on disk": tables.bytes_of(sum(corpus["files"].values())),
        **e["versions"],
    }
