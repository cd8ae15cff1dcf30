"""Questions to a server that runs: no more is imported than a first answer needs."""

import contextlib
import json
import socket
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from mrl_search.errors import ConfigError, MrlSearchError
from mrl_search.web.beside import Server

__all__ = ["NoAnswer", "ask", "find", "server_at"]

PATIENCE = 60  # seconds
UPGRADE = "Run the same version there."
NEEDED = {
    "search": {"plan", "k", "found", "ms", "hits"},
    "classify": {"plan", "label", "confidence", "votes", "doubt"},
}
"""Keys of an answer that are shown."""


class NoAnswer(MrlSearchError):
    """A server that is not there, or is no server of this software."""


def ask(server: Server, method: str, path: str, value: object = None) -> Any:  # noqa: ANN401 - JSON
    """The answer to a request, from JSON.

    Raises:
        ConfigError: what the server says is wrong with the request.
        NoAnswer: there is none, or it is not understood.
    """
    headers = {"accept": "application/json"}
    if server.token:
        headers["authorization"] = f"Bearer {server.token}"
    body = b""
    if value is not None:
        body, headers["content-type"] = json.dumps(value).encode(), "application/json"
    try:
        status, text = _exchange(server.url, f"{method} {path}", headers, body)
        told = json.loads(text)
        refused = (str(told["error"]), str(told.get("hint", ""))) if status >= 400 else None
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"No mrl-search server answers at {server.url}."
        hint = "Start it with mrl-search serve, or leave --server out."
        raise NoAnswer(message, hint) from error
    if refused is not None:
        raise ConfigError(*refused)
    return told


def find(server: Server, what: str, asked: object) -> Any:  # noqa: ANN401 - JSON
    """The answer to a request; `what` is search or classify (see the API)."""
    told = ask(server, "POST", f"/api/indexes/{quote(server.name, safe='')}/{what}", asked)
    if not isinstance(told, dict) or not told.keys() >= NEEDED[what]:
        raise NoAnswer(f"{server.url} does not answer as mrl-search does.", UPGRADE)
    return told


def _exchange(url: str, request: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
    """Status and body of the answer to `METHOD PATH`; `http.client` is slower than the answer.

    Raises:
        OSError: no connection, or it ended early.
        ValueError: the answer is no HTTP.
    """
    where = urlsplit(url)
    host, secure = where.hostname or "", where.scheme == "https"
    named = {"host": where.netloc.rpartition("@")[2], **headers, "content-length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    with contextlib.ExitStack() as stack:
        address = host, where.port or (443 if secure else 80)
        connection = stack.enter_context(socket.create_connection(address, PATIENCE))
        if secure:
            import ssl

            context = ssl.create_default_context()
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=host))
        # after an answer to HTTP/1.0 the server closes, and it is in one piece
        connection.sendall(f"{request} HTTP/1.0\r\n{head}\r\n".encode() + body)
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    top, _, text = answer.partition(b"\r\n\r\n")
    if not top.startswith(b"HTTP/1."):
        raise ValueError("no HTTP")
    return int(top[9:12]), text


def server_at(url: str, name: str | None) -> Server:
    """The server at an address as `mrl-search serve` prints it, with the token if it has one.

    Args:
        url: the address.
        name: how it calls the index; None: its only one.

    Raises:
        ConfigError: no address, or the server has several indexes, or none of that name.
        NoAnswer: nothing answers there.
    """
    where = urlsplit(url)
    try:
        fits = where.scheme in ("http", "https") and where.hostname and where.port is not False
    except ValueError:  # of a port that is no number
        fits = False
    if not fits:
        raise ConfigError(f"--server is {url!r}.", "For example http://127.0.0.1:8765.")
    token = parse_qs(where.query).get("token", [""])[0]
    server = Server(f"{where.scheme}://{where.netloc}", name or "", token)
    names = [str(index["name"]) for index in ask(server, "GET", "/api/indexes")]
    if name is None and len(names) == 1:
        return Server(server.url, names[0], token)
    if name not in names:
        known = ", ".join(names)
        message = f"{server.url} has no index {name}." if name else f"{server.url} has several."
        raise ConfigError(message, f"Name one with --index: {known}.")
    return server
