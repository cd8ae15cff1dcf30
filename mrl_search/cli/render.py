"""How things look in a terminal: results on stdout, progress and notes on stderr."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from mrl_search.errors import Skipped

__all__ = ["json_line", "note", "percent", "progress_bars", "show_skipped", "show_table", "show_tables"]

if TYPE_CHECKING:
    from mrl_search.bench.page import Table as ReportTable

SHOWN = 5  # skipped images that are listed one by one


def note(text: str) -> None:
    """A line for the person at the terminal."""
    typer.echo(text, err=True)


def json_line(value: Mapping[str, object]) -> None:
    """One JSON object on a line of stdout."""
    typer.echo(json.dumps(value, ensure_ascii=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; every column but the last is aligned right when it holds numbers."""
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numbers = all(row[i][:1] in "0123456789-+." for row in rows if row[i])
        table.add_column(column, justify="right" if numbers else "left", no_wrap=i < len(columns) - 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 240  # a file or a pipe has no width to fit into
    console.print(table)


def show_tables(tables: "Sequence[ReportTable]", words: Sequence[str] = ()) -> None:
    """Tables of a report on stdout, each with its note, after some words."""
    for text in words:
        typer.echo(text)
    for table in tables:
        typer.echo()
        show_table(table.columns, table.rows, table.title)
        if table.note:
            typer.echo(table.note)


def percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    """`94.1%`, with its interval in brackets if there is one; a dash for None."""
    if share is None:
        return "–"
    return f"{share:.1%}" + (f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval else "")


@contextmanager
def progress_bars(shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr: the function that is yielded is told what is being done, how much of it, and of how much."""
    tasks: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description:<16}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bars:

        def update(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total, rate="")
            task = bars.tasks[tasks[what]]
            rate = f"{task.finished_speed or task.speed or 0:,.0f}/s"
            bars.update(tasks[what], completed=done, total=total, rate=rate)

        yield update


def show_skipped(skipped: Sequence[Skipped], where: str = "") -> None:
    """Say how many images were left out, the first few with their reasons, and where the whole list is."""
    if not skipped:
        return
    note(f"skipped {len(skipped)} image{'s' if len(skipped) > 1 else ''}:")
    for s in skipped[:SHOWN]:
        note(f"  {s.path}: {s.reason}")
    if len(skipped) > SHOWN:
        note(f"  … and {len(skipped) - SHOWN} more{f', listed in {where}' if where else ''}")
