"""Exact search that prunes, its bounds and sieve, and explanations."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Rows, energy_first, made_of
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.engines.base import Found, Mask
from mrl_search.engines.scan import scan
from mrl_search.errors import IndexFolderError
from mrl_search.index import Index
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact import pruned
from mrl_search.search.exact.pruned import upper_bounds
from mrl_search.search.exact.sieve import Sieve
from mrl_search.search.explain import explain
from mrl_search.search.plan import Plan
from mrl_search.search.run import exact_search, search
from mrl_search.store.intact import verify, write_manifest
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import prefix

KINDS = ("Flat", "SQ8", "IVF8,Flat", "HNSW16", "PQ4x4")


@pytest.fixture(autouse=True, scope="module")
def sieved() -> None:
    """Every corpus here is large enough for a sieve."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mrl_search.building.CLUSTERED_FROM", 0)
        yield


def clustered(rng: np.random.Generator, n: int, copies: int = 5) -> np.ndarray:
    """(n, 64) rows in clusters, each about `copies` times: scores with gaps, and ties."""
    centres = energy_first(rng, max(1, n // 20)) * 3
    rows = centres[rng.integers(0, len(centres), n)] + energy_first(rng, n) * np.float32(0.3)
    rows[rng.permutation(n)[: n // 2]] = rows[rng.integers(0, max(1, n // copies), n // 2)]
    return rows


@pytest.fixture(scope="module", params=KINDS)
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """400 clustered vectors with ties, under every kind of index."""
    folder = tmp_path_factory.mktemp("kinds") / "index"
    rows = made_of(clustered(np.random.default_rng(4), 400), [None] * 400)
    rows.save(folder, (8, 16, 64), request.param)
    return Index.open(folder).corpus


def near(corpus: Corpus, n: int, seed: int) -> np.ndarray:
    """Queries close to some of the vectors."""
    rng = np.random.default_rng(seed)
    rows = corpus.vectors.rows()[rng.integers(0, len(corpus), n)].astype(np.float32)
    return rows + energy_first(rng, n) * np.float32(0.02)


# The sieve and its bounds


def test_the_sieve_lies_beside_the_vectors(small_index: Index) -> None:
    assert {"sieve-codes.npy", "sieve-steps.npy", "suffix-norms.npy"} < set(
        small_index.manifest.files
    )
    verify(small_index.folder)
    sieve, vectors = small_index.corpus.sieve, small_index.corpus.vectors
    assert sieve is not None and sieve.codes is not None
    assert sieve.dims == (8, 16, 64) and sieve.norms.shape == (3, 500)
    for d in (8, 16):
        tails = np.linalg.norm(vectors.prefix(64)[:, d:], axis=1)
        np.testing.assert_allclose(sieve.norms_at(d), tails, atol=1e-6)
    assert (sieve.norms_at(64) == 0).all()
    heads = vectors.prefix(64)[:, :16]
    distance = np.linalg.norm(heads - sieve.codes * sieve.steps, axis=1)
    assert 0 < distance.max() <= sieve.error < 0.02


@pytest.mark.parametrize("name", ["suffix-norms.npy", "sieve-codes.npy", "sieve-steps.npy"])
def test_a_damaged_sieve_is_named(small_index: Index, name: str) -> None:
    (small_index.folder / name).unlink()
    with pytest.raises(IndexFolderError, match=f"{name} is missing"):
        Index.open(small_index.folder).corpus.sieve  # noqa: B018 - it is read now


def test_a_sieve_of_another_index(small_index: Index, make_index: Callable[..., Index]) -> None:
    other = make_index(made_of(np.eye(5, 64, dtype=np.float32) + 0.1, [None] * 5), name="other")
    manifest = small_index.manifest
    (small_index.folder / "suffix-norms.npy").write_bytes(
        (other.folder / "suffix-norms.npy").read_bytes()
    )
    manifest = write_manifest(small_index.folder, manifest)
    with pytest.raises(IndexFolderError, match=r"\(3, 5\), not float32 of shape \(3, 500\)"):
        Sieve.open(small_index.folder, manifest)


def test_bounds_by_hand(make_index: Callable[..., Index]) -> None:
    raw = np.array([[3, 0, 4, 0], [1, 0, 0, 0], [0, 1, 0, 1]], dtype=np.float32)
    index = make_index(made_of(raw, [None] * 3, dtype="float32"), dims=(2, 4))
    sieve = index.corpus.sieve
    assert sieve is not None
    np.testing.assert_allclose(sieve.norms_at(2), [0.8, 0, np.sqrt(0.5)], atol=1e-6)
    np.testing.assert_array_equal(sieve.norms_at(4), [0, 0, 0])
    # the head of the query has norm .6, its tail .8
    query = np.array([[0.6, 0, 0, 0.8]], dtype=np.float32)
    bounds = upper_bounds(query, 2, np.array([[1, 1, 0]], dtype=np.float32), sieve.norms_at(2))
    expected = [[0.36 + 0.64, 0.6, 0.8 * np.sqrt(0.5)]]
    np.testing.assert_allclose(bounds, expected, atol=1e-5)


@pytest.mark.parametrize("dims", [8, 16, 64])
def test_a_full_score_lies_within_its_bound(
    small_index: Index, queries: np.ndarray, dims: int
) -> None:
    store, sieve = small_index.corpus.vectors, small_index.corpus.sieve
    assert sieve is not None
    known = prefix(queries, dims) @ store.prefix(dims).T
    full = prefix(queries, 64) @ store.prefix(64).T
    bounds = upper_bounds(prefix(queries, 64), dims, known, sieve.norms_at(dims))
    assert (full <= bounds + 1e-6).all()


# Exact search that prunes


def exact_pruned(corpus: Corpus, queries: Rows, k: int, mask: Mask | None = None) -> Found:
    return pruned.exact_pruned(corpus, queries, k, mask, search)


@pytest.mark.parametrize("kernels", ["numpy", "compiled"])
@pytest.mark.parametrize("k", [1, 10, 400])
def test_pruned_search_is_exact_search(
    corpus: Corpus, k: int, kernels: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernels == "numpy":
        monkeypatch.setattr("mrl_search.engines.kernels.native", None)
    queries = near(corpus, 60, k)
    scores, ids = scan(corpus.vectors, prefix(queries, 64), k)
    for found in (exact_pruned(corpus, queries, k), exact_search(corpus, queries, k)):
        np.testing.assert_array_equal(found[1], ids)
        np.testing.assert_allclose(found[0], scores, atol=2e-7)


@pytest.mark.parametrize("count", [1, 6, 120, 210, 399])
def test_pruned_search_keeps_to_a_mask(corpus: Corpus, count: int) -> None:
    allowed = np.random.default_rng(1).permutation(400)[:count]
    mask, queries = Mask(np.isin(np.arange(400), allowed)), near(corpus, 30, 2)
    k = min(5, count)
    expected = scan(corpus.vectors, prefix(queries, 64), k, mask.ids)[1]
    np.testing.assert_array_equal(exact_pruned(corpus, queries, k, mask)[1], expected)
    np.testing.assert_array_equal(search(corpus, queries, Plan.EXACT, 5, mask).ids, expected)


def test_pruned_search_of_several_parts(small_index: Index, queries: np.ndarray) -> None:
    corpus = small_index.corpus
    whole = exact_pruned(corpus, queries, 10)
    array = corpus.vectors.rows()
    object.__setattr__(corpus.collection, "vectors", VectorStore(array[:123], array[123:]))
    for a, b in zip(exact_pruned(corpus, queries, 10), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(2, 40), st.integers(1, 12), st.integers(0, 10_000))
def test_pruned_search_is_exact_on_any_shape(n: int, dim: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(-2, 3, (n, dim)).astype(np.float32) + np.float32(0.5)  # many ties
    k = min(k, n)
    with tempfile.TemporaryDirectory() as folder:
        dims = tuple(sorted({1, dim // 2, dim}))
        made_of(raw, [None] * n).save(Path(folder) / "index", dims)
        corpus = Index.open(Path(folder) / "index").corpus
        queries = np.concatenate([raw[:3], rng.standard_normal((3, dim)).astype(np.float32)])
        expected = scan(corpus.vectors, prefix(queries, dim), k)[1]
        np.testing.assert_array_equal(exact_pruned(corpus, queries, k)[1], expected)


def test_pruning_reads_little_where_the_first_dims_say_much(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[int, int]] = []
    real = pruned.pair_scores

    def counted(store: VectorStore, queries: np.ndarray, ids: np.ndarray, dims: int) -> np.ndarray:
        read.append((dims, ids.size))
        return real(store, queries, ids, dims)

    monkeypatch.setattr("mrl_search.engines.kernels.native", None)
    monkeypatch.setattr(pruned, "pair_scores", counted)
    exact_pruned(corpus, near(corpus, 20, 3), 5)
    whole = sum(size for dims, size in read if dims == 64)
    assert 0 < whole < 0.3 * 20 * 400


# Explanations


def test_cosines_of_zero_tie_however_they_are_compared(make_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(0)
    rows = np.tile(rng.standard_normal((40, 32)), 2).astype(np.float32)
    half = rng.standard_normal((9, 32))
    queries = np.concatenate([half, -half], axis=1).astype(np.float32)  # orthogonal to every row
    corpus = make_index(made_of(rows, [None] * 40, dtype="float32"), dims=(64,)).corpus
    batch = search(corpus, queries, Plan.EXACT, 40)
    assert (batch.scores == 0).all() and (batch.ids == np.arange(40)).all()
    for query in queries:
        assert (search(corpus, query, Plan.EXACT, 40).ids == np.arange(40)).all()
    assert (explain(corpus, queries, batch.ids).ranks[:, :, 0] == np.arange(1, 41)).all()


def test_ranks_and_scores_at_every_prefix(corpus: Corpus) -> None:
    queries = near(corpus, 6, 5)
    scores, ids = exact_pruned(corpus, queries, 10)
    told = explain(corpus, queries, ids)
    assert told.dims == (8, 16, 64)
    np.testing.assert_array_equal(told.ranks[:, :, -1], np.broadcast_to(np.arange(1, 11), (6, 10)))
    np.testing.assert_allclose(told.scores[:, :, -1], scores, atol=2e-7)
    for level, dims in enumerate(told.dims):
        everything = scan(corpus.vectors, prefix(queries, dims), len(corpus))[1]
        for q in range(6):
            place = {int(i): rank for rank, i in enumerate(everything[q], 1)}
            assert told.ranks[q, :, level].tolist() == [place[int(i)] for i in ids[q]]


def test_ranks_count_allowed_rows_only(small_index: Index, queries: np.ndarray) -> None:
    corpus, mask = small_index.corpus, Mask(np.arange(500) % 7 == 0)
    hits = search(corpus, queries, Plan.EXACT, 5, mask)
    ranks = explain(corpus, queries, hits.ids, mask).ranks
    assert ranks[:, :, -1].tolist() == [list(range(1, 6))] * len(queries)
    assert ranks.max() <= mask.count


def test_padding_comes_last(small_index: Index, queries: np.ndarray) -> None:
    told = explain(small_index.corpus, queries[:1], np.array([[3, -1]]))
    assert np.isneginf(told.scores[0, 1]).all() and (told.ranks[0, 1] == 501).all()


def test_small_corpora_have_no_sieve(
    small_set: Rows, make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.building.CLUSTERED_FROM", 501)
    assert make_index(small_set, name="plain").corpus.sieve is None
