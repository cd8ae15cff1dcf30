"""Compiled search against FAISS and numpy: the same answers, whatever the query, mask or index."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import INSTRUCTIONS, computing_with, energy_first

from mrl_search.engines import kernels
from mrl_search.engines.base import Mask
from mrl_search.engines.lists import has_lists
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError, IndexFolderError
from mrl_search.index import Index
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.search.scoring import pair_scores, rescore
from mrl_search.vectors import prefix

ROWS, DIM, LISTS = 3000, 96, 48
PLAN = Plan.parse("32:60@12,96")
FACTORIES = {
    "16": f"IVF{LISTS},PQ16x4fsr",  # not rotated
    "24": f"RR24,IVF{LISTS},PQ12x4fsr",  # two dims a code
    "32": f"RR32,IVF{LISTS},PQ32x4fsr",
    "45": f"IVF{LISTS},PQ45x4fsr",  # an odd number of codes
    "96": "Scan",
}


@pytest.fixture(params=INSTRUCTIONS)
def instructions(request: pytest.FixtureRequest) -> Iterator[None]:
    """All that the processor has, and plain loops."""
    with computing_with(request.param):
        yield


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    rng = np.random.default_rng(0)
    topics = energy_first(rng, 200, DIM)
    found = topics[rng.integers(0, 200, ROWS)] + energy_first(rng, ROWS, DIM) * np.float32(0.4)
    found[100:110] = found[100]  # copies, between which ids decide
    return found


@pytest.fixture(scope="module")
def queries(rows: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    noise = energy_first(rng, 60, DIM) * np.float32(0.3)
    return rows[rng.choice(ROWS, 60)] * rng.uniform(1e-18, 1e18, (60, 1)).astype(np.float32) + noise


@pytest.fixture(scope="module", params=["float16", "float32"])
def index(
    request: pytest.FixtureRequest, rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Index:
    spec = IndexSpec(tuple(map(int, FACTORIES)), "auto", FACTORIES, request.param)
    return Index.from_vectors(rows, tmp_path_factory.mktemp("compiled") / "index", spec=spec)


@pytest.fixture
def uncompiled(index: Index, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Index]:
    """The same index, opened where there is no compiled code."""

    def opened() -> Index:
        monkeypatch.setattr(kernels, "native", None)
        return Index.open(index.folder)

    return opened


@pytest.mark.parametrize("dims", [16, 24, 32, 45])
def test_shortlists_are_those_of_faiss(
    index: Index, queries: np.ndarray, dims: int, instructions: None,
    uncompiled: Callable[[], Index],
) -> None:  # fmt: skip
    """Sums are rounded to other bytes: a few candidates at the cut differ."""
    unit = prefix(queries, dims)
    own = index.corpus.prefix_index(dims)
    assert own.lists is not None
    scores, ids = own.search(unit, 60, 12)
    faiss = uncompiled().corpus.prefix_index(dims)
    assert faiss.lists is None
    theirs = faiss.search(unit, 60, 12)
    same = [len(set(a) & set(b)) for a, b in zip(ids.tolist(), theirs[1].tolist(), strict=True)]
    assert np.mean(same) >= 58.5
    assert (np.diff(scores, axis=1) <= 0).all()
    shared = (ids == theirs[1]) & (ids >= 0)
    np.testing.assert_allclose(scores[shared], theirs[0][shared], atol=0.01)


@pytest.mark.parametrize("allowed", [None, 0.9, 0.5])
@pytest.mark.parametrize("k", [1, 10, 60])
def test_answers_are_the_best_of_the_shortlist(
    index: Index, queries: np.ndarray, k: int, allowed: float | None, instructions: None
) -> None:
    """Reading rows in two passes loses none: as if every candidate had been read whole."""
    corpus, stage = index.corpus, PLAN.stages[0]
    chosen = np.random.default_rng(2).random(ROWS) < (allowed or 1)
    mask = None if allowed is None else Mask(chosen)
    found = search(corpus, queries, PLAN, k, mask)
    _, ids = corpus.prefix_index(32).search(prefix(queries, 32), 60, stage.effort, mask)
    expected = rescore(corpus.vectors, queries, ids, DIM, k)
    # candidates of float64 and float32 norms may differ at the cut
    assert (found.rows == expected[1]).mean() > 0.995
    exact = pair_scores(corpus.vectors, queries, found.rows, DIM)
    np.testing.assert_allclose(found.scores, exact, atol=3e-7)
    assert chosen[found.rows].all()


def test_the_walk_gives_the_same(
    index: Index, queries: np.ndarray, instructions: None, uncompiled: Callable[[], Index]
) -> None:
    plans = [PLAN, Plan.parse("24:200,96"), Plan.parse("16:90@48,96")]
    compiled = [search(index.corpus, queries, plan, 10) for plan in plans]
    assert all(index.corpus.ready[plan, 10][2] is not None for plan in plans)
    walking = uncompiled().corpus
    for plan, found in zip(plans, compiled, strict=True):
        walked = search(walking, queries, plan, 10)
        assert walking.ready[plan, 10][2] is None
        same = found.rows == walked.rows
        assert same.mean() > 0.99
        np.testing.assert_allclose(found.scores[same], walked.scores[same], atol=3e-7)


def test_kinds_that_compiled_code_searches(index: Index) -> None:
    for d in index.dims:
        has = index.corpus.prefix_index(d).lists is not None
        assert has == has_lists(index.manifest.factory[str(d)]) == (d < DIM)


def test_a_batch_is_answered_as_its_queries_are_singly(
    index: Index, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = search(index.corpus, queries, PLAN, 10)
    monkeypatch.setattr(kernels, "thread_count", lambda: 3)
    spread = search(index.corpus, queries, PLAN, 10)
    singly = [search(index.corpus, query[None], PLAN, 10) for query in queries]
    for other in (spread.rows, np.concatenate([hits.rows for hits in singly])):
        np.testing.assert_array_equal(whole.rows, other)
    np.testing.assert_array_equal(whole.scores, spread.scores)


def test_copies_come_by_id(index: Index, rows: np.ndarray, instructions: None) -> None:
    assert search(index.corpus, rows[100:101], PLAN, 10).rows.tolist() == [list(range(100, 110))]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_without_a_direction(
    index: Index, queries: np.ndarray, value: float, instructions: None
) -> None:
    assert search(index.corpus, queries[:0], PLAN, 3).rows.shape == (0, 3)
    for bad, message in ((np.zeros(DIM), "all zeros"), (np.full(DIM, value), "not finite")):
        some = queries[:5].copy()
        some[3] = bad
        with pytest.raises(DataError, match=message):
            search(index.corpus, some, PLAN, 3)
    begins_with_zeros = queries[:1].copy()
    begins_with_zeros[:, :32] = 0  # its prefix is as near to one row as to any other
    found = search(index.corpus, begins_with_zeros, PLAN, 3)
    assert (np.diff(found.scores) <= 0).all() and (found.rows >= 0).all()


def test_masks_that_allow_little(index: Index, queries: np.ndarray, instructions: None) -> None:
    for count in (0, 1, 59, 61, 400):
        allowed = np.zeros(ROWS, bool)
        allowed[np.random.default_rng(3).choice(ROWS, count, replace=False)] = True
        found = search(index.corpus, queries, PLAN, 10, Mask(allowed))
        assert found.rows.shape == (60, min(10, count))
        assert allowed[found.rows[found.rows >= 0]].all()
    lists = index.corpus.prefix_index(32)  # compiled code itself
    none = Mask(np.zeros(ROWS, bool))
    scores, ids = lists.search(prefix(queries, 32), 7, 12, none)
    assert (ids == -1).all() and (scores == -np.inf).all()


def test_fewer_codes_than_wanted(index: Index, queries: np.ndarray, instructions: None) -> None:
    """A single cluster has fewer rows than the shortlist: the rest is padding."""
    scores, ids = index.corpus.prefix_index(32).search(prefix(queries, 32), 2000, 1)
    found = ids >= 0
    assert 0 < found.sum(axis=1).min() < 2000
    assert (np.diff(found.astype(int), axis=1) <= 0).all()  # at the end
    assert (scores[~found] == -np.inf).all()
    hits = search(index.corpus, queries, Plan.parse("32:2000@1,96"), 1500)
    assert (hits.rows[:, -1] == -1).any() and (hits.rows[:, 0] >= 0).all()


def test_rows_that_were_added_and_deleted(
    index: Index, rows: np.ndarray, queries: np.ndarray, tmp_path: Path, instructions: None
) -> None:
    own = Index.from_vectors(
        rows[:2900], tmp_path / "grown", spec=IndexSpec((32, 96), "auto", {"32": FACTORIES["32"]})
    )
    own.add(rows[2900:])
    grown = Index.open(own.folder)
    assert len(grown.corpus.vectors.parts) == 2
    hits = grown.search(rows[2890:2910], k=3, plan="32:60@12,96")
    assert (hits.ids[:, 0] == np.arange(2890, 2910)).all()
    grown.remove(ids=np.arange(2895, 2905))
    hits = grown.search(rows[2890:2910], k=3, plan="32:60@12,96")
    assert not np.isin(hits.ids, np.arange(2895, 2905)).any()
    assert (hits.ids[:5, 0] == np.arange(2890, 2895)).all()


def test_compiled_code_checks_its_arrays(index: Index, queries: np.ndarray) -> None:
    native, lists = kernels.native, index.corpus.prefix_index(32).lists
    assert lists is not None
    x, ids, scores = prefix(queries, 32), np.empty((60, 5), np.int64), np.empty((60, 5), np.float32)
    for arrays in ((x[:, :31].copy(), ids, scores), (x, ids[:59], scores), (x, ids, scores[:, :4])):
        with pytest.raises((ValueError, BufferError)):
            native.scan(lists.handle, arrays[0], 4, 4, 2.0, None, *arrays[1:])
    with pytest.raises(TypeError):
        native.scan(lists.handle, x.astype(np.float64), 4, 4, 2.0, None, ids, scores)
    with pytest.raises(ValueError):
        native.scan(object(), x, 4, 4, 2.0, None, ids, scores)
    with pytest.raises(ValueError):  # a mask of fewer rows
        native.scan(lists.handle, x, 4, 4, 2.0, np.zeros(ROWS // 8 - 1, np.uint8), ids, scores)
    stored, unit = np.ones((4, 8), np.float16), np.ones((1, 8), np.float32)
    with pytest.raises(ValueError, match="beyond the last"):
        native.pairs(stored, unit, np.array([[4]]), np.empty((1, 1), np.float32), 8, 8, 2)


def test_a_damaged_block_is_found(
    rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.store.intact.CHECKED_AT_OPEN", 1 << 10)
    spec = IndexSpec((32, 96), "auto", {"32": FACTORIES["32"], "96": "Scan"})
    folder = Index.from_vectors(rows, tmp_path / "index", spec=spec).folder
    sound = Index.open(folder)
    assert sound.search(rows[7], k=1, plan="32:60@12,96")[0].id == 7
    with (folder / "vectors.npy").open("r+b") as file:
        file.seek(128 + 7 * DIM * 2)
        file.write(b"\x01\x02")
    with pytest.raises(IndexFolderError, match="altered"):
        Index.open(folder).search(rows[7], k=1, plan="32:60@12,96")
    with (folder / "vectors.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(IndexFolderError, match="cut short"):
        sound.search(rows[8], k=1, plan="32:60@12,96")
