"""Tests of significance against values worked out by hand, in closed form, or by brute force."""

import builtins
import math
from statistics import NormalDist

import numpy as np
import pytest
from significance import combined_f_test, equivalence_test, holm

from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.metrics import mcnemar_exact, tango_z

FOLDS = [[0.02, 0.03], [0.01, 0.02], [0.03, 0.01], [0.02, 0.02], [0.04, 0.01]]


def test_the_combined_f_test_by_hand() -> None:
    """Squares add up to 53e-4; the variances are 0.5, 0.5, 2, 0 and 4.5, in all 7.5e-4."""
    result = combined_f_test(FOLDS)
    assert result.f == pytest.approx(53 / 15)
    assert result.p == pytest.approx(0.088056, abs=1e-6)
    assert combined_f_test(-np.array(FOLDS)) == result
    assert combined_f_test(np.array(FOLDS)[:, ::-1]) == result  # no fold is the first one


def test_the_f_test_at_its_critical_value() -> None:
    """4.74 is the 95% point of F with 10 and 5 degrees of freedom in Alpaydin's paper."""
    at = np.array([[1 + e, 1 - e] for e in [math.sqrt(1 / (2 * 4.735 - 1))] * 5])
    assert combined_f_test(at).f == pytest.approx(4.735)
    assert combined_f_test(at).p == pytest.approx(0.05, abs=1e-4)


def test_an_f_test_without_any_variance() -> None:
    assert combined_f_test(np.zeros((5, 2))).p == 1
    assert combined_f_test(np.full((5, 2), 0.25)) == type(combined_f_test(FOLDS))(math.inf, 0.0)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2), (10,)])
def test_folds_are_five_times_two(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="wants 5 x 2 differences"):
        combined_f_test(np.zeros(shape))


def test_without_scipy_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: object) -> object:
        if name.startswith("scipy"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MrlSearchError, match="needs scipy") as error:
        combined_f_test(FOLDS)
    assert "mrl-search[study]" in error.value.hint


def test_tango_s_score_by_hand() -> None:
    """44 pairs, one right only in b, difference -0.1: z = 3.4 / sqrt(3.96)."""
    assert tango_z(0, 1, 44, -0.1) == pytest.approx(3.4 / math.sqrt(3.96))
    assert 1 - NormalDist().cdf(tango_z(0, 1, 44, -0.1)) == pytest.approx(0.0438, abs=1e-4)


def test_tango_s_score_where_rounding_makes_a_square_negative() -> None:
    assert math.isfinite(tango_z(0, 22, 1111, -0.01))


def test_tango_s_score_at_no_difference_is_mcnemar_s() -> None:
    assert tango_z(12, 4, 100, 0.0) == pytest.approx((12 - 4) / math.sqrt(12 + 4))
    assert tango_z(12, 4, 100, 0.03) == pytest.approx(-tango_z(4, 12, 100, -0.03))


@pytest.mark.parametrize(
    ("b", "c", "n", "difference"),
    [(3, 7, 50, 0.05), (0, 4, 30, 0.1), (9, 2, 60, -0.2), (0, 0, 25, 0.04)],
)
def test_tango_s_nuisance_parameter_is_the_most_likely(
    b: int, c: int, n: int, difference: float
) -> None:
    """The same statistic, its one unknown found by trying a million values."""
    alone = np.linspace(
        max(0, -difference) + 1e-9,
        (1 - abs(difference)) / 2 + max(0, -difference) - 1e-9,
        1_000_000,
    )
    likelihood = (n - b - c) * np.log1p(-2 * alone - difference)
    likelihood += (b * np.log(alone + difference) if b else 0) + (c * np.log(alone) if c else 0)
    best = alone[np.argmax(likelihood)]
    z = (b - c - n * difference) / math.sqrt(n * (2 * best + difference * (1 - difference)))
    assert tango_z(b, c, n, difference) == pytest.approx(z, abs=1e-3)


def _pairs(both: int, only_a: int, only_b: int, neither: int) -> tuple[list[bool], list[bool]]:
    a = [True] * (both + only_a) + [False] * (only_b + neither)
    b = [True] * both + [False] * only_a + [True] * only_b + [False] * neither
    return a, b


def test_equivalence_by_hand() -> None:
    """Of 1,000 cases none divides the two: z = n m / sqrt(n m (1 - m)) = sqrt(10 / 0.99)."""
    result = equivalence_test(*_pairs(950, 0, 0, 50), margin=0.01)
    assert (result.difference, result.margin) == (0.0, 0.01)
    assert result.p == pytest.approx(1 - NormalDist().cdf(math.sqrt(10 / 0.99)))
    assert (
        equivalence_test(*_pairs(95, 0, 0, 5)).p > 0.05
    )  # a hundred cases are too few for a margin of one point
    assert equivalence_test(*_pairs(43, 0, 1, 0), margin=0.1).p == pytest.approx(0.0438, abs=1e-4)


def test_equivalence_takes_the_worse_side_and_wants_more_than_no_difference() -> None:
    a, b = _pairs(2100, 40, 40, 120)
    assert mcnemar_exact(a, b) == 1
    close, wide = equivalence_test(a, b, 0.01), equivalence_test(a, b, 0.02)
    assert (
        close.p == pytest.approx(1 - NormalDist().cdf(23 / math.sqrt(80)), abs=0.003)
        and wide.p < close.p
    )
    worse = equivalence_test(*_pairs(2100, 30, 60, 110), 0.01)
    assert worse.difference == pytest.approx(-30 / 2300) and worse.p > 0.5
    assert equivalence_test(*_pairs(2100, 60, 30, 110), 0.01).p == pytest.approx(worse.p)


def test_who_is_better_is_no_worse_and_not_equivalent() -> None:
    better = equivalence_test(*_pairs(2100, 90, 20, 88), 0.01)
    assert better.p > 0.5 and better.p_worse < 1e-6
    worse = equivalence_test(*_pairs(2100, 20, 90, 88), 0.01)
    assert worse.p == pytest.approx(worse.p_worse) and worse.p > 0.5


def test_the_interval_holds_the_differences_that_the_score_allows() -> None:
    for pairs in ((2100, 90, 20, 88), (43, 0, 1, 0), (10, 0, 0, 2), (0, 5, 0, 0)):
        _, only_a, only_b, _ = pairs
        result = equivalence_test(*_pairs(*pairs))
        low, high = result.interval
        assert -1 <= low <= result.difference <= high <= 1
        for end, side in ((low, 1), (high, -1)):
            if abs(end) < 1 - 1e-9:
                assert tango_z(only_a, only_b, sum(pairs), end) == pytest.approx(
                    side * 1.96, abs=1e-3
                )
    assert equivalence_test(*_pairs(0, 5, 0, 0)).interval[1] == pytest.approx(1)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="cannot be paired"):
        equivalence_test([True], [True, False])
    with pytest.raises(DataError):
        equivalence_test([], [])
    with pytest.raises(ConfigError, match="share between 0 and 1"):
        equivalence_test([True], [True], 0.0)


def test_holm_by_hand() -> None:
    """The least of three counts three times, the next twice; none is less than the one before."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []
    assert holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
