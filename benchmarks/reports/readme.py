"""Put one table and one picture of the committed records into the README, between its two markers.

python benchmarks/reports/readme.py            write README.md and the picture beside this file
python benchmarks/reports/readme.py --check    exit with 1 if README.md is not what the records say
"""

import sys
import tempfile
from pathlib import Path

from mrl_search.report.charts import Sketchbook

from mrl_search.measure.records import Run, read_runs
from mrl_search.report.page import Figure, markdown_image, markdown_table
from mrl_search.report.tables import headline_table

HERE = Path(__file__).parent
RECORDS = HERE / "photographs.jsonl"
README = HERE.parents[1] / "README.md"
CARD = "mrl_search/models/bundled/MODEL_CARD.md"
BEGIN, END = "<!-- from benchmarks/reports/readme.py -->", "<!-- until here -->"


def part(run: Run, folder: Path, where: str) -> str:
    """The lines between the markers; the picture is drawn into `folder`, and linked after `where`."""
    table, corpus, environment = headline_table(run), run.about["corpus"], run.about["environment"]
    figure: Figure | None = Sketchbook(run, folder, "readme-").front()
    said = f"{corpus['n']:,} photographs, model {corpus['encoder']} {corpus['fingerprint'][:12]}, on {environment['cpu']}. {table.note}"
    said += f"\n\nThe model was trained on nine in ten of these photographs; on others it reaches what `{CARD}` says."
    picture = f"{markdown_image(figure, where)}\n\n" if figure else ""
    return f"{BEGIN}\n\n{picture}{markdown_table(table)}\n\n{said}\n\n{END}"


def placed(text: str, lines: str) -> str:
    """`text` with `lines` in the place of what is between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README} has no lines {BEGIN} and {END}.")
    return before + lines + after


if __name__ == "__main__":
    run = read_runs([RECORDS])[0]
    old = README.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            sys.exit(old != placed(old, part(run, Path(folder), "benchmarks/reports/")))
    README.write_text(placed(old, part(run, HERE, "benchmarks/reports/")), encoding="utf-8")
