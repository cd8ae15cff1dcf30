"""Write what the committed records say: a table and a picture in the README, and a page a report.

    python benchmarks/reports/readme.py            write README.md, its picture, and the pages here
    python benchmarks/reports/readme.py --check    exit with 1 if README.md differs from the records

The pages have the tables alone; `mrl-search report` draws the figures.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from mrl_search.measure.records import Run, read_runs
from mrl_search.report.figures import Sketchbook
from mrl_search.report.page import Figures, markdown_image, markdown_table, render_markdown
from mrl_search.report.tables import headline_table
from mrl_search.report.write import report_page

HERE = Path(__file__).parent
REPORTS = ("photographs", "animals")
README = HERE.parents[1] / "README.md"
CARD = "mrl_search/encoders/bundled/MODEL_CARD.md"
BEGIN, END = "<!-- from benchmarks/reports/readme.py -->", "<!-- until here -->"


def part(run: Run, folder: Path, where: str) -> str:
    """The text between the markers; its picture is drawn into `folder` and linked from `where`."""
    table, corpus, machine = headline_table(run), run.about["corpus"], run.about["environment"]
    figure = Sketchbook(run, folder, "readme-").front()
    picture = f"{markdown_image(figure, where)}\n\n" if figure else ""
    model = f"{corpus['encoder']} {corpus['fingerprint'][:12]}"
    text = f"{corpus['n']:,} photographs, model {model}, on {machine['cpu']}. {table.note}"
    text += "\n\nThe model was trained on nine in ten of these photographs; "
    text += f"`{CARD}` has its accuracy on others."
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
    runs = {name: read_runs([HERE / f"{name}.jsonl"])[0] for name in REPORTS}
    old = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            new = placed(old, part(runs["photographs"], Path(folder), "benchmarks/reports/"))
        sys.exit(old != new)
    new = placed(old, part(runs["photographs"], HERE, "benchmarks/reports/"))
    README.write_text(new, encoding="utf-8")
    for name, run in runs.items():
        (HERE / f"{name}.md").write_text(tables(run), encoding="utf-8")
