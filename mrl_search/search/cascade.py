"""Thresholds of adaptive classification: stop at the first prefix whose confidence is high enough.

Matryoshka Representation Learning, arXiv 2205.13147, section 4.2.1. Confidences may come from
linear heads or from votes of neighbours. Thresholds are learnt on held-out cases.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mrl_search.errors import DataError
from mrl_search.metrics import tango_z

__all__ = [
    "GIVE", "NEVER", "Cascade", "CascadePoint", "TradeOff", "fewest_cases", "learn_cascade",
    "run_cascade", "surely_within", "trade_off",
]  # fmt: skip

NEVER = 2.0  # a threshold that no confidence reaches
GIVE = 0.01  # share of all cases that stopping early may lose
GIVES = (0.005, 0.01, 0.02, 0.05)  # shares of a trade-off
LEVEL = 0.05  # chance that more is lost, at most
ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Cascade:
    """Thresholds: stop at the first of `dims` whose confidence reaches its own; the last is 0."""

    dims: tuple[int, ...]
    thresholds: tuple[float, ...]

    def stages(self, confidence: NDArray[np.floating]) -> NDArray[np.int64]:
        """The stage, from 0, at which each case stops: (n, stages) confidences to (n,) int64."""
        sure = np.asarray(confidence) >= np.array(self.thresholds)
        stage: NDArray[np.int64] = sure.argmax(axis=1)
        return stage


@dataclass(frozen=True, slots=True)
class CascadePoint:
    """The effect of a cascade on n cases.

    Attributes:
        n: number of cases.
        accuracy: share that is right.
        expected_dims: mean prefix length at which cases stop.
        stopped: share that stops at each stage.
    """

    n: int
    accuracy: float
    expected_dims: float
    stopped: tuple[float, ...]


def learn_cascade(
    confidence: NDArray[np.floating],
    correct: NDArray[np.bool_],
    dims: Sequence[int],
    give: float = GIVE,
) -> Cascade:
    """The thresholds that read least while losing at most a share `give` of all answers.

    The chance that they lose more on other cases is at most 5%. A path begins at some stage and
    lowers one threshold of all early stages from there on, as long as every step passes a test of
    its loss: fixed-sequence testing, "Learn then Test", arXiv 2110.01052. All paths share the 5%
    (Bonferroni); there are as many as these cases bear out without any loss. The Matryoshka paper
    picks the best of 100 thresholds a stage on the cases it looks at instead.

    Args:
        confidence: (n, stages), 0 to 1, of the classifier at each prefix, on held-out cases.
        correct: (n, stages), whether it was right.
        dims: prefix length of each stage, ascending.
        give: share of all cases that may be lost; with fewer than `fewest_cases` no early stop is
            possible, unless a short prefix is right more often.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    shape = (len(confidence), len(dims))
    if not len(confidence) or confidence.shape != shape or correct.shape != shape:
        shapes = f"{confidence.shape} and {correct.shape}"
        raise DataError(f"Confidences and outcomes have shapes {shapes}, not {shape}.")
    n, early = len(correct), len(dims) - 1
    enough = (k for k in range(early, 1, -1) if surely_within(0, 0, n, give, LEVEL / k))
    paths = min(early, next(enough, 1))
    found = [Cascade(tuple(dims), (NEVER,) * early + (0.0,))]
    for first in np.linspace(0, early - 1, paths).round().astype(int).tolist():
        threshold = _lowest(confidence[:, first:], correct[:, first:], give, LEVEL / paths)
        stops = (NEVER,) * first + (threshold,) * (early - first)
        found.append(Cascade(tuple(dims), (*stops, 0.0)))
    return min(found, key=lambda c: run_cascade(c, confidence, correct).expected_dims)


def fewest_cases(give: float = GIVE) -> int:
    """Cases without any loss that bear out a loss of `give`, over 0 and below 1: 299 for 0.01."""
    return math.ceil(math.log(LEVEL) / math.log1p(-give))


def surely_within(
    lost: ArrayLike, won: ArrayLike, n: int, give: float, level: float = LEVEL
) -> NDArray[np.bool_]:
    """Whether `lost` and `won` of `n` cases show a loss of at most `give`.

    Tango's score test. Its critical value is raised so that its exact level is at most `level`:
    by .05, and at least to where cases without any loss pass at (1 - give)^n <= level.
    """
    critical = NormalDist().inv_cdf(1 - level) + 0.05
    if 0 < give < 1:
        rare = math.log(level) / math.log1p(-give) * give / (1 - give)
        critical = max(critical, math.sqrt(rare))
    return tango_z(lost, won, n, give) <= ROUNDING - critical


def _lowest(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], give: float, level: float
) -> float:
    """The lowest threshold for all stages but the last so that all higher ones pass, too."""
    n = len(correct)
    early, full = confidence[:, :-1], correct[:, -1:]
    before = np.maximum.accumulate(np.column_stack([np.full(n, -1.0), early[:, :-1]]), axis=1)
    stops = early > before  # at thresholds over `before` and up to `early`
    at = np.concatenate([early[stops], before[stops]])
    order = np.argsort(-at, kind="stable")

    def count(outcome: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Cases with an outcome, by the rank of a threshold: each begins and ends somewhere."""
        begins = outcome[stops].astype(np.int64)
        return np.cumsum(np.concatenate([begins, -begins])[order])

    at = at[order]
    lost, won = count(full & ~correct[:, :-1]), count(~full & correct[:, :-1])
    passed = surely_within(lost, won, n, give, level)
    last = np.append(at[:-1] > at[1:], True) & (at >= 0)  # of the cases with its confidence
    allowed = np.flatnonzero(last & np.logical_and.accumulate(passed | ~last))
    return float(at[allowed[-1]]) if len(allowed) else NEVER


def run_cascade(
    cascade: Cascade, confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> CascadePoint:
    """The effect of `cascade` on cases with known confidence and outcome, (n, stages) each."""
    stage = cascade.stages(confidence)
    right = np.asarray(correct, dtype=bool)[np.arange(len(stage)), stage]
    read = np.array(cascade.dims)[stage]
    stopped = np.bincount(stage, minlength=len(cascade.dims)) / len(stage)
    means = float(right.mean()), float(read.mean())
    return CascadePoint(len(stage), *means, tuple(stopped.tolist()))


@dataclass(frozen=True, slots=True)
class TradeOff:
    """A cascade on cases it was not learnt from; `fixed` is the accuracy of each stage alone."""

    give: float
    cascade: Cascade
    point: CascadePoint
    fixed: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """As a JSON object; `fixed` is by prefix length."""
        fixed = dict(zip(map(str, self.cascade.dims), self.fixed, strict=True))
        promise = {"give": self.give, "level": LEVEL}  # those of version 0.2 have no level
        return {**promise, **asdict(self.cascade), **asdict(self.point), "fixed": fixed}


def trade_off(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], dims: Sequence[int]
) -> list[TradeOff]:
    """Accuracy against expected dims for each of `GIVES`: half of the cases learn, half measure.

    Confidences, outcomes and dims are as for `learn_cascade`. Empty with fewer than two cases or
    stages.
    """
    if len(confidence) < 2 or len(dims) < 2:
        return []
    order = np.random.default_rng(0).permutation(len(confidence))
    learn, test = order[: len(order) // 2], order[len(order) // 2 :]
    fixed = tuple(correct[test].mean(axis=0).tolist())

    def measured(give: float) -> TradeOff:
        cascade = learn_cascade(confidence[learn], correct[learn], dims, give)
        point = run_cascade(cascade, confidence[test], correct[test])
        return TradeOff(give, cascade, point, fixed)

    return [measured(give) for give in GIVES]
