"""Damaged inputs end in results or in sentences. See fuzzers.py."""

import sys
from collections.abc import Collection
from itertools import product
from typing import Any

import pytest

from torture.faults import DOORS, INPUT_FAULTS
from torture.machines import results

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it forks after imports"),
]
BAD = ("signals", "tracebacks", "hangs", "memory")
SECONDS = 8


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What is found, by kind."""
    return {result["what"]: result for result in results("fuzzers", "--seconds", SECONDS)}


@pytest.mark.parametrize("kind", DOORS)
def test_no_input_is_bad(kind: str, found: dict[str, Any]) -> None:
    result = found[kind]
    assert not any(result[bad] for bad in BAD), [result[bad][:3] for bad in BAD]
    assert result["tried"] > result["refused"] > 0


@pytest.mark.parametrize(
    ("kinds", "faults"),
    [(DOORS, ["tracebacks"]), (["plans"], INPUT_FAULTS)],
    ids=["kinds", "faults"],
)
def test_faults_are_found(kinds: Collection[str], faults: Collection[str]) -> None:
    found = list(results("fuzzers", *kinds, "--count", 40, "--fault", *faults))
    for (fault, kind), result in zip(product(faults, kinds), found, strict=True):
        assert result["what"] == kind and result[fault], (kind, fault)
        assert not any(result[bad] for bad in BAD if bad != fault), (kind, fault)
