"""Put the tables of the records into README.md: kinds, and the last contest of each corpus.

A contest of an earlier version, with one record a contestant and no targets, keeps its old table
until a new one of the same corpus is recorded.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contest_tables import contest_page

from mrl_search.measure.environment import check_clean
from mrl_search.report.page import Table, markdown_table

HERE = Path(__file__).parent
BEGIN, END = "<!-- from table.py -->", "<!-- until here -->"
EXACT = "IndexFlatIP"
MUST = {
    "mrl-search exact": 20, "mrl-search tuned 0.99": 400, "mrl-search tuned 0.999": 120,
}  # fmt: skip
"""Goals for a million easy vectors: times faster than IndexFlatIP; half for hard ones."""
COLUMNS = (
    "contestant", "plan or setting", "recall@10", "p50 ms", "p99 ms", "times faster", "goal",
    "B/vector", "build s", "batch, queries/s", "process MB",
)  # fmt: skip
Record = dict[str, Any]


def contests(records: Iterable[Record]) -> list[list[Record]]:
    """The records of the last contest of each corpus, by kind and size of the corpus."""
    found: dict[tuple[str, int], list[Record]] = {}
    for r in records:
        if r["kind"] == "contest":
            runs = found.setdefault((r["vectors"], r["n"]), [])
            if runs and run_of(runs[0]) != run_of(r):
                runs.clear()
            runs.append(r)
    return [found[key] for key in sorted(found)]


def run_of(record: Record) -> object:
    return record.get("run") or record["open_s"]


def kinds_table(records: Iterable[Record]) -> str:
    """What each kind of generated vectors is like, at each size."""
    last = {(r["vectors"], r["n"]): r for r in records}
    columns = (
        "kind", "vectors", "energy of the first 8/16/32/64/128 dims", "own topic", "dimension",
        "gap", "clusters", "prefix of 128: 200", "1,000",
    )  # fmt: skip
    rows = tuple(
        (
            name, f"{n:,}", " / ".join(f"{e:.2f}" for e in r["energy"]), f"{r['own_topic']:.2f}",
            f"{r['dimension']:.0f}", f"{r['gap']:.4f}", f"{r['clusters_recall']:.2f}",
            *(f"{r['prefix_recall'][keep]:.3f}" for keep in ("200", "1000")),
        )
        for (name, n), r in sorted(last.items())
    )  # fmt: skip
    return "### The kinds\n\n" + markdown_table(Table("", columns, rows))


def goal(record: Record) -> str:
    factor = MUST.get(record["contestant"]) if record["n"] == 1_000_000 else None
    return "" if factor is None else f"{factor if record['vectors'] == 'easy' else factor // 2}x"


def build_seconds(record: Record, corpora: Iterable[Record]) -> float | None:
    """Seconds to build: measured in the contest, or those of the corpus."""
    same = [c for c in corpora if (c["vectors"], c["n"]) == (record["vectors"], record["n"])]
    if record["build_s"] is not None or not same:
        return record["build_s"]
    seconds = same[-1]["build_s"]  # version 0.1 built one prefix after another
    return seconds.get(record["note"].partition(":")[0]) if isinstance(seconds, dict) else seconds


def earlier_table(contest: list[Record], corpora: list[Record]) -> str:
    first, rows = contest[0], []
    exact = next((r["p50_ms"] for r in contest if r["contestant"] == EXACT), None)
    for r in contest:
        build, batch = build_seconds(r, corpora), r["batch_per_s_2_threads"]
        rows.append((
            r["contestant"], r["note"], f"{r['recall']:.3f}", f"{r['p50_ms']:.3f}",
            f"{r['p99_ms']:.3f}", f"{exact / r['p50_ms']:.1f}x" if exact else "", goal(r),
            f"{r['bytes_per_vector']:.0f}", "" if build is None else f"{build:.1f}",
            f"{batch:,.0f}" if batch else "",
            f"{r['rss_bytes'] / 1e6:,.0f}" if "anonymous_bytes" in r else "",
        ))  # fmt: skip
    e = first["environment"]
    versions = ", ".join(f"{name} {e['versions'][name]}" for name in ("faiss-cpu", "numpy"))
    note = (
        f"{e['cpu']}, {e['cores']} cores, one thread (batches: 256 queries on two), "
        f"{first['timed']} queries {first['rounds']} times, recall of {first['queries']:,}; "
        f"opened in {first['open_s']:.3f} s; {versions}; commit {e['commit']}."
    )
    title = f"### {first['n']:,} vectors, {first['vectors']}"
    return "\n\n".join([title, markdown_table(Table("", COLUMNS, tuple(rows))), note])


def coarse_bytes(record: Record) -> float:
    """Bytes a vector of what the first stage reads."""
    earlier = record.get("bytes_per_vector")
    return record["coarse_bytes"] / record["n"] if earlier is None else earlier


def growth_table(found: list[list[Record]]) -> str:
    columns = ("vectors", "n", "plan", "recall@10", "p50 ms", "B/vector")
    rows = tuple(
        (
            r["vectors"], f"{r['n']:,}", r["note"] if "note" in r else r["setting"]["plan"],
            f"{r['recall']:.3f}", f"{r['p50_ms']:.3f}", f"{coarse_bytes(r):.0f}",
        )
        for contest in found
        for r in contest
        if r["contestant"] == "mrl-search tuned 0.99"
        or (r["contestant"] == "mrl-search tuned" and r.get("target") == 0.99 and "p50_ms" in r)
    )  # fmt: skip
    title = "### Growth: plans tuned for .99"
    return f"{title}\n\n{markdown_table(Table('', columns, rows))}"


def tables() -> str:
    records, kinds = read("records.jsonl"), read("kinds.jsonl")
    found = contests(records)
    for contest in found:
        check_clean(contest[0]["environment"]["commit"], "records.jsonl")
    corpora = [r for r in records if r["kind"] == "corpus"]
    pages = (contest_page(c) if "run" in c[0] else earlier_table(c, corpora) for c in found)
    return "\n\n".join([kinds_table(kinds), *pages, growth_table(found)])


def read(name: str) -> list[Record]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}")
