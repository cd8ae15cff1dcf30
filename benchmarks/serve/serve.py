"""How fast a server answers, and whether it keeps its answers and its memory in order.

    python benchmarks/serve/serve.py INDEX OUT [--clients 1,8,64] [--requests 2000]
        [--many 100000] [--plan PLAN]

Starts `mrl-search serve INDEX` and a bare FAISS behind FastAPI (`bare.py`), all on loopback and on
one thread a search, and appends records to OUT (JSON lines): milliseconds of the library itself,
of the server by vector, by query_id and by picture, and of the bare one, in turns; then whether
10,000 answers to 64 clients are all right; then the memory of the server over many requests.
"""

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mrl_search.index import Index
from mrl_search.measure.environment import environment
from mrl_search.web.beside import server_of
from mrl_search.web.client import Connection

K, QUERIES, ROUNDS, SEED = 10, 512, 3, 1
CHECKED, CROWD = 10_000, 64  # requests whose answers are compared, and clients that send them
WARM = 3_000  # requests before memory is read for the first time
HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main(
    folder: Path, out: Path, clients: Sequence[int], requests: int, many: int, plan: str
) -> None:
    index = Index.open(folder)
    index.warm()
    corpus = index.corpus
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(corpus.live_rows, min(QUERIES, len(index)), replace=False)
    rows = corpus.vectors.rows(chosen).astype(np.float32)
    rows += rng.standard_normal(rows.shape).astype(np.float32) * np.float32(
        0.1 / rows.shape[1] ** 0.5
    )
    expected = index.search(rows, k=K, plan=plan).ids if _plain(index) else None
    head = {"index": folder.name, "items": len(index), "dim": corpus.dim, "k": K, "plan": plan}
    head["environment"] = environment()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(served(folder))
        bare = stack.enter_context(bare_served(corpus.vectors.rows(corpus.live_rows)))
        asked = questions(ours, rows, plan)
        if not index.manifest.own_vectors:
            asked["picture"] = pictures(ours, plan)
        asked["bare FAISS"] = [(bare, "/search", body(vector=row.tolist(), k=K)) for row in rows]
        for count in clients:
            times: dict[str, list[float]] = {name: [] for name in ("library", *asked)}
            spent = dict.fromkeys(times, 0.0)
            for _ in range(ROUNDS):
                if count == 1 and expected is not None:
                    found = library(index, rows, requests // ROUNDS, plan)
                    times["library"] += found
                    spent["library"] += sum(found) / 1e3
                for name, every in asked.items():
                    n = requests // ROUNDS // (10 if name == "picture" else 1)
                    found, seconds = asyncio.run(load(every, max(n, count), count))
                    times[name] += [ms for ms, _, _ in found]
                    spent[name] += seconds
            for name, ms in times.items():
                if ms:
                    p50, p99 = np.percentile(ms, [50, 99]).round(4).tolist()
                    rate = round(len(ms) / spent[name], 1)
                    about = {"what": name, "clients": count, "n": len(ms), "p50_ms": p50}
                    write(out, {**head, **about, "p99_ms": p99, "per_second": rate})
        if expected is not None:
            found, _ = asyncio.run(load(asked["vector"], CHECKED, CROWD))
            wrong = sum(
                [hit["id"] for hit in json.loads(text)["hits"]] != expected[i].tolist()
                for _, i, text in found
            )
            about = {"what": "answers", "clients": CROWD, "n": CHECKED, "came": len(found)}
            write(out, {**head, **about, "wrong": wrong})
        server = server_of(folder)
        if many and server is not None:
            sizes = []
            asyncio.run(load(asked["vector"], WARM, 8))
            for _ in range(10):
                sizes.append(resident(server.pid))
                asyncio.run(load(asked["vector"], many // 10, 8))
            sizes.append(resident(server.pid))
            mb = [round(size / 1e6, 1) for size in sizes]
            write(out, {**head, "what": "memory", "n": many, "resident_mb": mb})


def _plain(index: Index) -> bool:
    """Whether a vector of the stored space is one that the server takes."""
    return index.manifest.own_vectors or index.corpus.collection.transform.rotation is None


def library(index: Index, rows: NDArray[np.float32], n: int, plan: str) -> list[float]:
    """Milliseconds of `n` single searches in this process."""
    found = []
    for i in range(n):
        start = time.perf_counter()
        index.search(rows[i % len(rows)], k=K, plan=plan)
        found.append((time.perf_counter() - start) * 1e3)
    return found


@contextlib.contextmanager
def served(folder: Path) -> Iterator[int]:
    """A server of an index; gives its port."""
    command = [sys.executable, "-m", "mrl_search", "serve", str(folder), "--port", "0"]
    with process(command):
        port = wait(lambda: (server := server_of(folder)) and int(server.url.rpartition(":")[2]))
        with Connection(server_of(folder)) as connection:  # type: ignore[arg-type]
            connection.ask("GET", f"/api/indexes/{folder.resolve().name}")  # the model is loaded
        yield port


@contextlib.contextmanager
def bare_served(rows: NDArray[np.generic]) -> Iterator[int]:
    """The bare server of some vectors; gives its port."""
    with socket.socket() as free, tempfile.TemporaryDirectory() as folder:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        path = Path(folder) / "rows.npy"
        np.save(path, rows)
        with process([sys.executable, str(HERE / "bare.py"), str(path), str(port)]):
            wait(lambda: socket.create_connection(("127.0.0.1", port)).close() or True)
            yield port


@contextlib.contextmanager
def process(command: Sequence[str]) -> Iterator[None]:
    started = subprocess.Popen(command, env={**os.environ, **ONE_THREAD})
    try:
        yield
    finally:
        started.terminate()
        started.wait(30)


def wait(ready: Callable[[], Any], seconds: float = 120) -> Any:  # noqa: ANN401
    """What `ready` gives as soon as it gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            if found := ready():
                return found
        time.sleep(0.05)
    raise TimeoutError("The server does not answer.")


Question = tuple[int, str, bytes]


def body(**asked: object) -> bytes:
    return json.dumps(asked).encode()


def questions(port: int, rows: NDArray[np.float32], plan: str) -> dict[str, list[Question]]:
    """Requests by vector, and by query_id of the words or pictures that were embedded before."""
    (name,) = (one["name"] for one in ask(port, "GET", "/api/indexes"))
    path = f"/api/indexes/{name}/search"
    found = {"vector": [(port, path, body(vector=row.tolist(), k=K, plan=plan)) for row in rows]}
    if not ask(port, "GET", f"/api/indexes/{name}")["embeds"]:
        return found
    known = [ask(port, "POST", path, one)["query_id"] for one in made_pictures(32, plan)]
    return {
        **found,
        "query_id": [(port, path, body(query_id=one, k=K, plan=plan)) for one in known],
    }


def pictures(port: int, plan: str) -> list[Question]:
    (name,) = (one["name"] for one in ask(port, "GET", "/api/indexes"))
    path = f"/api/indexes/{name}/search"
    return [(port, path, one) for one in made_pictures(64, plan)]


def made_pictures(count: int, plan: str) -> list[bytes]:
    """Requests with drawn JPEG files of 640 x 480."""
    rng, found = np.random.default_rng(SEED), []
    for _ in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
        found.append(body(image=base64.b64encode(file.getvalue()).decode(), k=K, plan=plan))
    return found


def ask(port: int, method: str, path: str, data: bytes = b"") -> Any:  # noqa: ANN401
    """The JSON that a request gives."""

    async def once() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await exchange(reader, writer, method, port, path, data)
        finally:
            writer.close()

    return json.loads(asyncio.run(once()))


async def exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, port: int, path: str,
    data: bytes,
) -> bytes:  # fmt: skip
    """Send a request on an open connection; the body of the answer."""
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    writer.write(head.encode() + data)
    told = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(told.partition(b"content-length:")[2].split(b"\r\n")[0])
    text = await reader.readexactly(size)
    if not told.startswith(b"http/1.1 200"):
        raise RuntimeError(f"{told.splitlines()[0]!r}: {text[:200]!r}")
    return text


async def load(
    asked: Sequence[Question], n: int, clients: int
) -> tuple[list[tuple[float, int, bytes]], float]:
    """Send `n` requests by so many clients at once.

    Returns:
        Milliseconds, number of the question and answer of each; and seconds of them all.
    """
    numbers, found = iter(range(n)), list[tuple[float, int, bytes]]()

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", asked[0][0])
        try:
            for number in numbers:
                i = number % len(asked)
                port, path, data = asked[i]
                start = time.perf_counter()
                text = await exchange(reader, writer, "POST", port, path, data)
                found.append(((time.perf_counter() - start) * 1e3, i, text))
        finally:
            writer.close()

    start = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return found, time.perf_counter() - start


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def write(out: Path, record: dict[str, Any]) -> None:
    shown = {name: value for name, value in record.items() if name != "environment"}
    print(json.dumps(shown), flush=True)
    with out.open("a") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--plan", default="auto")
    given = parser.parse_args()
    counts = [int(part) for part in given.clients.split(",")]
    main(given.index, given.out, counts, given.requests, given.many, given.plan)
