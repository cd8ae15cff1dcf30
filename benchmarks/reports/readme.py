"""Write what the committed records say: a table and a picture in the README, and a page a report.

    python benchmarks/reports/readme.py            write README.md, its picture, and the pages here
    python benchmarks/reports/readme.py --check    exit with 1 if README.md differs from the records

The pages have the tables alone; `mrl-search report` draws the figures.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mrl_search.measure.environment import check_clean
from mrl_search.measure.records import Run, read_run
from mrl_search.metrics import Share
from mrl_search.report.figures import Sketchbook
from mrl_search.report.page import Figures, Table, markdown_image, markdown_table, render_markdown
from mrl_search.report.tables import (
    NOTHING,
    embedding_ms,
    milliseconds,
    speed_up,
    table_of,
    time_notes,
    times,
)  # fmt: skip
from mrl_search.report.values import baseline, recall_of, share_of, single_of, times_of
from mrl_search.report.write import report_page, rotation

HERE = Path(__file__).parent
REPORTS = ("photographs", "animals")
README = HERE.parents[1] / "README.md"
CARD = "mrl_search/encoders/bundled/MODEL_CARD.md"
BEGIN, END = "<!-- from benchmarks/reports/readme.py -->", "<!-- until here -->"


def headline_table(run: Run) -> Table:
    """One small table: prefixes and plans with accuracy, recall and speed."""
    prefixes = run.by_dims("prefix")
    rows = [(f"{r['dims']} dims", single_of(run, r["dims"]), r["vote"]) for r in prefixes]
    fastest = baseline(run)
    for p in run.of("plan", dims=None):
        if not p["exact"]:
            rows.append((f"{p['name']}, {p['plan']}", p, None))
        elif fastest and p["name"] == fastest[0]:
            rows.append((p["name"], p, None))
    cells = []
    for name, plan, vote in rows:
        t = times_of(run, plan["name"]) if plan else None
        cells.append((
            name,
            accuracy(share_of(plan["nearest"]) if plan else None),
            accuracy(share_of(vote)),
            percent(recall_of(plan["found"], run.k) if plan else None),
            milliseconds(t.p50 if t else None),
            times(speed_up(run, plan) if plan else None),
        ))  # fmt: skip
    if ms := embedding_ms(run):
        embedding = "embedding a query picture"
        cells.append((embedding, NOTHING, NOTHING, NOTHING, milliseconds(ms), NOTHING))
    heads = ("search", "1-NN", run.voters, f"recall@{run.k} of exact", "p50 ms", "speed-up")
    columns = [(head, [row[i] for row in cells]) for i, head in enumerate(heads)]
    return table_of("", columns, time_notes(run))


def percent(value: Share | None) -> str:
    return NOTHING if value is None else f"{value.value:.1%}"


def accuracy(value: Share | None) -> str:
    """A share with its 95% interval."""
    return NOTHING if value is None else f"{value.value:.1%} [{value.low:.1%}–{value.high:.1%}]"


def part(run: Run, folder: Path, where: str, animals: Run | None = None) -> str:
    """The text between the markers; its picture is drawn into `folder` and linked from `where`.

    `animals` is a run in which prefixes differ more.
    """
    table, corpus, machine = headline_table(run), run.about["corpus"], run.about["environment"]
    figure = Sketchbook(run, folder, "readme-").front()
    picture = f"{markdown_image(figure, where)}\n\n" if figure else ""
    model = f"{corpus['encoder']} {corpus['fingerprint'][:12]}"
    text = f"{corpus['n']:,} photographs, model {model}, on {machine['cpu']}. {table.note}"
    n = run.about["queries"]["n"]
    text += f"\n\nThe {n:,} queries are photographs that the model was not trained on, each left "
    text += f"out of its own answer. Brackets: 95% intervals. `{CARD}` has more accuracies."
    if shortlist := rotation(run):
        text += f"\n\n{shortlist}"
    if animals and (shortlist := rotation(animals)):
        text += f" With 59 kinds of animals, {shortlist.rpartition(': ')[2].removesuffix('.')}."
    return f"{BEGIN}\n\n{picture}{markdown_table(table)}\n\n{text}\n\n{END}"


def placed(text: str, lines: str) -> str:
    """`text` with `lines` in place of everything between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README} has no lines {BEGIN} and {END}.")
    return before + lines + after


def tables(run: Run) -> str:
    """The page of a run as Markdown, without figures."""
    with tempfile.TemporaryDirectory() as folder:
        page = report_page([run], Path(folder))
    blocks = [block for block in page.blocks if not isinstance(block, Figures)]
    return render_markdown(replace(page, blocks=blocks))


if __name__ == "__main__":
    runs = {name: read_run(HERE / f"{name}.jsonl") for name in REPORTS}
    for name, run in runs.items():
        check_clean(run.about["environment"]["commit"], name)
    old = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            new = placed(old, part(
                runs["photographs"], Path(folder), "benchmarks/reports/", runs["animals"]
            ))  # fmt: skip
        sys.exit(old != new)
    new = placed(old, part(runs["photographs"], HERE, "benchmarks/reports/", runs["animals"]))
    README.write_text(new, encoding="utf-8")
    for name, run in runs.items():
        (HERE / f"{name}.md").write_text(tables(run), encoding="utf-8")
