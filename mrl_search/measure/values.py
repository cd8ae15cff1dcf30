"""What the records of a run say, as values: shares with their intervals, times, sizes, and which prefix is as good as the whole."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.records import Record, Run, unpack
from mrl_search.metrics import exact_interval, mcnemar_exact, mean_interval, wilson_interval
from mrl_search.search.cascade import TradeOff, trade_off

__all__ = [
    "ALPHA", "Enough", "Share", "Timing", "adaptive_of", "dims_of", "enough", "mean_of", "precision_of", "rate_of", "recall_of", "share_of",
    "single_of", "times_of",
]  # fmt: skip

ALPHA = 0.05  # a difference less probable than this by chance alone counts


@dataclass(frozen=True, slots=True)
class Share:
    """A share between 0 and 1 of `n` queries, or the difference of two, with its 95% interval from `low` to `high`."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Timing:
    """Single queries in milliseconds; each of `n` counts with its median over `rounds`. A percentile that n is too small for is None."""

    p50: float
    p95: float | None
    p99: float | None
    n: int
    rounds: int
    warm_up: int


@dataclass(frozen=True, slots=True)
class Enough:
    """The smallest prefix that is enough by one measure: neither it nor a longer one is significantly worse than the full length.

    `p` is McNemar's, of its difference from the full length; `share` its accuracy, `full` that of the full length. `difference` is
    the first less the second, with the 95% interval of paired differences: how much worse it may be though no test tells. `longest` is
    what counts as the full length, the longest prefix that was measured, and `shorter` the next one below `dims`, if there is one.
    """

    measure: str
    dims: int
    longest: int
    shorter: int | None
    p: float
    share: Share
    full: Share
    difference: Share


def dims_of(run: Run) -> list[int]:
    """The prefixes that were measured, ascending."""
    return sorted(r["dims"] for r in run.of("prefix"))


def share_of(bits: str | None) -> Share | None:
    """Of outcomes right or wrong, with Wilson's interval; None where there are none."""
    if bits is None:
        return None
    right = unpack(bits)
    low, high = wilson_interval(int(right.sum()), len(right))
    return Share(float(right.mean()), low, high, len(right))


def mean_of(mean: float, deviation: float, n: int) -> Share:
    """Of one share for each query, with the normal interval of their mean."""
    return Share(mean, *mean_interval(mean, deviation, n), n)


def precision_of(plan: Record) -> Share | None:
    """Mean average precision of a `plan` record; None without labels."""
    p = plan["precision"]
    return None if p is None else mean_of(p["mean"], p["sd"], p["n"])


def recall_of(found: str, k: int) -> Share:
    """Of the counts of true neighbours that were found among k."""
    each = unpack(found) / k
    return mean_of(float(each.mean()), float(each.std()), len(each))


def single_of(run: Run, dims: int) -> Record | None:
    """The `plan` record of the search at one prefix alone."""
    return next((r for r in run.of("plan", dims=dims) if not r["name"].startswith("tuned")), None)


def times_of(run: Run, name: str) -> Timing | None:
    """The times of single queries of one contestant."""
    rounds = run.of("latency", plan=name)
    if not rounds:
        return None
    each = np.median([r["ms"] for r in rounds], axis=0)
    n = len(each)
    p95, p99 = (
        float(np.percentile(each, p)) if n >= least else None for p, least in ((95, 20), (99, 100))
    )
    return Timing(
        float(np.median(each)), p95, p99, n, len(rounds), max(r["warm_up"] for r in rounds)
    )


def rate_of(run: Run, name: str) -> float | None:
    """Queries a second of one contestant in batches: the median over the rounds."""
    rates = [r["queries"] / r["seconds"] for r in run.of("batch", plan=name)]
    return float(np.median(rates)) if rates else None


def adaptive_of(run: Run) -> list[TradeOff]:
    """What adaptive classification by the votes of neighbours gains and costs; empty without labels, and in benches of before it."""
    records = sorted(run.of("prefix"), key=lambda r: int(r["dims"]))
    if len(records) < 2 or any(r.get("confidence") is None for r in records):
        return []
    confidence = np.stack([unpack(r["confidence"]) for r in records], axis=1) / 255
    return trade_off(
        confidence, np.stack([unpack(r["vote"]) == 1 for r in records], axis=1), dims_of(run)
    )


def enough(run: Run) -> list[Enough]:
    """For each measure that is right or wrong: the smallest prefix from which on none is significantly worse than the full length."""
    votes = {r["dims"]: r["vote"] for r in run.of("prefix")}
    heads = {r["dims"]: r["linear"] for r in run.of("prefix")}
    copies = {r["dims"]: r["right"] for r in run.of("instance")}
    found = []
    for measure, outcomes in (
        (f"{run.about['settings']['neighbours']}-NN", votes),
        ("linear head", heads),
        ("instance recall@1", copies),
    ):
        known = {d: unpack(bits) for d, bits in sorted(outcomes.items()) if bits is not None}
        if len(known) > 1:
            dims, p = _smallest(known)
            shares = share_of(outcomes[dims]), share_of(outcomes[max(known)])
            if shares[0] and shares[1]:
                shorter = max((d for d in known if d < dims), default=None)
                found.append(
                    Enough(
                        measure,
                        dims,
                        max(known),
                        shorter,
                        p,
                        shares[0],
                        shares[1],
                        _difference(known[dims], known[max(known)]),
                    )
                )
    return found


def _difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> Share:
    """Mean of the paired differences of outcomes, from -1 to 1, with the 95% interval that belongs to McNemar's exact test.

    Of the queries on which the two differ, the share that speaks for `a` has an exact interval; it is scaled to all queries.
    """
    for_a, for_b = int((a > b).sum()), int((a < b).sum())
    differing, n = for_a + for_b, len(a)
    low, high = exact_interval(for_a, differing)
    return Share(
        (for_a - for_b) / n, (2 * low - 1) * differing / n, (2 * high - 1) * differing / n, n
    )


def _smallest(outcomes: dict[int, NDArray[np.uint8]]) -> tuple[int, float]:
    """The smallest prefix such that neither it nor a longer one is significantly worse than the longest, and its p."""
    descending: Sequence[int] = sorted(outcomes, reverse=True)
    full = outcomes[descending[0]]
    best, best_p = descending[0], 1.0
    for d in descending[1:]:
        p = mcnemar_exact(outcomes[d], full)
        if p < ALPHA and outcomes[d].sum() < full.sum():
            break
        best, best_p = d, p
    return best, best_p
