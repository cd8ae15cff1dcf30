"""How results look in a terminal: results on stdout, progress and notes on stderr."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, TextIO

from mrl_search.errors import Skipped
from mrl_search.progress import silent
from mrl_search.text import json_text, plain

__all__ = [
    "json_line", "note", "note_left", "percent", "progress_bars", "show_skipped", "show_source",
    "show_table", "show_tables",
]  # fmt: skip

if TYPE_CHECKING:
    from pathlib import Path

    from rich.progress import Progress, Task, TaskID

    from mrl_search.images.sources import Source
    from mrl_search.report.page import Table as ReportTable

SHOWN = 5  # skipped images that are listed
QUICK = 1.0  # seconds; a step that took less shows no rate
UNLIMITED = 1 << 20  # characters of a line in a file or a pipe
ALWAYS = {"FORCE_COLOR", "TTY_COMPATIBLE"}  # variables by which rich takes a pipe for a terminal


def note(text: str) -> None:
    """Write one or more lines to stderr."""
    _write(sys.stderr, "\n".join(map(plain, text.split("\n"))) + "\n")


def note_left(folder: "Path", before: str) -> None:
    """Say that the collection of Milvus that an index asked before stays, if it asks another."""
    from mrl_search.mirror import is_left

    if is_left(folder, before):
        note(f"{before} stays as it is. To remove it: mrl-search remove '{before}'")


def json_line(value: Mapping[str, object]) -> None:
    """Write a JSON object as a line on stdout."""
    _write(sys.stdout, json_text(value, sys.stdout.encoding) + "\n")


def _write(stream: TextIO, text: str) -> None:
    stream.write(text)
    stream.flush()


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> None:
    """Write a table to stdout; columns of numbers are aligned right."""
    cells = [list(map(plain, row)) for row in rows]
    right = [
        all(row[i][:1] in "0123456789-+." for row in rows if row[i]) for i in range(len(columns))
    ]
    simple = all(cell.isascii() for row in (columns, *cells) for cell in row)
    piped = not (sys.stdout.isatty() or ALWAYS & os.environ.keys())
    text = (_simple if simple and piped else _styled)(columns, cells, right)
    _write(sys.stdout, (f"{plain(title)}\n" if title else "") + text)


def _simple(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table as `_styled` makes it in a file or a pipe; importing rich takes longer than a search.

    For ASCII alone, of which every character is as wide as another.
    """
    table = [columns, *rows] if any(columns) else rows
    widths = [max((len(row[i]) for row in table), default=0) for i in range(len(columns))]
    sides = [str.rjust if numbers else str.ljust for numbers in right]
    lines = [
        "  ".join(side(cell, width) for side, cell, width in zip(sides, row, widths, strict=True))
        for row in table
    ]
    return "".join(f"{line}\n" for line in lines)


def _styled(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> str:
    """A table for a terminal, with long cells folded; characters may be of any width."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for i, (column, numbers) in enumerate(zip(columns, right, strict=True)):
        side: Literal["right", "left"] = "right" if numbers else "left"
        table.add_column(column, justify=side, no_wrap=i < len(columns) - 1, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = UNLIMITED
    with console.capture() as text:  # rich would end the process if the pipe is closed
        console.print(table)
    return text.get()


def show_tables(tables: "Sequence[ReportTable]", text: Sequence[str] = ()) -> None:
    """Write some paragraphs, then tables of a report with their notes, to stdout."""
    for paragraph in text:
        _write(sys.stdout, f"{plain(paragraph)}\n")
    for table in tables:
        _write(sys.stdout, "\n")
        show_table(table.columns, table.rows, table.title)
        if table.note:
            _write(sys.stdout, f"{plain(table.note)}\n")


def percent(share: float | None, interval: tuple[float, float] | None = None) -> str:
    """`94.1%`, with its interval in brackets if there is one; a dash for None."""
    if share is None:
        return "–"
    return f"{share:.1%}" + (f" [{interval[0]:.1%}, {interval[1]:.1%}]" if interval else "")


@contextmanager
def progress_bars(shown: bool = True) -> Iterator[Callable[[str, int, int], None]]:
    """Progress bars on stderr; yields a function of the step, what is done of it, and its total."""
    bars: Progress | None = None
    tasks: dict[str, TaskID] = {}

    def update(step: str, done: int, total: int) -> None:
        nonlocal bars
        if bars is None:
            bars = _bars()
            bars.start()
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total, pace="")
        bars.update(tasks[step], completed=done, total=total)
        task = next(task for task in bars.tasks if task.id == tasks[step])
        bars.update(tasks[step], pace=_pace(task))

    try:
        yield update if shown else silent
    finally:
        if bars is not None:
            bars.stop()


def _bars() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:<16}"), BarColumn(), MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True))


def _pace(task: "Task") -> str:
    """Rate and time left of a step that has run for a second; nothing for a quick one."""
    elapsed = (task.finished_time if task.finished else task.elapsed) or 0.0
    speed = task.finished_speed or task.speed
    if elapsed < QUICK or not speed:
        return ""
    rate = f"{speed:,.0f}/s" if speed >= 1 else f"{1 / speed:,.0f} s each"
    if task.finished or task.time_remaining is None:
        return rate
    minutes, seconds = divmod(round(task.time_remaining), 60)
    return f"{rate}, {minutes}:{seconds:02d} left"


def show_source(source: "Source") -> None:
    """Note how many images a source has, and what was passed over."""
    note(f"{len(source.paths):,} images of {source.name}")
    for text in source.notes:
        note(f"  {text}")


def show_skipped(skipped: Sequence[Skipped], where: str = "") -> None:
    """Note how many images were skipped, the first few with reasons, and where all are listed."""
    if not skipped:
        return
    note(f"skipped {len(skipped)} image{'s' if len(skipped) > 1 else ''}:")
    for s in skipped[:SHOWN]:
        note(f"  {s.path}: {s.reason}")
    if len(skipped) > SHOWN:
        note(f"  … and {len(skipped) - SHOWN} more{f', listed in {where}' if where else ''}")
