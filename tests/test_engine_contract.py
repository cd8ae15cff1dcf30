"""Prefix indexes: one contract for every kind, of FAISS and of Milvus."""

from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first, made_of

from mrl_search.engines.base import Mask, PrefixIndex
from mrl_search.engines.build import load_index
from mrl_search.engines.scan import scan
from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.metrics import recall_at_k
from mrl_search.search.first import scans
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.run import search
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import l2_normalize, prefix

COUNT, DIMS = 2000, 16


@dataclass(frozen=True)
class Kind:
    """A kind of index and what it promises."""

    factory: str
    recall: float  # of the ten nearest, with the highest effort
    exact: bool = False
    filters: bool = True
    efforts: tuple[int, ...] = ()
    widens: bool = False
    milvus: bool = False  # or FAISS


NPROBE = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32)
BEAMS = (16, 32, 64, 128, 256, 512, 1024)
KINDS = [
    Kind("Flat", 1, exact=True),
    Kind("Scan", 1, exact=True),
    Kind("Panorama", 1, exact=True),
    Kind("SQ8", 0.95),
    Kind("SQfp16", 0.99),
    Kind("PQ8x4np", 0.3, filters=False),
    Kind("PQ16x4fs", 0.7, filters=False),
    Kind("RR16,IVF32,Flat", 0.99, efforts=NPROBE),
    Kind("RR16,IVF32,SQ8", 0.95, efforts=NPROBE),
    Kind("RR16,IVF32,PQ16x4fsr", 0.7, efforts=NPROBE),
    Kind("IVF32_HNSW8,Flat", 0.95, efforts=NPROBE),
    Kind("HNSW16", 0.99, efforts=BEAMS, widens=True),
    Kind("HNSW16,SQ8", 0.95, efforts=BEAMS, widens=True),
    Kind("NSG16,Flat", 0.8, filters=False),
]
MILVUS = [
    Kind("FLAT", 1, exact=True, milvus=True),
    Kind("HNSW", 0.99, efforts=(16, 32, 64, 128, 256, 512), widens=True, milvus=True),
    Kind("IVF_FLAT", 0.99, efforts=(4, 8, 16, 32, 64, 128, 256), milvus=True),
]
LITE = pytest.mark.skipif(find_spec("milvus_lite") is None, reason="needs Milvus Lite")
EVERY = [*KINDS, *(pytest.param(kind, marks=[pytest.mark.slow, LITE]) for kind in MILVUS)]


@pytest.fixture(scope="module")
def store() -> VectorStore:
    """2,000 vectors of 32 dims whose energy lies in front; the last ten equal the first ten."""
    raw = energy_first(np.random.default_rng(0), COUNT, 32)
    raw[-10:] = raw[:10]
    return VectorStore(l2_normalize(raw).astype(np.float16))


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return prefix(energy_first(np.random.default_rng(1), 50, 32), DIMS)


@pytest.fixture(scope="module", params=EVERY, ids=lambda kind: kind.factory)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture(scope="module")
def folder(kind: Kind, store: VectorStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("kinds") / "index"
    if kind.milvus:
        place = f"milvus:{tmp_path_factory.mktemp('lite') / 'lite.db'}#contract"
        spec = IndexSpec((DIMS,), factories={str(DIMS): kind.factory}, engine=place)
        Index.from_vectors(store.rows(), out, spec=spec)
        return out
    rows = made_of(store.rows().astype(np.float32), [None] * COUNT)
    replace(rows, vectors=store.rows()).save(out, (DIMS,), kind.factory)
    return out


@pytest.fixture(scope="module")
def index(folder: Path) -> PrefixIndex:
    return Index.open(folder).corpus.prefix_index(DIMS)


def hardest(index: PrefixIndex) -> int:
    return index.efforts[-1] if index.efforts else 0


def masked(share: float, seed: int = 2) -> Mask:
    """A mask that allows a share of the rows."""
    chosen = np.random.default_rng(seed).permutation(COUNT)[: max(1, round(share * COUNT))]
    return Mask(np.isin(np.arange(COUNT), chosen))


def test_traits(kind: Kind, index: PrefixIndex, folder: Path) -> None:
    assert (index.dims, index.count, index.kind) == (DIMS, COUNT, kind.factory)
    assert (index.exact, index.filters, index.widens) == (kind.exact, kind.filters, kind.widens)
    assert index.efforts == kind.efforts
    file = folder / "prefix-0016.faiss"
    assert file.exists() == (kind.factory != "Scan" and not kind.milvus)
    assert index.remote == kind.milvus
    if kind.milvus:
        assert index.ram_bytes == 0  # it is another machine's
    elif kind.factory == "Scan":
        assert index.ram_bytes == COUNT * DIMS * 2
    else:
        assert index.ram_bytes == file.stat().st_size


def test_cost_grows_with_effort(index: PrefixIndex) -> None:
    costs = [index.cost(effort) or 0 for effort in (index.efforts or (0,))]
    assert costs == sorted(costs) and costs[0] > 0
    if index.efforts:
        assert costs[0] < costs[-1]
        assert (index.cost(index.efforts[0], masked(0.1)) or 0) >= costs[0]
    else:
        assert costs == [COUNT]


@pytest.mark.parametrize("k", [1, 10, 100])
def test_shapes_and_order(index: PrefixIndex, queries: np.ndarray, k: int) -> None:
    scores, ids = index.search(queries, k, hardest(index))
    assert scores.shape == ids.shape == (50, k)
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)
    assert ((ids >= 0) & (ids < COUNT)).sum() >= 0.9 * ids.size
    for row, own in zip(ids, scores, strict=True):
        found = row[row >= 0]
        assert len(set(found.tolist())) == len(found)
        assert (np.diff(own[row >= 0]) <= 1e-6).all()


def test_no_queries(index: PrefixIndex, queries: np.ndarray) -> None:
    scores, ids = index.search(queries[:0], 5)
    assert scores.shape == ids.shape == (0, 5)


def test_missing_answers_are_padding_at_the_end(index: PrefixIndex, queries: np.ndarray) -> None:
    _, ids = index.search(queries[:5], COUNT + 20, hardest(index))
    assert ids.shape == (5, COUNT + 20)
    missing = ids < 0
    assert missing[:, -20:].all() and not missing[:, 0].any()
    assert (np.diff(missing.astype(int), axis=1) >= 0).all()
    assert (ids[missing] == -1).all()
    if index.exact:
        np.testing.assert_array_equal(np.sort(ids[:, :COUNT]), np.tile(np.arange(COUNT), (5, 1)))


def test_scores_are_cosines_of_the_prefix(
    index: PrefixIndex, store: VectorStore, queries: np.ndarray
) -> None:
    scores, ids = index.search(queries, 10, hardest(index))
    cosines = np.einsum("nd,nkd->nk", queries, store.prefix(DIMS)[ids])
    error = 1e-6 if index.exact else 0.25
    np.testing.assert_allclose(scores, np.where(ids < 0, scores, cosines), atol=error)


def test_recall_against_a_scan(
    kind: Kind, index: PrefixIndex, store: VectorStore, queries: np.ndarray
) -> None:
    truth = scan(store, queries, 10)[1]
    by_default = recall_at_k(index.search(queries, 10)[1], truth)
    recall = recall_at_k(index.search(queries, 10, hardest(index))[1], truth)
    assert recall >= max(kind.recall, by_default)


def test_recall_rises_with_effort(
    index: PrefixIndex, store: VectorStore, queries: np.ndarray
) -> None:
    truth = scan(store, queries, 10)[1]
    efforts = index.efforts[:: max(1, len(index.efforts) // 4)]
    recalls = [recall_at_k(index.search(queries, 10, e)[1], truth) for e in efforts]
    assert all(b >= a - 0.01 for a, b in pairwise(recalls))
    assert not efforts or recalls[-1] > recalls[0] or recalls[0] == 1


def test_a_batch_is_answered_as_its_queries_are_singly(
    index: PrefixIndex, queries: np.ndarray
) -> None:
    for effort in {0, *index.efforts[3:4]}:
        scores, ids = index.search(queries, 5, effort)
        for i in range(50):
            score, own = index.search(queries[i : i + 1], 5, effort)
            np.testing.assert_allclose(score[0], scores[i], rtol=1e-5)
            assert sorted(own[0]) == sorted(ids[i]) or np.ptp(score[0]) < 1e-5


def test_a_few_allowed_rows_are_all_compared(
    folder: Path, index: PrefixIndex, queries: np.ndarray
) -> None:
    corpus = Index.open(folder).corpus
    mask, wide = masked(0.005), np.pad(queries, ((0, 0), (0, 32 - DIMS)))
    plan = Plan((Stage(DIMS, None, hardest(index)),))
    # at times a graph of Milvus Lite finds half of them
    assert index.exact or scans(index, plan.stages[0], mask)
    found = search(corpus, wide, plan, 10, mask)
    assert (np.sort(found.rows, axis=1) == mask.ids).all()


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.005])
def test_a_mask_is_respected(
    index: PrefixIndex, store: VectorStore, queries: np.ndarray, share: float
) -> None:
    if not index.filters:
        pytest.skip("takes no mask")
    if index.remote and index.widens and share < 0.1:
        pytest.skip("a graph of Milvus Lite finds too few of few; `search` scores them itself")
    mask = masked(share)
    scores, ids = index.search(queries, 10, hardest(index), mask)
    assert ids.shape == (50, 10)
    found = ids >= 0
    assert mask.allowed[ids[found]].all()
    truth = scan(store, queries, 10, mask.ids)[1]
    recall = recall_at_k(ids[:, : truth.shape[1]], truth)
    free = recall_at_k(index.search(queries, 10, hardest(index))[1], scan(store, queries, 10)[1])
    assert recall >= min(free, 1) - 0.02
    if index.exact:
        assert found.sum() == 50 * min(10, mask.count)
        assert recall == 1 or (scores[found] > -1).all()


@pytest.mark.parametrize("share", [0.95, 0.3])
@pytest.mark.parametrize("k", [1, 300, 1500, COUNT + 20])
def test_a_mask_goes_with_any_k(
    index: PrefixIndex, store: VectorStore, queries: np.ndarray, share: float, k: int
) -> None:
    if not index.filters:
        pytest.skip("takes no mask")
    mask = masked(share)
    _, ids = index.search(queries[:3], k, hardest(index), mask)
    assert ids.shape == (3, k)
    assert mask.allowed[ids[ids >= 0]].all()
    if index.exact:
        count = min(k, mask.count)
        assert ((ids >= 0).sum(axis=1) == count).all() and (ids[:, count:] == -1).all()
        truth = scan(store, queries[:3], count, mask.ids)[1]
        assert recall_at_k(ids[:, :count], truth) > 0.99


def test_one_excluded_row_is_missing_and_nothing_else(
    index: PrefixIndex, queries: np.ndarray
) -> None:
    if not index.filters:
        pytest.skip("takes no mask")
    before = index.search(queries, 10, hardest(index))[1]
    allowed = np.ones(COUNT, dtype=bool)
    allowed[before[:, 0]] = False
    after = index.search(queries, 9, hardest(index), Mask(allowed))[1]
    kept = [[i for i in row if allowed[i]] for row in before.tolist()]
    shared = [
        len(set(own) & set(row.tolist())) / len(own) for own, row in zip(kept, after, strict=True)
    ]
    assert np.mean(shared) > 0.98
    assert not np.isin(after, before[:, 0]).any()


def test_a_mask_serves_several_indexes_and_searches(
    index: PrefixIndex, queries: np.ndarray
) -> None:
    if not index.filters:
        pytest.skip("takes no mask")
    mask = masked(0.3)
    first = index.search(queries, 10, 0, mask)[1]
    np.testing.assert_array_equal(index.search(queries, 10, 0, mask)[1], first)
    np.testing.assert_array_equal(index.search(queries, 10, 0, masked(0.3))[1], first)


def test_saving_and_loading_changes_no_answer(
    kind: Kind, folder: Path, index: PrefixIndex, store: VectorStore, queries: np.ndarray
) -> None:
    again = (
        Index.open(folder).corpus.prefix_index(DIMS) if kind.milvus
        else load_index(folder, Index.open(folder).manifest, store, DIMS)
    )  # fmt: skip
    assert type(again) is type(index)
    for k in (1, 30):
        for a, b in zip(again.search(queries, k), index.search(queries, k), strict=True):
            np.testing.assert_array_equal(a, b)
