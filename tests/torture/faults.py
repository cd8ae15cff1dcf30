"""Faults to put in on purpose: each machine must find its own.

Those of commands break the way files are written. Those of inputs break the function that opens
a kind of input, in every tenth call.
"""

import importlib
import itertools
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

__all__ = ["COMMAND_FAULTS", "DOORS", "INPUT_FAULTS", "break_inputs", "broken_commands"]

DOORS = {
    "pictures": "mrl_search.images.decode decode",
    "arrays": "mrl_search.store.vector_files open_array",
    "manifests": "mrl_search.store.collection read_manifest",
    "records": "mrl_search.measure.records parse_json",
    "plans": "mrl_search.search.plan require",
    "factories": "mrl_search.engines.trial _try",
    "items": "mrl_search.store.own_vectors read_columns",
}


@contextmanager
def _without_temporary_name(path: Path, *, flushed: bool = True) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        yield file


@contextmanager
def _without_cleanup(path: Path, *, flushed: bool = True) -> Iterator[BinaryIO]:
    from mrl_search.files import writing

    temporary = path.with_name(f".{os.urandom(8).hex()}.writing")
    with writing(path):
        with temporary.open("wb") as file:
            yield file
        temporary.rename(path)


@contextmanager
def _without_word(path: Path, *, flushed: bool = True) -> Iterator[BinaryIO]:
    with suppress(OSError), _without_cleanup(path) as file:
        yield file


COMMAND_FAULTS = {
    "without temporary name": _without_temporary_name, "without cleanup": _without_cleanup,
    "without word": _without_word,
}  # fmt: skip


@contextmanager
def broken_commands(fault: str | None) -> Iterator[None]:
    """Write files in a bad way meanwhile."""
    rooms = ("store.items", "store.writer", "files", "report.sheet") if fault else ()
    with ExitStack() as stack:
        for room in rooms:
            name = f"mrl_search.{room}.write_atomically"
            stack.enter_context(patch(name, COMMAND_FAULTS[fault]))
        yield


def _hold_memory() -> None:
    bytearray(b"x") * (5 << 28)


INPUT_FAULTS: dict[str, Callable[[], object]] = {
    "tracebacks": lambda: {}["no such key"], "signals": os.abort,
    "hangs": lambda: time.sleep(1000), "memory": _hold_memory,
}  # fmt: skip


def break_inputs(kind: str, fault: str) -> None:
    """Let every tenth call of the function that opens a kind of input have a fault."""
    module, name = DOORS[kind].split()
    room = importlib.import_module(module)
    opened, calls = getattr(room, name), itertools.count(1)

    def broken(*args: Any, **more: Any) -> Any:
        if next(calls) % 10 == 0:
            INPUT_FAULTS[fault]()
        return opened(*args, **more)

    setattr(room, name, broken)
