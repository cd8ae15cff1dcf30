"""Figures of merit, in numpy alone: what share was right, how sure that is, and whether two systems differ.

Every function takes a whole batch and returns plain numbers. An id of -1 fills up a row and never counts as found.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrl_search.errors import DataError

__all__ = [
    "average_precision", "exact_interval", "found_at_k", "mcnemar_exact", "mean_average_precision", "mean_interval", "recall_at_k", "top1",
    "wilson_interval",
]  # fmt: skip

RISK = 0.05  # that what is measured lies outside of its bounds


def top1(predicted: Sequence[Any] | NDArray[Any], truth: Sequence[Any] | NDArray[Any]) -> float:
    """Share of `predicted` that equals `truth`, both (n,). A prediction of None is wrong.

    Raises:
        DataError: different lengths, or nothing to compare.
    """
    if len(predicted) != len(truth) or len(truth) == 0:
        raise DataError(f"There are {len(predicted)} predictions for {len(truth)} labels.")
    return sum(p is not None and bool(p == t) for p, t in zip(predicted, truth, strict=True)) / len(
        truth
    )


def wilson_interval(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bounds of a share of which `successes` of `n` were seen, at confidence `level` (Wilson's score interval).

    Unlike share ± z x deviation it stays within 0 and 1, and says something at 0 and at n. Of n = 0 nothing is known: (0, 1).

    Raises:
        DataError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n} make no sense.")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5 / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def exact_interval(successes: int, n: int) -> tuple[float, float]:
    """95% bounds of a share of which `successes` of `n` were seen (Clopper and Pearson's): they hold 1/2 where a sign test tells nothing.

    Of n = 0 nothing is known: (0, 1).

    Raises:
        DataError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise DataError(f"{successes} successes of {n} make no sense.")
    counts = np.arange(n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    ways = factorials[n] - factorials - factorials[::-1]  # log of n over k

    def chance(p: float, of: NDArray[np.int64]) -> float:
        return float(np.exp(ways[of] + of * np.log(p) + (n - of) * np.log1p(-p)).sum())

    bounds = []
    for of, falls in ((counts[successes:], False), (counts[: successes + 1], True)):
        low, high = 0.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            if (chance(middle, of) > RISK / 2) == falls:
                low = middle
            else:
                high = middle
        bounds.append((low + high) / 2)
    return (0.0 if successes == 0 else bounds[0]), (1.0 if successes == n else bounds[1])


def recall_at_k(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Mean share of the true neighbours `truth` (n, k) that are among `found` (n, m), in any order.

    Ids within a row are distinct. Rows without a true neighbour (all -1) do not count.

    Raises:
        DataError: not one row of `found` for each of `truth`, or no true neighbour at all.
    """
    hits, known = found_at_k(found, truth), (truth >= 0).sum(axis=1)
    if not known.any():
        raise DataError("There is no true neighbour to find.")
    return float((hits[known > 0] / known[known > 0]).mean())


def found_at_k(found: NDArray[np.integer], truth: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many of the true neighbours `truth` (n, k) of each query are among `found` (n, m), in any order: (n,) int64.

    Ids within a row are distinct; -1 is no neighbour.

    Raises:
        DataError: not one row of `found` for each of `truth`.
    """
    if found.ndim != 2 or truth.ndim != 2 or len(found) != len(truth):
        raise DataError(
            f"Found ids of shape {found.shape} cannot be compared with true ones of shape {truth.shape}."
        )
    row = np.arange(len(truth), dtype=np.int64)[:, None] * (
        max(int(truth.max(initial=-1)), int(found.max(initial=-1))) + 1
    )
    hit: NDArray[np.bool_] = np.isin(truth + row, (found + row)[found >= 0]) & (truth >= 0)
    counts: NDArray[np.int64] = hit.sum(axis=1)
    return counts


def mean_average_precision(relevant: ArrayLike) -> float:
    """mAP@k as in the MRL paper (arXiv 2205.13147, section 4.3); `relevant` is (n, k) bool, best answer first.

    Of each query, the precision at every rank up to k that holds a relevant answer is added up and divided by k, whatever the number
    of relevant items in the corpus; the mean over queries is returned. k relevant answers give 1, none give 0, and one gives more
    the further in front it stands.

    Raises:
        DataError: not two-dimensional, or empty.
    """
    return float(average_precision(relevant).mean())


def average_precision(relevant: ArrayLike) -> NDArray[np.float64]:
    """What `mean_average_precision` takes the mean of: (n,) float64, one number for each query.

    Raises:
        DataError: not two-dimensional, or empty.
    """
    hit = np.asarray(relevant, dtype=bool)
    if hit.ndim != 2 or hit.size == 0:
        raise DataError(
            f"Relevance must be an (n, k) array with something in it, not of shape {hit.shape}."
        )
    precision = hit.cumsum(axis=1) / np.arange(1, hit.shape[1] + 1)
    average: NDArray[np.float64] = (precision * hit).mean(axis=1)
    return average


def mean_interval(mean: float, deviation: float, n: int) -> tuple[float, float]:
    """95% bounds of the mean of `n` shares with this standard deviation: normal approximation, within 0 and 1.

    Raises:
        DataError: n is not positive.
    """
    if n < 1:
        raise DataError("The mean of no numbers has no interval.")
    half = NormalDist().inv_cdf(1 - RISK / 2) * deviation / n**0.5
    return max(0.0, mean - half), min(1.0, mean + half)


def mcnemar_exact(a_correct: ArrayLike, b_correct: ArrayLike) -> float:
    """Two-sided p of "a and b are right equally often", from the same n cases: (n,) bool each (McNemar's exact test).

    Only cases on which one is right and the other wrong speak. With b cases for one system and c for the other, p is twice the
    chance of at most min(b, c) heads in b + c throws of a coin, at most 1.

    Raises:
        DataError: different lengths.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if a.shape != b.shape:
        raise DataError(
            f"Outcomes of shape {a.shape} cannot be paired with outcomes of shape {b.shape}."
        )
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    n = only_a + only_b
    ways = total = 1  # exact integers: the number of ways to throw i heads, and their sum so far
    for i in range(min(only_a, only_b)):
        ways = ways * (n - i) // (i + 1)
        total += ways
    share: float = 2 * total / 2**n
    return min(1.0, share)
