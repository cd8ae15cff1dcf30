"""What the command sets up before any library is loaded."""

import os
import subprocess
import sys

import pytest

LOADS = """
import contextlib, sys
from mrl_search.cli.start import main
sys.argv = ["mrl-search", "--version"]
with contextlib.suppress(SystemExit):
    main()
import torch
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP says what it was told")
@pytest.mark.parametrize(
    ("own", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")]
)
def test_threads_of_openmp_sleep_while_they_wait(own: dict[str, str], policy: str) -> None:
    plain = {n: v for n, v in os.environ.items() if n not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**plain, "OMP_DISPLAY_ENV": "TRUE", **own}
    done = subprocess.run(
        [sys.executable, "-c", LOADS], env=environment, capture_output=True, text=True, check=True
    )
    assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr
