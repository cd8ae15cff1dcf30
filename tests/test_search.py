"""The walk: against a naive reference, against exact search, and against itself."""

from collections.abc import Callable
from threading import Thread

import numpy as np
import pytest
from conftest import Rows, energy_first, made_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.engines.base import Mask
from mrl_search.engines.flat import FlatIndex
from mrl_search.engines.kernels import best
from mrl_search.engines.scan import scan
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index
from mrl_search.metrics import recall_at_k
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import leave_out, search_others
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import BatchHits
from mrl_search.search.run import answer, default_plan, exact_search, search
from mrl_search.store.generations import store_plan
from mrl_search.store.intact import verify
from mrl_search.store.manifest import read_manifest
from mrl_search.vectors import prefix


def exact(corpus: Corpus, queries: np.ndarray, k: int, mask: Mask | None = None) -> BatchHits:
    return search(corpus, queries, Plan.EXACT, k, mask)


@pytest.fixture
def corpus(small_index: Index) -> Corpus:
    return small_index.corpus


@pytest.fixture
def make_corpus(make_index: Callable[..., Index]) -> Callable[..., Corpus]:
    return lambda *args, **options: make_index(*args, **options).corpus


def naive(corpus: Corpus, query: np.ndarray, plan: Plan, k: int) -> list[tuple[int, float]]:
    """What a plan means, one vector at a time."""
    survivors = list(range(len(corpus)))
    scored: list[tuple[int, float]] = []
    for stage in plan.stages:
        q = query[: stage.dims].astype(np.float64)
        scored = []
        for i in survivors:
            v = corpus.vectors.rows()[i, : stage.dims].astype(np.float64)
            scored.append((i, float(q @ v / np.linalg.norm(q) / np.linalg.norm(v))))
        scored = sorted(scored, key=lambda s: (-s[1], s[0]))[: stage.keep or k]
        survivors = [i for i, _ in scored]
    return scored


@pytest.mark.parametrize("kernels", ["numpy", "compiled"])
@pytest.mark.parametrize(
    ("plan", "k"),
    [
        ("8", 10), ("16", 10), ("64", 10), ("8:40,64", 10), ("16:30,64", 10),
        ("8:100,16:40,64", 10), ("8:60,16:40,32:30,64", 10), ("8:500,64", 3),
    ],
)  # fmt: skip
def test_plans_do_what_they_say(
    corpus: Corpus,
    queries: np.ndarray,
    plan: str,
    k: int,
    kernels: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if kernels == "numpy":
        monkeypatch.setattr("mrl_search.engines.kernels.native", None)
    parsed = Plan.parse(plan)
    hits = search(corpus, queries[:6], parsed, k)
    assert hits.plan == parsed
    for query, found in zip(queries, hits, strict=False):
        expected = naive(corpus, query, parsed, k)
        assert found.ids.tolist() == [i for i, _ in expected]
        np.testing.assert_allclose(found.scores, [s for _, s in expected], atol=1e-6)


def test_a_middle_stage_normalises_its_prefix_again(make_corpus: Callable[..., Corpus]) -> None:
    # At 2 dims row 0 points as the query does and row 1 a little aside. Without normalising the
    # prefix row 1 would score .70 and row 0 .30, because little of row 0 is in its first two dims.
    raw = np.array([[3, 0, 0, 9.5], [7, 1, 0, 7], [1, 9, 0, 0], [0, 9, 1, 0]], dtype=np.float32)
    corpus = make_corpus(made_of(raw, [None] * 4, dtype="float32"), dims=(1, 4))
    query = np.array([[1, 0, 0, 1]], dtype=np.float32)
    hits = search(corpus, query, Plan.parse("1:3,2:1,4"), 1)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert (unit[:, :2] @ query[0, :2]).argmax() == 1
    assert hits.ids.tolist() == [[0]]
    expected = (3 + 9.5) / np.sqrt(2) / np.hypot(3, 9.5)
    np.testing.assert_allclose(hits.scores, [[expected]], rtol=1e-6)


@pytest.mark.parametrize("dims", [8, 16, 64])
def test_one_stage_equals_a_scan(corpus: Corpus, queries: np.ndarray, dims: int) -> None:
    found = search(corpus, queries, Plan.single(dims), 20)
    scores, ids = scan(corpus.vectors, prefix(queries, dims), 20)
    np.testing.assert_array_equal(found.ids, ids)
    np.testing.assert_allclose(found.scores, scores, atol=1e-7)


def test_exact_search_by_hand(make_corpus: Callable[..., Corpus]) -> None:
    raw = np.array([[1, 0], [0, 2], [3, 3], [-1, 0]], dtype=np.float32)
    corpus = make_corpus(made_of(raw, [None] * 4), dims=(2,))
    hits = exact(corpus, np.array([2.0, 0.0]), 4)
    assert hits.ids.tolist() == [[0, 2, 1, 3]]
    assert hits.plan == Plan.EXACT and hits.dims is None
    np.testing.assert_allclose(hits.scores, [[1, np.sqrt(0.5), 0, -1]], atol=1e-3)


def test_exact_search_does_not_depend_on_its_blocks(
    corpus: Corpus, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scan(corpus.vectors, prefix(queries, 64), 7)
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 1024 * 37)
    pieces = scan(corpus.vectors, prefix(queries, 64), 7)
    for a, b in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(exact(corpus, queries, 7).ids, whole[1])


def test_recall_never_falls_with_a_longer_shortlist(corpus: Corpus, queries: np.ndarray) -> None:
    truth = exact(corpus, queries, 10).ids
    recalls = [
        recall_at_k(search(corpus, queries, Plan.rerank(8, n, 64), 10).ids, truth)
        for n in (10, 20, 40, 80, 160, 320, 500)
    ]
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1.0


@pytest.mark.parametrize("plan", ["8", "64", "8:50,64", "8:100,16:40,64", "exact"])
def test_a_batch_is_answered_as_its_queries_are_singly(
    corpus: Corpus, queries: np.ndarray, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = Plan.parse(plan)
    batch = search(corpus, queries, parsed, 10)
    for i, query in enumerate(queries):
        single = search(corpus, query, parsed, 10)
        np.testing.assert_array_equal(single.ids[0], batch.ids[i])
        np.testing.assert_allclose(single.scores[0], batch.scores[i], atol=1e-6)
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 300)
    np.testing.assert_array_equal(search(corpus, queries, parsed, 10).ids, batch.ids)


def test_the_norm_of_a_query_does_not_matter(corpus: Corpus, queries: np.ndarray) -> None:
    plan = Plan.parse("8:50,64")
    a = search(corpus, queries, plan, 10)
    b = search(corpus, queries * np.float32(128), plan, 10)
    np.testing.assert_array_equal(a.ids, b.ids)
    for power in (-100, 100):  # squares of these under- and overflow in float32
        c = search(corpus, np.ldexp(queries, power), plan, 10)
        np.testing.assert_array_equal(c.ids, a.ids)
        np.testing.assert_array_equal(c.scores, a.scores)


def test_an_item_finds_itself_first(corpus: Corpus) -> None:
    vectors = corpus.vectors.rows()[:50].astype(np.float32)
    for plan in ("64", "8:20,64", "8:50,16:20,64", "exact"):
        hits = search(corpus, vectors, Plan.parse(plan), 1)
        assert hits.ids[:, 0].tolist() == list(range(50))
        np.testing.assert_allclose(hits.scores, 1, atol=1e-6)


def test_answers_are_no_more_than_the_corpus(
    make_corpus: Callable[..., Corpus], queries: np.ndarray
) -> None:
    corpus = make_corpus(made_of(energy_first(np.random.default_rng(0), 5), [None] * 5))
    hits = search(corpus, queries[:2], Plan.parse("8:100,64"), 50)
    assert hits.ids.shape == (2, 5)
    assert sorted(hits.ids[0]) == [0, 1, 2, 3, 4]
    assert exact(corpus, queries[:2], 50).ids.tolist() == hits.ids.tolist()


@pytest.mark.parametrize("plan", ["8", "8:20,64", "exact"])
def test_no_queries(corpus: Corpus, plan: str) -> None:
    nothing = np.empty((0, 64), dtype=np.float32)
    hits = search(corpus, nothing, Plan.parse(plan), 3)
    assert hits.ids.shape == hits.scores.shape == (0, 3)


# Ties


@pytest.mark.parametrize("factory", ["Flat", "Panorama", "Scan", "SQ8", "IVF4,Flat@4"])
@pytest.mark.parametrize(("copies", "keep"), [(3, 2), (40, 5), (300, 30)])
def test_equal_scores_are_ordered_and_cut_by_id(
    make_corpus: Callable[..., Corpus], factory: str, copies: int, keep: int
) -> None:
    rng = np.random.default_rng(1)
    raw = energy_first(rng, 400)
    same = rng.choice(400, copies, replace=False)
    raw[same] = raw[same[0]]
    factory, _, effort = factory.partition("@")
    corpus = make_corpus(made_of(raw, [None] * 400), dims=(8, 64), factory=factory)
    first = np.sort(same)[:keep]
    at = int(effort or 0)
    exactly = corpus.prefix_index(8).exact
    for plan in (Plan((Stage(8, None, at),)), Plan((Stage(64, None, at),)), Plan.EXACT):
        hits = search(corpus, raw[same[:1]], plan, keep)
        if exactly or plan == Plan.EXACT or copies < keep + 16:
            assert hits.ids[0].tolist() == first.tolist(), plan
        np.testing.assert_allclose(hits.scores, 1, atol=1e-6)
    hits = search(corpus, raw[same[:1]], Plan((Stage(8, keep, at), Stage(64))), keep)
    assert set(hits.ids[0].tolist()) <= set(same.tolist())
    assert not exactly or hits.ids[0].tolist() == first.tolist()


def test_a_cut_among_scores_that_faiss_cannot_tell_apart(
    make_corpus: Callable[..., Corpus],
) -> None:
    # 300 directions at one angle to the query: their cosines differ by rounding alone.
    rng = np.random.default_rng(3)
    rotation = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    around = np.concatenate([np.full((300, 1), 2.0), rng.standard_normal((300, 63))], axis=1)
    around[:, 1:] /= np.linalg.norm(around[:, 1:], axis=1, keepdims=True)
    raw = (around @ rotation).astype(np.float32)
    corpus = make_corpus(made_of(raw, [None] * 300, dtype="float32"), dims=(64,))
    query = rotation[:1].astype(np.float32)
    true = scan(corpus.vectors, prefix(query, 64), 20)[1]
    assert np.ptp(corpus.vectors.prefix(64) @ query[0]) < 1e-6
    for plan in (Plan.single(64), Plan.EXACT):
        np.testing.assert_array_equal(search(corpus, query, plan, 20).ids, true)
        batch = search(corpus, np.repeat(query, 50, axis=0), plan, 20)
        np.testing.assert_array_equal(batch.ids, np.repeat(true, 50, axis=0))


def test_a_long_shortlist_is_scored_in_pieces(
    corpus: Corpus, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan.parse("8:100,64")
    whole = search(corpus, queries, plan, 10)
    monkeypatch.setattr("mrl_search.engines.kernels.CACHED", 64 * 7)
    pieces = search(corpus, queries, plan, 10)
    np.testing.assert_array_equal(pieces.ids, whole.ids)
    np.testing.assert_array_equal(pieces.scores, whole.scores)


def test_a_tie_that_is_too_wide_still_gives_an_answer(
    make_corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.search.first.WIDEST", 30)
    corpus = make_corpus(made_of(np.ones((200, 8), dtype=np.float32), [None] * 200), dims=(8,))
    hits = search(corpus, np.ones(8), Plan.single(8), 3)
    assert len(set(hits.ids[0])) == 3
    np.testing.assert_allclose(hits.scores, 1, atol=1e-6)


# Approximate indexes


def test_an_approximate_index_that_finds_too_few_pads(
    make_corpus: Callable[..., Corpus], queries: np.ndarray
) -> None:
    raw = energy_first(np.random.default_rng(0), 400)
    corpus = make_corpus(made_of(raw, [None] * 400), dims=(8,), factory="IVF10,Flat")
    hits = search(corpus, queries, Plan.parse("8:390,64"), 380)
    missing = hits.ids < 0
    assert missing.any()
    assert not missing[:, 0].any()
    np.testing.assert_array_equal(missing, np.isneginf(hits.scores))
    assert all(len(set(row[row >= 0])) == (row >= 0).sum() for row in hits.ids)
    assert all(hit.id >= 0 for found in hits for hit in found)
    assert [len(found) for found in hits] == (~missing).sum(axis=1).tolist()


@pytest.mark.parametrize("factory", ["SQ8", "HNSW16", "PQ4x4", "NSG16,Flat", "IVF8,SQ8"])
def test_scores_are_cosines_whatever_the_index(
    make_corpus: Callable[..., Corpus], queries: np.ndarray, factory: str
) -> None:
    rows = made_of(energy_first(np.random.default_rng(0), 400), [None] * 400)
    corpus = make_corpus(rows, dims=(16,), factory=factory)
    hits = search(corpus, queries, Plan.single(16), 10)
    expected = np.einsum("nd,nkd->nk", prefix(queries, 16), corpus.vectors.prefix(16)[hits.ids])
    found = hits.ids >= 0
    np.testing.assert_allclose(hits.scores[found], expected[found], atol=1e-6)
    assert (np.diff(hits.scores[:, : found.sum(axis=1).min()], axis=1) <= 0).all()


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "Scan"])
def test_an_effort_that_nothing_takes_is_refused(
    make_corpus: Callable[..., Corpus], queries: np.ndarray, small_set: Rows, factory: str
) -> None:
    corpus = make_corpus(small_set, dims=(8, 16), factory=factory)
    for plan, dims in (("16@5", 16), ("8:20@5,16", 8)):
        message = f"Plan {plan} has an effort at {dims} dims, but {factory} takes none."
        with pytest.raises(ConfigError, match=message) as error:
            search(corpus, queries, Plan.parse(plan), 10)
        assert error.value.hint == "Leave @5 out."


@pytest.mark.parametrize("factory", ["IVF64,Flat", "RR16,IVF64,PQ16x4fs", "HNSW8,SQ8"])
def test_more_effort_finds_more(make_corpus: Callable[..., Corpus], factory: str) -> None:
    rows = energy_first(np.random.default_rng(0), 4000, 16)
    corpus = make_corpus(made_of(rows, [None] * 4000), dims=(8, 16), factory=factory)
    queries = energy_first(np.random.default_rng(1), 200, 16)
    truth = exact(corpus, queries, 10).ids
    recalls = [
        recall_at_k(search(corpus, queries, Plan((Stage(16, None, e),)), 10).ids, truth)
        for e in (1, 8, 64)
    ]
    assert recalls == sorted(recalls)
    assert recalls[-1] - recalls[0] > 0.02


# Masks


@pytest.mark.parametrize(
    "factory",
    ["Flat", "SQ8", "PQ8x4np", "IVF16,Flat", "RR16,IVF16,PQ16x4fsr", "HNSW16", "NSG16,Flat"],
)
@pytest.mark.parametrize("share", [0.999, 0.5, 0.05])
def test_a_mask_costs_no_recall(
    make_corpus: Callable[..., Corpus], factory: str, share: float
) -> None:
    rows = energy_first(np.random.default_rng(0), 1500, 32)
    corpus = make_corpus(made_of(rows, [None] * 1500), dims=(16, 32), factory=factory)
    queries = energy_first(np.random.default_rng(1), 100, 32)
    mask = Mask(np.random.default_rng(2).random(1500) < share)
    efforts = corpus.prefix_index(16).efforts
    effort = efforts[len(efforts) // 2] if efforts else 0
    plan = Plan((Stage(16, 100, effort), Stage(32)))
    free = recall_at_k(search(corpus, queries, plan, 10).ids, exact(corpus, queries, 10).ids)
    hits = search(corpus, queries, plan, 10, mask)
    assert mask.allowed[hits.ids].all()
    assert recall_at_k(hits.ids, exact(corpus, queries, 10, mask).ids) >= free - 0.01


def test_few_allowed_rows_are_scored_exactly(
    make_corpus: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = energy_first(np.random.default_rng(0), 3000, 32)
    corpus = make_corpus(made_of(rows, [None] * 3000), dims=(16, 32), factory="HNSW8")
    index, queries = corpus.prefix_index(16), energy_first(np.random.default_rng(1), 5, 32)
    monkeypatch.setattr(index, "search", lambda *_: pytest.fail("the index was searched"))
    few = Mask(np.arange(3000) % 300 == 7)
    hits = search(corpus, queries, Plan.parse("16:20,32"), 10, few)
    np.testing.assert_array_equal(hits.ids, exact(corpus, queries, 10, few).ids)
    assert hits.ids.shape == (5, 10)


# Stop rules


def test_a_stop_rule_ends_the_search_of_some_queries(corpus: Corpus, queries: np.ndarray) -> None:
    plan = Plan.parse("8:60,16:40,64")
    calls: list[tuple[int, Stage, list[int], tuple[int, ...]]] = []

    def stop(number: int, stage: Stage, hits: BatchHits, at: np.ndarray) -> np.ndarray:
        calls.append((number, stage, at.tolist(), hits.ids.shape))
        return at % 3 == number

    found = search(corpus, queries, plan, 5, stop=stop)
    rest = [i for i in range(40) if i % 3]
    assert calls == [
        (0, Stage(8, 60), list(range(40)), (40, 60)),
        (1, Stage(16, 40), rest, (len(rest), 40)),
    ]
    assert found.dims is not None
    assert found.dims.tolist() == [(8, 16, 64)[i % 3] for i in range(40)]
    stages = (Plan.parse("8"), Plan.parse("8:60,16"), plan)
    for i in range(40):
        alone = search(corpus, queries[i], stages[i % 3], 5)
        np.testing.assert_array_equal(found.ids[i], alone.ids[0])
        np.testing.assert_allclose(found.scores[i], alone.scores[0], atol=1e-6)


def test_a_stop_rule_that_never_stops_changes_nothing(corpus: Corpus, queries: np.ndarray) -> None:
    plan = Plan.parse("8:60,16:40,64")
    watched = search(corpus, queries, plan, 5, stop=lambda *args: np.zeros(len(args[3]), bool))
    np.testing.assert_array_equal(watched.ids, search(corpus, queries, plan, 5).ids)
    assert watched.dims is not None and set(watched.dims.tolist()) == {64}
    assert search(corpus, queries, plan, 5).dims is None


def test_a_stop_rule_sees_a_mask_and_blocks(
    corpus: Corpus, queries: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = Mask(np.arange(500) % 2 == 0)
    plan, at_once = Plan.parse("8:60,64"), lambda *args: np.ones(len(args[3]), bool)
    whole = search(corpus, queries, plan, 5, mask, at_once)
    assert mask.allowed[whole.ids].all()
    np.testing.assert_array_equal(whole.ids, search(corpus, queries, Plan.single(8), 5, mask).ids)
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 4 * 60 * 7)  # seven queries at once
    places: list[int] = []

    def stop(number: int, stage: Stage, hits: BatchHits, at: np.ndarray) -> np.ndarray:
        places.extend(at.tolist())
        return np.ones(len(at), bool)

    np.testing.assert_array_equal(search(corpus, queries, plan, 5, mask, stop).ids, whole.ids)
    assert places == list(range(40))


# Requests


def test_a_request_filters_cuts_off_and_explains(corpus: Corpus, queries: np.ndarray) -> None:
    plain = answer(corpus, queries, SearchRequest(Plan.parse("8:50,64"), 10))
    np.testing.assert_array_equal(plain.ids, search(corpus, queries, Plan.parse("8:50,64"), 10).ids)
    cats = answer(corpus, queries, SearchRequest(Plan.EXACT, 5, ("label=cat", "id<100")))
    assert {(hit.label, hit.id < 100) for hits in cats for hit in hits} == {("cat", True)}
    some = answer(corpus, queries, SearchRequest(Plan.EXACT, 5, ids=np.array([4, 9, 2])))
    assert [sorted(hits.ids) for hits in some] == [[2, 4, 9]] * 40
    cutoff = float(np.median(plain.scores))
    cut = answer(corpus, queries, SearchRequest(Plan.parse("8:50,64"), 10, cutoff=cutoff))
    for hits, all_hits in zip(cut, plain, strict=True):
        kept = [hit.id for hit in all_hits if hit.score >= cutoff]
        assert [hit.id for hit in hits] == kept
    assert 0 < sum(map(len, cut)) < 400
    np.testing.assert_array_equal(cut.ids < 0, np.isneginf(cut.scores))
    told = answer(corpus, queries, SearchRequest(Plan.EXACT, 3, explain=True))
    assert told.explanation is not None and told.explanation.dims == (8, 16, 64)
    assert told.explanation.ranks[:, :, -1].tolist() == [[1, 2, 3]] * 40
    assert plain.explanation is None


def test_requests_that_make_no_sense() -> None:
    for wrong, message in (
        ({"k": 0}, "k is 0; it must be a whole number of at least 1"),
        ({"cutoff": 1.5}, "The cutoff is 1.5; it must be a cosine from -1 to 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            SearchRequest(**wrong)


def test_what_cannot_be_searched(corpus: Corpus, queries: np.ndarray) -> None:
    for plan, k, message in (
        ("32:50,64", 10, r"This index has dims 8, 16, 64; there is no 32. Nearest: 16."),
        ("8:50,128", 10, r"Plan 8:50,128 has 128 dims; the vectors have 64."),
        ("8:5,64", 10, r"Plan 8:5,64 has a shortlist of 5, fewer than the 10 answers wanted."),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            search(corpus, queries, Plan.parse(plan), k)
        assert error.value.hint
    with pytest.raises(DataError, match=r"These vectors have 32 dims; the index has 64."):
        search(corpus, queries[:, :32], Plan.single(8), 10)
    with pytest.raises(DataError, match=r"Row 0 of the vectors is not finite."):
        search(corpus, np.full((1, 64), np.nan), Plan.single(8), 10)
    nothing = np.stack([queries[0], np.zeros(64, dtype=np.float32)])
    for chosen in (Plan.single(8), Plan.EXACT):
        with pytest.raises(DataError, match=r"Row 1 of the queries is all zeros\."):
            search(corpus, nothing, chosen, 3)


def test_a_middle_stage_needs_no_index(corpus: Corpus, queries: np.ndarray) -> None:
    hits = search(corpus, queries[:3], Plan.parse("8:50,20:20,64"), 5)
    expected = [
        [i for i, _ in naive(corpus, q, Plan.parse("8:50,20:20,64"), 5)] for q in queries[:3]
    ]
    assert hits.ids.tolist() == expected


# The default plan


def test_a_tuned_plan_is_the_default_where_it_fits(
    small_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FlatIndex, "efforts", (4,))
    folder, corpus = small_index.folder, small_index.corpus
    assert default_plan(corpus, 10) == Plan.EXACT
    store_plan(folder, "query", {"plan": "8:200@4,64", "k": 10, "value": 0.99})
    verify(folder)
    again = Index.open(folder).corpus
    assert default_plan(again, 10) == default_plan(again, 3) == Plan.parse("8:200@4,64")
    assert default_plan(again, 11) == Plan.EXACT  # it was not tuned for so many
    assert default_plan(again, 10, "classify") == Plan.EXACT
    store_plan(folder, "classify", {"plan": "8:200,32:50,64", "k": 10})
    assert default_plan(Index.open(folder).corpus, 10, "classify") == Plan.EXACT  # no 32 dims
    store_plan(folder, "classify", {"plan": "8", "k": 20})
    assert set(read_manifest(folder).plans) == {"query", "classify"}
    assert default_plan(Index.open(folder).corpus, 20, "classify") == Plan.single(8)


@pytest.mark.parametrize(
    ("stored", "plan", "most"),
    [
        ({"plan": "8:250@48,64:10", "k": 10}, "8:250@48,64", 10),
        ({"plan": "8:250@48,64:10"}, "8:250@48,64", 10),
        ({"plan": "64:10@5"}, "64@5", 10),
        ({"plan": "64:10", "k": 10}, "64", 10),
        ({"plan": "16:80,64", "k": 20}, "16:80,64", 20),
        ({"plan": "64@5", "k": 5}, "64@5", 5),
    ],
)
def test_tuned_plans_of_every_version_are_read(
    small_index: Index, stored: dict[str, object], plan: str, most: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Version 0.1 wrote the number of answers at the last stage."""
    monkeypatch.setattr(FlatIndex, "efforts", (4,))
    store_plan(small_index.folder, "query", stored)
    corpus = Index.open(small_index.folder).corpus
    assert str(default_plan(corpus, most)) == plan
    assert default_plan(corpus, most + 1) == Plan.EXACT


def test_auto_is_the_tuned_plan_or_exact(small_index: Index, queries: np.ndarray) -> None:
    assert search(small_index.corpus, queries, Plan.AUTO, 5).plan == Plan.EXACT
    store_plan(small_index.folder, "query", {"plan": "8:20,64", "k": 5})
    corpus = Index.open(small_index.folder).corpus
    found = search(corpus, queries, Plan.AUTO, 5)
    assert found.plan == Plan.parse("8:20,64")
    np.testing.assert_array_equal(found.ids, search(corpus, queries, Plan.parse("8:20,64"), 5).ids)
    assert search(corpus, queries, Plan.AUTO, 6).plan == Plan.EXACT


@pytest.mark.parametrize("factory", ["Flat", "Panorama", "Scan", "SQ8"])
def test_exact_search_is_a_scan_on_every_kind(
    make_corpus: Callable[..., Corpus], small_set: Rows, queries: np.ndarray, factory: str
) -> None:
    corpus = make_corpus(small_set, factory=factory)
    for k in (1, 10, 500):
        for allowed in (None, Mask(np.arange(500) % 5 > 0), Mask(np.arange(500) % 5 == 0)):
            width = min(k, allowed.count if allowed else 500)
            rows = None if allowed is None else allowed.ids
            scores, ids = scan(corpus.vectors, prefix(queries, 64), width, rows)
            found = exact_search(corpus, queries, width, allowed)
            np.testing.assert_array_equal(found[1], ids)
            np.testing.assert_allclose(found[0], scores, atol=1e-6)


# Ranking


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
    ids = np.array([[i for i, _ in pairs]])
    scores = np.array([[s for _, s in pairs]], dtype=np.float32)
    expected = sorted(pairs, key=lambda p: (-p[1], p[0]))[:keep]
    best_scores, best_ids = best(scores, ids, keep)
    assert best_ids[0].tolist() == [i for i, _ in expected]
    assert best_scores[0].tolist() == [s for _, s in expected]


def test_ranking_puts_padding_last() -> None:
    scores = np.array([[-np.inf, -0.5, -np.inf, -0.5]], dtype=np.float32)
    assert best(scores, np.array([[-1, 4, -1, 2]]), 3)[1].tolist() == [[2, 4, -1]]


# Leaving the query out


def test_leaving_out_by_hand() -> None:
    hits = BatchHits(
        np.array([[0, 1, 2], [1, 2, -1]]),
        np.array([[0.9, 0.8, 0.7], [0.9, 0.8, -np.inf]], dtype=np.float32),
    )
    unwanted = np.array([[True, False, True], [True, False, False]])
    left = leave_out(hits, unwanted, k=2)
    assert left.ids.tolist() == [[1, -1], [2, -1]]
    expected = np.array([[0.8, -np.inf], [0.8, -np.inf]], dtype=np.float32)
    np.testing.assert_array_equal(left.scores, expected)


@pytest.mark.parametrize("plan", ["64", "8:30,64"])
def test_every_copy_of_a_query_is_left_out(make_corpus: Callable[..., Corpus], plan: str) -> None:
    raw = energy_first(np.random.default_rng(2), 60)
    raw[10:14] = raw[10]
    hashes = [f"{i:032x}" for i in range(60)]
    hashes[10:14] = [hashes[10]] * 4
    corpus = make_corpus(made_of(raw, [None] * 60, hashes), dims=(8, 64))
    own = corpus.collection.hashes
    hits = search_others(corpus, raw, own, Plan.parse(plan), 5)
    assert hits.ids.shape == (60, 5)
    assert (hits.ids >= 0).all()
    assert not (own[hits.ids] == own[:, None]).any()
    if plan == "64":
        every = exact(corpus, raw, 60).ids
        true = [[i for i in row if own[i] != own[q]][:5] for q, row in enumerate(every)]
        assert hits.ids.tolist() == true


def test_a_stranger_loses_nothing(corpus: Corpus, queries: np.ndarray) -> None:
    plan = Plan.parse("8:50,64")
    strangers = np.array(["f" * 32] * len(queries), dtype=object)
    np.testing.assert_array_equal(
        search_others(corpus, queries, strangers, plan, 5).ids, search(corpus, queries, plan, 5).ids
    )


# Threads


def test_threads_that_search_at_once_get_the_same_answers(
    make_index: Callable[..., Index], small_set: Rows, queries: np.ndarray
) -> None:
    for factory in ("Flat", "IVF8,Flat", "HNSW8"):
        made = make_index(small_set, factory=factory, name=factory.replace(",", "-"))
        truth = search(made.corpus, queries, Plan.parse("8:50,64"), 10).ids
        corpus = Index.open(made.folder).corpus  # nothing is loaded yet
        found: list[np.ndarray] = []

        def work(corpus: Corpus = corpus, found: list[np.ndarray] = found) -> None:
            for _ in range(10):
                found.append(search(corpus, queries, Plan.parse("8:50,64"), 10).ids)

        threads = [Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 80
        for ids in found:
            np.testing.assert_array_equal(ids, truth)
