"""Running plans: against a naive reference, against exact search, and against themselves."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import made_of, energy_first
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.metrics import recall_at_k
from mrl_search.search import exact, leave_out, search, search_others
from mrl_search.search.kernels import best
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits


def naive(index: Index, query: np.ndarray, plan: Plan) -> list[tuple[int, float]]:
    """What a plan means, one vector at a time."""
    survivors = list(range(len(index)))
    scored: list[tuple[int, float]] = []
    for stage in plan.stages:
        q = query[: stage.dims].astype(np.float64)
        scored = []
        for i in survivors:
            v = index.embeddings.vectors[i, : stage.dims].astype(np.float64)
            scored.append((i, float(q @ v / np.linalg.norm(q) / np.linalg.norm(v))))
        scored = sorted(scored, key=lambda s: (-s[1], s[0]))[: stage.keep]
        survivors = [i for i, _ in scored]
    return scored


@pytest.mark.parametrize(
    "plan",
    [
        "8:10",
        "16:10",
        "64:10",
        "8:40,64:10",
        "16:30,64:10",
        "8:100,16:40,64:10",
        "8:60,16:40,32:30,64:10",
        "8:500,64:3",
    ],
)
def test_plans_do_what_they_say(small_index: Index, queries: np.ndarray, plan: str) -> None:
    parsed = Plan.parse(plan, 1)
    hits = search(small_index, queries[:6], parsed)
    for query, found in zip(queries, hits, strict=False):
        expected = naive(small_index, query, parsed)
        assert found.ids.tolist() == [i for i, _ in expected]
        np.testing.assert_allclose(found.scores, [s for _, s in expected], atol=1e-6)


def test_a_middle_stage_normalises_its_prefix_again(make_index: Callable[..., Index]) -> None:
    # At 2 dims row 0 points as the query does and row 1 a little aside. Slicing the full-length unit vectors instead, row 1 would
    # score .70 and row 0 .30, because little of row 0 is in its first two dims: row 0 would be dropped before its long prefix counts.
    raw = np.array([[3, 0, 0, 9.5], [7, 1, 0, 7], [1, 9, 0, 0], [0, 9, 1, 0]], dtype=np.float32)
    index = make_index(made_of(raw, [None] * 4, dtype="float32"), dims=(1, 4))
    query = np.array([[1, 0, 0, 1]], dtype=np.float32)
    hits = search(index, query, Plan.parse("1:3,2:1,4:1", 1))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert (unit[:, :2] @ query[0, :2]).argmax() == 1
    assert hits.ids.tolist() == [[0]]
    np.testing.assert_allclose(
        hits.scores, [[(3 + 9.5) / np.sqrt(2) / np.hypot(3, 9.5)]], rtol=1e-6
    )


@pytest.mark.parametrize("dims", [8, 16, 64])
def test_one_stage_equals_exact_search(small_index: Index, queries: np.ndarray, dims: int) -> None:
    found, true = (
        search(small_index, queries, Plan.single(dims, 20)),
        exact(small_index, queries, 20, dims),
    )
    np.testing.assert_array_equal(found.ids, true.ids)
    np.testing.assert_array_equal(found.scores, true.scores)


def test_exact_search_by_hand(make_index: Callable[..., Index]) -> None:
    raw = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]], dtype=np.float32)
    index = make_index(made_of(raw, [None] * 4), dims=(2,))
    hits = exact(index, np.array([2.0, 0.0]), 4)
    assert hits.ids.tolist() == [[0, 2, 1, 3]]
    np.testing.assert_allclose(hits.scores, [[1, np.sqrt(0.5), 0, -1]], atol=1e-3)


def test_exact_search_does_not_depend_on_its_blocks(
    small_index: Index, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exact(small_index, queries, 7)
    monkeypatch.setattr("mrl_search.store.rows.BLOCK", 1024 * 37)
    pieces = exact(small_index, queries, 7)
    np.testing.assert_array_equal(whole.ids, pieces.ids)
    np.testing.assert_array_equal(whole.scores, pieces.scores)


def test_recall_never_falls_with_a_longer_shortlist(
    small_index: Index, queries: np.ndarray
) -> None:
    truth = exact(small_index, queries, 10).ids
    recalls = [
        recall_at_k(search(small_index, queries, Plan.adaptive(8, n, 64, 10)).ids, truth)
        for n in (10, 20, 40, 80, 160, 320, 500)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1.0


@pytest.mark.parametrize("plan", ["8:10", "64:10", "8:50,64:10", "8:100,16:40,64:10"])
def test_a_batch_equals_its_single_queries(
    small_index: Index, queries: np.ndarray, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Plan.parse(plan, 1)
    batch = search(small_index, queries, parsed)
    for i, query in enumerate(queries):
        single = search(small_index, query, parsed)
        np.testing.assert_array_equal(single.ids[0], batch.ids[i])
        np.testing.assert_allclose(single.scores[0], batch.scores[i], atol=1e-6)
    monkeypatch.setattr("mrl_search.store.rows.BLOCK", 300)
    np.testing.assert_array_equal(search(small_index, queries, parsed).ids, batch.ids)


def test_the_length_of_a_query_does_not_matter(small_index: Index, queries: np.ndarray) -> None:
    plan = Plan.parse("8:50,64:10", 1)
    a, b = search(small_index, queries, plan), search(small_index, queries * np.float32(128), plan)
    np.testing.assert_array_equal(a.ids, b.ids)
    for power in (-100, 100):  # squares of these are no float32
        c = search(small_index, np.ldexp(queries, power), plan)
        np.testing.assert_array_equal(c.ids, a.ids)
        np.testing.assert_array_equal(c.scores, a.scores)


def test_an_item_finds_itself_first(small_index: Index) -> None:
    vectors = small_index.embeddings.vectors[:50].astype(np.float32)
    for plan in ("64:1", "8:20,64:1", "8:50,16:20,64:1"):
        hits = search(small_index, vectors, Plan.parse(plan, 1))
        assert hits.ids[:, 0].tolist() == list(range(50))
        np.testing.assert_allclose(hits.scores, 1, atol=1e-6)


def test_keep_is_capped_at_the_corpus(
    make_index: Callable[..., Index], queries: np.ndarray
) -> None:
    index = make_index(made_of(energy_first(np.random.default_rng(0), 5), [None] * 5))
    hits = search(index, queries[:2], Plan.parse("8:100,64:50", 1))
    assert hits.ids.shape == (2, 5)
    assert sorted(hits.ids[0]) == [0, 1, 2, 3, 4]
    assert exact(index, queries[:2], 50).ids.tolist() == hits.ids.tolist()


def test_no_queries(small_index: Index) -> None:
    assert search(
        small_index, np.empty((0, 64), dtype=np.float32), Plan.single(8, 3)
    ).ids.shape == (0, 3)


@pytest.mark.parametrize(("copies", "keep"), [(3, 2), (40, 5), (300, 30)])
def test_equal_scores_are_ordered_and_cut_by_id(
    make_index: Callable[..., Index], copies: int, keep: int
) -> None:
    rng = np.random.default_rng(1)
    raw = energy_first(rng, 400)
    same = rng.choice(400, copies, replace=False)
    raw[same] = raw[same[0]]
    index = make_index(made_of(raw, [None] * 400), dims=(8, 64))
    for plan in (Plan.single(8, keep), Plan.single(64, keep), Plan.parse(f"8:{keep},64:{keep}", 1)):
        hits = search(index, raw[same[:1]], plan)
        assert hits.ids[0].tolist() == np.sort(same)[:keep].tolist()
        np.testing.assert_allclose(hits.scores, 1, atol=1e-6)
    np.testing.assert_array_equal(exact(index, raw[same[:1]], keep).ids[0], np.sort(same)[:keep])


def test_a_cut_among_scores_that_faiss_cannot_tell_apart(make_index: Callable[..., Index]) -> None:
    # 300 directions at one angle to the query: their cosines differ by roundings alone, and FAISS rounds in its own way.
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    around = np.concatenate([np.full((300, 1), 2.0), rng.standard_normal((300, 63))], axis=1)
    around[:, 1:] /= np.linalg.norm(around[:, 1:], axis=1, keepdims=True)
    index = make_index(
        made_of((around @ rotation).astype(np.float32), [None] * 300, dtype="float32"),
        dims=(64,),
    )
    query = rotation[:1].astype(np.float32)
    plan = Plan.single(64, 20)
    single, batch, true = (
        search(index, query, plan),
        search(index, np.repeat(query, 50, axis=0), plan),
        exact(index, query, 20),
    )
    assert np.ptp(index.embeddings.prefix(64) @ query[0]) < 1e-6
    np.testing.assert_array_equal(single.ids, true.ids)
    np.testing.assert_array_equal(batch.ids, np.repeat(true.ids, 50, axis=0))


def test_a_long_shortlist_is_scored_in_pieces(
    small_index: Index, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.parse("8:100,64:10", 1)
    whole = search(small_index, queries, plan)
    monkeypatch.setattr("mrl_search.search.kernels.CACHED", 64 * 7)
    pieces = search(small_index, queries, plan)
    np.testing.assert_array_equal(pieces.ids, whole.ids)
    np.testing.assert_array_equal(pieces.scores, whole.scores)


def test_a_tie_too_wide_to_settle_still_gives_an_answer(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.search.scoring.WIDEST", 30)
    index = make_index(made_of(np.ones((200, 8), dtype=np.float32), [None] * 200), dims=(8,))
    hits = search(index, np.ones(8), Plan.single(8, 3))
    assert len(set(hits.ids[0])) == 3
    np.testing.assert_allclose(hits.scores, 1, atol=1e-6)


def test_an_approximate_index_that_finds_too_few_fills_up(
    make_index: Callable[..., Index], queries: np.ndarray
) -> None:
    raw = energy_first(np.random.default_rng(0), 400)
    index = make_index(made_of(raw, [None] * 400), dims=(8,), factory="IVF10,Flat")
    hits = search(index, queries, Plan.parse("8:390,64:380", 1))
    filled = hits.ids < 0
    assert filled.any()
    assert not filled[:, 0].any()
    np.testing.assert_array_equal(filled, np.isneginf(hits.scores))
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in hits.ids)


@pytest.mark.parametrize("factory", ["SQ8", "HNSW16", "PQ4x4"])
def test_scores_are_cosines_whatever_the_index(
    make_index: Callable[..., Index], queries: np.ndarray, factory: str
) -> None:
    index = make_index(
        made_of(energy_first(np.random.default_rng(0), 400), [None] * 400),
        dims=(16,),
        factory=factory,
    )
    hits = search(index, queries, Plan.single(16, 10))
    q = queries[:, :16] / np.linalg.norm(queries[:, :16], axis=1, keepdims=True)
    expected = np.einsum("nd,nkd->nk", q, index.embeddings.prefix(16)[hits.ids])
    np.testing.assert_allclose(hits.scores, expected, atol=1e-6)
    assert (np.diff(hits.scores, axis=1) <= 0).all()


def test_what_cannot_be_searched(small_index: Index, queries: np.ndarray) -> None:
    with pytest.raises(
        ConfigError, match=r"This index has dims 8, 16, 64; there is no 32. Nearest: 16."
    ):
        search(small_index, queries, Plan.parse("32:50,64:10", 1))
    with pytest.raises(ConfigError, match=r"Plan 8:50,128:10 reads 128 dims; the vectors have 64."):
        search(small_index, queries, Plan.parse("8:50,128:10", 1))
    with pytest.raises(DataError, match=r"These vectors have 32 dims; the index has 64."):
        search(small_index, queries[:, :32], Plan.single(8, 10))
    with pytest.raises(DataError, match=r"Row 0 of the vectors is not finite."):
        search(small_index, np.full((1, 64), np.nan), Plan.single(8, 10))
    nothing = np.stack([queries[0], np.zeros(64, dtype=np.float32)])
    for find in (
        lambda x: search(small_index, x, Plan.single(8, 10)),
        lambda x: exact(small_index, x, 3),
    ):
        with pytest.raises(DataError, match=r"Row 1 of the queries is zero: it has no direction\."):
            find(nothing)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2**32 - 1), st.floats(-1, 1, width=16)),
        unique_by=lambda x: x[0],
        min_size=1,
    ),
    st.integers(1, 12),
)
def test_ranking(pairs: list[tuple[int, float]], keep: int) -> None:
    ids, scores = (
        np.array([[i for i, _ in pairs]]),
        np.array([[s for _, s in pairs]], dtype=np.float32),
    )
    expected = sorted(pairs, key=lambda p: (-p[1], p[0]))[:keep]
    hits = best(ids, scores, keep)
    assert hits.ids[0].tolist() == [i for i, _ in expected]
    assert hits.scores[0].tolist() == [s for _, s in expected]


def test_ranking_puts_what_is_missing_last() -> None:
    hits = best(
        np.array([[-1, 4, -1, 2]]), np.array([[-np.inf, -0.5, -np.inf, -0.5]], dtype=np.float32), 3
    )
    assert hits.ids.tolist() == [[2, 4, -1]]


def test_leaving_out_by_hand() -> None:
    hits = BatchHits(
        np.array([[0, 1, 2], [1, 2, -1]]),
        np.array([[0.9, 0.8, 0.7], [0.9, 0.8, -np.inf]], dtype=np.float32),
    )
    left = leave_out(
        hits, np.array(["a", "b", "a"], dtype=object), np.array(["a", "b"], dtype=object), k=2
    )
    assert left.ids.tolist() == [[1, -1], [2, -1]]
    np.testing.assert_array_equal(
        left.scores, np.array([[0.8, -np.inf], [0.8, -np.inf]], dtype=np.float32)
    )


@pytest.mark.parametrize("plan", ["64:5", "8:30,64:5"])
def test_every_copy_of_a_query_is_left_out(make_index: Callable[..., Index], plan: str) -> None:
    raw = energy_first(np.random.default_rng(2), 60)
    raw[10:14] = raw[10]
    hashes = [f"{i:032x}" for i in range(60)]
    hashes[10:14] = [hashes[10]] * 4
    index = make_index(made_of(raw, [None] * 60, hashes), dims=(8, 64))
    own = index.embeddings.hashes
    hits = search_others(index, raw, own, Plan.parse(plan, 5))
    assert hits.ids.shape == (60, 5)
    assert (hits.ids >= 0).all()
    assert not (own[hits.ids] == own[:, None]).any()
    if plan == "64:5":
        true = [
            [i for i in row if own[i] != own[q]][:5]
            for q, row in enumerate(exact(index, raw, 60).ids)
        ]
        assert hits.ids.tolist() == true


def test_a_stranger_loses_nothing(small_index: Index, queries: np.ndarray) -> None:
    plan = Plan.parse("8:50,64:5", 1)
    strangers = np.array(["f" * 32] * len(queries), dtype=object)
    np.testing.assert_array_equal(
        search_others(small_index, queries, strangers, plan).ids,
        search(small_index, queries, plan).ids,
    )
