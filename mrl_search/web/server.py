"""The HTTP server under the application: requests must arrive in time, and their heads be small."""

import asyncio
import json
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["make_server"]

IDLE = 10  # seconds until a connection without requests is closed
LARGEST_HEAD = 1 << 16  # bytes of a request line and headers
HEAD_PATIENCE = 15.0  # seconds for them to arrive, also on a connection that says nothing
PATIENCE = 120.0  # seconds for the rest of the request
STATUSES = {408: "Request Timeout", 431: "Request Header Fields Too Large"}
LATE = "The request did not arrive in time."
LARGE = "The head of the request is larger than 64 kB."


def make_server(app: Any, **options: Any) -> uvicorn.Server:  # noqa: ANN401 - an ASGI app
    """A server of an application; `options` are those of `uvicorn.Config`.

    What proxies say about clients is not believed.
    """
    config = uvicorn.Config(
        app, http=PatientProtocol, ws="none", proxy_headers=False, log_level="warning",
        access_log=False, server_header=False, timeout_keep_alive=IDLE, **options,
    )  # fmt: skip
    return uvicorn.Server(config)


class PatientProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit to the time and the size of what a client sends.

    uvicorn itself closes connections between requests (`timeout_keep_alive`), not within one.
    """

    _timer: asyncio.TimerHandle | None = None
    _head: int | None = 0  # bytes of a head that is not complete; None: it is

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait(HEAD_PATIENCE)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._wait(HEAD_PATIENCE)  # the next request of a connection that is kept
        if self._head is not None:
            self._head += len(data)
        super().data_received(data)
        if self._head is not None and self._head > LARGEST_HEAD:
            self._refuse(431, LARGE)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head = None
        self._wait(PATIENCE)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._head = 0
        self._wait(None)

    def _wait(self, seconds: float | None) -> None:
        """Give the client some more seconds, or as long as it likes."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        self._refuse(408, LATE)

    def _refuse(self, status: int, error: str) -> None:
        """Close the connection, with an answer unless one has begun, or nothing was asked."""
        if self.transport.is_closing():
            return
        begun = self._head is None and self.cycle.response_started
        if not begun and self._head != 0:
            body = json.dumps({"error": error, "hint": ""})
            head = (
                f"HTTP/1.1 {status} {STATUSES[status]}\r\ncontent-type: application/json\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write((head + body).encode())
        self.transport.close()
