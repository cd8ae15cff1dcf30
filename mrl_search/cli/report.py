"""`mrl-search report`: tables, Markdown and a page from the records of a benchmark."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORDS…", help="Files that mrl-search bench wrote.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="Folder for page and figures; default: named after the first file.",
        ),
    ] = None,
) -> None:
    """Show a benchmark: tables here, and a page with figures."""
    from mrl_search.cli.render import note, show_tables
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
