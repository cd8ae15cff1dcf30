"""Requests that come slowly, or with endless heads, are not waited for."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from fakes import FakeJointEncoder
from served import build, running

from mrl_search.web import server
from mrl_search.web.served import WAITING, Served

SEARCH = b"POST /api/indexes/mine/search HTTP/1.1\r\nhost: localhost\r\n"
JSON = b"content-type: application/json\r\n"
TINY = b'{"id": 1}'
SOON = 0.3  # seconds that the tests' server waits
LONG = 20  # seconds that no test takes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("patient"), 4)


@pytest.fixture
def port(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(server, "HEAD_PATIENCE", SOON)
    monkeypatch.setattr(server, "PATIENCE", SOON)
    with running(folder) as url:
        yield int(url.rstrip("/").rpartition(":")[2])


def told(connection: socket.socket) -> bytes:
    """All that the server says until it closes the connection."""
    found = b""
    connection.settimeout(LONG)
    while data := connection.recv(65536):
        found += data
    return found


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"POST /api", [b"408"]),
        (SEARCH, [b"408"]),
        (SEARCH + JSON + b"content-length: 9\r\n\r\n", [b"408"]),
        (SEARCH + JSON + b"content-length: 9\r\n\r\n" + TINY[:4], [b"408"]),
        (SEARCH + JSON + b"transfer-encoding: chunked\r\n\r\n5\r\n" + TINY[:5], [b"408"]),
        (SEARCH + b"content-type: multipart/form-data; boundary=x\r\ncontent-length: 99\r\n\r\n--x",
         [b"408"]),
        (SEARCH + JSON + b"content-length: 9\r\n\r\n" + TINY + b"GET / HT", [b"200", b"408"]),
        (SEARCH + JSON + b"content-length: 9\r\n\r\n" + TINY + b"\r\n", [b"200", b"408"]),
        (SEARCH + b"content-length: 9\r\n\r\n" + TINY[:5], [b"415"]),
    ],
    ids=range(10),
)  # fmt: skip
def test_what_does_not_arrive_is_not_waited_for(
    port: int, sent: bytes, statuses: list[bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(sent)
        if statuses[:1] == [b"200"]:
            time.sleep(2 * SOON)
            connection.sendall(b"TP/1.1\r\n" if sent.endswith(b"HT") else b"\r\n")
        answers = told(connection).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == statuses
    assert "Traceback" not in capfd.readouterr().err


def test_drops_of_a_request_are_not_waited_for(port: int) -> None:
    for sent in (SEARCH, SEARCH + JSON + b"content-length: 5000\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            start = time.monotonic()
            with pytest.raises(OSError, match=r"[Pp]ipe|reset"):
                while time.monotonic() - start < LONG:
                    connection.sendall(b"a")
                    time.sleep(SOON / 10)


def test_pictures_that_wait_hold_up_no_other_search(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go, arrived = threading.Event(), threading.Semaphore(0)
    turn = Served.turn

    def counted(one: Served) -> contextlib.AbstractContextManager[None]:
        arrived.release()
        return turn(one)

    def slow(self: FakeJointEncoder, texts: list[str]) -> np.ndarray:
        assert go.wait(LONG)
        return np.ones((len(texts), 64), np.float32)

    monkeypatch.setattr(Served, "turn", counted)
    monkeypatch.setattr(FakeJointEncoder, "encode_text", slow)
    with running(folder) as url, ThreadPoolExecutor(WAITING) as pool:

        def status(**asked: object) -> int:
            search = f"{url}api/indexes/mine/search"
            return httpx.post(search, json=asked, timeout=2 * LONG).status_code

        waiting = [pool.submit(status, text="red") for _ in range(WAITING)]
        try:
            assert all(arrived.acquire(timeout=LONG) for _ in waiting)
            assert status(id=1) == 200
            assert status(text="red") == 429
        finally:
            go.set()
        assert [one.result() for one in waiting] == [200] * WAITING


def test_heads_are_bounded(port: int) -> None:
    large = b"x" * (server.LARGEST_HEAD + 1)
    for sent in (b"GET /" + large, SEARCH + b"a: " + large, SEARCH + b"a: b\r\n" * 20_000):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            assert told(connection).startswith(b"HTTP/1.1 431 ")


def test_large_bodies_and_several_requests_of_a_connection_are_answered(folder: Path) -> None:
    text = b'{"id": 1, "k": 1' + b" " * 200_000 + b"}"
    request = SEARCH + JSON + b"content-length: %d\r\n\r\n" % len(text) + text
    last = request.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)
    with running(folder) as url:
        address = ("127.0.0.1", int(url.rstrip("/").rpartition(":")[2]))
        with socket.create_connection(address) as connection:
            connection.sendall(request + request + last)
            assert told(connection).count(b"HTTP/1.1 200 OK") == 3
