"""The HTTP API: the answers of the library, in one shape; errors that help; an index that lives."""

import asyncio
import base64
import io
import json
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeJointEncoder
from PIL import Image
from served import HERE, build, client, events_of
from starlette.testclient import TestClient

from mrl_search.engines.milvus_client import Damaged
from mrl_search.errors import DataError
from mrl_search.index import Index
from mrl_search.web import answers
from mrl_search.web import served as module

MINE = "/api/indexes/mine"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("served"))


@pytest.fixture(scope="module")
def api(folder: Path) -> TestClient:
    return client(folder)


@pytest.fixture(scope="module")
def index(folder: Path) -> Index:
    return Index.open(folder, FakeJointEncoder())


def search(api: TestClient, **asked: Any) -> dict[str, Any]:
    response = api.post(f"{MINE}/search", json=asked)
    assert response.status_code == 200, response.text
    return response.json()


def ids_of(answer: dict[str, Any]) -> list[int]:
    return [hit["id"] for hit in answer["hits"]]


def test_the_indexes_and_what_they_hold(api: TestClient) -> None:
    assert api.get("/api/indexes").json() == [{"name": "mine", "items": 24}]
    info = api.get(MINE).json()
    assert (info["dims"], info["items"], info["words"]) == ([8, 16, 64], 24, True)
    assert {"name": "label", "kind": "text", "values": ["cat", "dog"]} in info["columns"]
    assert len(info["sample"]) == 24


@pytest.mark.parametrize("plan", ["auto", "exact", "8:10,64", "16"])
def test_an_answer_is_that_of_the_library(api: TestClient, index: Index, plan: str) -> None:
    path = index.items["path"][3].as_py()
    expected = index.search(path, k=5, plan=plan)
    with Path(path).open("rb") as file:
        form = {"k": "5", "plan": plan}
        answer = api.post(f"{MINE}/search", files={"image": file}, data=form).json()
    assert ids_of(answer) == expected.ids.tolist()
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx(expected.scores, abs=1e-6)
    again = search(api, query_id=answer["query_id"], k=5, plan=plan)
    assert ids_of(again) == ids_of(answer)
    encoded = base64.b64encode(Path(path).read_bytes()).decode()
    assert ids_of(search(api, image=encoded, k=5, plan=plan)) == ids_of(answer)


def test_an_item_is_left_out_of_its_own_answer(api: TestClient, index: Index) -> None:
    own = index.search(index.items["path"][3].as_py(), k=6).ids.tolist()
    assert own[0] == 3
    assert ids_of(search(api, id=3, k=5)) == own[1:]
    assert ids_of(search(api, id=3, k=5, plan="8:6,64")) == own[1:]
    assert ids_of(search(api, id=3, k=5, not_itself=False)) == own[:5]


def test_pictures_and_words_are_added_and_subtracted(api: TestClient) -> None:
    plus = search(api, plus=[{"id": 0}, {"id": 1}], k=22)
    assert set(ids_of(plus)) == set(range(24)) - {0, 1}
    minus = search(api, plus=[{"id": 0}], minus=[{"id": 1, "weight": 0.5}], k=23)
    assert ids_of(minus) != ids_of(plus) and 1 not in ids_of(minus)
    words = search(api, text="red", k=24)
    assert words["query_id"] and len(words["hits"]) == 24
    assert ids_of(search(api, plus=[{"text": "red"}], minus=[{"text": "red"}, {"id": 3}], k=3))


def test_filters_and_cutoffs(api: TestClient) -> None:
    cats = search(api, id=0, where=["label=cat"], k=24)
    assert {hit["label"] for hit in cats["hits"]} == {"cat"} and cats["found"] == 11
    assert ids_of(search(api, id=0, ids=[5, 7], k=9)) in ([5, 7], [7, 5])
    assert all(h["score"] >= 0.99 for h in search(api, id=0, cutoff=0.99, k=24)["hits"])
    explained = search(api, id=0, k=2, explain=True)["hits"][0]["explain"]
    assert [level["dims"] for level in explained] == [8, 16, 64]


def test_a_batch_is_its_single_searches(api: TestClient) -> None:
    asked = {"queries": [{"id": 2}, {"text": "blue"}], "k": 4}
    batch = api.post(f"{MINE}/search/batch", json=asked).json()
    assert ids_of(batch[0]) == ids_of(search(api, id=2, k=4))
    assert ids_of(batch[1]) == ids_of(search(api, text="blue", k=4))


def test_stages_come_as_events_and_then_the_answer(api: TestClient) -> None:
    asked = {"id": 2, "k": 4, "plan": "8:12,16:8,64"}
    events = events_of(api.post(f"{MINE}/search/stream", json=asked))
    assert [kind for kind, _ in events] == ["stage", "stage", "answer"]
    (_, first), (_, second), (_, answer) = events
    assert (first["dims"], first["stages"], second["dims"]) == (8, 3, 16)
    assert 2 not in ids_of(first) and len(first["hits"]) == 12 and len(second["hits"]) == 8
    assert ids_of(answer) == ids_of(search(api, **asked))
    failed = events_of(api.post(f"{MINE}/search/stream", json={"id": 2, "plan": "9"}))
    assert failed[0][0] == "error" and "dims" in failed[0][1]["error"]


def test_classes_by_neighbours_and_by_words(api: TestClient, index: Index) -> None:
    path = index.items["path"][3].as_py()
    vote = api.post(f"{MINE}/classify", json={"id": 3, "k": 5}).json()
    assert vote["label"] == index.classify(path, k=5).label
    words = api.post(f"{MINE}/classify", json={"id": 3, "labels": ["red", "blue"]}).json()
    assert sum(words["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_items_thumbnails_and_pictures(api: TestClient, index: Index) -> None:
    path = Path(index.items["path"][3].as_py())
    item = api.get(f"{MINE}/items/3").json()
    assert (item["id"], item["label"], item["name"]) == (3, "cat", path.name)
    assert item["path"] == f"cat/{path.name}"
    assert (item["width"], item["height"]) == (96, 96)
    small = api.get(f"{MINE}/thumbs/3?size=64")
    assert Image.open(io.BytesIO(small.content)).size == (64, 64)
    tag = small.headers["etag"]
    assert api.get(f"{MINE}/thumbs/3?size=64", headers={"if-none-match": tag}).status_code == 304
    whole = api.get(f"{MINE}/pictures/3")
    assert whole.content == path.read_bytes() and whole.headers["content-type"] == "image/jpeg"


def test_the_map_has_every_item_once(api: TestClient, index: Index) -> None:
    for response in (
        api.get(f"{MINE}/map?dims=8"),
        api.post(f"{MINE}/map", json={"dims": 64, "ids": list(range(24))}),
    ):
        data = response.content
        n, generation = np.frombuffer(data, "<u4", 2)
        ids = np.frombuffer(data, "<i8", n, 8)
        xy = np.frombuffer(data, "<f4", 2 * n, 8 + 8 * n).reshape(n, 2)
        numbers = np.frombuffer(data, "<u2", n, 8 + 16 * n)
        assert ids.tolist() == list(range(24)) and generation == index.generation
        assert abs(xy).max() == pytest.approx(1) and len(data) == 8 + 18 * n
        labels = json.loads(response.headers["x-labels"])
        assert [labels[i] for i in numbers] == index.items["label"].to_pylist()


def test_duplicates_are_found_and_decided(tmp_path: Path) -> None:
    folder = build(tmp_path, 4)
    copy = tmp_path / "pictures/cat/copy.jpg"
    copy.write_bytes((tmp_path / "pictures/cat/cat-0000.jpg").read_bytes())
    api = client(folder, write=True)
    assert api.post(f"{MINE}/sync").json()["added"] == 1
    found = api.get(f"{MINE}/duplicates?level=exact").json()
    (group,) = found["groups"]
    names = {group["keep"]["name"], group["members"][0]["name"]}
    assert names == {"cat-0000.jpg", "copy.jpg"}
    same = api.post(f"{MINE}/duplicates/decisions", json={"ids": [0, 8]})
    assert same.status_code == 400 and "same bytes" in same.json()["error"]
    assert api.post(f"{MINE}/duplicates/decisions", json={"ids": [0, 1]}).json() == {"new": 1}


def test_a_look_for_duplicates_tells_how_far_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "PAUSE", -1)
    api = client(folder)
    *told, (kind, found) = events_of(api.get(f"{MINE}/duplicates/stream?level=copy"))
    assert {kind for kind, _ in told} == {"progress"} and kind == "answer"
    assert {"what": "pairs", "done": 24, "total": 24} in [data for _, data in told]
    assert found == api.get(f"{MINE}/duplicates?level=copy").json()
    again = events_of(api.get(f"{MINE}/duplicates/stream?level=copy"))
    assert again == [("answer", found)]  # it is known by now
    few = events_of(api.get(f"{MINE}/duplicates/stream?level=similar"))
    assert few[-1][0] == "error" and "too few" in few[-1][1]["error"]
    assert api.get(f"{MINE}/duplicates/stream?level=odd").status_code == 422


def test_work_ends_when_the_client_leaves() -> None:
    ended = threading.Event()

    def work(emit: answers.Emit) -> dict[str, Any]:
        try:
            while True:
                emit("progress", {})
                time.sleep(0.01)
        finally:
            ended.set()

    async def leave() -> None:
        told = answers.events(work, str)
        assert b"progress" in await anext(told)
        await told.aclose()

    asyncio.run(leave())
    assert ended.wait(60)


def test_texts_of_a_png_that_unpack_to_gigabytes_are_left_out(tmp_path: Path) -> None:
    folder = build(tmp_path, 2)
    api = client(folder, write=True)
    bomb, wide = texts_of(b"zTXt", (40, 30)), texts_of(b"iTXt", (9000, 6000))
    found = api.post(f"{MINE}/search", files={"image": ("a.png", bomb)}, data={"k": "2"})
    assert len(found.json()["hits"]) == 2
    refused = api.post(f"{MINE}/search", files={"image": ("b.png", wide)})
    assert refused.status_code == 400 and "9,000 x 6,000 pixels" in refused.json()["error"]
    assert api.post(f"{MINE}/add", files={"image": ("c", bomb)}).json()["added"] == 1
    (new,) = api.post(f"{MINE}/search", files={"image": bomb}, data={"k": "1"}).json()["hits"]
    assert new["name"] == "c.png"
    whole = api.get(f"{MINE}/pictures/{new['id']}")
    assert (whole.headers["content-type"], whole.content) == ("image/png", bomb)
    assert api.get(f"{MINE}/thumbs/{new['id']}").status_code == 200


def texts_of(kind: bytes, size: tuple[int, int]) -> bytes:
    """A PNG file whose text takes 100 MB, and in the file 100 kB."""
    file = io.BytesIO()
    Image.new("1", size).save(file, "PNG")
    data, packed = file.getvalue(), zlib.compress(bytes(100_000_000))
    content = kind + (b"a\0\1\0\0\0" if kind == b"iTXt" else b"a\0\0") + packed
    size_and_sum = (len(content) - 4).to_bytes(4, "big"), zlib.crc32(content).to_bytes(4, "big")
    chunk = content.join(size_and_sum)
    return data[:33] + chunk + data[33:]


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("notes.txt", "notes.txt"), ("C:\\My files\\x.jpg", "x.jpg"), ("../../etc/x", "x"),
        ("a\u202eb", "a\\u202eb"), ("x" * 200, "…" + "x" * 80), ("/", "The picture"),
    ],
)  # fmt: skip
def test_an_error_names_the_file(api: TestClient, name: str, called: str) -> None:
    for path in ("search", "classify"):
        refused = api.post(f"{MINE}/{path}", files={"image": (name, b"no picture")})
        assert refused.status_code == 400
        assert refused.json()["error"] == f"{called}: not an image that can be read."


def test_an_index_changes_while_it_is_served(tmp_path: Path) -> None:
    folder = build(tmp_path, 4)
    reading, writing = client(folder), client(folder, write=True)
    before = reading.get(MINE).json()
    picture = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(picture, "PNG")
    added = writing.post(f"{MINE}/add", files={"image": ("../../r e d.png", picture.getvalue())})
    assert added.json()["added"] == 1
    assert (tmp_path / "pictures/r e d.png").is_file()
    now = reading.get(MINE).json()
    assert (now["items"], now["generation"] > before["generation"]) == (9, True)
    new = search(reading, text="red", k=1)["hits"][0]
    assert new["name"] == "r e d.png"
    assert writing.post(f"{MINE}/remove", json={"ids": [new["id"]]}).json() == {"removed": 1}
    assert reading.get(f"{MINE}/items/{new['id']}").status_code == 404
    again = writing.post(f"{MINE}/add", files={"image": ("red.png", b"no picture")})
    assert again.status_code == 400 and "no picture" in again.json()["error"]


def test_odd_names_of_uploads_are_made_names_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path, 2)
    writing, pictures = client(folder, write=True), tmp_path / "pictures"
    for number, name in enumerate(("metadata.csv", "a\0b.jpg", "x" * 300 + ".jpg", "🐈" * 80, ".")):
        picture = io.BytesIO()
        Image.new("RGB", (40, 30), (50 * number, 9, 9)).save(picture, "PNG")
        added = writing.post(f"{MINE}/add", files={"image": (name, picture.getvalue())})
        assert (added.status_code, added.json()["added"]) == (200, 1), name
    assert not (pictures / "metadata.csv").exists() and (pictures / "metadata.png").is_file()
    before = sorted(pictures.iterdir())

    def refuse(*_: object, **__: object) -> None:
        raise DataError("no")

    monkeypatch.setattr(Index, "add", refuse)
    refused = writing.post(f"{MINE}/add", files={"image": ("new.png", picture.getvalue())})
    assert refused.status_code == 400
    assert sorted(pictures.iterdir()) == before  # what was refused is not left behind


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({}, 400, "nothing to search with"), ({"id": 99}, 400, "no item 99"),
        ({"id": 1, "k": 0}, 422, "k:"), ({"id": 1, "plan": "x"}, 400, "plan"),
        ({"id": 1, "where": ["colour=red"]}, 400, "colour"), ({"id": 1, "foo": 1}, 422, "foo"),
        ({"vector": [1, 2]}, 400, "dims"), ({"image": "!"}, 400, "base64"),
        ({"image": "AAAA"}, 400, "not an image"), ({"query_id": "x"}, 400, "does not know"),
        ({"id": 1, "dims": 63}, 400, "63"), ({"vector": ["nan"]}, 400, "not finite"),
        ({"plus": [{"id": 1, "text": "a"}]}, 422, "exactly one"),
        ({"plus": [{"id": 1}], "minus": [{"id": 1}]}, 400, "cancel"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(
    api: TestClient, asked: dict[str, Any], status: int, said: str
) -> None:
    response = api.post(f"{MINE}/search", json=asked)
    assert response.status_code == status, response.text
    assert set(response.json()) == {"error", "hint"} and said in response.json()["error"]


def test_what_is_not_there_and_what_may_not_be(api: TestClient) -> None:
    for path in ("/api/indexes/other", f"{MINE}/items/99", "/nothing.js"):
        response = api.get(path)
        assert response.status_code == 404 and response.json()["error"], path
    for path in ("sync", "remove", "duplicates/decisions"):
        refused = api.post(f"{MINE}/{path}", json={"ids": [0, 1]})
        assert refused.status_code == 403 and "--write" in refused.json()["error"]
    assert api.get(f"{MINE}/report").json() == {"tables": []}


def test_too_many_pictures_are_sent_away(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    busy, go = threading.Event(), threading.Event()
    one = module.Served(folder, "mine", FakeJointEncoder())
    api = client(folder, served=one)

    def slow(self: FakeJointEncoder, texts: list[str]) -> np.ndarray:
        busy.set()
        assert go.wait(30)
        return np.ones((len(texts), 64), np.float32)

    monkeypatch.setattr(FakeJointEncoder, "encode_text", slow)
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(search, api, text="red") for _ in range(2)]
        assert busy.wait(30)
        while one._waiting._value:  # the second has not arrived yet
            time.sleep(0.01)
        refused = api.post(f"{MINE}/search", json={"text": "red"})
        go.set()
        assert refused.status_code == 429 and int(refused.headers["retry-after"]) > 0
        assert all(len(one.result()["hits"]) == 10 for one in asked)


def test_an_engine_that_does_not_answer_is_no_fault_of_the_request(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise Damaged("Milvus is gone.", "Start it.")

    monkeypatch.setattr(answers, "find", gone)
    refused = client(folder).post(f"{MINE}/search", json={"id": 1})
    assert refused.status_code == 503
    assert refused.json() == {"error": "Milvus is gone.", "hint": "Start it."}


def test_counts_for_prometheus(api: TestClient) -> None:
    search(api, id=1)
    text = api.get("/metrics").text
    route = 'method="POST",route="/api/indexes/{name}/search",status="200"'
    assert f"mrl_search_requests_total{{{route}}}" in text
    assert 'mrl_search_items{index="mine"} 24.0' in text
    assert api.get("/healthz").json()["status"] == "ok"


def test_the_page_and_the_documentation_are_served(api: TestClient) -> None:
    assert "<title>mrl-search</title>" in api.get("/").text
    assert api.get("/main.js").headers["content-type"].startswith("text/javascript")
    assert api.get("/data.js").text == "" and "docs.js" in api.get("/docs").text
    paths = api.get("/openapi.json").json()["paths"]
    assert f"{MINE.replace('mine', '{name}')}/search" in paths
    assert HERE not in api.get("/openapi.json").text
