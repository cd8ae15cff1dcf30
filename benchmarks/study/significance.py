"""Tests whether two classifiers differ, or are equivalent, on folds and on paired outcomes.

McNemar's test is in `metrics`. Only the F distribution needs scipy (the extra `study`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.metrics import tango_z

__all__ = ["Equivalence", "FTest", "combined_f_test", "equivalence_test", "holm"]

WIDE = NormalDist().inv_cdf(0.975)  # deviations within which 95% of a normal distribution lies


@dataclass(frozen=True, slots=True)
class FTest:
    """F statistic with 10 and 5 degrees of freedom, and its p under equal accuracy."""

    f: float
    p: float


def combined_f_test(differences: Sequence[Sequence[float]]) -> FTest:
    """The combined 5x2 cross-validation F test (Alpaydin 1999, Neural Computation 11(8), eq. 5).

    F is the sum of all squared differences over twice the sum of the five variances; a variance is
    the sum of squared distances of the two folds' differences from their mean.

    Args:
        differences: five repetitions of two folds: accuracy of one system less that of the other.

    Raises:
        DataError: not five times two numbers.
        MrlSearchError: scipy is not installed.
    """
    p = np.asarray(differences, dtype=np.float64)
    if p.shape != (5, 2) or not np.isfinite(p).all():
        raise DataError(
            f"The combined F test wants 5 x 2 differences, not an array of shape {p.shape}."
        )
    try:
        from scipy import stats
    except ImportError as error:
        raise MrlSearchError(
            "The F test needs scipy, which is not installed.",
            'Install it with: pip install "mrl-search[study]"',
        ) from error
    squares = float((p**2).sum())
    variance = float(((p - p.mean(axis=1, keepdims=True)) ** 2).sum())
    if squares == 0:
        return FTest(0.0, 1.0)  # the systems never differed
    f = squares / (2 * variance) if variance else inf
    return FTest(f, float(stats.f.sf(f, 10, 5)))


def holm(p: Sequence[float]) -> list[float]:
    """Each p corrected for all of them, by Holm (1979): below 5%, it stands among them all."""
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[i]))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True, slots=True)
class Equivalence:
    """Two paired shares, a and b.

    Attributes:
        difference: a minus b.
        interval: its 95% interval, by Tango's score.
        margin: what counts as different.
        p: the chance of data as close as these if they differ by the margin.
        p_worse: the chance of data as good for a as these if a is worse than b by the margin.
    """

    difference: float
    interval: tuple[float, float]
    margin: float
    p: float
    p_worse: float


def equivalence_test(
    a_correct: ArrayLike, b_correct: ArrayLike, margin: float = 0.01
) -> Equivalence:
    """Two one-sided tests of "a and b differ by `margin` or more", (n,) bool of the same cases.

    Each side is Tango's score test for paired proportions (Statistics in Medicine 17, 891-908,
    1998), which holds its level even where few cases divide the systems. p is the larger of both
    (Schuirmann 1987); below 0.05 a and b are equivalent within the margin. A better system is not
    equivalent; `p_worse` is the p of the side that tests whether it is worse.

    Raises:
        DataError: different lengths, or no case.
        ConfigError: margin not between 0 and 1.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DataError(
            f"Outcomes of shape {a.shape} cannot be paired with outcomes of shape {b.shape}."
        )
    if not 0 < margin < 1:
        raise ConfigError(
            f"The margin of an equivalence test is a share between 0 and 1, not {margin}.",
            "0.01 is one point.",
        )
    only_a, only_b, n = int((a & ~b).sum()), int((b & ~a).sum()), len(a)
    above, below = tango_z(only_a, only_b, n, -margin), tango_z(only_a, only_b, n, margin)
    p_worse = 1 - NormalDist().cdf(above)
    return Equivalence(
        (only_a - only_b) / n,
        _interval(only_a, only_b, n),
        margin,
        max(p_worse, NormalDist().cdf(below)),
        p_worse,
    )


def _interval(only_a: int, only_b: int, n: int) -> tuple[float, float]:
    """The differences that Tango's score does not reject at 5%, found by bisection."""
    ends = []
    for end in (-1.0, 1.0):
        near, far = (only_a - only_b) / n, end
        for _ in range(50 if near != far else 0):
            middle = (near + far) / 2
            outside = abs(tango_z(only_a, only_b, n, middle)) > WIDE
            near, far = (near, middle) if outside else (middle, far)
        ends.append(near)
    return ends[0], ends[1]
