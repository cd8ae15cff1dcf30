"""The records of a run as values: shares with intervals, times, and the prefix that is enough."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.compare import ALPHA
from mrl_search.measure.records import Record, Run
from mrl_search.measure.schema import unpack
from mrl_search.metrics import Share, exact_interval, mcnemar_exact

__all__ = [
    "Enough", "Timing", "baseline", "dims_of", "enough", "precision_of", "rate_of", "recall_of",
    "share_of", "single_of", "times_of", "trained_of",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Timing:
    """Single queries in milliseconds; each of `n` counts with its median over the rounds.

    A percentile is None where n is too small for it.
    """

    p50: float
    p95: float | None
    p99: float | None
    n: int
    rounds: int
    warm_up: int


@dataclass(frozen=True, slots=True)
class Enough:
    """The smallest prefix from which on no prefix is significantly worse than the longest."""

    measure: str
    dims: int
    longest: int
    shorter: int | None  # the next prefix below `dims`
    p: float  # of McNemar's test of `dims` against `longest`
    share: Share  # right at `dims`
    full: Share  # right at `longest`
    difference: Share  # `share` less `full`, with the interval of paired differences


def dims_of(run: Run) -> list[int]:
    """The measured prefixes, ascending."""
    return [r["dims"] for r in run.by_dims("prefix")]


def share_of(bits: str | None) -> Share | None:
    """Share of packed outcomes that are right; None without outcomes."""
    return None if bits is None else Share.of(unpack(bits))


def trained_of(run: Run) -> NDArray[np.bool_] | None:
    """Which of the labelled queries trained the model, (n,) bool; None where that is not known."""
    record = run.one("trained")
    return None if record is None else unpack(record["labelled"]) == 1


def precision_of(plan: Record) -> Share | None:
    """Mean average precision of a `plan` record; None without labels."""
    p = plan["precision"]
    return None if p is None else Share.mean(p["mean"], p["sd"], p["n"])


def recall_of(found: str, k: int) -> Share:
    """Recall of packed counts of true neighbours among k."""
    return Share.mean_of(unpack(found) / k)


def single_of(run: Run, dims: int) -> Record | None:
    """The `plan` record of the search at one prefix alone."""
    return next((r for r in run.of("plan", dims=dims) if not r["name"].startswith("tuned")), None)


def times_of(run: Run, name: str) -> Timing | None:
    """Times of single queries of one plan."""
    rounds = run.of("latency", plan=name)
    if not rounds:
        return None
    each = np.median([r["ms"] for r in rounds], axis=0)
    n, p50 = len(each), float(np.median(each))
    p95 = float(np.percentile(each, 95)) if n >= 20 else None
    p99 = float(np.percentile(each, 99)) if n >= 100 else None
    return Timing(p50, p95, p99, n, len(rounds), max(r["warm_up"] for r in rounds))


def rate_of(run: Run, name: str) -> float | None:
    """Queries a second of one plan in batches: the median over the rounds."""
    rates = [r["queries"] / r["seconds"] for r in run.of("batch", plan=name)]
    return float(np.median(rates)) if rates else None


def baseline(run: Run) -> tuple[str, float] | None:
    """Name and median milliseconds of the fastest exact search: what speed-ups compare with."""
    timed = [(r["name"], times_of(run, r["name"])) for r in run.of("plan", exact=True)]
    known = [(name, t.p50) for name, t in timed if t]
    return min(known, key=lambda pair: pair[1]) if known else None


def enough(run: Run) -> list[Enough]:
    """The smallest prefix that is enough, by each measure that is right or wrong."""
    prefixes = run.of("prefix")
    measures = {
        run.voters: {r["dims"]: r["vote"] for r in prefixes},
        "linear head": {r["dims"]: r["linear"] for r in prefixes},
        "instance recall@1": {r["dims"]: r["right"] for r in run.of("instance")},
    }
    found = []
    for measure, packed in measures.items():
        right = {d: unpack(bits) for d, bits in sorted(packed.items()) if bits is not None}
        if len(right) < 2:
            continue
        dims, p = _smallest(right)
        *shorter, longest = right
        found.append(Enough(
            measure, dims, longest, max((d for d in shorter if d < dims), default=None), p,
            Share.of(right[dims]), Share.of(right[longest]),
            _difference(right[dims], right[longest]),
        ))  # fmt: skip
    return found


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Share:
    """Mean of paired differences, with the interval that belongs to McNemar's exact test.

    Among the queries on which a and b differ, a's share has an exact interval; it is scaled to all.
    """
    only_a, only_b, n = int((a > b).sum()), int((a < b).sum()), len(a)
    differing = only_a + only_b
    low, high = ((2 * x - 1) * differing / n for x in exact_interval(only_a, differing))
    return Share((only_a - only_b) / n, low, high, n)


def _smallest(right: Mapping[int, NDArray[np.uint8]]) -> tuple[int, float]:
    """The smallest prefix such that it and all longer ones are not significantly worse, and p."""
    longest, *others = sorted(right, reverse=True)
    best, best_p = longest, 1.0
    for d in others:
        p = mcnemar_exact(right[d], right[longest])
        if p < ALPHA and right[d].sum() < right[longest].sum():
            break
        best, best_p = d, p
    return best, best_p
