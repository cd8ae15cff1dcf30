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
BYTES, RSS, LARGE = (90.0, 60.0), (1e9, 0.5e9), 1_000_000
Record = dict[str, Any]
Row = tuple[str, str, str, str, str]


def own_at(contest: list[Record], target: float) -> Record | None:
    return next((r for r in at(contest, target) if r["contestant"] == TUNED), None)


def judged(what: str, form: str, must: float, aim: float, value: float, more: bool = True) -> Row:
    """A row: `more` says whether a larger value is better."""
    sign = 1 if more else -1
    met = "aim" if sign * (value - aim) >= 0 else "must" if sign * (value - must) >= 0 else "no"
    return what, form.format(must), form.format(aim), form.format(value), met


def rows_of(contest: list[Record]) -> Iterator[Row]:
    """The goals that are about this corpus."""
    first = contest[0]
    name, times = f"{first['vectors']}, {first['n']:,}", "{:.2f}x"
    for target in sorted({r["target"] for r in contest if r.get("target") is not None}):
        own, peers = own_at(contest, target), peers_at(contest, target)
        if own and peers and first["vectors"] in PEER:
            best = min(peers, key=lambda r: r["p50_ms"])
            what = f"{name}: single query at {target} against {best['contestant']}"
            yield judged(what, times, *PEER[first["vectors"]], best["p50_ms"] / own["p50_ms"])
    own, peers = own_at(contest, MIDDLE), peers_at(contest, MIDDLE)
    if own and peers:
        best = max(peers, key=lambda r: r["batch_per_s_1_thread"])
        ratio = own["batch_per_s_1_thread"] / best["batch_per_s_1_thread"]
        yield judged(f"{name}: batch of 256 against {best['contestant']}", times, *BATCH, ratio)
    exact = {r["contestant"]: r for r in exact_ones(contest)}
    mine = exact.pop("mrl-search exact", None)
    if mine and exact:
        best = min(exact.values(), key=lambda r: r["p50_ms"])
        what = f"{name}: exact against {best['contestant']}"
        yield judged(what, times, *EXACT, best["p50_ms"] / mine["p50_ms"])
    if own and first["n"] == LARGE and first["vectors"] == "easy":
        if "IndexFlatIP" in exact:
            ratio = exact["IndexFlatIP"]["p50_ms"] / own["p50_ms"]
            yield judged(f"{name}: at {MIDDLE} against IndexFlatIP", "{:,.0f}x", *FLAT, ratio)
        size = own["coarse_bytes"] / own["n"]
        yield judged(f"{name}: coarse bytes a vector", "{:.0f}", *BYTES, size, more=False)
        mega = tuple(x / 1e6 for x in (*RSS, own["rss_bytes"]))
        yield judged(f"{name}: RSS after 1,000 queries, MB", "{:,.0f}", *mega, more=False)
        seconds = max(r["tune_s"] for r in contest if "tune_s" in r)
        yield judged(f"{name}: seconds to tune, the longest", "{:.0f}", 60, 60, seconds, more=False)


def goals_table(contests: list[list[Record]]) -> str:
    """Every goal that a contest is about, must and aim, and what was measured."""
    columns = ("corpus and goal", "must", "aim", "measured", "met")
    rows = tuple(row for contest in contests for row in rows_of(contest))
    return f"### Goals\n\n{markdown_table(Table('', columns, rows))}"
