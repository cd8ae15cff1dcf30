"""Put tables of the records into README.md: goals, kinds, and the last contest of each corpus.

Contests of version 0.2 and earlier, which have no `run`, are in the records alone.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from contest_tables import TUNED, contest_page
from goals import MIDDLE, goals_table

from mrl_search.measure.environment import check_clean
from mrl_search.report.page import Table, markdown_table

HERE = Path(__file__).parent
BEGIN, END = "<!-- from table.py -->", "<!-- until here -->"
Record = dict[str, Any]


def contests(records: Iterable[Record]) -> list[list[Record]]:
    """The records of the last contest of each corpus, by kind and size of the corpus."""
    found: dict[tuple[str, int], list[Record]] = {}
    for r in records:
        if r["kind"] == "contest" and "run" in r:
            runs = found.setdefault((r["vectors"], r["n"]), [])
            if runs and runs[0]["run"] != r["run"]:
                runs.clear()
            runs.append(r)
    return [found[key] for key in sorted(found)]


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


def growth_table(found: list[list[Record]]) -> str:
    columns = ("vectors", "n", "plan", "recall@10", "p50 ms", "B/vector")
    rows = tuple(
        (
            r["vectors"], f"{r['n']:,}", r["setting"]["plan"], f"{r['recall']:.3f}",
            f"{r['p50_ms']:.3f}", f"{r['coarse_bytes'] / r['n']:.0f}",
        )
        for contest in found
        for r in contest
        if r["contestant"] == TUNED and r.get("target") == MIDDLE and "p50_ms" in r
    )  # fmt: skip
    title = "### Growth: plans tuned for .99"
    return f"{title}\n\n{markdown_table(Table('', columns, rows))}"


def tables() -> str:
    records, kinds = read("records.jsonl"), read("kinds.jsonl")
    found = contests(records)
    for contest in found:
        check_clean(contest[0]["environment"]["commit"], "records.jsonl")
    pages = map(contest_page, found)
    first = [goals_table(found), *[kinds_table(kinds)] * bool(kinds), growth_table(found)]
    return "\n\n".join([*first, *pages])


def read(name: str) -> list[Record]:
    return [json.loads(line) for line in (HERE / name).read_text().splitlines()]


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}")
