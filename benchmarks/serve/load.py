"""Clients of a server: one that sends a request after the other, or many at once.

They send prepared bytes and look at no more of an answer than its status and length, so that the
time is the server's.
"""

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import uvloop

__all__ = ["Answer", "Question", "ask", "crowd", "one_client"]

PATIENCE = 120  # seconds for an answer


@dataclass(frozen=True, slots=True)
class Question:
    """A request: the port, and all its bytes."""

    port: int
    data: bytes

    @classmethod
    def of(cls, port: int, method: str, path: str, value: object = None) -> "Question":
        """A request by JSON."""
        body = b"" if value is None else json.dumps(value).encode()
        head = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        if body:
            head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
        return cls(port, head.encode() + b"\r\n" + body)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer.

    Attributes:
        number: of the question.
        ms: milliseconds from sending to the last byte.
        body: what was sent.
        refused: how often the server said 429 before, each time with a pause that it named.
    """

    number: int
    ms: float
    body: bytes
    refused: int = 0


def one_client(asked: Sequence[Question], numbers: Sequence[int]) -> list[Answer]:
    """Ask the questions of these numbers on one connection, each when the last is answered."""
    found = []
    with socket.create_connection(("127.0.0.1", asked[0].port), PATIENCE) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in numbers:
            data = asked[number % len(asked)].data
            start = time.perf_counter()
            connection.sendall(data)
            text = b""
            while (size := _size(text)) is None or len(text) < size:
                part = connection.recv(1 << 18)
                if not part:
                    raise ConnectionError("The server closed the connection.")
                text += part
            ms = (time.perf_counter() - start) * 1e3
            found.append(Answer(number % len(asked), ms, _body(text)))
    return found


def ask(port: int, method: str, path: str, value: object = None) -> Any:  # noqa: ANN401 - JSON
    """The JSON that a request gives."""
    return json.loads(one_client([Question.of(port, method, path, value)], [0])[0].body)


def crowd(asked: Sequence[Question], count: int, clients: int) -> tuple[list[Answer], float]:
    """Ask `count` questions by so many clients at once; the answers, and seconds of them all.

    A client that is refused (429) waits as long as the server says, and asks again.
    """
    return uvloop.run(_crowd(asked, count, clients))


async def _crowd(asked: Sequence[Question], count: int, clients: int) -> tuple[list[Answer], float]:
    numbers, found = iter(range(count)), list[Answer]()
    loop = asyncio.get_running_loop()

    async def client() -> None:
        transport, protocol = await loop.create_connection(_Client, "127.0.0.1", asked[0].port)
        try:
            for number in numbers:
                refused = 0
                while True:
                    start = time.perf_counter()
                    text = await protocol.exchange(asked[number % len(asked)].data)
                    ms = (time.perf_counter() - start) * 1e3
                    if not text.startswith(b"HTTP/1.1 429"):
                        break
                    refused += 1
                    head = text.partition(b"\r\n\r\n")[0].lower()
                    await asyncio.sleep(float(head.partition(b"retry-after:")[2].split()[0]))
                found.append(Answer(number % len(asked), ms, _body(text), refused))
        finally:
            transport.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return found, time.perf_counter() - start


class _Client(asyncio.Protocol):
    """A connection with one request at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.text = b""
        self.done: asyncio.Future[bytes] | None = None

    def exchange(self, data: bytes) -> "asyncio.Future[bytes]":
        self.text, self.done = b"", asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.done

    def data_received(self, data: bytes) -> None:
        self.text += data
        size = _size(self.text)
        if size is not None and len(self.text) >= size and self.done is not None:
            self.done.set_result(self.text)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(exc or ConnectionError("The server closed the connection."))


def _size(text: bytes) -> int | None:
    """Bytes of a whole answer; None before its head is complete."""
    end = text.find(b"\r\n\r\n")
    if end < 0:
        return None
    length = text[:end].lower().partition(b"content-length:")[2].split(b"\r\n")[0]
    return end + 4 + int(length)


def _body(text: bytes) -> bytes:
    head, _, body = text.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"{head.splitlines()[0]!r}: {body[:200]!r}")
    return body
