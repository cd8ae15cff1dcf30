"""Changes of an index are stopped at write points: none is half made or lost. See living.py."""

import sys

import pytest

from torture.living import CASES, FAULTS
from torture.machines import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks after imports"),
]


def test_no_change_is_lost() -> None:
    found = list(results("living", "--quick", "--skip", 7))
    assert [r["what"] for r in found] == list(CASES)
    for result in found:
        assert not result["lost"], "\n".join(result["lost"])
        assert result["kills"] and result["failures"]
        assert result["states"] >= 2


def test_faults_are_found() -> None:
    found = list(results("living", "compact", "--quick", "--skip", 5, "--fault", *FAULTS))
    assert all(result["lost"] for result in found) and len(found) == len(FAULTS)
