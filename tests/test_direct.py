"""Searches by JSON go past FastAPI: the same answers, the same errors, and vectors in base64."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from served import HERE
from starlette.testclient import TestClient

from mrl_search.engines import kernels
from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.web.answers import quick
from mrl_search.web.app import make_app
from mrl_search.web.asked import Asked, numbers
from mrl_search.web.direct import as_json, read
from mrl_search.web.served import Served

SEARCH = "/api/indexes/mine/search"
PLAN = "16:40@8,64"


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3000, 64)).astype(np.float32)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, vectors: np.ndarray) -> Served:
    folder = tmp_path_factory.mktemp("direct") / "index"
    Index.from_vectors(
        vectors, folder, spec=IndexSpec((16, 64), factories={"16": "RR16,IVF32,PQ16x4fsr"})
    )
    return Served(folder, "mine")


@pytest.fixture(scope="module")
def api(one: Served) -> TestClient:
    return TestClient(make_app({"mine": one}), base_url=HERE, raise_server_exceptions=False)


def packed(vector: np.ndarray) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def test_answers_are_those_of_the_library(
    api: TestClient, one: Served, vectors: np.ndarray
) -> None:
    for row in (5, 6, 7):  # the second and third are answered at once
        query = vectors[row] + np.float32(0.01)
        expected = one.index.search(query, 7, plan=PLAN)
        for vector in (query.tolist(), packed(query)):
            answer = api.post(SEARCH, json={"vector": vector, "k": 7, "plan": PLAN}).json()
            assert [hit["id"] for hit in answer["hits"]] == expected.ids.tolist()
            found = [hit["score"] for hit in answer["hits"]]
            assert found == pytest.approx(expected.scores, abs=1e-6)
            assert answer["plan"] == PLAN


def test_only_what_compiled_code_answers_is_answered_at_once(
    one: Served, vectors: np.ndarray
) -> None:
    vector = vectors[0].tolist()
    one.index.search(vectors[0], 10, plan=PLAN)
    one.index.search(vectors[0], 10, plan="exact")
    asked: dict[str, Any] = {"vector": vector, "plan": PLAN}
    assert quick(one, Asked(**asked))
    for more in (
        {"plan": "exact"}, {"where": ["id>3"]}, {"ids": [1]}, {"cutoff": 0.5}, {"explain": True},
        {"expected": True}, {"minus": [{"id": 3}]}, {"k": 11},
    ):  # fmt: skip
        assert not quick(one, Asked(**{**asked, **more})), more
    assert not quick(one, Asked.model_validate({"id": 3, "plan": PLAN}))


@pytest.mark.parametrize(
    ("asked", "status", "error"),
    [
        ({"vector": "AAAA"}, 400, "The vector is not of float32."),
        ({"vector": "§"}, 400, "The vector is not base64."),
        ({"vector": packed(np.ones(8))}, 400, "The query has 8 dims"),
        ({"vector": packed(np.full(64, np.nan))}, 400, "Row 0 of the vectors is not finite."),
        ({"vector": [1.0, None]}, 422, "vector"),
        ({"vector": [0.0] * 64, "plan": PLAN}, 400, "Row 0 of the queries is all zeros."),
        ({"vector": [1.0] * 64, "plan": "8:5"}, 400, "Plan 8:5 ends with :5"),
        ({"vector": [1.0] * 64, "odd": 1}, 422, "odd: "),
        ({}, 400, "There is nothing to search with."),
    ],
)
def test_errors_are_sentences(
    api: TestClient, asked: dict[str, Any], status: int, error: str
) -> None:
    backwards = dict(reversed(asked.items()))  # pydantic reads a vector that is not named first
    for some in (asked, backwards):
        response = api.post(SEARCH, json=some)
        assert response.status_code == status
        assert response.json()["error"].startswith(error)
        assert set(response.json()) == {"error", "hint"}


def test_a_vector_that_is_named_first_is_read_past_pydantic(
    vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = vectors[0]
    bodies = [
        json.dumps({"vector": vector, "k": 3, "plan": PLAN}, indent=indent).encode()
        for vector in (query.tolist(), packed(query))
        for indent in (None, 2)
    ]
    bodies.append(b' { "vector" : [1,2.5e0, -3] } ')
    for native in (kernels.native, None):
        monkeypatch.setattr(kernels, "native", native)
        for body in bodies:
            found, whole = read(body), Asked.model_validate_json(body)
            assert found is not None
            assert found[1].dtype == np.float32
            assert found[1].tobytes() == numbers(whole.vector or "").tobytes()
            assert found[0].request().plan == whole.request().plan and found[0].k == whole.k


@pytest.mark.parametrize(
    "body",
    [
        '{"vector":[1],}', '{"vector":[],"k":1}', '{"vector":["1"]}', '{"vector":[1]} x',
        '{"vector":[1]', '{"vector":[1],"vector":[2]}', '{"vector":[1],"id":3}', "[1]", "",
        '{"vector":[1],"minus":[{"id":3}]}', '{"vector":[[1]]}', '{"vector":"AACAP\\"w=="}',
        '{"k":3,"vector":[1]}', '{"vector":[1],"odd":1}', '{"vector":[1] "k":1}',
        '{"vector":null}', '{"vector":"AAA="}', '{"vector":[1' + "0" * 400 + "]}",
        '{"vector":[' + "1," * 65_536 + "1]}", '{"vector":[1],"where":["' + "a" * 1000 + '"]}',
    ],
    ids=range(20),
)  # fmt: skip
def test_other_bodies_are_left_to_pydantic(body: str) -> None:
    assert read(body.encode()) is None


def test_names_that_are_no_text_are_sent() -> None:
    for value in ({"name": "a\udcff"}, {"name": "ä\u2028", "score": 0.1, "none": None}):
        assert json.loads(as_json(value)) == value


def test_what_is_no_json_or_no_index_is_refused(api: TestClient) -> None:
    kind = {"content-type": "application/json"}
    assert api.post(SEARCH, content=b"{", headers=kind).status_code == 422
    assert api.post(SEARCH, content=b"{}", headers={"content-type": "text/xml"}).status_code == 415
    assert api.post(SEARCH.replace("mine", "other"), json={"id": 1}).status_code == 404
    assert api.get(SEARCH).status_code == 405


def test_a_failure_of_the_server_is_told_and_counted(
    api: TestClient, one: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("/secret/place")

    monkeypatch.setattr("mrl_search.web.direct.search_one", fail)
    response = api.post(SEARCH, json={"id": 1})
    assert response.status_code == 500
    assert response.json()["error"] == "The server failed."
    assert f'route="{SEARCH.replace("mine", "{name}")}",status="500"' in api.get("/metrics").text


def test_the_documentation_tells_both_forms_of_a_vector(api: TestClient) -> None:
    schema = api.get("/openapi.json").json()["paths"]["/api/indexes/{name}/search"]["post"]
    body = schema["requestBody"]["content"]["application/json"]["schema"]
    kinds = {one.get("type") for one in body["properties"]["vector"]["anyOf"]}
    assert kinds == {"array", "string", "null"}
