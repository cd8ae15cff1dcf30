"""Every command is stopped at every write point: nothing is lost. See crashes.py."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from torture.commands import COMMANDS
from torture.faults import COMMAND_FAULTS
from torture.machines import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks after imports"),
]
SLOW = ("report", "train")  # half of the work


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What is found, by command."""
    halves = [[name for name in COMMANDS if (name in SLOW) == slow] for slow in (True, False)]
    with ThreadPoolExecutor() as pool:
        both = pool.map(lambda names: list(results("crashes", *names, "--quick")), halves)
    return {r["what"]: r for half in both for r in half}


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_is_lost(command: str, found: dict[str, Any]) -> None:
    result = found[command]
    assert not result["lost"], "\n".join(result["lost"])
    assert result["kills"] + result["failures"] == result["points"] > 0


def test_faults_are_found() -> None:
    found = list(results("crashes", "query, sheet", "--fault", *COMMAND_FAULTS))
    assert all(result["lost"] for result in found) and len(found) == len(COMMAND_FAULTS)
