"""`mrl-search report`: tables, Markdown and a page from the records of a benchmark."""

from pathlib import Path
from typing import Annotated

from mrl_search.cli.options import argument, option
from mrl_search.cli.render import note, show_tables

__all__ = ["report"]
OUT_HELP = "Folder for page and figures; default: named after the first file."


def report(
    records: Annotated[list[Path], argument("RECORDS…", "Files that mrl-search bench wrote.")],
    out: Annotated[Path | None, option("--out FOLDER", OUT_HELP)] = None,
) -> None:
    """Show a benchmark: tables here, and a page with figures."""
    from mrl_search.measure.records import read_runs
    from mrl_search.report.tables import run_tables
    from mrl_search.report.write import HTML, MARKDOWN, introduction, write_report

    runs = read_runs(records)
    out = out or records[0].with_suffix("")
    if out == records[0]:
        out = records[0].with_name(f"{records[0].name}-report")
    page = write_report(runs, out)
    if len(runs) > 1:
        show_tables([], page.intro)
    for run in runs:
        heading = [run.name] if len(runs) > 1 else []
        show_tables(run_tables(run), [*heading, *introduction(run)])
    note(f"page: {out / HTML}\nMarkdown: {out / MARKDOWN}")
