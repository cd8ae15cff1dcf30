"""Runs the machines of this folder, each in a process that has made nothing parallel yet."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1]


def results(machine: str, *options: object) -> Iterator[dict[str, Any]]:
    """The objects that `python -m torture.MACHINE OPTIONS` prints."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-m", f"torture.{machine}", *map(str, options)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout and process.stderr
        yield from map(json.loads, process.stdout)
        text = process.stderr.read()
    assert process.returncode == 0, text
