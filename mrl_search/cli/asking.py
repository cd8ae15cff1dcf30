"""Asking a server that runs instead of opening an index: the model is loaded there already."""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mrl_search.errors import DataError, MrlSearchError
from mrl_search.web.beside import Server, server_of
from mrl_search.web.client import Connection, server_at

if TYPE_CHECKING:
    from mrl_search.encoders.words import Words

__all__ = ["Answers", "ask_server"]

LARGEST = 23_000_000  # bytes of a picture: a request may have 32 MB, and base64 adds a third


@dataclass(frozen=True, slots=True)
class Answers:
    """What a server answered.

    Attributes:
        server: its address.
        found: each query, and its answer (see the API).
    """

    server: str
    found: list[tuple["str | Words", dict[str, Any]]]


def ask_server(
    url: str | None, index: Path | None, asked: "Sequence[str | Words]", how: Mapping[str, Any]
) -> Answers | None:
    """Ask the server at `url`, or the one that runs on the index.

    Returns:
        None if there is no such server, or if it cannot answer as this process would: then this
        process does, and says what is wrong in its own words.

    Raises:
        ConfigError, DataError, NoAnswer: with a `url`, what is wrong.
    """
    if url is not None:
        return _ask(server_at(url, index.name if index else None), asked, how)
    with contextlib.suppress(MrlSearchError):
        server = _server_on(index)
        return None if server is None else _ask(server, asked, how)
    return None


def _server_on(index: Path | None) -> Server | None:
    """The server of an index, or of the newest one."""
    if index is None:
        if not any(Path("indexes").glob(".*.serving")):
            return None
        from mrl_search.store.manifest import newest_index

        index = newest_index()
    return server_of(index)


def _ask(server: Server, asked: "Sequence[str | Words]", how: Mapping[str, Any]) -> Answers:
    given = {name: value for name, value in how.items() if value is not None}
    with Connection(server) as connection:
        found = [(one, connection.search({**_query(one), **given})) for one in asked]
    return Answers(server.url, found)


def _query(one: "str | Words") -> dict[str, Any]:
    """A query as the API takes it."""
    if isinstance(one, str):
        return {"image": _picture(one)}
    plus = [{"text": phrase} for phrase in one.text]
    if one.picture is not None:
        plus.append({"image": _picture(one.picture)})
    return {"plus": plus, "minus": [{"text": phrase} for phrase in one.minus]}


def _picture(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the name.") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} is too large for a server.", "Leave --server out.")
    return base64.b64encode(data).decode()
