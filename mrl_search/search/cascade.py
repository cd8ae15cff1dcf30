"""Adaptive classification: read a short prefix, stop when its answer is sure enough, else read a longer one.

Matryoshka Representation Learning, arXiv 2205.13147, section 4.2.1. A classifier at each prefix gives every case a confidence; here
is when to stop, learnt on held-out cases, and what that costs in accuracy and saves in dims. Pure numpy: where the confidences come
from, linear heads or votes of neighbours, makes no difference.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError

__all__ = [
    "GIVE",
    "NEVER",
    "Cascade",
    "CascadePoint",
    "TradeOff",
    "learn_cascade",
    "run_cascade",
    "trade_off",
]

NEVER = 2.0  # a threshold that no confidence reaches
GIVE = 0.01  # share of all cases that stopping early may give up
GIVES = (0.005, 0.01, 0.02, 0.05)  # of a trade-off
SURE = 1.645  # standard deviations below which 95% of a normal distribution lies


@dataclass(frozen=True, slots=True)
class Cascade:
    """Stop at the first of `dims` at which the confidence is at least its threshold; the last threshold is 0, every case ends there."""

    dims: tuple[int, ...]
    thresholds: tuple[float, ...]

    def stages(self, confidence: NDArray[np.floating]) -> NDArray[np.int64]:
        """The stage, from 0, at which each case stops: (n, stages) confidences to (n,) int64."""
        sure = np.asarray(confidence) >= np.array(self.thresholds)
        stage: NDArray[np.int64] = sure.argmax(axis=1)
        return stage


@dataclass(frozen=True, slots=True)
class CascadePoint:
    """What a cascade did on n cases: share right, mean number of dims read, and the share of cases that stopped at each stage."""

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
    """The thresholds that read least while, of cases like these, at most a share `give` fewer are right than at full length.

    From the last stage but one to the first, each threshold is lowered from the surest case on, given those behind it, for as long as
    that can be said with a confidence of 95%: the lowest that happens to do well on these cases would do worse on others. The bound is
    that of a difference of paired shares, with SURE² pairs added to those that differ, so that it is as wide as Tango's (1998) where none
    do. (The paper searches a grid of 100 thresholds a stage for the best accuracy on the cases it looks at.)

    Args:
        confidence: (n, stages), 0 to 1, of the classifier at each prefix, on cases that nothing was trained on.
        correct: (n, stages), whether it was right.
        dims: prefix length of each stage, ascending.
        give: share of all cases that may be given up; fewer than SURE² / give cases are too few to stop at any, unless a short prefix is
            right more often.

    Raises:
        DataError: shapes that do not fit, or no case.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    if (
        confidence.ndim != 2
        or confidence.shape != correct.shape
        or confidence.shape[1] != len(dims)
        or not len(confidence)
    ):
        raise DataError(
            f"Confidences of shape {confidence.shape} and outcomes of shape {correct.shape} do not fit {len(dims)} stages."
        )
    full = rest = correct[:, -1].astype(np.int64)
    thresholds = [0.0]
    for stage in range(len(dims) - 2, -1, -1):
        order = np.argsort(-confidence[:, stage], kind="stable")
        sure, right = confidence[order, stage], correct[order, stage].astype(np.int64)
        lost = int((full - rest).sum()) + np.cumsum(rest[order] - right)
        differ = int((full != rest).sum()) + np.cumsum(
            abs(full[order] - right) - abs(full[order] - rest[order])
        )
        within = lost + SURE * np.sqrt(differ + SURE**2) <= give * len(correct)
        last_of_its_value = np.append(sure[:-1] > sure[1:], True)
        allowed = np.flatnonzero(
            last_of_its_value & np.logical_and.accumulate(within | ~last_of_its_value)
        )
        threshold = float(sure[allowed[-1]]) if len(allowed) else NEVER
        rest = np.where(confidence[:, stage] >= threshold, correct[:, stage], rest).astype(np.int64)
        thresholds.insert(0, threshold)
    return Cascade(tuple(dims), tuple(thresholds))


def run_cascade(
    cascade: Cascade, confidence: NDArray[np.floating], correct: NDArray[np.bool_]
) -> CascadePoint:
    """What `cascade` does on cases of which confidence and outcome at every stage are known, (n, stages) each."""
    stage = cascade.stages(confidence)
    right = np.asarray(correct, dtype=bool)[np.arange(len(stage)), stage]
    read = np.array(cascade.dims)[stage]
    stopped = np.bincount(stage, minlength=len(cascade.dims)) / len(stage)
    return CascadePoint(
        len(stage), float(right.mean()), float(read.mean()), tuple(stopped.tolist())
    )


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What a cascade that may `give` up so much does on cases that it was not learnt from, and what each stage alone gets right of them."""

    give: float
    cascade: Cascade
    point: CascadePoint
    fixed: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """As a line of JSON holds it; `fixed` by prefix length."""
        fixed = dict(zip(map(str, self.cascade.dims), self.fixed, strict=True))
        return {"give": self.give, **asdict(self.cascade), **asdict(self.point), "fixed": fixed}


def trade_off(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], dims: Sequence[int]
) -> list[TradeOff]:
    """Accuracy against expected dims, for each of `GIVES`: thresholds learnt on one half of the cases, measured on the other.

    Args:
        confidence: (n, stages), as for `learn_cascade`; n of 2 at least.
        correct: (n, stages).
        dims: prefix length of each stage, ascending.
    """
    order = np.random.default_rng(0).permutation(len(confidence))
    learn, test = order[: len(order) // 2], order[len(order) // 2 :]
    fixed = tuple(correct[test].mean(axis=0).tolist())
    cascades = [
        (give, learn_cascade(confidence[learn], correct[learn], dims, give)) for give in GIVES
    ]
    return [
        TradeOff(give, cascade, run_cascade(cascade, confidence[test], correct[test]), fixed)
        for give, cascade in cascades
    ]
