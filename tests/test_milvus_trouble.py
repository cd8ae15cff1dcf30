"""Milvus in trouble: slow, silent, stopped, full, half filled. Each ends, in a sentence."""

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_error, ok, run
from conftest import energy_first

from mrl_search.engines import milvus, milvus_client, milvus_made
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place, ask
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.index import Index
from mrl_search.mirror import copy_to, follow
from mrl_search.search.first import candidates
from mrl_search.vectors import prefix

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.slow

ROWS, DIM, DIMS = 900, 32, (8, 32)
SERVER = """
import sys
from milvus_lite.adapter.grpc.server import run_server
run_server(sys.argv[1], "127.0.0.1", int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return energy_first(np.random.default_rng(0), ROWS, DIM)


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray) -> Path:
    out = tmp_path_factory.mktemp("flat") / "index"
    return Index.from_vectors(rows, out, spec=IndexSpec(DIMS, "Flat")).folder


@pytest.fixture
def index(tmp_path: Path, flat: Path) -> Path:
    """An index that FAISS searches."""
    shutil.copytree(flat, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def query(tmp_path: Path, rows: np.ndarray) -> Path:
    np.save(tmp_path / "query.npy", rows[:1])
    return tmp_path / "query.npy"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of a second at most."""
    monkeypatch.setattr(milvus_client, "SECONDS", 1.0)
    monkeypatch.setattr(milvus_client, "CONNECTING", 0.5)


def there(place: str) -> Remote:
    return Remote(Place.parse(place))


# Large answers


def test_answers_bring_ids_alone_and_few_at_once(
    tmp_path: Path, index: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus Lite answered 23,000 photographs with all their vectors, in 16 GB."""
    copy_to(index, f"milvus:{tmp_path / 'lite.db'}#large")
    monkeypatch.setattr(milvus, "ANSWERS", 2000)
    seen, whole = list[tuple[int, int]](), Remote._ask

    def watched(self: Remote, call: object, *args: object, **options: object) -> object:
        found = whole(self, call, *args, **options)
        if "anns_field" in options:
            seen.append((len(options["data"]), options["limit"]))
            assert {name for hits in found for hit in hits for name in hit["entity"]} <= {"id"}
        return found

    monkeypatch.setattr(Remote, "_ask", watched)
    corpus = Index.open(index).corpus
    unit = prefix(rows[:20], 8)
    known = corpus.prefix_index(8).search(unit, 600)
    assert seen == [(3, 600)] * 6 + [(2, 600)]
    found = candidates(corpus, corpus.prefix_index(8), unit, 600, 0)
    assert len(seen) == 7  # the folder answered
    same = [np.isin(a, b).mean() for a, b in zip(known[1], found[1], strict=True)]
    assert np.mean(same) > 0.999  # but for ties
    np.testing.assert_allclose(known[0], found[0], atol=1e-6)
    ok("tune", index, "--queries", "60")
    assert max(count * limit for count, limit in seen) <= 2000


# Silence


def test_a_call_that_never_ends_is_left() -> None:
    """pymilvus waits for some steps, such as an index that is built, without a limit."""
    for uri, calls in (("http://host:1", 2), ("/a/file.db", 1)):
        begun, start = list[float](), time.monotonic()

        def waits(timeout: float, begun: list[float] = begun) -> None:
            begun.append(timeout)
            threading.Event().wait(60)

        with pytest.raises(EngineError, match=r"timed out: no answer in 0\.2 s"):
            ask(Place(uri, "a"), waits, seconds=0.2)
        assert len(begun) == calls and time.monotonic() - start < 30


@pytest.mark.usefixtures("impatient")
def test_every_command_ends_where_nobody_answers(index: Path, query: Path) -> None:
    with socket.socket() as deaf:  # as a stopped server: it accepts, and is silent
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(100)
        place = f"milvus:http://127.0.0.1:{deaf.getsockname()[1]}#a"
        manifest = index / "manifest.json"
        moved = manifest.read_text().replace('"factory": {', f'"engine": "{place}", "factory": {{')
        manifest.write_text(moved)
        for command in (
            ("query", "--vector", query, "--index", index), ("sync", index),
            ("copy", index, "--to", place), ("copy", place, "--to", index.with_name("back")),
            ("remove", index, "--where", "id=3"),
        ):  # fmt: skip
            start = time.monotonic()
            told = run(*command)
            assert_error(told, "says: ")
            assert "hat was written stays" in told.stderr
            assert time.monotonic() - start < 30
        assert "searches ask milvus:" in ok("info", index).stdout


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A server in another process, which can be stopped."""
    with socket.socket() as some:
        some.bind(("127.0.0.1", 0))
        port = some.getsockname()[1]
    command = [sys.executable, "-c", SERVER, str(tmp_path / "server"), str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while True:
            assert process.poll() is None
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        yield process, f"http://127.0.0.1:{port}"
        process.send_signal(signal.SIGCONT)
        process.kill()


def test_a_server_that_stops_in_a_copy(
    index: Path, server: tuple[subprocess.Popen[bytes], str], query: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    process, uri = server
    place, sent, send = f"milvus:{uri}#stopped", list[int](), Remote.upsert

    def upsert(self: Remote, ids: np.ndarray, *rest: object) -> None:
        sent.append(len(ids))
        if len(sent) == 4:
            process.send_signal(signal.SIGSTOP)
        send(self, ids, *rest)

    monkeypatch.setattr(Remote, "batch", lambda self: 100)
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "upsert", upsert)
        milvus_client.connected(Place.parse(place))  # in all the time that this takes
        patch.setattr(milvus_client, "SECONDS", 3.0)
        start = time.monotonic()
        with pytest.raises(EngineError, match=r"Milvus at .* says") as error:
            copy_to(index, place)
        assert time.monotonic() - start < 60
        assert len(sent) == 4 and "stays" in error.value.hint
    process.send_signal(signal.SIGCONT)
    ok("query", "--vector", query, "--index", index)  # FAISS still answers
    assert not Index.open(index).manifest.engine
    copy_to(index, place)
    assert there(place).count() == ROWS
    assert '"id": 0' in ok("query", "--vector", query, "--index", index, "-k", "1", "--json").stdout


# What was not sent, or was lost


def test_sync_sends_vectors_that_could_not_be_sent(
    tmp_path: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    place = f"milvus:{tmp_path / 'later' / 'lite.db'}#own"
    built = ("build-index", tmp_path / "rows.npy", "--engine", place, "--out", tmp_path / "own")
    assert_error(run(*built), "There is no folder")  # before anything is done
    assert not (tmp_path / "own").exists()
    (tmp_path / "later").mkdir()

    def away(*_: object) -> None:
        raise EngineError("Milvus is away.", "Wait.")

    with monkeypatch.context() as patch:
        patch.setattr(Remote, "create", away)
        told = run(*built)
        assert_error(told, "Milvus is away")
        assert f"mrl-search copy {tmp_path / 'own'} --to" in told.stderr.replace("\n", " ")
        ok("sync", tmp_path / "own", "--dry-run")
    assert f"{ROWS:,} items" in ok("sync", tmp_path / "own").stdout
    assert there(place).count() == ROWS
    ok("sync", tmp_path / "own")


@pytest.mark.parametrize("indexes", [0, 1, 2])
def test_collections_that_were_made_in_part_are_completed(
    tmp_path: Path, index: Path, indexes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when some indexes were made: of small files, and of two prefixes."""
    place, made, whole = f"milvus:{tmp_path / 'lite.db'}#part", list[str](), milvus.ask

    def stopped(where: Place, call: object, *args: object, **options: object) -> object:
        if getattr(call, "__name__", "") == "create_index":
            made.append(str(args[0]))
            if len(made) > indexes:
                raise KeyboardInterrupt
        return whole(where, call, *args, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(milvus_made, "ask", stopped)
        copy_to(index, place)
    assert len(made) == indexes + 1
    copy_to(index, place)
    assert there(place).count() == ROWS


def test_lost_rows_are_sent_again(
    tmp_path: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"milvus:{tmp_path / 'lite.db'}#lost"
    copy_to(index, place)
    there(place).delete(np.arange(40))
    follow(index)
    assert there(place).count() == ROWS
    there(place).delete(np.arange(40))
    with (
        monkeypatch.context() as patch,
        pytest.raises(EngineError, match="it has 0 of 900") as error,
    ):
        patch.setattr(Remote, "upsert", lambda *_: None)  # what Milvus says it has, and has not
        follow(index)
    assert "To send it: " in error.value.hint
    follow(index)
    assert there(place).count() == ROWS


# A full disk


def limited(command: list[object], most: int) -> subprocess.CompletedProcess[str]:
    """A command whose files cannot grow beyond some bytes."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

    here = [sys.executable, "-m", "mrl_search", *map(str, command)]
    return subprocess.run(here, capture_output=True, text=True, preexec_fn=limit, check=False)


def test_a_full_disk_loses_nothing(tmp_path: Path, index: Path, query: Path) -> None:
    place = f"milvus:{tmp_path / 'lite.db'}#full"
    full = limited(["copy", index, "--to", place], 100_000)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert "hint: Make room there" in full.stderr
    assert f"mrl-search copy {index} --to '{place}'" in full.stderr
    assert_error(run("copy", place, "--to", tmp_path / "back"), "is not whole")
    ok("copy", index, "--to", place)
    assert there(place).count() == ROWS
    milvus_client._client_of.cache_clear()
    release(place)
    full = limited(["copy", place, "--to", tmp_path / "back"], 40_000)
    assert full.returncode == 1 and "Traceback" not in full.stderr
    assert "cannot be written" in full.stderr
    assert not (tmp_path / "back").exists()
    ok("copy", place, "--to", tmp_path / "back")
    assert "--check" not in ok("info", tmp_path / "back", "--check").stderr
    found = ok("query", "--vector", query, "--index", tmp_path / "back", "-k", "1", "--json")
    assert '"id": 0' in found.stdout
    assert not list(tmp_path.glob(".back*"))


def release(place: str) -> None:
    """Close a file of Milvus Lite, so that another process can open it."""
    from milvus_lite.server_manager import server_manager_instance

    server_manager_instance.release_server(Place.parse(place).uri)
    assert os.path.exists(Place.parse(place).uri)  # noqa: PTH110
