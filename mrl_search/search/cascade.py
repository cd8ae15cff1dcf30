"""Thresholds of adaptive classification: stop at the first prefix whose confidence is high enough.

Matryoshka Representation Learning, arXiv 2205.13147, section 4.2.1. Confidences may come from
linear heads or from votes of neighbours. Thresholds are learnt on held-out cases.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError

__all__ = [
    "GIVE", "NEVER", "Cascade", "CascadePoint", "TradeOff", "learn_cascade", "run_cascade",
    "trade_off",
]  # fmt: skip

NEVER = 2.0  # a threshold that no confidence reaches
GIVE = 0.01  # share of all cases that stopping early may lose
GIVES = (0.005, 0.01, 0.02, 0.05)  # shares of a trade-off
SURE = 1.645  # standard deviations below which 95% of a normal distribution lies


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

    From the last stage but one to the first, a threshold is lowered, from the most confident case
    on, as long as the loss stays within `give` with 95% confidence. The bound is that of a
    difference of paired shares with SURE² further pairs, as wide as Tango's (1998) where none
    differ. The paper picks the best of 100 thresholds a stage on the cases it looks at instead.

    Args:
        confidence: (n, stages), 0 to 1, of the classifier at each prefix, on held-out cases.
        correct: (n, stages), whether it was right.
        dims: prefix length of each stage, ascending.
        give: share of all cases that may be lost; with fewer than SURE² / give cases no early stop
            is possible, unless a short prefix is right more often.
    """
    confidence, correct = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=bool)
    shape = (len(confidence), len(dims))
    if not len(confidence) or confidence.shape != shape or correct.shape != shape:
        shapes = f"{confidence.shape} and {correct.shape}"
        raise DataError(f"Confidences and outcomes have shapes {shapes}, not {shape}.")
    full = rest = correct[:, -1].astype(np.int64)
    thresholds = [0.0]
    for stage in range(len(dims) - 2, -1, -1):
        order = np.argsort(-confidence[:, stage], kind="stable")
        sure, right = confidence[order, stage], correct[order, stage].astype(np.int64)
        lost = int((full - rest).sum()) + np.cumsum(rest[order] - right)
        changed = abs(full[order] - right) - abs(full[order] - rest[order])
        differ = int((full != rest).sum()) + np.cumsum(changed)
        within = lost + SURE * np.sqrt(differ + SURE**2) <= give * len(correct)
        last = np.append(sure[:-1] > sure[1:], True)  # of the cases with its confidence
        allowed = np.flatnonzero(last & np.logical_and.accumulate(within | ~last))
        threshold = float(sure[allowed[-1]]) if len(allowed) else NEVER
        rest = np.where(confidence[:, stage] >= threshold, correct[:, stage], rest).astype(np.int64)
        thresholds.insert(0, threshold)
    return Cascade(tuple(dims), tuple(thresholds))


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
        return {"give": self.give, **asdict(self.cascade), **asdict(self.point), "fixed": fixed}


def trade_off(
    confidence: NDArray[np.floating], correct: NDArray[np.bool_], dims: Sequence[int]
) -> list[TradeOff]:
    """Accuracy against expected dims for each of `GIVES`: half of the cases learn, half measure.

    Empty with fewer than two cases or stages.

    Args:
        confidence: (n, stages), as for `learn_cascade`.
        correct: (n, stages).
        dims: prefix length of each stage, ascending.
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
