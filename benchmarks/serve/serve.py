"""How fast a server answers, and whether it keeps its answers and its memory in order.

    python benchmarks/serve/serve.py INDEX OUT [--plan PLAN] [--part times|answers|memory]
        [--clients 1,8,64] [--seconds 40] [--checked 10000] [--many 100000] [--note TEXT]

Starts `mrl-search serve INDEX`, on loopback and on one thread a search, and appends records to OUT
(JSON lines). `times` also starts a bare FAISS behind FastAPI (`bare.py`) and measures in turns, in
short blocks: the library in this process, the server by vector as numbers and as base64, by
query_id and by picture, and the bare one. `answers` compares answers to 64 clients with those of
the library; `memory` reads the memory of the server over many requests.
"""

import argparse
import base64
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from load import Answer, Question, ask, crowd, one_client
from numpy.typing import NDArray
from PIL import Image

from mrl_search.index import Index
from mrl_search.measure.environment import check_clean, environment
from mrl_search.provenance import now
from mrl_search.web.beside import server_of

K, QUERIES, SEED = 10, 512, 1
PICTURES = 64
BLOCK, ROUNDS = 40, 200  # requests of a contestant in a round, and most rounds
SLOW = 0.5  # seconds of a block of a slow contestant
CROWD = 64  # clients whose answers are compared
STEPS, WARM = 10, 3_000  # readings of the memory, and requests before the first
HERE = Path(__file__).parent
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def main(given: argparse.Namespace) -> None:
    index = Index.open(given.index)
    index.warm()
    corpus = index.corpus
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(corpus.live_rows, min(QUERIES, len(index)), replace=False)
    rows = corpus.vectors.rows(chosen).astype(np.float32)
    noise = rng.standard_normal(rows.shape).astype(np.float32)
    rows += noise * np.float32(0.1 / rows.shape[1] ** 0.5)
    about = {
        "part": given.part, "index": given.index.name, "items": len(index), "dim": corpus.dim,
        "k": K, "plan": given.plan, "note": given.note, "created": now(),
        "environment": environment(),
    }  # fmt: skip
    if not given.try_out:
        check_clean(about["environment"]["commit"], given.out)

    def write(**record: object) -> None:
        print(json.dumps(record), flush=True)
        with given.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**record, **about}) + "\n")

    with contextlib.ExitStack() as stack:
        port, pid = stack.enter_context(served(given.index))
        asked = questions(port, rows, given.plan)
        if given.part == "answers":
            write(**checked(index, rows, asked["vector"], given.checked, given.plan))
        elif given.part == "memory":
            write(what="memory", n=given.many, resident_mb=sizes(asked["vector"], given.many, pid))
        else:
            files = [corpus.folder / "vectors.npy"]
            bare = stack.enter_context(bare_served(files[0]))
            asked["bare FAISS"] = [
                Question.of(bare, "POST", "/search", {"vector": row.tolist(), "k": K})
                for row in rows
            ]
            for clients in given.clients:
                for record in times(index, rows, asked, given.plan, clients, given.seconds):
                    write(**record)


def times(
    index: Index, rows: NDArray[np.float32], asked: dict[str, list[Question]], plan: str,
    clients: int, seconds: float,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Milliseconds of every contestant, in turns; of one client, each round by itself, too."""

    def library(numbers: Sequence[int]) -> list[Answer]:
        return [Answer(i, *searched(index, rows[i % len(rows)], plan)) for i in numbers]

    contestants: dict[str, Callable[[int, int], tuple[list[Answer], float]]] = {}
    if clients == 1:
        contestants["library"] = lambda n, start: timed(library, range(start, start + n))
        for name, some in asked.items():
            contestants[name] = lambda n, start, some=some: timed(
                lambda numbers: one_client(some, numbers), range(start, start + n)
            )
    else:
        for name, some in asked.items():
            contestants[name] = lambda n, start, some=some: crowd(some, n, clients)
    blocks: dict[str, list[list[Answer]]] = {name: [] for name in contestants}
    spent = dict.fromkeys(contestants, 0.0)
    sizes = dict.fromkeys(contestants, clients if clients > 1 else 4)
    for name, run in contestants.items():  # not counted: how many fit into a block
        found, took = run(sizes[name], 0)
        most = BLOCK if clients == 1 else BLOCK * clients
        sizes[name] = int(np.clip(SLOW * len(found) / took, clients, most))
    end = time.monotonic() + seconds
    for number in range(ROUNDS):
        for name, run in contestants.items():
            found, took = run(sizes[name], number * sizes[name])
            blocks[name].append(found)
            spent[name] += took
        if time.monotonic() > end:
            break
    medians = {name: [np.median([one.ms for one in block]) for block in every]
               for name, every in blocks.items()}  # fmt: skip
    for name, every in blocks.items():
        answers = [one for block in every for one in block]
        record = {
            "what": name, "clients": clients, "rounds": len(every), "n": len(answers),
            **percentiles([one.ms for one in answers]),
            "per_second": round(len(answers) / spent[name], 1),
            "refused": sum(one.refused for one in answers),
        }  # fmt: skip
        if clients == 1 and name != "library":
            over = np.subtract(medians[name], medians["library"])
            record["over_library_ms"] = round(float(np.median(over)), 4)
            own = [json.loads(one.body) for one in answers]
            record["search_ms"] = round(float(np.median([one["ms"] for one in own])), 4)
        yield record


def searched(index: Index, row: NDArray[np.float32], plan: str) -> tuple[float, bytes]:
    """Milliseconds of a search in this process."""
    start = time.perf_counter()
    index.search(row, k=K, plan=plan)
    return (time.perf_counter() - start) * 1e3, b""


def timed(
    run: Callable[[Sequence[int]], list[Answer]], numbers: Sequence[int]
) -> tuple[list[Answer], float]:
    start = time.perf_counter()
    return run(numbers), time.perf_counter() - start


def percentiles(ms: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.percentile(ms, [50, 99]).round(4).tolist()
    return {"p50_ms": p50, "p99_ms": p99}


def checked(
    index: Index, rows: NDArray[np.float32], asked: Sequence[Question], count: int, plan: str
) -> dict[str, Any]:
    """How many answers to a crowd came, and how many are not those of the library."""
    expected = index.search(rows, k=K, plan=plan).ids
    found, _ = crowd(asked, count, CROWD)
    wrong = sum(
        [hit["id"] for hit in json.loads(one.body)["hits"]] != expected[one.number].tolist()
        for one in found
    )
    refused = sum(one.refused for one in found)
    return {"what": "answers", "clients": CROWD, "n": count, "came": len(found), "wrong": wrong,
            "refused": refused}  # fmt: skip


def sizes(asked: Sequence[Question], count: int, pid: int) -> list[float]:
    """Megabytes that the server holds, before and after each tenth of so many requests."""
    crowd(asked, WARM, 8)
    found = [resident(pid)]
    for _ in range(STEPS):
        crowd(asked, count // STEPS, 8)
        found.append(resident(pid))
    return found


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds for itself, without mapped files."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = (line for line in text.splitlines() if line.startswith("RssAnon:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[int, int]]:
    """A server of an index; gives its port and process."""
    with process([sys.executable, "-m", "mrl_search", "serve", str(folder), "--port", "0"]):
        server = wait(lambda: server_of(folder))
        port = int(server.url.rpartition(":")[2])
        ask(port, "GET", f"/api/indexes/{server.name}")  # the model is loaded
        yield port, server.pid


@contextlib.contextmanager
def bare_served(vectors: Path) -> Iterator[int]:
    """The bare server of some vectors; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with process([sys.executable, str(HERE / "bare.py"), str(vectors), str(port)]):
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


def questions(port: int, rows: NDArray[np.float32], plan: str) -> dict[str, list[Question]]:
    """Requests by vector; where there is a model, by picture and by query_id of such, too."""
    (name,) = (one["name"] for one in ask(port, "GET", "/api/indexes"))
    path, how = f"/api/indexes/{name}/search", {"k": K, "plan": plan}

    def of(kind: str, values: Sequence[object]) -> list[Question]:
        return [Question.of(port, "POST", path, {kind: value, **how}) for value in values]

    found = {
        "vector": of("vector", rows.tolist()),
        "vector, base64": of("vector", [packed(row.tobytes()) for row in rows]),
    }
    if ask(port, "GET", f"/api/indexes/{name}")["embeds"]:
        images = of("image", drawn(PICTURES))
        known = [json.loads(one.body)["query_id"] for one in one_client(images, range(PICTURES))]
        found |= {"query_id": of("query_id", known), "picture": images}
    return found


def packed(data: bytes) -> str:
    return base64.b64encode(data).decode()


def drawn(count: int) -> list[str]:
    """Drawn JPEG files of 640 x 480, in base64."""
    rng, found = np.random.default_rng(SEED), []
    for _ in range(count):
        small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG")
        found.append(packed(file.getvalue()))
    return found


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("index", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--plan", default="auto")
    parser.add_argument("--part", choices=("times", "answers", "memory"), default="times")
    parser.add_argument("--clients", type=lambda text: [*map(int, text.split(","))], default="1")
    parser.add_argument("--seconds", type=float, default=40, help="for each number of clients")
    parser.add_argument("--checked", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100_000)
    parser.add_argument("--note", default="")
    parser.add_argument("--try-out", action="store_true", help="uncommitted code, no record")
    return parser.parse_args(given)


if __name__ == "__main__":
    main(arguments())
