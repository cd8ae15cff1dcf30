"""The goals of the engine beside what the last contest of each corpus measured."""

from collections.abc import Iterator
from typing import Any

from contest_tables import TUNED, at, exact_ones, peers_at

from mrl_search.report.page import Table, markdown_table

__all__ = ["MIDDLE", "goals_table"]

MIDDLE = 0.99
PEER = {"easy": (1.3, 2.0), "hard": (1.0, 1.5), "spread": (1.0, 1.5), "photographs": (1.5, 2.0)}
"""Times faster than the fastest peer at the same recall: must, and aim."""
BATCH, FLAT, EXACT = (1.5, 2.5), (1200.0, 1800.0), (1.0, 1.5)
BYTES, RSS, TUNE = (90.0, 60.0), (1000.0, 500.0), (60.0, 60.0)  # RSS in MB, TUNE in seconds
LARGE, SWEPT, BATCHES = 1_000_000, "mrl-search swept", "batch_per_s_1_thread"
Record = dict[str, Any]
Row = tuple[str, str, str, str, str, str]


def own_at(contest: list[Record], target: float, name: str = TUNED) -> Record | None:
    return next((r for r in at(contest, target) if r["contestant"] == name), None)


def judged(
    what: str, form: str, goal: tuple[float, float], value: float, swept: float | None = None,
    more: bool = True,
) -> Row:  # fmt: skip
    """A row: `goal` is must and aim; `more` says whether a larger value is better."""
    must, aim = goal
    sign = 1 if more else -1
    met = "aim" if sign * (value - aim) >= 0 else "must" if sign * (value - must) >= 0 else "no"
    numbers = (form.format(x) for x in (must, aim, value))
    return what, *numbers, "" if swept is None else form.format(swept), met


def rows_of(contest: list[Record]) -> Iterator[Row]:
    """The goals that are about this corpus."""
    first = contest[0]
    name, times = f"{first['vectors']}, {first['n']:,}", "{:.2f}x"
    for target in sorted({r["target"] for r in contest if r.get("target") is not None}):
        own, peers = own_at(contest, target), peers_at(contest, target)
        if own and peers and first["vectors"] in PEER:
            best = min(peers, key=lambda r: r["p50_ms"])
            what = f"{name}: single query at {target} against {best['contestant']}"
            swept = own_at(contest, target, SWEPT)
            ratios = (best["p50_ms"] / r["p50_ms"] if r else None for r in (own, swept))
            yield judged(what, times, PEER[first["vectors"]], *ratios)
    own, peers = own_at(contest, MIDDLE), peers_at(contest, MIDDLE)
    if own and peers:
        best = max(peers, key=lambda r: r[BATCHES])
        swept = own_at(contest, MIDDLE, SWEPT)
        ratios = (r[BATCHES] / best[BATCHES] if r else None for r in (own, swept))
        yield judged(f"{name}: batch of 256 against {best['contestant']}", times, BATCH, *ratios)
    exact = {r["contestant"]: r for r in exact_ones(contest)}
    mine = exact.pop("mrl-search exact", None)
    if mine and exact:
        best = min(exact.values(), key=lambda r: r["p50_ms"])
        what = f"{name}: exact against {best['contestant']}"
        yield judged(what, times, EXACT, best["p50_ms"] / mine["p50_ms"])
    if own and first["n"] == LARGE and first["vectors"] == "easy":
        if "IndexFlatIP" in exact:
            ratio = exact["IndexFlatIP"]["p50_ms"] / own["p50_ms"]
            yield judged(f"{name}: at {MIDDLE} against IndexFlatIP", "{:,.0f}x", FLAT, ratio)
        size = own["coarse_bytes"] / own["n"]
        yield judged(f"{name}: coarse bytes a vector", "{:.0f}", BYTES, size, more=False)
        what = f"{name}: RSS after 1,000 queries, MB"
        yield judged(what, "{:,.0f}", RSS, own["rss_bytes"] / 1e6, more=False)
        seconds = max(r["tune_s"] for r in contest if "tune_s" in r)
        what = f"{name}: seconds to tune, the longest"
        yield judged(what, "{:.0f}", TUNE, seconds, more=False)


def goals_table(contests: list[list[Record]]) -> str:
    """Every goal that a contest is about, must and aim, and what was measured."""
    columns = ("corpus and goal", "must", "aim", "tuned", "swept", "tuned meets")
    rows = tuple(row for contest in contests for row in rows_of(contest))
    return f"### Goals\n\n{markdown_table(Table('', columns, rows))}"
