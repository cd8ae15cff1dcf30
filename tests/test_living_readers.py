"""Readers and writers of one index at the same time."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from mrl_search.errors import IndexFolderError
from mrl_search.index import Index
from mrl_search.store import generations
from mrl_search.store.generations import changing

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")
DIM = 16


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM)).astype(np.float32)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index.from_vectors(rows(50), tmp_path / "index")


def test_threads_answer_from_what_they_opened(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answers while 16 generations come and go: each is that of the reader's generation."""
    monkeypatch.setattr(generations, "KEPT", 2)
    monkeypatch.setattr("mrl_search.living.FEW", 3)
    stop, wrong, counts = threading.Event(), list[object](), [0] * 4

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                reader = Index.open(index.folder)
                c = reader.corpus
                unit = c.vectors.rows(c.live_rows).astype(np.float32)
                for seed in range(3):
                    query = rows(1, seed)[0]
                    best = np.sort(unit @ query / np.linalg.norm(query))[::-1][:3]
                    for plan in ("exact", "16"):
                        found = reader.search(query, 3, plan=plan).scores
                        assert abs(found - best).max() < 2e-3, (plan, reader.generation)
                counts[number] += 1
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            index.add(rows(4, turn))
            ids = index.items.all_ids[index.corpus.live_rows]
            index.remove(ids=ids[:3])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong
    assert min(counts) > 0
    assert index.generation >= 16 and len(index) == 50 + 8 * 4 - 8 * 3


def test_a_second_writer_waits(index: Index) -> None:
    ready, go = os.pipe()

    def hold() -> None:
        with changing(index.folder):
            os.write(go, b"x")
            time.sleep(0.4)

    pid = os.fork()
    if not pid:
        hold()
        os._exit(0)
    os.read(ready, 1)
    start = time.monotonic()
    index.add(rows(2, 1))
    assert time.monotonic() - start > 0.2 and len(index) == 52
    os.waitpid(pid, 0)


def test_a_second_writer_says_so_after_its_wait(index: Index) -> None:
    with (
        changing(index.folder),
        pytest.raises(IndexFolderError, match="Another process works in"),
        changing(index.folder, wait=0.1),
    ):
        pass


def test_the_lock_of_a_killed_writer_ends(index: Index) -> None:
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        with changing(index.folder) as change:
            change.building.mkdir(parents=True)
            (change.building / "vectors.npy").write_bytes(b"half")
            os.write(go, b"x")
            time.sleep(60)
    os.read(ready, 1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    start = time.monotonic()
    index.add(rows(2, 1))
    assert time.monotonic() - start < 10 and len(index) == 52
    assert not list(index.folder.glob("parts/.*"))


def test_a_reader_in_a_forked_child_keeps_its_generation(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child has the lease of its parent, until both are gone."""
    monkeypatch.setattr(generations, "KEPT", 1)
    index.add(rows(5, 1))
    old = Index.open(index.folder)
    told = old.search(rows(3), 4, plan="exact").ids.tolist()
    ready, go = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.read(ready, 1)
            child = old.search(rows(3), 4, plan="exact").ids.tolist()
            code = int(child != told or old.corpus.prefix_index(8).count != 55)
        finally:
            os._exit(code)
    generation = old.generation
    del old
    for turn in range(4):
        index.compact()
        index.add(rows(2, turn))
    assert generation in index.generations
    os.write(go, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    index.add(rows(2, 9))
    assert generation not in index.generations
