"""The facade: open, build, from_vectors, search, classify, tune; and many threads at once."""

import gc
import io
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CLASSES, Rows, energy_first, made_of
from fakes import FakeEncoder, ListSource, png
from PIL import Image

import mrl_search as mrl
from mrl_search.encoders.base import Access
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import BrokenImage, ConfigError, DataError, IndexFolderError
from mrl_search.index import Index
from mrl_search.search.classify import Ballot, Vote, Weighting
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits, Hit, Hits
from mrl_search.store.generations import store_plan
from mrl_search.store.intact import verify
from mrl_search.store.manifest import newest_index

GREYS = tuple(range(10, 250, 20))


def noise(seed: int, side: int = 8) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def noise_png(seed: int) -> bytes:
    file = io.BytesIO()
    noise(seed).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def source() -> ListSource:
    """Twelve pictures of noise; the fourth is broken."""
    files: list[bytes | BrokenImage] = [noise_png(i) for i in range(12)]
    files[3] = b"nonsense"
    return ListSource(files)


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture
def pictures(source: ListSource, encoder: FakeEncoder, tmp_path: Path) -> Index:
    """An index of eleven pictures."""
    return Index.build(source, tmp_path / "pictures", model=encoder)


# Building


def test_pictures_are_embedded_once_and_indexed(
    source: ListSource, encoder: FakeEncoder, tmp_path: Path
) -> None:
    calls: list[tuple[str, int, int]] = []
    report = lambda *done: calls.append(done)  # noqa: E731
    index = Index.build(source, tmp_path / "made", model=encoder, progress=report)
    assert len(index) == 11 and index.dims == (8, 16, 64)
    assert encoder.batches == [11]
    assert index.items["path"].to_pylist() == [f"image {i}" for i in range(12) if i != 3]
    assert [s.path for s in index.corpus.collection.skipped] == ["image 3"]
    m = index.manifest
    assert (m.encoder, m.fingerprint, m.model) == ("counting", "f00d" * 8, "bundled")
    assert (m.count, m.dim, m.dtype, m.source, m.format) == (11, 64, "float16", "a list", 1)
    assert {name for name, *_ in calls} == {"embedding", "indexing"}
    assert ("embedding", 12, 12) in calls and ("indexing", 11, 11) in calls
    raw = np.stack([np.asarray(noise(i)).reshape(-1)[:64] for i in range(12) if i != 3])
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(index.corpus.vectors.rows(), unit, atol=1e-3)
    np.testing.assert_allclose(index.items["norm"], np.linalg.norm(raw, axis=1), rtol=1e-5)
    verify(index.folder)
    assert repr(index) == f"Index('{tmp_path / 'made'}', 11 items, dims (8, 16, 64))"
    with pytest.raises(IndexFolderError, match="exists already"):
        Index.build(source, tmp_path / "made", model=encoder)


def test_a_spec_chooses_prefixes_kinds_and_dtype(source: ListSource, tmp_path: Path) -> None:
    spec = IndexSpec((16,), "SQ8", {"16": "Scan"}, "float32")
    index = Index.build(source, tmp_path / "made", model=FakeEncoder(), spec=spec)
    assert index.manifest.factory == {"16": "Scan", "64": "SQ8"}
    assert index.corpus.vectors.dtype == np.float32
    with pytest.raises(ConfigError, match="no prefix of 128"):
        Index.build(source, tmp_path / "b", model=FakeEncoder(), spec=IndexSpec((128,)))
    with pytest.raises(ConfigError, match="FAISS has no index 'Flatt'"):
        Index.build(source, tmp_path / "b", model=FakeEncoder(), spec=IndexSpec((8,), "Flatt"))
    assert not list(tmp_path.glob(".b.building/*"))


def test_a_folder_of_pictures_gets_labels(tmp_path: Path) -> None:
    for i in range(6):
        file = tmp_path / "pictures" / CLASSES[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise(i).save(file)
    index = Index.build(str(tmp_path / "pictures"), str(tmp_path / "out"), model=FakeEncoder())
    hit = index_search_first(index, tmp_path / "pictures" / "cat" / "1.png")
    assert (hit.label, Path(hit.path or "").name) == ("cat", "1.png")
    assert sorted(index.items["label"].to_pylist()) == sorted([*CLASSES, *CLASSES])


def index_search_first(index: Index, query: Path) -> Hit:
    index._model = FakeEncoder()
    return index.search(query, k=1)[0]


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No image of a list can be read; the first: image 0: "):
        Index.build(ListSource([b"", b"x"]), tmp_path / "none", model=FakeEncoder())
    assert not list(tmp_path.iterdir())


# Vectors


def test_vectors_in_memory_become_an_index() -> None:
    x = energy_first(np.random.default_rng(0), 100, 24)
    index = Index.from_vectors(x)
    assert len(index) == 100 and index.dims == (8, 16, 24)
    assert index.manifest.own_vectors
    hits = index.search(x[7], k=3)
    assert (hits[0].id, hits[0].path, hits[0].label) == (7, None, None)
    assert hits[0].score == pytest.approx(1, abs=1e-3)
    folder = index.folder
    assert folder.exists()
    del index, hits
    gc.collect()
    assert not folder.exists() and not folder.parent.exists()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_of_every_dtype_and_order(dtype: str, tmp_path: Path) -> None:
    x = energy_first(np.random.default_rng(0), 50, 16).astype(dtype)
    spec = IndexSpec((8,), dtype="float32")
    plain = Index.from_vectors(x, tmp_path / "c", spec=spec)
    turned = Index.from_vectors(np.asfortranarray(x), tmp_path / "f", spec=spec)
    strided = Index.from_vectors(np.repeat(x, 2, axis=0)[::2], tmp_path / "s", spec=spec)
    for index in (turned, strided):
        assert index.manifest.fingerprint == plain.manifest.fingerprint
        np.testing.assert_array_equal(index.corpus.vectors.rows(), plain.corpus.vectors.rows())
    np.save(tmp_path / "x.npy", x)
    on_disk = Index.from_vectors(str(tmp_path / "x.npy"), tmp_path / "d", spec=spec)
    assert on_disk.manifest.fingerprint == plain.manifest.fingerprint


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones(4, np.float32), r"shape \(4,\), not \(rows, dims\)"),
        (np.ones((0, 4), np.float32), r"shape \(0, 4\)"),
        (np.ones((3, 4), np.int64), "int64"),
        (np.array([[1, 2], [0, 0]], np.float32), "Row 1 of array is "),
        (np.array([[1, np.nan]], np.float32), "Row 0 of array has NaN or infinity"),
    ],
)
def test_arrays_that_cannot_be_indexed(x: np.ndarray, message: str, tmp_path: Path) -> None:
    before = set(Path(tmp_path.parent).iterdir())
    with pytest.raises(DataError, match=message):
        Index.from_vectors(x)
    with pytest.raises(DataError, match=message):
        Index.from_vectors(x, tmp_path / "it")
    assert set(Path(tmp_path.parent).iterdir()) == before and not list(tmp_path.iterdir())


def test_items_and_a_rotation_go_with_vectors(tmp_path: Path) -> None:
    x = energy_first(np.random.default_rng(0), 60, 16)[:, ::-1]
    pq.write_table(pa.table({"label": ["a", "b"] * 30, "price": range(60)}), tmp_path / "i.parquet")
    index = Index.from_vectors(x, tmp_path / "x", items=tmp_path / "i.parquet", rotate="pca")
    hit = index.search(x[5], k=1)[0]
    assert (hit.id, hit.label, hit["price"], hit["norm"]) == (
        5, "b", 5, pytest.approx(np.linalg.norm(x[5])),
    )  # fmt: skip
    assert index.corpus.collection.transform.rotation is not None
    with pytest.raises(ConfigError, match="There is no rotation 'ica'"):
        Index.from_vectors(x, tmp_path / "y", rotate="ica")


# Searching


def test_every_form_of_a_picture_finds_it(pictures: Index, tmp_path: Path) -> None:
    file = tmp_path / "five.png"
    file.write_bytes(noise_png(5))
    pixels = np.asarray(noise(5))
    forms = [file, str(file), noise_png(5), noise(5), pixels, noise(5).convert("RGBA")]
    for form in forms:
        hits = pictures.search(form, k=3)
        assert isinstance(hits, Hits)
        assert (hits[0].path, hits[0].rank) == ("image 5", 1)
        assert hits[0].score == pytest.approx(1, abs=1e-3)
    batch = pictures.search(forms, k=3)
    assert isinstance(batch, BatchHits) and batch.ids.shape == batch.scores.shape == (6, 3)
    assert [hits[0].path for hits in batch] == ["image 5"] * 6
    assert isinstance(pictures.search([file]), BatchHits)
    stack = pictures.search(np.stack([pixels, np.asarray(noise(0))]), k=1)
    assert [hits[0].path for hits in stack] == ["image 5", "image 0"]
    raw = pixels.reshape(-1)[:64].astype(np.float32)
    assert pictures.search(raw, k=1)[0].path == "image 5"
    assert [h[0].path for h in pictures.search(np.stack([raw, raw]), k=1)] == ["image 5"] * 2
    assert [h[0].path for h in pictures.search([raw, raw], k=1)] == ["image 5"] * 2


def test_pictures_are_embedded_in_batches_of_pictures(
    pictures: Index, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.encoders.embed.PICTURES", 4)
    encoder.batches.clear()
    found = pictures.search([noise(i) for i in range(10)], k=1)
    assert encoder.batches == [4, 4, 2]
    assert [h[0].path for h in found] == [f"image {i}" for i in range(10) if i != 3][:3] + [
        found[3][0].path, *(f"image {i}" for i in range(4, 10)),
    ]  # fmt: skip


def test_broken_pictures_stop_a_search_or_are_left_out(pictures: Index, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"bad.png: not an image"):
        pictures.search([noise(1), str(tmp_path / "bad.png")])
    queries = pictures.embed([noise(1), str(tmp_path / "bad.png"), b""], skip_broken=True)
    assert queries.names == ["picture 0"] and queries.rows.shape == (1, 64)
    assert [s.path for s in queries.skipped] == [str(tmp_path / "bad.png"), "picture 2"]
    assert queries.embed_ms is not None and queries.embed_ms > 0
    with pytest.raises(DataError, match=r"nowhere\.png"):
        pictures.search(tmp_path / "nowhere.png")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (np.ones(7), "The query has 7 dims; .* takes 64"),
        (np.zeros(64), "Row 0 of the queries is all zeros"),
        (np.full(64, np.nan), "not finite"),
        ([np.ones(64), np.ones(32)], "dims"),
        ([np.ones(64), noise(1)], "cannot be mixed"),
        ([1, 2], "A query is a path, bytes,"),
        (np.ones((8, 8, 1), np.uint8), "Pixels are"),
        (np.ones((2, 8, 8, 1), np.uint8), "Pixels are"),
        (np.ones((2, 8, 8, 3), np.float32), "Pixels are"),
    ],
)
def test_queries_that_cannot_be_used(pictures: Index, query: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        pictures.search(query)  # type: ignore[call-overload]


def test_no_queries_have_no_answers(pictures: Index, small_index: Index) -> None:
    assert pictures.search([], k=3).ids.shape == (0, 3)
    own = Index.from_vectors(np.eye(9, dtype=np.float32))
    assert own.search(np.empty((0, 9), np.float32), k=3).ids.shape == (0, 3)


def test_options_of_a_search_matter(small_index: Index, queries: np.ndarray) -> None:
    query = queries[0]
    exact = small_index.search(query)
    assert len(exact) == 10
    assert len(small_index.search(query, k=3)) == 3
    assert small_index.search(queries).plan == Plan.EXACT
    for plan in (8, "8", Plan.single(8)):
        batch = small_index.search(queries, plan=plan)
        assert batch.plan == Plan.single(8)
        assert not np.array_equal(batch[0].ids, exact.ids)
    assert {h.label for h in small_index.search(query, where="label=cat")} == {"cat"}
    some = small_index.search(query, where=["label!=cat", "id<50"], ids=np.arange(40))
    assert all(h.label != "cat" and h.id < 40 for h in some)
    cut = small_index.search(query, cutoff=exact[4].score)
    assert [h.id for h in cut] == [h.id for h in exact][:5]
    explained = small_index.search(queries[:2], k=2, explain=True).explanation
    assert explained is not None and explained.ranks.shape == (2, 2, 3)
    with pytest.raises(ConfigError, match="k is 0"):
        small_index.search(query, k=0)
    with pytest.raises(DataError, match="No item of this index meets label=cow"):
        small_index.search(query, where="label=cow")


def test_a_hit_knows_its_item(small_index: Index, queries: np.ndarray) -> None:
    hit = small_index.search(queries[0], k=1)[0]
    row = small_index.items.table().slice(hit.id, 1).to_pylist()[0]
    assert (hit.path, hit.label) == (row["path"], row["label"])
    assert hit["width"] == 320 and hit["hash"] == row["hash"] and hit["label"] == hit.label
    with pytest.raises(KeyError, match="colour"):
        hit["colour"]


def test_only_real_hits_are_given(make_index: Callable[..., Index], queries: np.ndarray) -> None:
    rows = made_of(energy_first(np.random.default_rng(0), 400), [None] * 400)
    index = make_index(rows, dims=(8,), factory="IVF10,Flat")
    batch = index.search(queries, k=390, plan="8:395,64")
    assert (batch.ids == -1).any()
    for hits in batch:
        assert len(hits) < 390 or (hits.ids >= 0).all()
        assert all(hit.id >= 0 and hit.path == f"pictures/{hit.id}.jpg" for hit in hits)
        assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


# Models


def test_the_model_is_opened_when_a_picture_comes(
    pictures: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    def load(name: str, access: Access) -> FakeEncoder:
        names.append(name)
        assert access.fetch == (name == "runs/moved")  # a recorded name fetches nothing
        return FakeEncoder()

    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", load)
    index = Index.open(pictures.folder)
    index.search(np.ones(64))
    assert names == []
    for _ in range(2):
        index.search(noise(2))
    assert names == ["bundled"]
    Index.open(pictures.folder, "runs/moved").search(noise(2))
    assert names == ["bundled", "runs/moved"]


def test_another_model_is_refused(pictures: Index) -> None:
    other = FakeEncoder(fingerprint="beef" * 8)
    with pytest.raises(IndexFolderError) as error:
        Index.open(pictures.folder, other).search(noise(1))
    expected = "was built with the model counting (f00df00df00d); this model is beefbeefbeef."
    assert expected in error.value.message and "--model" in error.value.hint
    own = Index.from_vectors(np.eye(9, dtype=np.float32))
    with pytest.raises(IndexFolderError, match="your own vectors") as error:
        own.search(noise(1))
    assert "--vector" in error.value.hint


# Classifying and tuning


def test_neighbours_vote(small_index: Index, queries: np.ndarray) -> None:
    vote = small_index.classify(queries[0], k=5)
    assert isinstance(vote, Vote) and vote.label in CLASSES and vote.dims is None
    votes = small_index.classify(queries, k=5)
    assert [type(v) for v in votes] == [Vote] * 40 and votes[0] == vote
    majority = small_index.classify(queries, k=5, ballot=Ballot(weighting=Weighting.MAJORITY))
    assert {round(v.confidence * 5, 6) for v in majority} <= {1, 2, 3, 4, 5}
    assert {v.label for v in small_index.classify(queries, where="label=cat")} == {"cat"}
    few = small_index.classify(queries[:1], k=20, ids=np.array([1, 2]))
    assert set(few[0].shares) == {"cat", "dog"}


def test_tuning_stores_a_plan_that_searches_use(small_index: Index, queries: np.ndarray) -> None:
    found = small_index.tune(target=0.9, queries=200)
    stored = small_index.manifest.plans["query"]
    assert isinstance(stored, dict) and stored["plan"] == str(found.chosen.plan)
    assert (stored["k"], stored["target"], stored["objective"]) == (10, 0.9, "recall")
    assert small_index.search(queries, k=10).plan == found.chosen.plan
    assert small_index.search(queries, k=11).plan == Plan.EXACT
    again = Index.open(small_index.folder)
    assert again.search(queries, k=5).plan == found.chosen.plan
    verify(small_index.folder)
    labels = small_index.tune("class", 0.9, k=5, queries=200)
    assert small_index.manifest.plans["classify"]["plan"] == str(labels.chosen.plan)  # type: ignore[index]
    with pytest.raises(ConfigError, match="goal is 'speed'; it must be recall or class"):
        small_index.tune("speed")


def test_thresholds_are_learnt_once_and_kept(small_index: Index, queries: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="has no thresholds") as error:
        small_index.classify(queries, k=5, adaptive=True)
    assert error.value.hint == (
        f"Learn them with: mrl-search tune {small_index.folder} --objective adaptive -k 5"
    )
    learned = small_index.learn_thresholds(5, give=0.02)
    assert learned.point.n == 500
    again = Index.open(small_index.folder)
    votes = again.classify(queries, k=5, adaptive=True)
    assert votes == small_index.classify(queries, k=5, adaptive=True)
    assert {v.dims for v in votes} <= {8, 16, 64} and len({v.dims for v in votes}) > 1
    single = again.classify(queries[0], k=5, adaptive=True)
    assert single == votes[0]
    plan = "8:200,16:200,64"
    assert again.classify(queries, k=5, plan=plan, adaptive=True) == votes
    for wrong in ({"k": 6}, {"k": 5, "plan": "8"}, {"k": 5, "ballot": Ballot(temperature=1)}):
        with pytest.raises(ConfigError, match=r"The thresholds of .* are for "):
            again.classify(queries, adaptive=True, **wrong)
    cats = again.classify(queries, k=5, adaptive=True, where="label=cat")
    assert {v.label for v in cats} == {"cat"}


def test_one_prefix_has_nothing_to_stop_before(
    make_index: Callable[..., Index], small_set: Rows
) -> None:
    index = make_index(small_set, dims=(64,))
    with pytest.raises(ConfigError, match="one stage: there is nothing to stop before"):
        index.learn_thresholds()
    with pytest.raises(ConfigError, match="has one stage"):
        index.learn_thresholds(plan="64")


# A life with others


def test_an_index_is_searched_from_many_threads(
    small_index: Index, pictures: Index, queries: np.ndarray
) -> None:
    truth = [h.ids.tolist() for h in small_index.search(queries, plan="8:50,64")]
    seen = [h.ids.tolist() for h in pictures.search([noise(i) for i in range(12)], k=4)]
    index, gallery = Index.open(small_index.folder), Index.open(pictures.folder, FakeEncoder())
    wrong: list[object] = []

    def work(start: int) -> None:
        try:
            for i in range(start, start + 12):
                hits = index.search(queries[i % 40], plan="8:50,64")
                if hits.ids.tolist() != truth[i % 40] or hits[0].path is None:
                    wrong.append((i, hits))
                if gallery.search(noise(i % 12), k=4).ids.tolist() != seen[i % 12]:
                    wrong.append(i)
                vote = index.classify(queries[i % 40], where="label=dog")
                if vote.label != "dog":
                    wrong.append(vote)
        except Exception as error:  # shown by the assertion
            wrong.append(error)

    threads = [Thread(target=work, args=(start,)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_warming_loads_everything(small_index: Index) -> None:
    index = Index.open(small_index.folder)
    index.warm()
    for file in index.folder.glob("prefix-*.faiss"):
        file.unlink()
    assert len(index.search(np.ones(64), plan="8:50,64")) == 10


def test_the_newest_index_is_the_one_created_last(
    tmp_path: Path, make_index: Callable[..., Index]
) -> None:
    with pytest.raises(IndexFolderError, match=r"There is no index in") as error:
        newest_index(tmp_path)
    assert "mrl-search build-index SRC --out" in error.value.hint
    with pytest.raises(IndexFolderError, match=r"There is no index in"):
        newest_index(tmp_path / "nowhere")
    tiny = made_of(energy_first(np.random.default_rng(0), 3), [None] * 3)
    for name, created in (
        ("a", "2026-01-02T00:00:00+00:00"),
        ("z", "2025-01-02T00:00:00+00:00"),
        (".c.building", "2027-01-01T00:00:00+00:00"),
    ):
        make_index(replace(tiny, manifest=replace(tiny.manifest, created=created)), name=name)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert newest_index(tmp_path) == tmp_path / "a"


def test_results_outlive_the_index() -> None:
    hits = Index.from_vectors(np.eye(9, dtype=np.float32)).search(np.eye(9)[4], k=2)
    gc.collect()
    assert [hit.id for hit in hits][:1] == [4] and hits[0].path is None


def test_errors_and_plans_can_be_pickled() -> None:
    plan = mrl.Plan.parse("8:200@3,64")
    assert pickle.loads(pickle.dumps(plan)) == plan
    error = pickle.loads(pickle.dumps(ConfigError("what", "do")))
    assert (error.message, error.hint) == ("what", "do")


def test_a_grey_png_is_a_picture(pictures: Index) -> None:
    assert len(pictures.search(png(77), k=2)) == 2


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_is_a_whole_number(small_index: Index, queries: np.ndarray, k: object) -> None:
    with pytest.raises(ConfigError, match="it must be a whole number of at least 1"):
        small_index.search(queries, k)  # type: ignore[call-overload]
    assert small_index.search(queries, np.int64(3)).ids.shape == (len(queries), 3)  # type: ignore[call-overload]


def test_a_temporary_index_outlives_a_forked_child(queries: np.ndarray) -> None:
    index = Index.from_vectors(queries)
    child = os.fork()
    if child == 0:  # ends as Python does, with what is to be done at exit
        del index
        gc.collect()
        os._exit(0)
    os.waitpid(child, 0)
    assert verify(index.folder).count == len(queries)


def test_a_damaged_plan_is_named(small_index: Index, queries: np.ndarray) -> None:
    store_plan(small_index.folder, "query", {"plan": "all of it", "k": 9})
    with pytest.raises(IndexFolderError, match="has a damaged plan for query: 'all of it'"):
        Index.open(small_index.folder).search(queries)
