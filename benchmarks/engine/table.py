"""Put the tables of records.jsonl into README.md, between its markers: every contest, beside what it must reach, and growth."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BEGIN, END = "<!-- from table.py -->\n", "<!-- until here -->\n"
EXACT = "IndexFlatIP"
MUST = {
    "mrl-search exact": 20,
    "mrl-search tuned 0.99": 400,
    "mrl-search tuned 0.999": 120,
}  # times faster, of a million easy vectors
Record = dict[str, Any]


def contests(records: Iterable[Record]) -> list[list[Record]]:
    """Records of one contest together: same vectors, count and moment; the last contest of each corpus, small corpora first."""
    found: dict[tuple[str, int], list[Record]] = {}
    for r in records:
        if r["kind"] == "contest":
            runs = found.setdefault((r["vectors"], r["n"]), [])
            if runs and runs[0]["open_s"] != r["open_s"]:
                runs.clear()
            runs.append(r)
    return [found[key] for key in sorted(found)]


def must(record: Record) -> str:
    """How many times faster than exact search this contestant must be."""
    factor = MUST.get(record["contestant"]) if record["n"] == 1_000_000 else None
    return "" if factor is None else f"{factor if record['vectors'] == 'easy' else factor // 2}x"


def contest_table(contest: list[Record], corpora: Iterable[Record]) -> list[str]:
    first = contest[0]
    corpus = [
        c
        for c in corpora
        if (c["kind"], c["vectors"], c["n"]) == ("corpus", first["vectors"], first["n"])
    ]
    exact = next((r["p50_ms"] for r in contest if r["contestant"] == EXACT), None)
    lines = [
        f"### {first['n']:,} vectors, {first['vectors']}",
        "",
        "| contestant | plan or setting | recall@10 | p50 ms | p99 ms | times faster | must | B/vector | build s | batch, queries/s "
        "| process MB |",
        "| --- | --- |" + " ---: |" * 9,
    ]
    for r in contest:
        build = r["build_s"]
        if build is None and corpus:
            build = corpus[-1]["build_s"].get(r["note"].partition(":")[0])
        batch = r["batch_per_s_2_threads"]
        cells = [
            r["contestant"], f"`{r['note']}`", f"{r['recall']:.3f}", f"{r['p50_ms']:.3f}", f"{r['p99_ms']:.3f}",
            f"{exact / r['p50_ms']:.1f}x" if exact else "", must(r), f"{r['bytes_per_vector']:.0f}",
            "" if build is None else f"{build:.1f}", f"{batch:,.0f}" if batch else "",
            f"{r['rss_bytes'] / 1e6:,.0f}" if "anonymous_bytes" in r else "",
        ]  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    e = first["environment"]
    versions = ", ".join(f"{name} {e['versions'][name]}" for name in ("faiss-cpu", "numpy"))
    lines += [
        "",
        f"{e['cpu']}, {e['cores']} cores, one thread (batches: 256 queries on two), {first['timed']} queries {first['rounds']} times, "
        f"recall of {first['queries']:,}; opened in {first['open_s']:.3f} s; {versions}; commit {e['commit']}. "
        "Process: what one that answered all of them by this plan had in memory at the most, mapped pages of files among it.",
        "",
    ]
    return lines


def growth_table(found: list[list[Record]]) -> list[str]:
    lines = [
        "### Growth: p50 in ms of the plan tuned for .99",
        "",
        "| vectors | n | plan | recall@10 | p50 ms | B/vector |",
    ]
    lines.append("| --- | ---: | --- | ---: | ---: | ---: |")
    for contest in found:
        for r in contest:
            if r["contestant"] == "mrl-search tuned 0.99":
                cells = [
                    r["vectors"],
                    f"{r['n']:,}",
                    f"`{r['note']}`",
                    f"{r['recall']:.3f}",
                    f"{r['p50_ms']:.3f}",
                    f"{r['bytes_per_vector']:.0f}",
                ]
                lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def tables() -> str:
    records = [json.loads(line) for line in (HERE / "records.jsonl").read_text().splitlines()]
    found = contests(records)
    return "\n".join(
        [line for contest in found for line in contest_table(contest, records)]
        + growth_table(found)
    )


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(before + BEGIN + "\n" + tables() + "\n" + END + rest.partition(END)[2])
