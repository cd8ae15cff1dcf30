"""What the command sets up before any library is loaded."""

import os
import re
import signal
import subprocess
import sys

import pytest

LOADS = """
import contextlib, sys
from mrl_search.cli.start import main
sys.argv = ["mrl-search", *sys.argv[1:]]
with contextlib.suppress(SystemExit):
    main()
import torch
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only GNU OpenMP prints its settings")
@pytest.mark.parametrize(
    ("arguments", "own", "sleeps"),
    [
        (["--version"], {}, True), (["build-index", "--help"], {}, True),
        (["train", "--help"], {}, False), (["--version"], {"OMP_WAIT_POLICY": "ACTIVE"}, False),
    ],
)  # fmt: skip
def test_threads_of_openmp_sleep_while_they_wait(
    arguments: list[str], own: dict[str, str], sleeps: bool
) -> None:
    plain = {n: v for n, v in os.environ.items() if n not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**plain, "OMP_DISPLAY_ENV": "VERBOSE", **own}
    done = subprocess.run(
        [sys.executable, "-c", LOADS, *arguments], env=environment, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    spins = [int(count) for count in re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)]
    assert spins and all((count == 0) is sleeps for count in spins)


def test_a_second_interrupt_ends_at_once() -> None:
    """The first one may wait for threads of a library, which would show a traceback."""
    code = """
import os, signal
from mrl_search.cli.ending import code_of, prepare
prepare()
assert code_of(KeyboardInterrupt()) == 130
os.kill(os.getpid(), signal.SIGINT)
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGINT
    assert ended.stderr == "stopped; the same command continues where it can.\n"
