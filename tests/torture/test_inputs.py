"""Damaged inputs end in results or in sentences. See fuzzers.py."""

import sys

import pytest

from torture.faults import DOORS, INPUT_FAULTS
from torture.machines import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks after imports"),
]
BAD = ("signals", "tracebacks", "hangs", "memory")
SECONDS = 8


@pytest.mark.parametrize("kind", DOORS)
def test_no_input_is_bad(kind: str) -> None:
    (result,) = results("fuzzers", kind, "--seconds", SECONDS)
    assert not any(result[bad] for bad in BAD), [result[bad][:3] for bad in BAD]
    assert result["tried"] > result["refused"] > 0


@pytest.mark.parametrize(
    ("kind", "fault"),
    [*((kind, "tracebacks") for kind in DOORS), *(("plans", fault) for fault in INPUT_FAULTS)],
)
def test_a_fault_is_found(kind: str, fault: str) -> None:
    longest = 1 if fault == "hangs" else 10
    (result,) = results("fuzzers", kind, "--count", 40, "--longest", longest, "--fault", fault)
    assert result[fault] and not any(result[bad] for bad in BAD if bad != fault)
