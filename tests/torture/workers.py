"""Run a function on many inputs in child processes: what ends them, hangs, or takes much memory.

Bad is a signal, an exception that is no `MrlSearchError`, over 10 s an input, or over 1 GB.
"""

import contextlib
import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from mrl_search.errors import MrlSearchError

LONGEST = 10  # seconds an input
MOST = 1 << 30  # bytes above what a worker takes at its start
SPACE = 8 << 30  # bytes of address space; what wants more fails, for the sake of the machine


@dataclass
class Found:
    """How many inputs were tried, and by kind what was bad: number of the input and why."""

    tried: int = 0
    refused: int = 0
    bad: dict[str, list[tuple[int, str]]] = field(
        default_factory=lambda: {"signals": [], "tracebacks": [], "hangs": [], "memory": []}
    )


def survey(
    check: Callable[[int], object], count: int, seconds: float = 1e9, first: int = 0,
    longest: float = LONGEST,
) -> Found:  # fmt: skip
    """Call `check` with `count` numbers from `first`, for at most `seconds` in all."""
    found, end = Found(), time.monotonic() + seconds
    while found.tried < count and time.monotonic() < end:
        _watch(check, first + found.tried, first + count, found, end, longest)
    return found


def _watch(
    check: Callable[[int], object], start: int, stop: int, found: Found, end: float, longest: float
) -> None:
    """Fork a worker, and read what it tells until it ends."""
    ear, mouth = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ear)
        os.setsid()
        with contextlib.suppress(BaseException):
            _work(check, start, stop, mouth)
        os._exit(0)
    os.close(mouth)
    number, rest = start, b""
    while True:
        if not select.select([ear], [], [], longest)[0]:
            os.killpg(pid, signal.SIGKILL)
            found.bad["hangs"].append((number, f"over {longest} s"))
            break
        block = os.read(ear, 1 << 16)
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            number, kind, text = json.loads(line)
            if kind == "begun":
                found.tried += 1
            elif kind == "refused":
                found.refused += 1
            else:
                found.bad[kind].append((number, text))
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            break
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code < 0 and code != -signal.SIGKILL:
        found.bad["signals"].append((number, signal.Signals(-code).name))
    os.close(ear)


def _work(check: Callable[[int], object], start: int, stop: int, mouth: int) -> None:
    """A worker: tell the number of each input, and what is bad about it."""

    def tell(number: int, kind: str, text: str = "") -> None:
        os.write(mouth, json.dumps([number, kind, text]).encode() + b"\n")

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (SPACE, SPACE))
    least = _memory()
    for number in range(start, stop):
        tell(number, "begun")
        try:
            check(number)
        except MrlSearchError:
            tell(number, "refused")
        except BaseException:
            tell(number, "tracebacks", traceback.format_exc()[-3000:])
        if (grown := _memory() - least) > MOST:
            tell(number, "memory", f"{grown:,} bytes")
            return  # the peak stays: go on in a new worker


def _memory() -> int:
    """Peak bytes of this process and of its children."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(w).ru_maxrss for w in who) * 1024
