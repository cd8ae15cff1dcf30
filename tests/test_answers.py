"""Answers one can trust: proofs against brute force, pruned exact search, early stops, and explanations."""

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import made_of, energy_first
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.engines import Index, add_prefix_indexes
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError
from mrl_search.search import certify, exact, exact_pruned, explain, search, search_adaptive
from mrl_search.search.exact import pruned
from mrl_search.search.exact.bounds import Bounds
from mrl_search.search.plan import Plan
from mrl_search.store.rows import EmbeddingSet
from mrl_search.vectors import l2_normalize, prefix

KINDS = ("Flat", "SQ8", "IVF8,Flat", "HNSW16", "PQ4x4")


def clustered(rng: np.random.Generator, n: int, copies: int = 5) -> np.ndarray:
    """(n, 64) rows in clusters, every one of which occurs `copies` times: scores with gaps, and ties."""
    centres = energy_first(rng, max(1, n // 20)) * 3
    rows = centres[rng.integers(0, len(centres), n)] + energy_first(rng, n) * np.float32(0.3)
    rows[rng.permutation(n)[: n // 2]] = rows[rng.integers(0, max(1, n // copies), n // 2)]
    return rows


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """400 clustered vectors with ties, under every kind of index."""
    folder = tmp_path_factory.mktemp("kinds") / "index"
    made_of(clustered(np.random.default_rng(4), 400), [None] * 400).save(folder)
    add_prefix_indexes(folder, IndexSpec((8, 16, 64), request.param))
    return Index.open(folder)


def near(index: Index, n: int, seed: int) -> np.ndarray:
    """Queries close to some of the vectors."""
    rng = np.random.default_rng(seed)
    rows = index.embeddings.vectors[rng.integers(0, len(index), n)].astype(np.float32)
    return rows + energy_first(rng, n) * np.float32(0.02)


# Bounds


def test_bounds_by_hand(make_index: Callable[..., Index]) -> None:
    raw = np.array([[3, 0, 4, 0], [1, 0, 0, 0], [0, 1, 0, 1]], dtype=np.float32)
    index = make_index(made_of(raw, [None] * 3, dtype="float32"), dims=(2, 4))
    np.testing.assert_allclose(index.sieve.norms_at(2), [0.8, 0, np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_array_equal(index.sieve.norms_at(4), [0, 0, 0])
    bounds = Bounds.of(
        index, np.array([[0.6, 0, 0, 0.8]], dtype=np.float32), 2
    )  # its head is .6 long, its tail .8
    cosines = np.array([[1, 1, 0]], dtype=np.float32)
    np.testing.assert_allclose(
        bounds.upper(cosines, bounds.norms), [[0.36 + 0.64, 0.6, 0.8 * np.sqrt(0.5)]], atol=1e-5
    )
    np.testing.assert_allclose(
        bounds.lower(cosines, bounds.norms), [[0.36 - 0.64, 0.6, -0.8 * np.sqrt(0.5)]], atol=1e-5
    )
    # of tails from 0 to .8 the worst for a cosine of .5 is the angle whose tangent is .8 / (.6 x .5), cut off at .8
    np.testing.assert_allclose(
        bounds.beyond(np.array([[0.5]], np.float32)), [[0.6 * 0.5 * 0.6 + 0.8 * 0.8]], atol=1e-6
    )
    np.testing.assert_allclose(
        bounds.beyond(np.array([[-1.0]], np.float32)), [[-0.36 + 0.64]], atol=1e-6
    )


@pytest.mark.parametrize("dims", [8, 16, 64])
def test_a_full_score_lies_within_its_bounds(
    small_index: Index, queries: np.ndarray, dims: int
) -> None:
    bounds = Bounds.of(small_index, queries, dims)
    known = prefix(queries, dims) @ small_index.embeddings.prefix(dims).T
    full = prefix(queries, 64) @ small_index.embeddings.prefix(64).T
    assert (bounds.lower(known, bounds.norms) <= full + 1e-6).all()
    assert (full <= bounds.upper(known, bounds.norms) + 1e-6).all()
    assert (full.max(axis=1) <= bounds.beyond(known.max(axis=1, keepdims=True))[:, 0] + 1e-6).all()


# Certificates


def test_proofs_never_lie(kind: Index) -> None:
    """2,000 queries on each of five kinds of index, in plans of one to three stages: what is proven is what brute force finds."""
    for number, text in enumerate(("64:5", "16:5", "8:40,64:5", "16:60,64:5", "8:90,16:40,64:5")):
        plan = Plan.parse(text, 5)
        queries = near(kind, 400, number)
        hits, true = certify(kind, queries, plan), exact(kind, queries, 5)
        np.testing.assert_array_equal(hits.ids, search(kind, queries, plan).ids)
        assert hits.proven is not None
        for row, proofs, scores, wanted in zip(
            hits.ids, hits.proven, true.scores, true.ids, strict=True
        ):
            full = {int(i): s for i, s in zip(wanted, scores, strict=True)}
            assert set(row[proofs].tolist()) <= set(full), text
        if text.endswith("64:5") and text != "64:5":
            ranks = np.broadcast_to(np.arange(5), hits.ids.shape)
            np.testing.assert_array_equal(hits.ids[hits.proven], true.ids[hits.proven])
            assert ranks[hits.proven].size > 200, text  # some can be had on every kind


def test_a_proof_is_of_as_many_as_are_shown(kind: Index) -> None:
    """A plan that ends with 40 may prove that all are among the true 40; its first five are shown as the true five only if they are."""
    for text in ("64:40", "16:40", "16:60,64:40"):
        queries = near(kind, 200, 3)
        hits, true = certify(kind, queries, Plan.parse(text, 5), k=5), exact(kind, queries, 5)
        np.testing.assert_array_equal(
            hits.ids, search(kind, queries, Plan.parse(text, 5)).first(5).ids
        )
        assert hits.proven is not None and hits.proven.shape == (200, 5)
        for row, proofs, wanted in zip(hits.ids, hits.proven, true.ids, strict=True):
            assert set(row[proofs].tolist()) <= set(wanted.tolist()), text


def test_a_long_shortlist_proves_more(kind: Index) -> None:
    queries = near(kind, 200, 7)
    shares = [certify(kind, queries, Plan.parse(f"16:{n},64:5", 5)).proven for n in (5, 40, 150)]
    means = [share.mean() for share in shares if share is not None]
    assert means == sorted(means)
    assert means[0] < means[-1]


def test_exact_search_proves_everything(small_index: Index, queries: np.ndarray) -> None:
    for plan in ("64:10", "8:500,64:10"):
        hits = certify(small_index, queries, Plan.parse(plan, 10))
        assert hits.proven is not None
        assert hits.proven.all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_no_proof_lies_where_a_prefix_holds_next_to_nothing(
    make_index: Callable[..., Index], dtype: str
) -> None:
    rng = np.random.default_rng(0)
    for trial in range(20):
        second = rng.uniform(2e-4, 9e-4)
        rows = np.zeros((2, 16))
        for row, length, cosine, sign in (
            (rows[0], second * 0.97 * 0.9 / 0.95, 0.95, 1),
            (rows[1], second, 0.9, -1),
        ):
            row[[0, 1, 8]] = (
                length * cosine,
                sign * length * np.sqrt(1 - cosine**2),
                np.sqrt(1 - length**2),
            )
        index = make_index(
            made_of(rows.astype(np.float32), [None] * 2, dtype=dtype),
            (8, 16),
            name=f"tail-{trial}",
        )
        query = np.eye(1, 16, dtype=np.float32)
        hits, true = certify(index, query, Plan.parse("8:1,16:1", 1)), exact(index, query, 1)
        assert hits.proven is not None
        assert not hits.proven[0, 0] or hits.ids[0, 0] == true.ids[0, 0]


@pytest.mark.parametrize("plan", ["32:100", "32:150,64:100"])
def test_no_proof_lies_where_roundings_decide(make_index: Callable[..., Index], plan: str) -> None:
    """Five clear answers, and 400 vectors closer to each other than float32 can tell; 95 of them are answers, too."""
    proven = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        query = np.zeros(64)
        query[:32] = l2_normalize(rng.standard_normal((1, 32)))[0]
        aside = rng.standard_normal((405, 64)) * (np.arange(64) < 32)
        aside -= (aside @ query)[:, None] * query / (query @ query)
        aside /= np.linalg.norm(aside, axis=1, keepdims=True)
        cosines = np.append(np.full(5, 0.002), 0.001 + 3e-9 * rng.standard_normal(400))[:, None]
        rows = cosines * query + np.sqrt(1 - cosines**2) * aside
        index = make_index(
            made_of(rows.astype(np.float32), [None] * 405, dtype="float32"),
            (32, 64),
            name=f"near-{seed}",
        )
        asked = query[None].astype(np.float32)
        hits, true = certify(index, asked, Plan.parse(plan, 100)), exact(index, asked, 100)
        assert hits.proven is not None
        assert set(hits.ids[hits.proven].tolist()) <= set(true.ids[0].tolist())
        proven += hits.proven.sum()
    assert proven == 60


def test_proofs_need_lengths_that_are_stored(small_index: Index, queries: np.ndarray) -> None:
    plan = Plan.parse("8:50,20:20,64:5", 5)
    assert search(small_index, queries, plan).ids.shape == (40, 5)
    for find in (certify, lambda *a: search_adaptive(*a, 5)):
        with pytest.raises(ConfigError, match="there is no 20"):
            find(small_index, queries, plan)


def test_a_short_prefix_proves_nothing_where_scores_are_close(
    make_index: Callable[..., Index],
) -> None:
    rng = np.random.default_rng(0)
    index = make_index(
        made_of(rng.standard_normal((300, 64)).astype(np.float32), [None] * 300), dims=(8, 64)
    )
    hits = certify(index, rng.standard_normal((20, 64)), Plan.parse("8:50,64:10", 10))
    assert hits.proven is not None
    assert not hits.proven.any()


def test_no_queries_have_no_proofs(small_index: Index) -> None:
    assert certify(small_index, np.empty((0, 64), np.float32), Plan.single(8, 3)).ids.shape == (
        0,
        3,
    )


# Exact search that prunes


@pytest.mark.parametrize("k", [1, 10, 400, 1000])
def test_pruned_search_is_exact_search(kind: Index, k: int) -> None:
    queries = near(kind, 60, k)
    found, true = exact_pruned(kind, queries, k), exact(kind, queries, k)
    np.testing.assert_array_equal(found.ids, true.ids)
    np.testing.assert_allclose(found.scores, true.scores, atol=2e-7)
    assert found.proven is not None
    assert found.proven.all()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(2, 40), st.integers(1, 12), st.integers(0, 10_000))
def test_pruned_search_is_exact_on_any_shape(n: int, dim: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(-2, 3, (n, dim)).astype(np.float32) + np.float32(
        0.5
    )  # few values: many ties
    with tempfile.TemporaryDirectory() as folder:
        made_of(raw, [None] * n).save(Path(folder) / "index")
        add_prefix_indexes(Path(folder) / "index", IndexSpec(tuple(sorted({1, dim // 2, dim}))))
        index = Index.open(Path(folder) / "index")
        queries = np.concatenate([raw[:3], rng.standard_normal((3, dim)).astype(np.float32)])
        np.testing.assert_array_equal(
            exact_pruned(index, queries, k).ids, exact(index, queries, k).ids
        )


def test_pruning_reads_little_where_the_first_numbers_say_much(
    kind: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    real = pruned.pair_scores

    def counted(index: Index, queries: np.ndarray, ids: np.ndarray, dims: int) -> np.ndarray:
        read.append((dims, ids.size))
        return real(index, queries, ids, dims)

    monkeypatch.setattr(pruned, "pair_scores", counted)
    exact_pruned(kind, near(kind, 20, 3), 5)
    whole = sum(size for dims, size in read if dims == 64)
    assert 0 < whole < 0.3 * 20 * 400


# Early stops


def test_every_query_stops_where_its_answers_stop_changing(
    make_index: Callable[..., Index], small_set: EmbeddingSet, queries: np.ndarray
) -> None:
    index = make_index(small_set, dims=(8, 16, 32, 64))
    plan = Plan.parse("8:100,16:60,32:60,64:10", 10)
    hits = search_adaptive(index, queries, plan, 2)
    assert hits.dims is not None
    assert len(set(hits.dims.tolist())) > 1
    for i, dims in enumerate(hits.dims.tolist()):
        tops = []
        for last in range(1, 5):
            found = search(index, queries[i], Plan(plan.stages[:last]))
            tops.append(
                (
                    plan.stages[last - 1].dims,
                    found.ids[0, :2].tolist(),
                    found.scores[0, :2].tolist(),
                )
            )
        same = [b[0] for a, b in pairwise(tops) if set(a[1]) == set(b[1])]
        proven = hits.proven is not None and hits.proven[i].all()
        assert dims == (same or [64])[0] or (proven and dims < (same or [64])[0])
        answer = next(t for t in tops if t[0] == dims)
        assert hits.ids[i].tolist() == answer[1]
        assert hits.scores[i].tolist() == answer[2]


def test_an_early_stop_never_lies_about_proofs(kind: Index) -> None:
    queries = near(kind, 400, 11)
    hits, true = (
        search_adaptive(kind, queries, Plan.parse("8:60,16:60,64:5", 5), 5),
        exact(kind, queries, 5),
    )
    assert hits.proven is not None
    for row, proofs, wanted in zip(hits.ids, hits.proven, true.ids, strict=True):
        assert set(row[proofs].tolist()) <= set(wanted.tolist())


def test_a_proof_stops_a_query_at_once(make_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(0)
    raw = np.zeros((40, 64), dtype=np.float32)
    raw[np.arange(40), np.arange(40) % 8] = 1  # all of their length lies in the first 8 dims
    raw[:, 8:] = 1e-3 * rng.standard_normal((40, 56))
    index = make_index(made_of(raw, [None] * 40, dtype="float32"), dims=(8, 64))
    hits = search_adaptive(index, raw[:4], Plan.parse("8:20,64:5", 5), 5)
    assert hits.dims is not None
    assert hits.dims.tolist() == [8] * 4
    assert hits.proven is not None
    assert hits.proven.all()


def test_a_batch_stops_as_its_single_queries(kind: Index) -> None:
    queries, plan = near(kind, 30, 2), Plan.parse("8:60,16:60,64:5", 5)
    batch = search_adaptive(kind, queries, plan, 5)
    for i, query in enumerate(queries):
        single = search_adaptive(kind, query, plan, 5)
        np.testing.assert_array_equal(single.ids[0], batch.ids[i])
        assert single.dims is not None
        assert batch.dims is not None
        assert single.dims[0] == batch.dims[i]


def test_an_early_stop_needs_stages_that_keep_enough(
    small_index: Index, queries: np.ndarray
) -> None:
    with pytest.raises(
        ConfigError, match="Plan 8:20,64:5 keeps 5 at the end, fewer than the 10 asked for"
    ):
        search_adaptive(small_index, queries, Plan.parse("8:20,64:5", 5), 10)


# Explanations


def test_cosines_of_zero_tie_however_they_are_compared(make_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(0)
    rows, half = (
        np.tile(rng.standard_normal((40, 32)), 2).astype(np.float32),
        rng.standard_normal((9, 32)),
    )
    queries = np.concatenate([half, -half], axis=1).astype(
        np.float32
    )  # each at right angles to every row
    index = make_index(made_of(rows, [None] * 40, dtype="float32"), dims=(64,))
    batch = exact(index, queries, 40)
    assert (batch.scores == 0).all() and (batch.ids == np.arange(40)).all()
    assert all((exact(index, query, 40).ids == np.arange(40)).all() for query in queries)
    assert (explain(index, queries, batch.ids).ranks[:, :, 0] == np.arange(1, 41)).all()


def test_ranks_and_scores_at_every_prefix(kind: Index) -> None:
    queries = near(kind, 6, 5)
    true = exact_pruned(kind, queries, 10)
    told = explain(kind, queries, true.ids)
    assert told.dims == (8, 16, 64)
    np.testing.assert_array_equal(told.ranks[:, :, -1], np.broadcast_to(np.arange(1, 11), (6, 10)))
    np.testing.assert_allclose(told.scores[:, :, -1], true.scores, atol=2e-7)
    for level, dims in enumerate(told.dims):
        everything = exact(kind, queries, len(kind), dims)
        for q in range(6):
            place = {int(i): rank for rank, i in enumerate(everything.ids[q], 1)}
            assert told.ranks[q, :, level].tolist() == [place[int(i)] for i in true.ids[q]]
