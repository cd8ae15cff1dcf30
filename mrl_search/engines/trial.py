"""Trying kinds of index on random vectors in a child process.

FAISS ends the process for some factory strings, and builds others that no query can search
(`IVF0,Flat`). A child process finds that out before any picture is read. Graphs of fewer than two
links (`HNSW0`, `HNSW1`) write outside of their memory: they are refused without a trial, which
would leave a segmentation fault in the system's log.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from mrl_search.engines.base import KNOWN
from mrl_search.engines.spec import EXACT, IndexSpec
from mrl_search.errors import ConfigError

__all__ = ["check_kinds"]

LONGEST = 60  # seconds after which a trial is given up
ENDLESS = "NSG"  # FAISS never finishes some of these graphs
MEMORY = 1 << 30  # bytes that a kind may take, and as many as eight times the vectors
CRASHES = re.compile(r"HNSW0*[01](?!\d)")
CHILD = "from mrl_search.engines.trial import main; main()"


def check_kinds(spec: IndexSpec, count: int) -> None:
    """Check that FAISS builds and searches the kinds of `spec`, before `count` vectors are made.

    Raises:
        ConfigError: FAISS cannot build or search one, needs more vectors or memory, or crashes.
            Of the kinds that take long, only those are refused that may never end.
    """
    for dims in spec.dims:
        if (kind := spec.factory_of(dims, count)) not in EXACT:
            _try(dims, kind, count)


@cache
def _try(dims: int, kind: str, count: int) -> None:
    """As `check_kinds`; a kind that passes is not tried again."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    where = f"an index {kind!r} for {dims} dims"
    crashes = ConfigError(f"FAISS crashes when it builds or searches {where}.", KNOWN)
    if CRASHES.search(kind):
        raise crashes
    try:
        child = subprocess.run(
            [sys.executable, "-c", CHILD], env=environment, timeout=LONGEST, check=False,
            input=json.dumps([dims, kind, count]), capture_output=True, encoding="utf-8",
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        if ENDLESS not in kind:
            return  # a kind for many vectors may well take longer
        raise ConfigError(f"FAISS does not finish building {where}.", KNOWN) from error
    try:
        message, hint = json.loads(child.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise crashes from None
    if message:
        raise ConfigError(message, hint)


def main() -> None:
    """Try the kind that standard input names, and print what is wrong with it."""
    from mrl_search.engines.build import FEWEST, search_random

    dims, kind, count = json.loads(sys.stdin.read())
    if sys.platform == "linux":
        import resource

        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limit = now + MEMORY + 8 * 4 * dims * min(count, FEWEST)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    found = ("", "")
    try:
        search_random(dims, kind, count)
    except ConfigError as error:
        found = (error.message, error.hint)
    except MemoryError:
        found = (f"An index {kind!r} for {dims} dims takes too much memory.", KNOWN)
    print(json.dumps(found))  # noqa: T201 - the answer of the child
