"""Milvus Lite damaged, claimed twice, moved: an error or a repair, never another answer."""

import fcntl
import json
import shutil
from pathlib import Path

import milvus_corpus as shown
import numpy as np
import pytest
from command_line import assert_error, ok, run
from milvus_corpus import DIMS, ROWS
from test_milvus_trouble import release, there

from mrl_search import mirror
from mrl_search.engines import milvus_client
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.milvus_note import NOTED, note_of, token_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.files import claim
from mrl_search.index import Index
from mrl_search.mirror import copy_to

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.slow

rows, queries, items, flat = shown.rows, shown.queries, shown.items, shown.flat


@pytest.fixture
def index(tmp_path: Path, flat: Index) -> Path:
    """An index that FAISS searches."""
    shutil.copytree(flat.folder, tmp_path / "index")
    return tmp_path / "index"


@pytest.fixture
def place(tmp_path: Path) -> str:
    return f"milvus:{tmp_path / 'lite.db'}#mine"


def closed(place: str) -> Path:
    """Close a file of Milvus Lite, as the end of a process does: its collections."""
    milvus_client._client_of.cache_clear()
    release(place)
    return Path(Place.parse(place).uri) / "collections"


def first(index: Path, query: np.ndarray) -> int:
    """The nearest item of one query."""
    return int(Index.open(index).search(query, 1).ids[0])


# Whose a collection is


def test_a_place_of_another_index_answers_nothing(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str
) -> None:
    """Two builds of one model and one place: the second could not send, and asked the first's."""
    copy_to(index, place)
    other = Index.from_vectors(rows[::-1], tmp_path / "other", spec=IndexSpec(DIMS)).folder
    with pytest.raises(EngineError, match=r"There is a collection .* already") as error:
        copy_to(other, place)
    assert f"mrl-search remove '{place}'" in error.value.hint
    assert not Index.open(other).manifest.engine
    manifest = other / "manifest.json"
    moved = manifest.read_text().replace('"factory": {', f'"engine": "{place}", "factory": {{')
    for d in DIMS:
        moved = moved.replace(f'"{d}": "Flat"', f'"{d}": "FLAT"')
    manifest.write_text(moved)
    for ask in (mirror.follow, lambda folder: first(folder, rows[0])):
        with pytest.raises(EngineError, match="belongs to another index"):
            ask(other)
    assert there(place).count() == ROWS and first(index, rows[7]) == 7


def test_of_two_that_begin_at_once_one_is_refused(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both saw a free place, as two processes at one server may; both make the collections."""
    other = Index.from_vectors(rows[::-1], tmp_path / "other", spec=IndexSpec(DIMS)).folder
    there_is = milvus_client.connected(Place.parse(place))
    assert not there_is.list_collections()
    monkeypatch.setattr(milvus_client, "_client_of", lambda *_: there_is)
    (refused,) = shown.copy_at_once([index, other], place)
    monkeypatch.undo()
    assert "belongs to another index" in refused.message
    winner, loser = (index, other) if Index.open(index).manifest.engine else (other, index)
    assert not Index.open(loser).manifest.engine
    assert first(winner, rows[7]) == (7 if winner == index else ROWS - 8)
    assert first(loser, rows[7]) == (7 if loser == index else ROWS - 8)


def test_a_copy_of_a_folder_that_changes_the_collection_is_noticed(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str
) -> None:
    copy_to(index, place)
    shutil.copytree(index, tmp_path / "twin")
    assert first(tmp_path / "twin", rows[7]) == 7
    Index.open(tmp_path / "twin").remove(ids=[8])
    for ask in (lambda folder: first(folder, rows[7]), lambda folder: Index.open(folder).sync()):
        with pytest.raises(EngineError, match="a copy of the folder changed it"):
            ask(index)
    copy_to(index, place.replace("#mine", "#own"))
    assert first(index, rows[8]) == 8 and first(tmp_path / "twin", rows[7]) == 7
    assert there(place).count() == ROWS - 1


# Damage


@pytest.mark.parametrize("how", ["gone", "cut"])
@pytest.mark.parametrize(
    "what",
    ["mine/*/*/*/*.parquet", "mine/manifest.json", "mine/schema.json", "mine_files/*/*/*/*.parquet",
     "mine_files/schema.json", "mine_files", "mine", ""],
)  # fmt: skip
def test_damage_is_an_error_and_a_copy_mends_it(
    index: Path, rows: np.ndarray, place: str, what: str, how: str
) -> None:
    copy_to(index, place)
    found = list(closed(place).glob(what) if what else [closed(place).parent])
    assert found
    for path in found:
        if path.is_dir():
            shutil.rmtree(path)
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(EngineError) as error:
        first(index, rows[7])
    assert "mrl-search copy" in error.value.hint and f"--to '{place}'" in error.value.hint
    copy_to(index, place)
    assert first(index, rows[7]) == 7 and there(place).count() == ROWS


def test_an_older_file_is_an_error_and_a_copy_mends_it(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str
) -> None:
    copy_to(index, place)
    file = Path(Place.parse(place).uri)
    closed(place)
    shutil.copytree(file, tmp_path / "backup")
    Index.open(index).remove(ids=[8])
    Index.open(index).add(rows[:1] + 1)
    closed(place)
    shutil.rmtree(file)
    shutil.copytree(tmp_path / "backup", file)
    with pytest.raises(EngineError, match="is older than") as error:
        first(index, rows[7])
    assert f"--to '{place}'" in error.value.hint
    copy_to(index, place)
    assert first(index, rows[7]) == 7 and first(index, rows[0] + 1) == ROWS
    assert first(index, rows[8]) != 8 and there(place).count() == ROWS


def test_rows_that_are_lost_meanwhile_are_an_error(
    index: Path, rows: np.ndarray, place: str
) -> None:
    copy_to(index, place)
    opened = Index.open(index)
    assert len(opened.search(rows[7], 5, ids=[7, 8])) == 2
    there(place).delete(np.array([8]))
    with pytest.raises(EngineError, match="lost rows: it has 1,199 of 1,200"):
        opened.search(rows[7], 5, ids=[7, 8])
    with pytest.raises(EngineError, match="lost rows"):
        first(index, rows[7])


def test_rows_that_are_being_removed_are_none_lost(
    index: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that opens the index while a change is sent."""
    copy_to(index, place)
    opened, removed = Index.open(index), Remote.delete

    def delete(self: Remote, ids: np.ndarray) -> None:
        removed(self, ids)
        if len(ids):
            assert first(index, rows[7]) == 7
            assert len(opened.search(rows[7], 5, ids=[7, 8])) == 1

    monkeypatch.setattr(Remote, "delete", delete)
    Index.open(index).remove(ids=[8])
    note = note_of(index, Place.parse(place))
    assert note is not None and note.state and note.rows == ROWS - 1


# Moves


def test_an_index_answers_from_where_it_was_until_it_has_moved(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = place.replace("#mine", "#second")
    copy_to(index, place)
    sent, send = list[int](), Remote.upsert

    def upsert(self: Remote, ids: np.ndarray, *rest: object) -> None:
        assert Index.open(index).manifest.engine == place and first(index, rows[7]) == 7
        if len(sent) == 2:
            raise EngineError("No more.", "Wait.")
        sent.append(len(ids))
        send(self, ids, *rest)

    monkeypatch.setattr(Remote, "batch", lambda self: 500)
    with monkeypatch.context() as patch, pytest.raises(EngineError, match="No more") as error:
        patch.setattr(Remote, "upsert", upsert)
        copy_to(index, second)
    assert "answers as before" in error.value.hint
    ok("remove", index, "--ids", written(tmp_path, [3]))  # of the first, which is still its own
    assert there(place).count() == ROWS - 1
    told = ok("copy", index, "--to", second).stderr
    assert f"mrl-search remove '{place}'" in told.replace("\n", " ")
    assert Index.open(index).manifest.engine == second
    assert there(second).count() == ROWS - 1 and there(place).count() == ROWS - 1
    copy_to(index, place)  # and back: what it has is not known any more
    assert Index.open(index).manifest.engine == place and there(place).count() == ROWS - 1
    told = ok("restore", index, "0").stderr  # FAISS
    assert f"mrl-search remove '{place}'" in told.replace("\n", " ")
    assert first(index, rows[3]) == 3


def written(folder: Path, ids: list[int]) -> Path:
    (folder / "ids.txt").write_text("\n".join(map(str, ids)))
    return folder / "ids.txt"


def test_a_collection_is_removed(tmp_path: Path, index: Path, place: str) -> None:
    copy_to(index, place)
    assert_error(run("remove", place), "--yes")
    assert there(place).count() == ROWS
    ok("remove", place, "--yes")
    assert not Remote.exists(Place.parse(place))
    assert_error(run("remove", place, "--yes"), "There is no collection")
    client = milvus_client.connected(Place.parse(place))
    client.create_collection("mine", dimension=4)
    assert_error(run("remove", place, "--yes"), "mrl-search did not make")
    assert_error(run("copy", index, "--to", place), "belongs to another index")


# Builds that were stopped


@pytest.mark.parametrize("stopped", ["create", "upsert", "write_file"])
def test_the_same_build_goes_on(
    tmp_path: Path, rows: np.ndarray, place: str, stopped: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "rows.npy", rows)
    command = ("build-index", tmp_path / "rows.npy", "--engine", place, "--out", tmp_path / "new")
    with monkeypatch.context() as patch:

        def stop(*_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(Remote, stopped, stop)
        assert run(*command).exit_code != 0
    ok(*command)
    assert first(tmp_path / "new", rows[7]) == 7 and there(place).count() == ROWS
    assert_error(run(*command), "exists already")
    other = (*command[:2], "--engine", place, "--out", command[-1], "--dims", "4")
    assert_error(run(*other), "exists already")
    shutil.rmtree(tmp_path / "new")
    told = run(*command)
    assert_error(told, "There is a collection")
    assert f"mrl-search remove '{place}'" in told.stderr.replace("\n", " ")


# Another process


def test_a_file_that_another_process_has_is_a_sentence(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str
) -> None:
    copy_to(index, place)
    before = Index.open(index).generation
    with (closed(place).parent / "LOCK").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        np.save(tmp_path / "query.npy", rows[:1])
        for command in (
            ("query", "--vector", tmp_path / "query.npy", "--index", index), ("sync", index),
            ("remove", index, "--where", "width=3"), ("compact", index),
            ("copy", index, "--to", place), ("copy", place, "--to", tmp_path / "back"),
        ):  # fmt: skip
            told = run(*command)
            assert_error(told, "Another process has")
            assert "one process at a time" in told.stderr.replace("\n", " ")
    assert Index.open(index).generation == before  # nothing was changed that could not be sent
    assert first(index, rows[7]) == 7


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_no_file_of_milvus_lite(tmp_path: Path, index: Path, what: str) -> None:
    path = tmp_path / "old.db"
    if what == "file":
        path.write_bytes(b"SQLite format 3")
    else:
        path = tmp_path / "missing" / "new.db"
    told = run("copy", index, "--to", f"milvus:{path}#mine")
    assert_error(told, "is not a database of" if what == "file" else "There is no folder")


def test_a_folder_notes_each_place(index: Path, place: str) -> None:
    copy_to(index, place)
    told = json.loads((index / NOTED).read_text())
    assert list(told["places"]) == [place] and told["token"] == token_of(index)
    assert len(list(index.glob("milvus-*.npy"))) == 1
    second = place.replace("#mine", "#second")
    copy_to(index, second)
    assert list(json.loads((index / NOTED).read_text())["places"]) == [second]
    assert len(list(index.glob("milvus-*.npy"))) == 1


def test_an_exact_search_that_finds_too_few_does_not_point_to_itself(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a change that another process has sent in part."""
    copy_to(index, place)
    there(place).delete(np.array([8]))
    monkeypatch.setattr("mrl_search.engines.milvus_note.check_rows", lambda *_: None)
    np.save(tmp_path / "query.npy", rows[7:8])
    told = ok(
        "query", "--vector", tmp_path / "query.npy", "--index", index, "-k", "2",
        "--ids", written(tmp_path, [7, 8]),
    ).stderr  # fmt: skip
    assert "Only 1 of the 2 asked for were found." in told and "--exact" not in told


# Changes that are not sent


def test_a_change_that_was_not_sent_is_an_error_until_it_is(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder had it, the collection did not, and searches were silently incomplete."""
    copy_to(index, place)
    new = rows[:3] + np.float32(0.5) * rows[3:6]
    np.save(tmp_path / "new.npy", new)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(mirror, "_follow", killed)
    for change in (lambda one: one.add(tmp_path / "new.npy"), lambda one: one.remove(ids=[0])):
        with pytest.raises(KeyboardInterrupt):
            change(Index.open(index))
        with pytest.raises(EngineError, match="was not sent") as error:
            first(index, rows[7])
        assert error.value.hint == f"Send it: mrl-search copy {index} --to '{place}'"
    with claim(index):  # another process sends it now
        assert first(index, rows[7]) == 7
    monkeypatch.undo()
    Index.open(index).restore(1)
    assert there(place).count() == ROWS and first(index, rows[0]) == 0


def test_what_fails_to_be_sent_says_how_to_send_it(
    index: Path, place: str, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Running `add` again would add the rows twice."""
    copy_to(index, place)
    np.save(tmp_path / "new.npy", rows[:3])

    def full(*_: object) -> None:
        raise EngineError("Milvus says: no space left on device.", "Make room there.")

    monkeypatch.setattr(Remote, "upsert", full)
    with pytest.raises(EngineError) as error:
        Index.open(index).add(tmp_path / "new.npy")
    send = f"mrl-search copy {index} --to '{place}'"
    assert error.value.hint == f"Make room there. {index} has the change. To send it: {send}"


def test_a_generation_whose_collection_is_another_index_s_is_not_restored(
    tmp_path: Path, index: Path, rows: np.ndarray, place: str
) -> None:
    copy_to(index, place)
    Index.open(index).restore(0)
    ok("remove", place, "--yes")
    other = Index.from_vectors(rows[::-1], tmp_path / "other", spec=IndexSpec(DIMS)).folder
    copy_to(other, place)
    before = Index.open(index).manifest
    with pytest.raises(EngineError, match="belongs to another index"):
        Index.open(index).restore(1)
    assert Index.open(index).manifest == before
    assert "stays as it is" not in run("copy", str(index), "--to", f"{place}2").stderr
    assert first(other, rows[0]) == ROWS - 1


def test_milvus_is_no_folder(index: Path, place: str, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(8, dtype=np.float32))
    made = run("build-index", str(tmp_path / "v.npy"), "--out", place)
    assert_error(made, "must be a folder")
    assert f"--engine '{place}'" in made.stderr
    asked = run("query", "--vector", str(tmp_path / "v.npy"), "--index", place)
    assert_error(asked, "is a collection, not an index folder")
    assert f"mrl-search copy '{place}' --to" in asked.stderr
