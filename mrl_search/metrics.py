"""Figures of merit in numpy alone: accuracy, recall, precision, their intervals and paired tests.

Functions take a whole batch. An id of -1 is padding and never counts as found.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrl_search.errors import DataError

__all__ = [
    "Share", "average_precision", "exact_interval", "found_at_k", "mcnemar_exact", "mean_interval",
    "recall_at_k", "share_interval", "tango_z", "wilson_interval",
]  # fmt: skip

LEVEL = 0.95  # confidence of every interval
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)


@dataclass(frozen=True, slots=True)
class Share:
    """A share of `n` cases, or a difference of two, with its 95% interval from `low` to `high`."""

    value: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, right: NDArray[np.integer] | NDArray[np.bool_]) -> "Share":
        """The share of `right` (n,) that is 1 or True, with Wilson's interval."""
        return cls(float(right.mean()), *wilson_interval(int(right.sum()), len(right)), len(right))

    @classmethod
    def mean(cls, mean: float, deviation: float, n: int) -> "Share":
        """The mean of `n` shares with this standard deviation, with its normal interval."""
        return cls(mean, *mean_interval(mean, deviation, n), n)

    @classmethod
    def mean_of(cls, shares: NDArray[np.floating]) -> "Share":
        """The mean of `shares` (n,), with its normal interval."""
        return cls.mean(float(shares.mean()), float(shares.std()), len(shares))


def wilson_interval(successes: float, n: float) -> tuple[float, float]:
    """Wilson's 95% score interval of a share with `successes` of `n`; (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z * (share * (1 - share) / n + Z * Z / (4 * n * n)) ** 0.5 / (1 + Z * Z / n)
    low, high = centre - half, centre + half
    return max(0.0, min(low, share)), min(1.0, max(high, share))  # rounding puts 1 above high


def share_interval(shares: NDArray[np.floating], steps: int) -> tuple[float, float]:
    """95% interval of the mean of shares, multiples of 1 / `steps`, each of a query (n,).

    It is Wilson's, of as many cases as have the variance of the shares: up to `steps` a query.
    """
    mean, variance = float(shares.mean()), float(shares.var())
    worth = mean * (1 - mean) / variance if variance else 0.0
    cases = len(shares) * min(worth or steps, steps)
    return wilson_interval(mean * cases, cases)


def exact_interval(successes: int, n: int) -> tuple[float, float]:
    """95% interval of Clopper and Pearson; it holds 1/2 exactly where a sign test finds nothing.

    It is (0, 1) where n is 0.
    """
    counts = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    log_ways = factorials[n] - factorials - factorials[::-1]  # log of n choose k

    def probability(p: float, of: NDArray[np.int64]) -> float:
        return float(np.exp(log_ways[of] + of * np.log(p) + (n - of) * np.log1p(-p)).sum())

    bounds = []
    for of, falling in ((counts[successes:], False), (counts[: successes + 1], True)):
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            if (probability(middle, of) > (1 - LEVEL) / 2) == falling:
                low = middle
            else:
                high = middle
        bounds.append((low + high) / 2)
    return (0.0 if successes == 0 else bounds[0]), (1.0 if successes == n else bounds[1])


def recall_at_k(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Mean share of the true neighbours `truth` (n, k) among `found` (n, m), in any order.

    Ids within a row are distinct. Rows without a true neighbour (all -1) do not count.

    Raises:
        DataError: there is no true neighbour at all.
    """
    hits, known = found_at_k(found, truth), (truth >= 0).sum(axis=1)
    if not known.any():
        raise DataError("There is no true neighbour to find.")
    return float((hits[known > 0] / known[known > 0]).mean())


def found_at_k(found: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of true neighbours `truth` (n, k) among `found` (n, m) of each query: (n,) int64.

    Ids within a row are distinct.
    """
    width = max(int(truth.max(initial=-1)), int(found.max(initial=-1))) + 1
    row = np.arange(len(truth), dtype=np.int64)[:, None] * width
    hit: NDArray[np.bool_] = np.isin(truth + row, (found + row)[found >= 0]) & (truth >= 0)
    counts: NDArray[np.int64] = hit.sum(axis=1)
    return counts


def average_precision(relevant: ArrayLike) -> NDArray[np.float64]:
    """Average precision of each query, (n,) float64, of `relevant`, (n, k) bool.

    As in the MRL paper (arXiv 2205.13147, section 4.3): the sum of the precision at every rank
    with a relevant answer, divided by k. So k relevant answers give 1, none give 0, and one gives
    more the better its rank.
    """
    hit = np.asarray(relevant, dtype=bool)
    precision = hit.cumsum(axis=1) / np.arange(1, hit.shape[1] + 1)
    average: NDArray[np.float64] = (precision * hit).mean(axis=1)
    return average


def mean_interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """95% interval of the mean of `n` shares: normal approximation, cut to 0 and 1."""
    half = Z * deviation / n**0.5
    return max(0.0, mean - half), min(1.0, mean + half)


def mcnemar_exact(a_correct: ArrayLike, b_correct: ArrayLike) -> float:
    """Two-sided p of McNemar's exact test: are a and b right equally often on the same n cases?

    Only cases count on which one is right and the other wrong. With b cases for one system and c
    for the other, p is twice the chance of at most min(b, c) heads in b + c tosses of a coin.

    Raises:
        DataError: the shapes differ.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if a.shape != b.shape:
        raise DataError(f"Outcomes of shapes {a.shape} and {b.shape} cannot be paired.")
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    ways = total = 1  # exact integers: ways to toss i heads, and their sum so far
    for i in range(min(only_a, only_b)):
        ways = ways * (n - i) // (i + 1)
        total += ways
    p: float = 2 * total / 2**n
    return min(1.0, p)


def tango_z(only_a: ArrayLike, only_b: ArrayLike, n: int, difference: float) -> NDArray[np.float64]:
    """Tango's score statistic of "the shares of a and b differ by `difference`", of paired cases.

    Statistics in Medicine 17, 891-908, 1998. It is as large as the share of a is too large, in
    standard deviations; nan where `difference` is 0 and no case divides a and b.

    Args:
        only_a: cases on which a alone is right; a number or an array.
        only_b: cases on which b alone is right, likewise.
        n: all cases.
        difference: share of a less share of b.
    """
    a, b = np.asarray(only_a, dtype=np.float64), np.asarray(only_b, dtype=np.float64)
    # the most likely chance that b alone is right: the larger root of a quadratic
    half = -(a + b) + (2 * n - a + b) * difference
    root = np.sqrt(np.maximum(0.0, half**2 + 8 * n * b * difference * (1 - difference)))
    variance = n * ((root - half) / (2 * n) + difference * (1 - difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        z: NDArray[np.float64] = (a - b - n * difference) / np.sqrt(variance)
    return z
