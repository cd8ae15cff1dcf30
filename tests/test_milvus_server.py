"""A real server of Milvus: `.ci/milvus` runs these, by `milvus-server` of the wheel `milvus`."""

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first
from milvus_corpus import copy_at_once

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks" / "scale"))

from milvus_process import Server

from mrl_search.copied import copy_back
from mrl_search.engines import milvus_client
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.index import Index
from mrl_search.mirror import copy_to, drop

COMMAND = os.environ.get("MILVUS_SERVER", "")
pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(not COMMAND, reason="MILVUS_SERVER names no milvus-server"),
]
ROWS, DIM, DIMS = 4000, 64, (8, 64)
PLANS = ("exact", "8:100,64", "8")
RECOVERY = 300.0  # seconds that a killed server may take to answer again


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("server")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(milvus_client.TOKEN, "root:Milvus")
        with Server(COMMAND, data, "--authorization-enabled", "true") as server:
            yield server


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Index:
    rows = energy_first(np.random.default_rng(0), ROWS, DIM)
    return Index.from_vectors(
        rows, tmp_path_factory.mktemp("flat") / "index", spec=IndexSpec(DIMS, "Flat")
    )


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return energy_first(np.random.default_rng(1), 6, DIM)


def same(one: Index, other: Index, queries: np.ndarray) -> None:
    for plan in PLANS:
        found, known = (i.search(queries, 5, plan=plan) for i in (one, other))
        np.testing.assert_array_equal(found.ids, known.ids)


def test_no_acknowledged_row_is_lost(
    tmp_path: Path, server: Server, flat: Index, queries: np.ndarray,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The server is killed while rows are sent, and again when all were acknowledged."""
    shutil.copytree(flat.folder, tmp_path / "index")
    place, sent = f"milvus:{server.uri}#killed", []
    send = Remote.upsert

    def upsert(self: Remote, ids: np.ndarray, *rest: object) -> None:
        sent.append(len(ids))
        if len(sent) == 4:
            server.kill()
        send(self, ids, *rest)

    monkeypatch.setattr(Remote, "batch", lambda self: 500)
    monkeypatch.setattr(Remote, "upsert", upsert)
    with monkeypatch.context() as patch, pytest.raises(EngineError) as error:
        patch.setattr(milvus_client, "SECONDS", 5.0)
        copy_to(tmp_path / "index", place)
    assert "stays" in error.value.hint
    server.start()
    answer(server, lambda: copy_to(tmp_path / "index", place))
    assert sum(sent) >= ROWS
    for _ in range(2):
        remote = Remote(Place.parse(place))
        assert remote.count() == ROWS
        ids = [
            id for start in range(0, ROWS, 1000) for id, _, _ in remote.rows(start, start + 1000)
        ]
        assert sorted(ids) == list(range(ROWS))
        same(Index.open(tmp_path / "index"), flat, queries)
        server.kill()
        server.start()
        answer(server, lambda: Remote(Place.parse(place)).count())
    copy_back(place, tmp_path / "back")
    same(Index.open(tmp_path / "back"), flat, queries)


def answer(server: Server, call: Callable[[], object]) -> None:
    """Make a call until it succeeds: a server listens before it answers."""
    end = time.monotonic() + RECOVERY
    while True:
        try:
            call()
            return
        except EngineError:
            if time.monotonic() > end:
                raise
            server.revive()
            time.sleep(2)


def test_changes_are_seen(tmp_path: Path, server: Server, queries: np.ndarray) -> None:
    rows = energy_first(np.random.default_rng(3), 300, DIM)
    spec = IndexSpec(DIMS, engine=f"milvus:{server.uri}#changes")
    both = [
        Index.from_vectors(rows, tmp_path / name, spec=one)
        for name, one in (("milvus", spec), ("faiss", IndexSpec(DIMS)))
    ]
    for change in (
        lambda one: one.remove(ids=[3, 4]), lambda one: one.add(queries),
        lambda one: one.restore(1), lambda one: one.compact(),
    ):  # fmt: skip
        for one in both:
            change(one)
        same(*both, queries)
    assert both[0].search(rows[5], 2, ids=[5, 6]).ids.tolist() == [5, 6]


def test_a_wrong_token_is_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for token in ("root:wrong", ""):
        monkeypatch.setenv(milvus_client.TOKEN, token)
        with pytest.raises(EngineError) as error:
            Remote(Place.parse(f"milvus:{server.uri}#any"))
        assert "MILVUS_TOKEN" in error.value.hint


def test_of_two_that_begin_at_once_one_is_refused(tmp_path: Path, server: Server) -> None:
    rows = energy_first(np.random.default_rng(4), 200, DIM)
    folders = [
        Index.from_vectors(one, tmp_path / name, spec=IndexSpec(DIMS)).folder
        for name, one in (("a", rows), ("b", rows[::-1]))
    ]
    (refused,) = copy_at_once(folders, f"milvus:{server.uri}#both")
    assert "belongs to another index" in refused.message
    (winner,) = (folder for folder in folders if Index.open(folder).manifest.engine)
    known = rows if winner == folders[0] else rows[::-1]
    assert Index.open(winner).search(known[5], 1).ids.tolist() == [5]


def test_a_collection_that_lost_rows_is_an_error_and_is_removed(
    tmp_path: Path, server: Server
) -> None:
    rows = energy_first(np.random.default_rng(5), 200, DIM)
    spec = IndexSpec(DIMS, engine=f"milvus:{server.uri}#losing")
    folder = Index.from_vectors(rows, tmp_path / "index", spec=spec).folder
    Remote(Place.parse(spec.engine)).delete(np.array([5]))
    with pytest.raises(EngineError, match="lost rows: it has 199 of 200"):
        Index.open(folder).search(rows[5], 1)
    copy_to(folder, spec.engine)
    assert Index.open(folder).search(rows[5], 1).ids.tolist() == [5]
    drop(spec.engine)
    client = milvus_client.connected(Place.parse(spec.engine))
    assert not [name for name in client.list_collections() if name.startswith("losing")]
    copy_to(folder, spec.engine)
    assert Index.open(folder).search(rows[5], 1).ids.tolist() == [5]
