"""Fit the microseconds of `mrl_search.capacity` to measurements, and compare it with them.

    python benchmarks/scale/check.py --fit    print the constants, fitted to 10^5 and 10^6 vectors
    python benchmarks/scale/check.py          write the tables into README.md

Constants are fitted to 10^5 and 10^6 vectors alone; the times of other sizes test them. The law
for codes and candidates is fitted to all sizes; without one of them, it is tested by that one.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from mrl_search.capacity import (
    FOUND,
    FULL,
    Demand,
    Found,
    disk_bytes,
    query_us,
    reads_at,
    rss_bytes,
)  # fmt: skip
from mrl_search.engines.spec import Clusters

HERE = Path(__file__).parent
FITTED = (100_000, 1_000_000)
Record = dict[str, Any]


def records() -> list[Record]:
    """All measurements, by size; of several of one plan, that which was disturbed least."""
    lines = (HERE / "capacity.jsonl").read_text().splitlines()
    found = dict[Any, Record]()
    for r in map(json.loads, lines):
        key = (r["dim"] != FULL, r["n"], r["first"], r["target"])
        found[key] = min(found.get(key, r), r, key=lambda r: float(r["p50_ms"]))
    return [found[key] for key in sorted(found)]


def fit(every: list[Record]) -> dict[str, float]:
    """Constants that make the sum of squared relative errors least; none is negative."""
    some = [r for r in every if r["n"] in FITTED]
    us = np.array([1000 * r["p50_ms"] for r in some])
    terms = [
        (1, r["first"] * r["lists"], r["first"] * r["codes"], r["shortlist"] * r["dim"])
        for r in some
    ]  # fmt: skip
    found, _ = nnls(np.array(terms) / us[:, None], np.ones(len(us)))
    names = ("QUERY_US", "LIST_US", "CODE_US", "VALUE_US")
    return dict(zip(names, found.tolist(), strict=True))


def compared(r: Record) -> tuple[float, float, list[float | None]]:
    """Predicted over measured: disk, memory and times.

    Times are by the reads of the plan, by those of the law, and by those of the law of all other
    sizes; None where there is no law.
    """
    dims, n = tuple(sorted({int(d) for d in kinds(r)} | {r["dim"]})), r["n"]
    stored = disk_bytes(dims, n, "float16", r["disk"]["items.parquet"] / n)
    stored["clusters"] = sum(Clusters.of(int(d), n).nbytes for d in kinds(r))  # none at full length
    held = rss_bytes(r["first"], n, r["disk"]["vectors.npy"], 0)
    pair = (r["first"], r["dim"])
    ms = query_us(pair, n, r["codes"], r["shortlist"]) / 1000
    known = [
        f
        for f in FOUND
        if (f.first, f.recall) == (r["first"], r["target"]) and has_enough_queries(r)
    ]
    others = [f for f in known if f.count != n]

    def by_law(sizes: list[Found]) -> float | None:
        if len(sizes) < 2:
            return None
        return query_us(pair, n, *reads_at(sizes, n)) / 1000 / r["p50_ms"]

    return (
        sum(stored.values()) / sum(r["disk"].values()), sum(held.values()) / r["rss"]["all"],
        [ms / r["p50_ms"], by_law(known), by_law(others) if r["dim"] == FULL else None],
    )  # fmt: skip


def has_enough_queries(r: Record) -> bool:
    """Whether the queries can tell the target: with 300, a recall of .999 allows three misses."""
    return (1 - float(r["target"])) * 10 * r.get("queries", 1000) >= 5


def kinds(r: Record) -> list[str]:
    """The prefixes that have an index, by its file."""
    return [name[7:11] for name in r["disk"] if name.startswith("prefix-")]


def table(every: list[Record]) -> str:
    """Measured values, and predicted over measured."""
    heads = ("vectors", "dims", "plan", "recall@10", "disk MB", "ratio", "RSS MB", "ratio",
             "p50 µs", "ratio", "by the law", "of other sizes")  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "| ---: | ---: | --- |" + " ---: |" * (len(heads) - 3)]
    for r in every:
        disk, held, times = compared(r)
        values = (
            f"{r['n']:,}", f"{r['dim']:,}", f"`{r['plan']}`", f"{r['recall']:.3f}",
            f"{sum(r['disk'].values()) / 1e6:,.0f}", f"{disk:.2f}",
            f"{r['rss']['all'] / 1e6:,.0f}", f"{held:.2f}", f"{1000 * r['p50_ms']:,.0f}",
            *("–" if time is None else f"{time:.2f}" for time in times),
        )  # fmt: skip
        lines.append(f"| {' | '.join(values)} |")
    e = every[0]["environment"]
    lines += ["", f"{e['cpu']}, {e['cores']} cores, one thread; commit {e['commit']}."]
    return "\n".join(lines) + "\n"


def needs() -> str:
    """What 10^7, 10^8 and 10^9 vectors need, by `mrl_search.capacity`."""
    heads = (
        "vectors", "first stage", "codes, shortlist", "disk", "memory", "to join", "in memory",
        "from disk", "IOPS at 100 queries/s", "machines", "$/month", "in memory",
        "Milvus: memory", "machines", "$/month",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + " ---: |" * len(heads)]
    for count in (10**7, 10**8, 10**9):
        for first in sorted({f.first for f in FOUND}):
            need = Demand(count, (first, FULL), 0.99, rate=100).need()
            other = need.milvus
            values = (
                f"{count:.0e}".replace("e+0", "e"), f"{first}",
                f"{need.codes:,.0f}, {need.shortlist:,.0f}", gb(sum(need.disk.values())),
                gb(need.searching), gb(need.building), f"{need.memory_us / 1000:.2g} ms",
                f"{need.disk_us / 1000:.3g} ms", f"{need.iops:,.0f}", f"{need.machines}",
                f"{need.dollars:,.0f}", f"{need.dollars_in_memory:,.0f}", gb(other.ram),
                f"{other.machines}", f"{other.dollars:,.0f}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(values)} |")
    return "\n".join(lines) + "\n"


def gb(size: float) -> str:
    """Bytes in GB, to three digits."""
    return f"{size / 1e9:,.3g} GB" if size < 1e12 else f"{size / 1e9:,.0f} GB"


def written(text: str, name: str, new: str) -> str:
    """A text with what is between two marks replaced."""
    begin, end = f"<!-- {name}, from check.py -->\n", f"<!-- until here: {name} -->"
    before, _, rest = text.partition(begin)
    return before + begin + "\n" + new + "\n" + end + rest.partition(end)[2]


if __name__ == "__main__":
    every = records()
    if "--fit" in sys.argv:
        print(json.dumps(fit(every)))
    else:
        readme = HERE / "README.md"
        text = written(readme.read_text(), "measured", table(every))
        readme.write_text(written(text, "needs", needs()))
