"""The compiled kernels and their numpy twins: the same scores for every type."""

from collections.abc import Iterator

import numpy as np
import pytest
from conftest import INSTRUCTIONS, computing_with

from mrl_search.engines import kernels
from mrl_search.vectors import l2_normalize, suffix_norms


@pytest.fixture(params=["numpy", *INSTRUCTIONS])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each test runs on all of them."""
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "native", None)
        yield "numpy"
        return
    with computing_with(request.param):
        yield request.param


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("dims", [1, 7, 64])
def test_cosines(engine: str, dtype: type, dims: int) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((200, 64)) * rng.uniform(1e-4, 3, (200, 1))).astype(dtype)
    rows[3] = 0
    unit = l2_normalize(rng.standard_normal((5, dims)))
    ids = rng.integers(0, 200, (5, 40))
    ids[2, 7] = -1
    ids[1, 0] = 3
    scores = kernels.pair_cosines(rows, unit, ids)
    assert scores.dtype == np.float32
    for i, j in np.ndindex(5, 40):
        x = rows[ids[i, j], :dims].astype(np.float64)
        expected = (
            -np.inf
            if ids[i, j] < 0
            else 0.0
            if not x.any()
            else x @ unit[i].astype(np.float64) / np.linalg.norm(x)
        )
        assert scores[i, j] == pytest.approx(expected, abs=1e-7)


def test_every_half_is_read_as_it_is(engine: str) -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    halves = bits.view(np.float16)
    halves = halves[np.isfinite(halves) & (halves != 0)][:, None]  # subnormals, too
    signs = kernels.pair_cosines(
        np.repeat(halves, 2, axis=1) * np.array([1, 0], np.float16),
        np.ones((1, 1), np.float32),
        np.arange(len(halves))[None],
    )
    np.testing.assert_array_equal(signs[0], np.sign(halves[:, 0]).astype(np.float32))
    pair = np.concatenate(
        [halves, np.ones_like(halves)], axis=1
    )  # the tangent of the angle is the number itself
    cosines = kernels.pair_cosines(
        pair, np.array([[1, 0]], np.float32), np.arange(len(pair))[None]
    )[0]
    wide = halves[:, 0].astype(np.float64)
    np.testing.assert_allclose(cosines, wide / np.hypot(wide, 1), rtol=2e-7)


def test_what_is_left_in_the_sieve(engine: str) -> None:
    codes = np.array([[127, 0], [0, 127], [-127, 50], [10, 10]], dtype=np.int8)
    weights, tails = (
        np.array([0.01, 0.002], dtype=np.float32),
        np.array([0.0, 1.0, 1.0, 0.5], dtype=np.float32),
    )
    # upper bounds: 1.27, .254 + .5, -1.27 + .1 + .5, .12 + .25
    assert kernels.sift(codes, weights, tails, 0.5, 0.754 - 1e-4).tolist() == [0, 1]
    assert kernels.sift(codes, weights, tails, 0.5, 0.36).tolist() == [0, 1, 3]
    assert kernels.sift(codes, weights, tails, 0.5, -9).tolist() == [0, 1, 2, 3]
    assert kernels.sift(codes, weights, tails, 0.5, 9).tolist() == []


@pytest.mark.parametrize("seed", range(5))
def test_the_sieve_loses_nothing_that_just_reaches_the_score(engine: str, seed: int) -> None:
    """Weights are rounded to 16 bits: a row whose bound is a millionth above the score stays."""
    rng = np.random.default_rng(seed)
    codes, tails = (
        rng.integers(-127, 128, (500, 64)).astype(np.int8),
        rng.random(500).astype(np.float32),
    )
    weights = rng.standard_normal(64).astype(np.float32) * np.float32(1e-3)
    upper = codes.astype(np.float64) @ weights + float(np.float32(0.3)) * tails
    for least in upper[::25] - 1e-6:
        kept = kernels.sift(codes, weights, tails, 0.3, float(least))
        assert set(np.flatnonzero(upper >= least + 1e-6)) <= set(kept.tolist())
        assert (upper[kept] > least - 0.001).all()  # and next to nothing else does


def test_the_sieve_in_pieces(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    codes, tails = (
        rng.integers(-127, 128, (1000, 8)).astype(np.int8),
        rng.random(1000).astype(np.float32),
    )
    weights = rng.standard_normal(8).astype(np.float32)
    whole = kernels.sift(codes, weights, tails, 0.3, 100)
    assert 0 < len(whole) < 1000
    monkeypatch.setattr(kernels, "thread_count", lambda: 7)
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 24)
    np.testing.assert_array_equal(kernels.sift(codes, weights, tails, 0.3, 100), whole)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_longer_prefixes_rule_out_what_cannot_be_near(dtype: type) -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((1500, 64)) / np.arange(1, 65)).astype(dtype)
    rows[7] = 0
    unit = l2_normalize(rng.standard_normal((1, 64)) / np.arange(1, 65))
    dims = (8, 16, 32)
    norms, tails = suffix_norms(rows, dims), suffix_norms(unit, dims)[:, 0]
    some = np.arange(0, 1500, 2)  # more than are compared at once
    cosines = kernels.pair_cosines(rows, unit, some[None])[0]
    least = float(np.sort(cosines)[-10])
    order = np.argsort(-cosines, kind="stable")[:10]
    for k in (10, 750):
        scores, ids = kernels.nearest(
            rows, unit[0], some, dims, tails, norms, 4e-7, least - 1e-6, k
        )
        assert set(some[order]) <= set(ids.tolist())
        assert len(ids) < 40  # the others were ruled out
        places = np.searchsorted(some, ids)
        np.testing.assert_array_equal(scores, cosines[places])
    for few in (dims, ()):
        given = tails[: len(few)], norms[: len(few)]
        scores, ids = kernels.nearest(rows, unit[0], some, few, *given, 4e-7, -2.0, 10)
        assert sorted(ids.tolist()) == sorted(some[order].tolist())
        nothing = kernels.nearest(rows, unit[0], some[:0], few, *given, 4e-7, -2.0, 10)
        assert nothing[1].tolist() == []


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    rows, unit, ids = (
        rng.standard_normal((50, 16)).astype(np.float16),
        l2_normalize(rng.standard_normal((9, 16))),
        rng.integers(0, 50, (9, 6)),
    )
    one = kernels.pair_cosines(rows, unit, ids)
    monkeypatch.setattr(kernels, "thread_count", lambda: 4)
    np.testing.assert_array_equal(kernels.pair_cosines(rows, unit, ids), one)


@pytest.mark.parametrize("keep", [1, 10, 32, 33, 500])
def test_the_best_come_in_order_and_ties_go_by_id(engine: str, keep: int) -> None:
    rng = np.random.default_rng(keep)
    ids = np.stack([rng.permutation(1000)[:200] for _ in range(30)])
    scores = rng.integers(-3, 4, ids.shape).astype(np.float32) / 4
    ids[::3, 5:9], scores[::3, 5:9] = -1, -np.inf
    scores[4, :7] = np.float32(-0.0)
    found = kernels.best(scores, ids, keep)
    assert (found[1].shape, found[1].dtype, found[0].dtype) == (
        (30, min(keep, 200)),
        np.int64,
        np.float32,
    )
    for i in range(30):
        order = sorted(zip(-scores[i] + 0.0, ids[i], strict=True))[:keep]
        assert [(-s, row) for s, row in order] == list(zip(found[0][i], found[1][i], strict=True))
