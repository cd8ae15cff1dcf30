"""A Pareto tail recovers known distributions, and never promises too small a chance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mrl_search.errors import ConfigError, DataError
from mrl_search.search.tail import fit_tail

KNOWN = {
    "heavy": stats.genpareto(0.2),
    "exponential": stats.expon(),
    "bounded": stats.genpareto(-0.2),
    "normal": stats.norm(),
    "t": stats.t(4),
    "cosines of 64 dims": stats.beta(31.5, 31.5, loc=-1, scale=2),
}
SHAPES = {"heavy": 0.2, "exponential": 0.0, "bounded": -0.2}


def drawn(name, n, seed=0):
    return KNOWN[name].rvs(n, random_state=np.random.default_rng(seed))


@pytest.mark.parametrize("name", KNOWN)
def test_chances_of_a_large_background_are_those_of_the_distribution(name):
    tail = fit_tail(drawn(name, 200_000))
    assert tail.share == 0.01
    assert tail.shape == pytest.approx(SHAPES.get(name, tail.shape), abs=0.06)
    for chance, factor in ((0.5, 1.01), (0.05, 1.03), (1e-3, 1.2), (1e-4, 1.5), (1e-5, 5)):
        told = tail.chance(KNOWN[name].isf(chance))
        assert chance / factor < told < chance * factor, chance


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("chance", [1e-4, 1e-5])
def test_chances_far_beyond_few_scores_are_too_large_rather_than_too_small(name, chance):
    score = KNOWN[name].isf(chance)
    told = [fit_tail(drawn(name, 10_000, seed)).chance(score) for seed in range(60)]
    assert np.mean(told) > 0.85 * chance  # the mean over samples, as the promise is


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-12, 1.0), st.booleans())
def test_score_is_the_inverse_of_chance(seed, chance, rounded):
    scores = np.random.default_rng(seed).standard_normal(4000)
    tail = fit_tail(np.round(scores, 2) if rounded else scores, share=0.05)
    score = tail.score(chance)
    assert tail.chance(score) <= chance * (1 + 1e-6)
    if chance < tail.share:
        assert tail.chance(score) == pytest.approx(chance, rel=1e-6)
    else:  # the next lower background score is met too often
        lower = tail.background[tail.background < score]
        assert not len(lower) or tail.chance(lower[-1]) > chance


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(sorted(KNOWN)))
def test_chances_fall_from_one_and_never_reach_zero(seed, name):
    tail = fit_tail(drawn(name, 3000, seed))
    chances = tail.chance(np.linspace(tail.background[0] - 1, tail.threshold + 1e6, 5000))
    assert chances[0] == 1 and (chances > 0).all() and (np.diff(chances) <= 0).all()


def test_below_the_threshold_the_chance_is_the_share_of_the_background():
    tail = fit_tail(np.arange(10_000))
    assert tail.threshold == 9899 and tail.share == 0.01
    assert tail.chance([0, 5000, 9899]).tolist() == [1.0, 0.5, 0.0101]
    assert tail.chance(5000).shape == () and tail.chance([[1, 2]]).shape == (1, 2)
    assert tail.score([1.0, 0.5]).tolist() == [0, 5000]


def test_many_equal_scores_at_the_threshold_count_below_it():
    rng = np.random.default_rng(0)
    tail = fit_tail(np.concatenate([np.zeros(9890), np.full(70, 1.0), 1 + rng.random(40)]))
    assert tail.threshold == 1.0 and tail.share == 0.004
    assert tail.chance(1.0) == 0.011


@pytest.mark.parametrize(
    ("scores", "share", "error", "message"),
    [
        (np.arange(1999), 0.01, DataError, "1,999 background scores .* it takes 2,000"),
        (np.zeros(5000), 0.01, DataError, "equal"),
        (np.full(5000, np.nan), 0.01, DataError, "finite"),
        (np.arange(5000), 0.0, ConfigError, "between 0 and 1"),
        (np.arange(5000), 1.0, ConfigError, "between 0 and 1"),
    ],
)
def test_backgrounds_that_have_no_tail(scores, share, error, message):
    with pytest.raises(error, match=message):
        fit_tail(scores, share)


@pytest.mark.parametrize("chance", [0.0, 1.5, -1, np.nan])
def test_scores_of_impossible_chances(chance):
    with pytest.raises(ConfigError, match="above 0 and at most 1"):
        fit_tail(np.arange(5000)).score(chance)
