"""Indexes copied to Milvus and back: resumed, moved, joined, refused."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import milvus_corpus as shown
import numpy as np
import pytest
from milvus_corpus import DIM, DIMS, ROWS

from mrl_search import copied, mirror
from mrl_search.copied import copy_back
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.milvus_note import NOTED
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError, IndexFolderError
from mrl_search.index import Index
from mrl_search.joining import join_parts
from mrl_search.mirror import copy_to, follow
from mrl_search.parts import build_vector_part
from mrl_search.store.shard import Shard
from mrl_search.store.vector_files import open_vectors

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.slow

rows, queries, items = shown.rows, shown.queries, shown.items
flat, place, index = shown.flat, shown.place, shown.index


def test_a_copy_goes_there_and_back(
    tmp_path: Path, flat: Index, queries: np.ndarray, place: str
) -> None:
    shutil.copytree(flat.folder, tmp_path / "index")
    made = copy_to(tmp_path / "index", f"{place}#copied")
    assert made.engine == f"{place}#copied" and made.generation == 1
    back = copy_back(f"{place}#copied", tmp_path / "back")
    assert (back.count, back.engine, back.fingerprint) == (ROWS, "", made.fingerprint)
    index = Index.open(tmp_path / "back")
    for name in ("path", "label", "width", "share", "taken", "norm"):
        assert index.items[name].to_pylist() == flat.items[name].to_pylist()
    np.testing.assert_allclose(
        index.corpus.vectors.prefix(DIM), flat.corpus.vectors.prefix(DIM), atol=1e-3
    )
    np.testing.assert_array_equal(index.search(queries, 5).ids, flat.search(queries, 5).ids)
    assert not list(tmp_path.glob(".back*"))
    with pytest.raises(IndexFolderError, match="exists already"):
        copy_back(f"{place}#copied", tmp_path / "back")
    moved = Index.open(tmp_path / "index")
    moved.restore(0)  # FAISS again
    assert moved.manifest.engine == ""
    np.testing.assert_array_equal(moved.search(queries, 5).ids, flat.search(queries, 5).ids)


CODE = """
import sys
from pathlib import Path
from mrl_search.engines.milvus import Remote
from mrl_search.mirror import copy_to
Remote.batch = lambda self: 50
copy_to(Path(sys.argv[1]), sys.argv[2])
"""


def test_a_killed_copy_goes_on(tmp_path: Path, flat: Index) -> None:
    shutil.copytree(flat.folder, tmp_path / "index")
    place = f"milvus:{tmp_path / 'lite.db'}#killed"
    command = [sys.executable, "-c", CODE, str(tmp_path / "index"), place]
    for _ in range(1):
        copying = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        noted, before = tmp_path / "index" / NOTED, None
        while copying.poll() is None:  # some rows after it began
            text = noted.read_text() if noted.exists() else ""
            before = before or text
            if before and text != before:
                break
            time.sleep(0.005)
        os.killpg(copying.pid, signal.SIGKILL)
        copying.wait()
    assert not Index.open(tmp_path / "index").manifest.engine  # FAISS answers meanwhile
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    follow(tmp_path / "index")
    remote = Remote(Place.parse(place))
    assert remote.count() == ROWS
    assert sorted(id for id, _, _ in remote.rows(0, ROWS)) == list(range(ROWS))


@pytest.mark.parametrize("stopped", ["_keep_files", "_check", "_save"])
def test_what_was_stopped_at_the_end_goes_on(
    tmp_path: Path, flat: Index, place: str, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(flat.folder, tmp_path / "index")
    to, calls = f"{place}#stopped{stopped}", []

    def stop(*args: object) -> None:
        calls.append(args)
        if stopped != "_save" or len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mirror, stopped, stop)
        copy_to(tmp_path / "index", to)
    copy_to(tmp_path / "index", to)
    assert copy_back(to, tmp_path / "back").count == ROWS


def test_a_stopped_copy_back_goes_on(
    tmp_path: Path, index: Index, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copied, "BLOCK", 500)
    read, whole = list[int](), Remote.rows

    def rows(self: Remote, first: int, beyond: int) -> object:
        read.append(first)
        if read == [0, 500]:
            raise KeyboardInterrupt
        return whole(self, first, beyond)

    monkeypatch.setattr(Remote, "rows", rows)
    with pytest.raises(KeyboardInterrupt):
        copy_back(f"{place}#flat", tmp_path / "back")
    copy_back(f"{place}#flat", tmp_path / "back")
    assert read == [0, 500, 500, 1000]
    assert Index.open(tmp_path / "back").items["id"].to_pylist() == list(range(ROWS))


def test_a_rotation_is_copied(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, place: str
) -> None:
    turned = Index.from_vectors(rows[:, ::-1], tmp_path / "index", rotate="pca")
    known = turned.search(queries[:, ::-1], 5, plan="8:50,32")
    copy_to(tmp_path / "index", f"{place}#turned")
    copy_back(f"{place}#turned", tmp_path / "back")
    for folder in ("index", "back"):
        found = Index.open(tmp_path / folder).search(queries[:, ::-1], 5, plan="8:50,32")
        np.testing.assert_array_equal(found.ids, known.ids)


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_parts_are_joined_in_milvus(
    tmp_path: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    parts = [tmp_path / f"{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        build_vector_part(open_vectors(tmp_path / "rows.npy"), part, Shard.parse(f"{number}/2"))
    spec = IndexSpec((8, 32), engine=f"{place}#joined")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Remote, "upsert", interrupted)
        join_parts(parts, tmp_path / "all", spec=spec)
    index = join_parts(parts, tmp_path / "all", spec=spec)  # goes on
    assert index.search(rows[700], 1, plan="8:9,32").ids.tolist() == [700]
    assert Remote(Place.parse(f"{place}#joined")).count() == ROWS


def test_another_index_is_refused(
    tmp_path: Path, index: Index, rows: np.ndarray, place: str
) -> None:
    with pytest.raises(EngineError, match=r"There is a collection .* already"):
        Index.from_vectors(rows, tmp_path / "a", spec=IndexSpec(DIMS, engine=f"{place}#flat"))
    Index.from_vectors(rows[:200] + 1, tmp_path / "b", spec=IndexSpec((32,), engine=f"{place}#b"))
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    manifest = tmp_path / "c" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("#b", "#flat"))
    for ask in (follow, lambda folder: Index.open(folder).search(rows[0])):
        with pytest.raises(EngineError, match="belongs to another index"):
            ask(tmp_path / "c")
    shutil.copytree(index.folder, tmp_path / "e")  # another of the same model
    (tmp_path / "e" / NOTED).unlink()
    with pytest.raises(EngineError, match="belongs to another index"):
        follow(tmp_path / "e")
    assert Remote(Place.parse(f"{place}#flat")).count() == ROWS
    with pytest.raises(EngineError, match="There is no collection"):
        copy_back(f"{place}#nothing", tmp_path / "d")
