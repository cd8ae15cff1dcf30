"""Questions to a server that runs: no more is imported than a first answer needs."""

import http.client
import json
from typing import Any, Self
from urllib.parse import parse_qs, quote, urlsplit

from mrl_search.errors import ConfigError, MrlSearchError
from mrl_search.web.beside import Server

__all__ = ["Connection", "NoAnswer", "server_at"]

PATIENCE = 60  # seconds
UPGRADE = "Run the same version there."


class NoAnswer(MrlSearchError):
    """A server that is not there, or is no server of this software."""


class Connection:
    """A connection to a server, kept for several questions.

    Args:
        server: which one.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        where = urlsplit(server.url)
        secure = where.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._open = kind(where.hostname or "", where.port, timeout=PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def ask(self, method: str, path: str, value: object = None) -> Any:  # noqa: ANN401 - JSON
        """The answer to a request, from JSON.

        Raises:
            ConfigError: what the server says is wrong with the request.
            NoAnswer: there is none, or it is not understood.
        """
        headers = {"accept": "application/json"}
        if self.server.token:
            headers["authorization"] = f"Bearer {self.server.token}"
        body = None
        if value is not None:
            body, headers["content-type"] = json.dumps(value).encode(), "application/json"
        try:
            self._open.request(method, path, body, headers)
            response = self._open.getresponse()
            told = json.loads(response.read())
            if response.status >= 400:
                raise ConfigError(str(told["error"]), str(told.get("hint", "")))
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            message = f"No mrl-search server answers at {self.server.url}."
            hint = "Start it with mrl-search serve, or leave --server out."
            raise NoAnswer(message, hint) from error
        return told

    def search(self, asked: object) -> Any:  # noqa: ANN401 - JSON
        """The answer to a search (see the API)."""
        told = self.ask("POST", f"/api/indexes/{quote(self.server.name, safe='')}/search", asked)
        if not isinstance(told, dict) or not told.keys() >= {"plan", "k", "found", "ms", "hits"}:
            raise NoAnswer(f"{self.server.url} does not answer as mrl-search does.", UPGRADE)
        return told


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
    with Connection(server) as connection:
        names = [str(index["name"]) for index in connection.ask("GET", "/api/indexes")]
    if name is None and len(names) == 1:
        return Server(server.url, names[0], token)
    if name not in names:
        known = ", ".join(names)
        message = f"{server.url} has no index {name}." if name else f"{server.url} has several."
        raise ConfigError(message, f"Name one with --index: {known}.")
    return server
