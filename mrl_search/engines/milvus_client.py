"""Milvus, a server or a file of Milvus Lite: its address, calls, and what it says when it fails."""

import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

from mrl_search.errors import ConfigError, EngineError
from mrl_search.files import is_claimed

__all__ = ["Damaged", "Foreign", "Place", "ask", "check_file", "connected"]

SCHEME = "milvus:"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
HINT = "For example milvus:./pictures.db#mine, or milvus:http://localhost:19530#mine."
TOKEN = "MILVUS_TOKEN"  # the variable of the environment that has the token
SECONDS = 60.0  # for one call; after them it is made once again at most
SLICES = 20  # of the time that a call has
BUILDING = 600.0  # for a file of Milvus Lite that is loaded: it builds indexes then
CONNECTING = 8.0  # twice, and the start of a command: 20 s
WAITS = (0.3, 1.0, 3.0, 9.0, 27.0)  # seconds before a call is made again
OLDEST = (2, 3)  # version of a server
BUSY = ("rate limit", "unavailable", "not ready", "connect")
SLOW = ("timeout", "timed out", "deadline")
REFUSALS = (
    (
        ("auth", "permission", "denied", "token"),
        f"Set the environment variable {TOKEN} to USER:PASSWORD or an API key.",
    ),
    (
        ("illegal connection",),  # also what pymilvus says of a wrong token
        f"Is it running, and are the address and {TOKEN} right? What was written stays.",
    ),
    (SLOW, "It is slow, or gone. What was written stays."),
    (BUSY, "Is it running, and is the address right? What was written stays."),
    (("quota", "no space", "memory", "disk", "file too large"), "Make room there."),
    (("open local milvus",), "Is it a database of Milvus Lite, and may you write there?"),
)
"""Words of what a server says, and what to do about it."""


class Damaged(EngineError):
    """A collection that lacks rows of its index, or a file of Milvus Lite that cannot be read."""


class Foreign(EngineError):
    """A collection that belongs to another index, or that a copy of this one changed."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a collection is: `milvus:URI#NAME`; a URI that is a path is a file of Milvus Lite."""

    uri: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a place.

        Raises:
            ConfigError: not of that form.
        """
        uri, mark, name = text.removeprefix(SCHEME).rpartition("#")
        if not text.startswith(SCHEME) or not mark or not uri:
            raise ConfigError(f"{text!r} is not milvus:URI#COLLECTION.", HINT)
        if not NAME.fullmatch(name):
            message = f"{name!r} cannot name a collection: letters, digits and _ can."
            raise ConfigError(message, HINT)
        if "://" not in uri and not uri.endswith(".db"):
            raise ConfigError(f"{uri!r} is neither an address nor a file NAME.db.", HINT)
        return cls(uri if "://" in uri else str(Path(uri).expanduser().absolute()), name)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of Milvus Lite."""
        return "://" not in self.uri

    def __str__(self) -> str:
        return f"{SCHEME}{self.uri}#{self.name}"

    @staticmethod
    def is_one(text: str) -> bool:
        """Whether a text means a place rather than a folder."""
        return text.startswith(SCHEME)


def connected(place: Place) -> Any:  # noqa: ANN401
    """The client of a place, one a process and URI.

    Raises:
        ConfigError: pymilvus is not installed.
        EngineError: there is no answer, or the server is too old.
    """
    return _client_of(replace(place, name=""), os.environ.get(TOKEN, ""))


@lru_cache(maxsize=16)
def _client_of(place: Place, token: str) -> Any:  # noqa: ANN401
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr
    try:
        from pymilvus import MilvusClient
    except ImportError as error:
        hint = 'Install it with: pip install "mrl-search[milvus]"'
        raise ConfigError("Milvus needs pymilvus, which is not installed.", hint) from error
    for name in ("pymilvus", "milvus_lite"):  # they also raise what they log
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if place.is_file:
        check_file(Path(place.uri))
    seconds = SECONDS if place.is_file else CONNECTING  # a file that was not closed takes longer
    client = ask(place, MilvusClient, place.uri, token=token, seconds=seconds)
    version = ask(place, client.get_server_version)
    number = re.match(r"v?(\d+)\.(\d+)", version)
    if number and tuple(map(int, number.groups())) < OLDEST:
        raise EngineError(f"Milvus at {place.uri} is version {version}.", "Use 2.3 or later.")
    return client


def check_file(folder: Path) -> None:
    """Check that Milvus Lite can open its "file", which is a folder, before it tries.

    Raises:
        EngineError: another process has it, or something else is there.
        FileError: it cannot be read.
    """
    if not folder.parent.is_dir():
        raise EngineError(f"There is no folder {folder.parent} for {folder.name}.", "Make it.")
    if folder.exists() and not folder.is_dir():
        message = f"{folder} is not a database of Milvus Lite 3, which is a folder."
        raise EngineError(message, "Choose another name, such as NEW.db.")
    if (folder / "LOCK").exists() and is_claimed(folder / "LOCK"):
        message = f"Another process has {folder} open, such as mrl-search serve."
        hint = "Milvus Lite serves one process at a time: end the other one, or wait for it."
        raise EngineError(message, hint)


def ask(
    place: Place,
    call: Callable[..., Any],
    *args: Any,  # noqa: ANN401
    seconds: float | None = None,
    **options: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Make a call; again, after some time, where the server may answer then.

    No call takes longer than `seconds`, and after as many the second is the last: all of it ends
    within twice that time. A file that is slow is asked once: its work goes on in this process.

    Raises:
        EngineError: it does not, or it refuses.
    """
    limit = seconds or SECONDS
    end = time.monotonic() + limit
    again = BUSY if place.is_file else (*BUSY, *SLOW)
    for number, wait in enumerate((*WAITS, math.inf)):
        try:
            known = limit * (10 if place.is_file else 1)  # gRPC counts the sleep of a laptop, too
            return _within(limit, partial(call, *args, timeout=known, **options))
        except Exception as error:  # of pymilvus, gRPC, or Milvus Lite
            message = _words(error)
            passing = any(word in message.lower() for word in again)
            if not passing or (number > 0 and time.monotonic() + wait > end):
                raise _refusal(place, message) from error
        time.sleep(wait)
    raise AssertionError


def _within(seconds: float, call: Callable[[], Any]) -> Any:  # noqa: ANN401
    """The result of a call, made in a thread: some steps of pymilvus have no limit of their own.

    Raises:
        TimeoutError: there is none in time; the thread is left behind.
    """
    ended: list[tuple[Any, Exception | None]] = []

    def make() -> None:
        try:
            ended.append((call(), None))
        except Exception as error:
            ended.append((None, error))

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    for _ in range(SLICES):  # a process that is suspended loses one of them
        thread.join(seconds / SLICES)
        if ended:
            break
    else:
        raise TimeoutError(f"timed out: no answer in {seconds:g} s")
    result, error = ended[0]
    if error is not None:
        raise error
    return result


def _words(error: Exception) -> str:
    """What an error says, without what surrounds it."""
    details = getattr(error, "details", None)  # of gRPC
    text = (details() if callable(details) else "") or getattr(error, "message", "") or error
    return " ".join(str(text).split())[:300].rstrip(".")


def _refusal(place: Place, text: str) -> EngineError:
    message = f"Milvus at {place.uri} says: {text}."
    said = text.replace(place.uri, "").lower()
    for words, advice in REFUSALS:
        if any(word in said for word in words):
            return EngineError(message, advice)
    if place.is_file:
        hint = f"Its data may be damaged. Send it again: mrl-search copy INDEX --to '{place}'"
        return Damaged(message, hint)
    return EngineError(message, "Milvus 2.3 and later are known to work; its log says more.")
