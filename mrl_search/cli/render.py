"""How things look in a terminal: results on stdout, progress and notes on stderr."""

import codecs
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from mrl_search.errors import Skipped

__all__ = [
    "json_line",
    "note",
    "percent",
    "plain",
    "progress_bars",
    "show_skipped",
    "show_table",
    "show_tables",
]

if TYPE_CHECKING:
    from mrl_search.report.page import Table as ReportTable

SHOWN = 5  # skipped images that are listed one by one
ENDLESS = 1 << 20  # characters of a line in a file or a pipe, which has no width to fit into
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """`text` on one line, control characters written as Python writes them: the name of a file shall not steer a terminal."""
    return CONTROL.sub(lambda found: repr(found[0])[1:-1], text)


def note(text: str) -> None:
    """A line for the person at the terminal, or several."""
    typer.echo("\n".join(map(plain, text.split("\n"))), err=True)


def json_line(value: Mapping[str, object]) -> None:
    """One JSON object on a line of stdout."""
    unicode = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    typer.echo(json.dumps(value, ensure_ascii=not unicode))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """A table on stdout; every column but the last is aligned right when it holds numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, column in enumerate(columns):
        numbers = all(row[i][:1] in "0123456789-+." for row in rows if row[i])
        table.add_column(
            column,
            justify="right" if numbers else "left",
            no_wrap=i < len(columns) - 1,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*map(plain, row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = ENDLESS
    with (
        console.capture() as drawn
    ):  # not printed from here: rich would end the process where nobody reads on
        console.print(table)
    typer.echo((f"{plain(title)}\n" if title else "") + drawn.get(), nl=False)


def show_tables(tables: "Sequence[ReportTable]", words: Sequence[str] = ()) -> None:
    """Tables of a report on stdout, each with its note, after some words."""
    for text in words:
        typer.echo(plain(text))
    for table in tables:
        typer.echo()
        show_table(table.columns, table.rows, table.title)
        if table.note:
            typer.echo(plain(table.note))


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
