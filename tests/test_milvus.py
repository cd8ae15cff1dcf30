"""Milvus behind the seam, by Milvus Lite: the answers of FAISS, changes, copies, and errors."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pymilvus
import pytest
from conftest import energy_first
from typer.testing import CliRunner

from mrl_search import copied, mirror
from mrl_search.cli.app import app
from mrl_search.copied import copy_back
from mrl_search.engines import milvus_client
from mrl_search.engines.base import Mask
from mrl_search.engines.milvus import Remote, milvus_kind
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.remote import expression_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, EngineError, IndexFolderError
from mrl_search.index import Index
from mrl_search.joining import join_parts
from mrl_search.mirror import NOTED, copy_to, follow
from mrl_search.parts import build_vector_part
from mrl_search.store.collection import Collection
from mrl_search.store.shard import Shard
from mrl_search.store.vector_files import open_vectors

pytest.importorskip("milvus_lite")

ROWS, DIM, DIMS = 1200, 32, (8, 16, 32)
PLANS = ("exact", "8:100,32", "8:200,16:50,32", "16", "8:60,20:20,32")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return energy_first(np.random.default_rng(0), ROWS, DIM)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return energy_first(np.random.default_rng(1), 6, DIM)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    moments = pa.array([i * 1_000_000 for i in range(ROWS)], pa.timestamp("us"))
    pq.write_table(
        pa.table({
            "path": [f"p/{i}.jpg" for i in range(ROWS)],
            "label": ["cat" if i % 3 else None for i in range(ROWS)],
            "width": list(range(ROWS)), "share": [i / ROWS for i in range(ROWS)],
            "taken": moments,
        }),
        path,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, items: Path) -> Index:
    out = tmp_path_factory.mktemp("flat") / "index"
    return Index.from_vectors(rows, out, items=str(items), spec=IndexSpec(DIMS, "Flat"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"milvus:{tmp_path_factory.mktemp('lite') / 'lite.db'}"


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, items: Path, place: str
) -> Index:
    out = tmp_path_factory.mktemp("milvus") / "index"
    spec = IndexSpec(DIMS, engine=f"{place}#flat")
    return Index.from_vectors(rows, out, items=str(items), spec=spec)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "where",
    [
        (), ("label=cat",), ("label=cat", "width<5"), ("width!=3",), ("width>=100", "share<0.5"),
        ("path=p/1*",), ("taken<1971",),
    ],
)  # fmt: skip
def test_answers_are_those_of_faiss(
    index: Index, flat: Index, queries: np.ndarray, plan: str, where: tuple[str, ...]
) -> None:
    found, known = (one.search(queries, 5, plan=plan, where=where) for one in (index, flat))
    np.testing.assert_array_equal(found.ids, known.ids)
    np.testing.assert_allclose(found.scores, known.scores, atol=1e-5)


def test_ids_and_votes_are_those_of_faiss(index: Index, flat: Index, queries: np.ndarray) -> None:
    some = [3, 700, 701, 9]
    found, known = (one.search(queries, 9, ids=some, plan="8:9,32") for one in (index, flat))
    np.testing.assert_array_equal(found.ids, known.ids)
    assert [v.label for v in index.classify(queries, 7)] == [
        v.label for v in flat.classify(queries, 7)
    ]


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT"])
def test_approximate_kinds_find_as_much(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, flat: Index, place: str, kind: str
) -> None:
    spec = IndexSpec(DIMS, factories={"8": kind, "16": kind}, engine=f"{place}#{kind}")
    index = Index.from_vectors(rows, tmp_path / "index", spec=spec)
    assert index.manifest.factory == {"8": kind, "16": kind, "32": "FLAT"}
    effort = index.corpus.prefix_index(8).efforts[-1]
    many = energy_first(np.random.default_rng(2), 50, DIM)
    found = index.search(many, 10, plan=f"8:100@{effort},32").ids
    known = flat.search(many, 10, plan="8:100,32").ids
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(found, known, strict=True)])
    assert recall >= 0.99


def test_changes_are_seen_at_once(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, items: Path, place: str
) -> None:
    both = [
        Index.from_vectors(rows, tmp_path / name, items=str(items), spec=spec)
        for name, spec in (
            ("milvus", IndexSpec(DIMS, engine=f"{place}#changes")), ("faiss", IndexSpec(DIMS))
        )
    ]  # fmt: skip

    def same() -> None:
        for plan in PLANS:
            found, known = (one.search(queries, 8, plan=plan) for one in both)
            np.testing.assert_array_equal(found.ids, known.ids)

    for change in (
        lambda one: one.remove(where="width<40"),
        lambda one: one.add(queries * 1.5),
        lambda one: one.remove(ids=[1201, 50]),
        lambda one: one.restore(1),
        lambda one: one.compact(),
    ):
        for one in both:
            change(one)
        same()
    remote = Remote(Place.parse(f"{place}#changes"))
    assert remote.count() == len(both[1])


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


@pytest.mark.parametrize("stopped", ["_keep_model", "_check", "_save"])
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


def test_parts_are_joined_in_milvus(tmp_path: Path, rows: np.ndarray, place: str) -> None:
    np.save(tmp_path / "rows.npy", rows)
    parts = [tmp_path / f"{number}" for number in (1, 2)]
    for number, part in enumerate(parts, 1):
        build_vector_part(open_vectors(tmp_path / "rows.npy"), part, Shard.parse(f"{number}/2"))
    spec = IndexSpec((8, 32), engine=f"{place}#joined")
    index = join_parts(parts, tmp_path / "all", spec=spec)
    assert index.search(rows[700], 1, plan="8:9,32").ids.tolist() == [700]
    assert Remote(Place.parse(f"{place}#joined")).count() == ROWS


def test_other_commands_ask_milvus(tmp_path: Path, flat: Index, index: Index) -> None:
    assert CliRunner().invoke(app, ["info", str(index.folder)]).stdout.count("searches ask milvus:")
    assert index.tune("recall", 0.9, queries=40).chosen.plan
    level = "exact"
    assert len(index.duplicates(level)) == len(flat.duplicates(level))


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
        with pytest.raises(EngineError, match="is of another index"):
            ask(tmp_path / "c")
    shutil.copytree(index.folder, tmp_path / "e")  # another of the same model
    (tmp_path / "e" / NOTED).unlink()
    with pytest.raises(EngineError, match="is of another index"):
        follow(tmp_path / "e")
    assert Remote(Place.parse(f"{place}#flat")).count() == ROWS
    with pytest.raises(EngineError, match="There is no collection"):
        copy_back(f"{place}#nothing", tmp_path / "d")


@pytest.mark.parametrize(
    "text",
    [
        "./x.db#a",
        "milvus:./x.db",
        "milvus:#a",
        "milvus:./x#a",
        "milvus:./x.db#a b",
        "milvus:./x.db#1",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ConfigError):
        Place.parse(text)


def test_places_and_kinds() -> None:
    here = Place.parse("milvus:./x.db#mine")
    assert here.uri == str(Path.cwd() / "x.db")  # wherever a later command runs
    assert not Remote.exists(here) and not Path("x.db").exists()  # looking makes no file
    place = Place.parse("milvus:http://host:19530#mine")
    assert (place.uri, place.name) == ("http://host:19530", "mine")
    assert str(place) == "milvus:http://host:19530#mine"
    sizes = (10, False), (10**6, False), (10**6, True)
    assert [milvus_kind("auto", n, last) for n, last in sizes] == ["FLAT", "HNSW", "FLAT"]
    with pytest.raises(ConfigError, match="no kind of index in Milvus"):
        milvus_kind("PQ8x4fs", 10, False)
    with pytest.raises(ConfigError, match="10 prefixes at most"):
        Index.from_vectors(
            np.eye(16, dtype=np.float32),
            spec=IndexSpec(tuple(range(1, 17)), engine="milvus:x.db#a"),
        )


def test_no_server_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_client, "SECONDS", 0.5)
    monkeypatch.setattr(milvus_client, "WAITS", (0.01,))
    with pytest.raises(EngineError, match=r"Milvus at http://127.0.0.1:9 says") as error:
        Remote(Place.parse("milvus:http://127.0.0.1:9#mine"))
    assert error.value.hint.startswith("Is it running")


def test_an_old_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, *args: object, **options: object) -> None:
            pass

        def get_server_version(self, timeout: float) -> str:
            return "v2.2.16"

    monkeypatch.setattr(pymilvus, "MilvusClient", Client)
    with pytest.raises(EngineError, match=r"is version v2\.2\.16") as error:
        milvus_client.connected(Place.parse("milvus:http://old:1#a"))
    assert error.value.hint == "Use 2.3 or later."


def test_a_slow_server_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def slow(timeout: float) -> None:
        given.append(timeout)
        now[0] += 40
        raise RuntimeError("Deadline Exceeded")

    for uri, calls in (("http://host:1", [60, 60]), ("/a/file.db", [600])):  # works on in here
        given.clear()
        with pytest.raises(EngineError, match="Deadline Exceeded") as error:
            milvus_client.ask(Place(uri, "n"), slow)
        assert error.value.hint.startswith("It is slow, or gone")
        assert given == calls


def test_calls_are_made_again_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    place, waited, failures = Place("u", "n"), [], iter(["rate limit exceeded", "unavailable"])
    monkeypatch.setattr(time, "sleep", waited.append)

    def call(timeout: float) -> int:
        for failure in failures:
            raise RuntimeError(failure)
        return 7

    assert milvus_client.ask(place, call) == 7
    assert waited == list(milvus_client.WAITS[:2])

    def always(text: str) -> None:
        def fails(timeout: float) -> None:
            raise RuntimeError(text)

        milvus_client.ask(place, fails)

    waited.clear()
    for text, hint in (
        ("rate limit exceeded", "Is it running"), ("auth check failure", "Set the environment"),
        ("disk quota exhausted", "Make room"), ("odd", "Milvus 2.3"),
        ("opened by another", "One process"),
    ):  # fmt: skip
        with pytest.raises(EngineError, match=text) as error:
            always(text)
        assert error.value.hint.startswith(hint)
    assert waited == list(milvus_client.WAITS)  # of the first alone


def test_filters_are_those_of_milvus_or_lists(flat: Index) -> None:
    items = Collection.open(flat.folder).items

    def told(*conditions: str, share: float = 0.5) -> str | None:
        allowed = np.arange(ROWS) < share * ROWS
        return expression_of(Mask(allowed, conditions), items)

    assert told() == ""
    assert told("label=cat", "width>=7") == 'item["label"] == "cat" and item["width"] >= 7'
    assert told("share<0.5") == 'item["share"] < 0.5'
    for listed in ("label!=cat", "path=p/*", "taken<1971", "label= cat", "label=Ä", "width=x"):
        assert told(listed, share=3 / ROWS) == "id in [0, 1, 2]"
