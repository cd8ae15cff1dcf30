"""The help and the progress of the command line are whole and short."""

from collections.abc import Iterator

import pytest
from command_line import ok
from rich.progress import Progress

from mrl_search.cli import render
from mrl_search.cli.app import COMMANDS


@pytest.mark.parametrize("columns", [80, 120])
def test_no_summary_of_a_command_is_cut(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    _, _, commands = ok("--help").output.partition("Commands:")
    assert "..." not in commands and all(f"\n  {name} " in commands for name in COMMANDS)


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Progress]]:
    """The progress bars that were opened."""
    opened: list[Progress] = []

    def remember(*args: object, **options: object) -> Progress:
        opened.append(Progress(*args, **options))
        return opened[-1]

    monkeypatch.setattr("rich.progress.Progress", remember)
    return opened


def test_a_quick_step_is_one_line_without_a_rate(
    shown: list[Progress], capsys: pytest.CaptureFixture[str]
) -> None:
    with render.progress_bars() as progress:
        for done in range(4):
            progress("quick", done, 3)
        progress("at once", 7, 7)
    lines = [line.rstrip() for line in capsys.readouterr().err.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == ["quick", "at"]
    assert [line.split()[-1] for line in lines] == ["3/3", "7/7"]


@pytest.mark.parametrize(
    ("times", "pace"),
    [
        ([0.0, 0.25, 0.5], ""),
        ([0.0, 1.0, 2.0], "10/s, 0:08 left"),
        ([0.0, 20.0, 40.0], "2 s each, 2:40 left"),
        ([0.2 * i for i in range(11)], "50/s"),
    ],
)
def test_a_longer_step_has_a_rate_and_the_time_left(times: list[float], pace: str) -> None:
    """Ten of a hundred are done at each time."""
    clock = [0.0]
    bars = Progress(get_time=lambda: clock[0], disable=True)
    task = bars.add_task("long", total=100)
    for done, clock[0] in enumerate(times):
        bars.update(task, completed=10 * done)
    assert render._pace(bars.tasks[0]) == pace
