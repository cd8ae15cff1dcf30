"""What a server keeps ready, so that no request waits for it twice."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeJointEncoder
from served import build

from mrl_search.cli.serve import warm
from mrl_search.duplicates.decisions import not_duplicates
from mrl_search.encoders.base import Preprocessing
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.images import tables
from mrl_search.index import Index
from mrl_search.progress import Progress
from mrl_search.web import served as module
from mrl_search.web.served import Sent, Served


def test_a_warm_server_knows_what_chance_explains(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((1500, 32)).astype(np.float32)
    Index.from_vectors(rows, tmp_path / "index", spec=IndexSpec((8, 32), "Flat"))
    served = Served(tmp_path / "index", "mine")
    served.warm()
    assert {8, 32} <= set(served.index.corpus.backgrounds)
    small = Served(build(tmp_path / "small", 2), "small", FakeJointEncoder())
    small.warm()
    assert small.index.search(small.index.corpus.vectors.rows(np.array([0])), k=1).ids[0, 0] == 0


def test_what_cannot_be_loaded_yet_is_said_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served = Served(build(tmp_path, 2), "mine", FakeJointEncoder())

    def busy(_: Served) -> None:
        raise EngineError("Milvus at ./a.db says: it is open elsewhere.", "Close it.")

    monkeypatch.setattr(Served, "warm", busy)
    warm(served)
    assert "not ready yet: Milvus at ./a.db says" in capsys.readouterr().err


def test_duplicates_are_looked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = build(tmp_path, 4)
    served, looked = Served(folder, "mine", FakeJointEncoder()), list[str]()
    find = module.duplicates

    def counted(index: Index, level: str, progress: Progress) -> dict[str, Any]:
        looked.append(level)
        return find(index, level, progress)

    monkeypatch.setattr(module, "duplicates", counted)
    first = served.duplicates("exact")
    with ThreadPoolExecutor(4) as pool:
        assert all(one == first for one in pool.map(served.duplicates, ["exact"] * 4))
    assert looked == ["exact"]
    copy = tmp_path / "pictures/cat/copy.jpg"
    copy.write_bytes((tmp_path / "pictures/cat/cat-0000.jpg").read_bytes())
    Index.open(folder, FakeJointEncoder()).sync()
    assert len(served.duplicates("exact")["groups"]) == 1 and len(looked) == 2
    not_duplicates(folder, served.index.items["hash"].to_pylist()[:2])
    served.duplicates("exact")
    assert len(looked) == 3


def test_a_picture_that_decodes_slowly_keeps_nobody_from_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served(build(tmp_path, 2), "mine", FakeJointEncoder())
    picture = (tmp_path / "pictures/cat/cat-0000.jpg").read_bytes()
    decoding, go, decode = threading.Event(), threading.Event(), Preprocessing.decode

    def slow(self: Preprocessing, data: bytes) -> Any:
        if data != picture:
            decoding.set()
            assert go.wait(60)
        return decode(self, data)

    monkeypatch.setattr(Preprocessing, "decode", slow)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(served.embed, Sent(picture + b" "))
        assert decoding.wait(60)
        row = served.embed(Sent(picture))  # while the other one is decoded
        assert not late.done()
        go.set()
        np.testing.assert_array_equal(late.result(), row)
    np.testing.assert_allclose(row, served.index.embed([picture]).rows[0], atol=1e-6)


def test_threads_open_a_data_set_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = list[str]()

    @lru_cache
    def load(where: str, *_: object) -> None:
        opened.append(where)
        time.sleep(0.05)

    monkeypatch.setattr(tables, "_source", load)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(tables.dataset_source, ["pictures"] * 8))
    assert opened == ["pictures"]
