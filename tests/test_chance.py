"""Expected by chance: unrelated queries get as many hits as promised, related ones are found."""

from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first

from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index
from mrl_search.search.chance import UNLIKELY
from mrl_search.search.request import SearchRequest

N, DIM, QUERIES = 4000, 64, 1000
CLASSES = 12


def even(rng, n, seed=0):
    return energy_first(rng, n, DIM)


def classes(rng, n, seed=0):
    """Rows of `CLASSES` classes that `seed` draws, as a trained model makes them."""
    centres = 2 * energy_first(np.random.default_rng(seed), CLASSES, DIM)
    return centres[rng.integers(0, CLASSES, n)] + energy_first(rng, n, DIM)


def heavy(rng, n, seed=0):
    """Rows of very different spread: some have near neighbours in any direction, others none."""
    return energy_first(rng, n, DIM) * rng.gamma(1, size=(n, 1)) + np.float32(0.3)


POPULATIONS = {"even": even, "classes": classes, "heavy": heavy}
FACTOR = 2.5  # more hits than expected, at most
FACTOR_CLASSES = 6  # for queries of classes that the corpus does not have, far between its own


def made(kind, out=None, n=N, dims=(8, DIM)):
    rows = POPULATIONS[kind](np.random.default_rng(1), n).astype(np.float32)
    return rows, Index.from_vectors(rows, out, spec=IndexSpec(dims, "Flat"))


@pytest.fixture(scope="module")
def corpus():
    return made("classes")


@pytest.mark.parametrize("kind", POPULATIONS)
@pytest.mark.parametrize("foreign", [False, True])
def test_unrelated_queries_get_as_many_hits_as_expected(kind, foreign):
    """A simulation that could break the promise: other classes, other spread, many queries."""
    factor = FACTOR_CLASSES if foreign and kind == "classes" else FACTOR
    _, index = made(kind)
    seed = 5 if foreign else 0
    queries = POPULATIONS[kind](np.random.default_rng(2), QUERIES, seed=seed).astype(np.float32)
    hits = index.search(queries, k=50, plan=DIM, expected=True)
    for level in (UNLIKELY, 0.1, 1.0):
        counts = (hits.expected < level).sum(axis=1)
        error = counts.std() / QUERIES**0.5 + 1 / QUERIES
        assert counts.mean() - 3 * error < factor * level, level
    assert (hits.expected < 1).sum(axis=1).mean() > 0.4  # nor are they promised far too much
    assert (np.diff(hits.expected, axis=1) >= 0).all()


@pytest.mark.parametrize("kind", POPULATIONS)
def test_related_items_pass_the_cutoff_and_unrelated_ones_do_not(kind):
    rows, index = made(kind)
    rng = np.random.default_rng(3)
    near = rows[:200] + 0.05 * np.linalg.norm(rows[:200], axis=1, keepdims=True) * energy_first(
        rng, 200, DIM
    ) / np.linalg.norm(energy_first(rng, 200, DIM), axis=1, keepdims=True)
    found = index.search(near.astype(np.float32), cutoff="auto", plan=DIM)
    assert np.mean([len(hits) > 0 and hits[0].id == i for i, hits in enumerate(found)]) > 0.9
    fresh = POPULATIONS[kind](np.random.default_rng(4), 500).astype(np.float32)
    none = index.search(fresh, cutoff="auto", plan=DIM)
    assert np.mean([len(hits) > 0 for hits in none]) < 0.03
    assert np.isinf(none.expected[none.ids < 0]).all()


@pytest.mark.parametrize("plan", ["8", "exact", "8:200,64", "64"])
def test_every_plan_scores_at_its_last_prefix(corpus, plan):
    rows, index = corpus
    single = index.search(rows[:20], k=5, plan=plan, expected=True)
    again = index.search(rows[:20], k=5, plan=plan.split(",")[-1], expected=True)
    for i in range(20):
        same = single.ids[i] == again.ids[i]
        np.testing.assert_allclose(single.expected[i][same], again.expected[i][same], rtol=1e-3)
        assert single[i][0].expected == single.expected[i, 0]
    cut = index.search(rows[:20], k=5, plan=plan, cutoff="auto")
    for hits, every in zip(cut, single, strict=True):
        assert [h.id for h in hits] == [h.id for h in every if h.expected < UNLIKELY]
    assert index.search(rows[0], plan=plan)[0].expected is None
    assert index.search(list(rows[:2]), expected=True).first(1).expected.shape == (2, 1)


def test_a_filter_is_its_own_background(corpus):
    rows, index = corpus
    some = np.arange(0, N, 2)
    alone = Index.from_vectors(rows[some], spec=IndexSpec((DIM,), "Flat"))
    filtered = index.search(rows[:100] + 0.1, ids=some, expected=True)
    np.testing.assert_array_equal(filtered.ids, some[alone.search(rows[:100] + 0.1).ids])
    expected = alone.search(rows[:100] + 0.1, expected=True).expected
    np.testing.assert_allclose(filtered.expected, expected, rtol=0.01)


def test_too_few_items_for_chance(corpus, tmp_path: Path):
    rows, index = corpus
    few = np.arange(999)
    with pytest.raises(DataError, match=r"999 items are too few .* it takes 1,000"):
        index.search(rows[0], cutoff="auto", ids=few)
    assert index.search(rows[0], expected=True, ids=few)[0].expected is None
    assert index.search(rows[0], expected=True, ids=np.arange(1000))[0].expected is not None


def test_deleted_rows_are_no_background(corpus, tmp_path: Path):
    rows, index = made("classes", tmp_path / "index")
    index.remove(ids=np.arange(N - 1000))
    left = rows[N - 1000 :]
    alone = Index.from_vectors(left, spec=IndexSpec((DIM,), "Flat"))
    found = index.search(left[:50] + 0.1, k=5, plan=DIM, expected=True)
    expected = alone.search(left[:50] + 0.1, k=5, plan=DIM, expected=True).expected
    np.testing.assert_allclose(found.expected, expected, rtol=0.01)


def test_where_all_items_are_alike_nothing_stands_out():
    rows = np.ones((2000, DIM), np.float32) + np.eye(2000, DIM, dtype=np.float32) * 1e-4
    index = Index.from_vectors(rows, spec=IndexSpec((DIM,), "Flat"))
    with pytest.raises(DataError, match="equal"):
        index.search(rows[0], cutoff="auto")


def test_classify_knows_nobody_below_the_cutoff(small_index, queries):
    scores = small_index.search(queries[:5], k=20).scores
    votes = small_index.classify(queries[:5], cutoff=0.999)
    assert scores.max() < 0.999 and [v.label for v in votes] == [None] * 5
    assert all(v.label for v in small_index.classify(queries[:5], cutoff=-1.0))
    with pytest.raises(ConfigError, match="adaptive"):
        small_index.classify(queries[0], cutoff=0.5, adaptive=True)


def test_cutoffs_are_a_cosine_or_auto():
    assert SearchRequest(cutoff="auto").cutoff == "auto"
    with pytest.raises(ConfigError, match=r"The cutoff is strict; it must be a cosine .* or auto"):
        SearchRequest(cutoff="strict")
