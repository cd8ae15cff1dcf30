"""Figures of merit against values worked out by hand."""

from math import comb

import numpy as np
import pytest
from scipy.stats import binomtest

from mrl_search.errors import DataError
from mrl_search.metrics import (
    average_precision,
    exact_interval,
    found_at_k,
    mcnemar_exact,
    mean_interval,
    recall_at_k,
    share_interval,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
        (950, 1000, 0.9347, 0.9619),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (0, 10, 0.0, 0.3085),
        (5, 10, 0.1871, 0.8129),
        (10, 10, 0.6915, 1.0),
        (0, 5, 0.0, 0.5218),
        (950, 1000, 0.9346, 0.9627),
        (0, 0, 0.0, 1.0),
    ],
)
def test_exact_interval(successes: int, n: int, low: float, high: float) -> None:
    assert exact_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("seed", range(30))
def test_tests_and_intervals_are_those_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 400))
    a, b = rng.random((2, n)) < rng.random((2, 1))
    for_a, differing = int((a & ~b).sum()), int((a != b).sum())
    found = binomtest(int(a.sum()), n)
    assert wilson_interval(int(a.sum()), n) == pytest.approx(
        tuple(found.proportion_ci(method="wilson")), abs=1e-9
    )
    assert exact_interval(int(a.sum()), n) == pytest.approx(
        tuple(found.proportion_ci(method="exact")), abs=1e-9
    )
    assert mcnemar_exact(a, b) == pytest.approx(
        binomtest(for_a, differing).pvalue if differing else 1.0, rel=1e-9
    )


def test_mean_interval_is_normal_and_stays_within_0_and_1() -> None:
    assert mean_interval(0.5, 0.2, 100) == pytest.approx(
        (0.5 - 1.959964 * 0.02, 0.5 + 1.959964 * 0.02)
    )
    assert mean_interval(0.99, 0.2, 4)[1] == 1.0


def test_neighbours_are_counted_for_each_query() -> None:
    found, truth = (
        np.array([[3, 1, 2], [7, -1, -1], [5, 6, 8]]),
        np.array([[1, 2], [7, -1], [9, 4]]),
    )
    assert found_at_k(found, truth).tolist() == [2, 1, 0]
    assert recall_at_k(found, truth) == pytest.approx(2 / 3)
    assert average_precision([[True, False], [False, True], [True, True]]).tolist() == [
        0.5,
        0.25,
        1.0,
    ]


@pytest.mark.parametrize(
    ("found", "recall"),
    [
        ([[4, 3, 2, 1]], 1.0),
        ([[1, 9, 2, 8]], 0.5),
        ([[9, 8, 7, 6]], 0.0),
        ([[1, -1, -1, -1]], 0.25),
        ([[3]], 0.25),
    ],
)
def test_recall_of_four(found: list[list[int]], recall: float) -> None:
    assert recall_at_k(np.array(found), np.array([[1, 2, 3, 4]])) == recall


def test_recall_is_the_mean_over_queries_and_keeps_them_apart() -> None:
    assert recall_at_k(np.array([[1, 2], [1, 2]]), np.array([[1, 2], [3, 4]])) == 0.5
    assert recall_at_k(np.array([[0], [5]]), np.array([[5, -1], [-1, -1]])) == 0.0
    with pytest.raises(DataError, match=r"no true neighbour"):
        recall_at_k(np.array([[1]]), np.array([[-1]]))


@pytest.mark.parametrize(
    ("relevant", "value"),
    [
        ([[1, 1, 1]], 1.0),
        ([[0, 0, 0]], 0.0),
        ([[1, 0, 0]], 1 / 3),
        ([[0, 0, 1]], 1 / 9),
        ([[1, 0, 1]], (1 + 2 / 3) / 3),
        ([[1, 0], [0, 1]], (1 / 2 + 1 / 4) / 2),
    ],
)
def test_mean_average_precision(relevant: list[list[int]], value: float) -> None:
    assert average_precision(relevant).mean() == pytest.approx(value)


def test_mcnemar_by_hand() -> None:
    a = [True] * 6 + [False] * 1 + [True] * 50
    b = [False] * 6 + [True] * 1 + [True] * 50
    assert mcnemar_exact(a, b) == 2 * (comb(7, 0) + comb(7, 1)) / 2**7 == 0.125
    assert mcnemar_exact(b, a) == 0.125
    assert mcnemar_exact(a, a) == 1.0
    assert mcnemar_exact([True, False], [False, True]) == 1.0
    with pytest.raises(DataError, match=r"cannot be paired"):
        mcnemar_exact([True], [True, False])


def test_mcnemar_of_many_cases() -> None:
    a, b = np.arange(4000) < 1900, np.arange(4000) >= 1900
    exact = sum(comb(4000, i) for i in range(1901)) * 2 / 2**4000
    assert mcnemar_exact(a, b) == pytest.approx(exact, rel=1e-12)
    assert 0.001 < exact < 0.002


def test_an_interval_of_shares_by_hand() -> None:
    """Of 100 queries half find 10 of 10, half 9: the variance of 1,900 cases; there are 1,000."""
    assert share_interval(np.repeat([1.0, 0.9], 50), 10) == pytest.approx(
        wilson_interval(950, 1000)
    )
    assert share_interval(np.ones(100), 10) == wilson_interval(1000, 1000)
    right = np.repeat([1.0, 0.0], [90, 10])  # whole queries fail: a query is one case
    assert share_interval(right, 10) == pytest.approx(wilson_interval(90, 100))
    assert share_interval(right, 1) == pytest.approx(wilson_interval(90, 100))
    assert share_interval(np.ones(100), 1) == wilson_interval(100, 100)
