"""Indexes that version 0.1 wrote still open, and answer as they did."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder

from mrl_search.index import Index
from mrl_search.search.plan import Plan
from mrl_search.search.run import default_plan
from mrl_search.shrink import shrink_index
from mrl_search.store.intact import verify

DATA = Path(__file__).parent / "data" / "format1"
ANSWERS: dict[str, Any] = json.loads((DATA / "answers.json").read_text())
QUERIES = np.array(ANSWERS["queries"], dtype=np.float32)


@pytest.fixture(params=["pictures", "vectors"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(name: str) -> Index:
    return Index.open(DATA / name)


def test_it_opens_whole(index: Index, name: str) -> None:
    assert verify(index.folder) == index.manifest
    assert (index.manifest.format, index.manifest.versions["mrl-search"]) == (1, "0.1.0")
    assert (len(index), index.dims) == ({"pictures": 60, "vectors": 40}[name], (8, 16))
    assert index.manifest.own_vectors == (name == "vectors")
    sieve = index.corpus.sieve  # a small corpus had one, too
    assert sieve is not None and sieve.norms.shape == (2, len(index))


def test_it_answers_as_it_did(index: Index, name: str) -> None:
    told = ANSWERS[name]
    exact = index.search(QUERIES, k=5, plan="exact")
    assert exact.ids.tolist() == told["exact"]
    np.testing.assert_allclose(exact.scores, told["scores"], atol=1e-6)
    votes = index.classify(QUERIES, k=5, plan="exact")
    assert [v.label for v in votes] == told["labels"]
    assert len(index.search(QUERIES[0], k=3, where="id<20")) == 3


def test_its_tuned_plan_is_read(index: Index, name: str) -> None:
    plan = {"pictures": "8:8,16", "vectors": "16"}[name]
    assert ANSWERS[name]["plan"] == f"{plan}:5"  # 0.1 wrote the number of answers there
    assert str(default_plan(index.corpus, 5)) == plan
    tuned = index.search(QUERIES, k=5)
    assert str(tuned.plan) == plan and tuned.ids.tolist() == ANSWERS[name]["tuned"]
    assert index.search(QUERIES, k=6).plan == Plan.EXACT


def test_items_heads_and_rotation_are_read() -> None:
    pictures, vectors = (Index.open(DATA / name) for name in ("pictures", "vectors"))
    collection = pictures.corpus.collection
    assert collection.linear_predictions(16).tolist() == ANSWERS["linear"]
    assert [s.path for s in collection.skipped] == ["pictures/bad.jpg"]
    hit = pictures.search(QUERIES[0], k=1, where="label=cat")[0]
    assert (hit.path, hit.label, hit["width"]) == (f"pictures/{hit.id}.jpg", "cat", 320)
    assert vectors.corpus.collection.transform.rotation is not None
    assert vectors.search(QUERIES[0], k=1)[0]["price"] == vectors.search(QUERIES[0], k=1)[0].id


def test_pictures_are_searched_with_the_model_that_built_it(tmp_path: Path) -> None:
    encoder = FakeEncoder(dims=(8, 16))
    index = Index.open(DATA / "pictures", encoder)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    row = pixels.reshape(-1)[:16].astype(np.float32)
    assert index.search(pixels, k=4).ids.tolist() == index.search(row, k=4).ids.tolist()


def test_it_is_tuned_learnt_and_shrunk_by_this_version(tmp_path: Path) -> None:
    shutil.copytree(DATA / "pictures", tmp_path / "copy")
    index = Index.open(tmp_path / "copy", FakeEncoder(dims=(8, 16)))
    found = index.tune(target=0.9, k=4)
    assert str(default_plan(Index.open(tmp_path / "copy").corpus, 4)) == str(found.chosen.plan)
    index.learn_thresholds(5, give=0.5)
    assert {v.dims for v in index.classify(QUERIES, k=5, adaptive=True)} <= {8, 16}
    small = shrink_index(index, tmp_path / "small", 8)
    assert small.dims == (8,) and verify(small.folder) == small.manifest
    assert small.search(QUERIES, k=5).ids.shape == (5, 5)
