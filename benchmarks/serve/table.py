"""Put tables of the records into README.md: python benchmarks/serve/table.py.

Of each index and way of asking, the last record counts.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from mrl_search.measure.environment import check_clean
from mrl_search.report.page import Table, markdown_table

HERE = Path(__file__).parent
BEGIN, END = "<!-- from table.py -->", "<!-- until here -->"
LIBRARY, BARE = "library", "bare FAISS"
ASKED = {
    LIBRARY: "the library", "vector": "by vector, as numbers",
    "vector, base64": "by vector, as base64 of float32", "query_id": "by query_id",
    "picture": "by picture", BARE: "bare FAISS (flat), by vector",
}  # fmt: skip
CLIENTS = (8, 64)

Record = dict[str, Any]


def read(name: str) -> list[Record]:
    """The records of a file."""
    records = [json.loads(line) for line in (HERE / name).read_text().splitlines()]
    for record in records:
        check_clean(record["environment"]["commit"], name)
    return records


def last(records: Iterable[Record], *keys: str) -> dict[tuple[Any, ...], Record]:
    """The last record of each value of some keys."""
    return {tuple(record[key] for key in keys): record for record in records}


def shown(ms: float) -> str:
    """Milliseconds with three digits."""
    return f"{ms:,.0f}" if ms >= 100 else f"{ms:#.3g}"


def times(records: Sequence[Record]) -> str:
    """One client: the median of each way of asking, and how much it is over the library."""
    one = [r for r in records if r["part"] == "times" and r["clients"] == 1]
    found = last((r for r in one if r["what"] != LIBRARY or r.get("beside") != [BARE]),
                 "index", "items", "plan", "what")  # fmt: skip
    corpora = sorted({key[:3] for key in found if key[2] != "auto"}, key=lambda key: key[1])

    def cells(corpus: tuple[Any, ...], what: str) -> tuple[str, str]:
        record = found.get((*corpus, what), {})
        over = record.get("over_library_ms")
        return shown(record["p50_ms"]) if record else "–", "–" if over is None else shown(over)

    columns = ["asked by one client"]
    for name, items, plan in corpora:
        columns += [f"{items:,} {name}, {plan}: p50 ms", "over the library"]
    rows = tuple((text, *chain(*(cells(c, what) for c in corpora))) for what, text in ASKED.items())
    return markdown_table(Table("", tuple(columns), rows))


def crowds(records: Sequence[Record]) -> str:
    """Many clients at once."""
    some = (r for r in records if r["part"] == "times" and r["clients"] in CLIENTS)
    found = last(some, "index", "clients", "what")
    columns = ("index", "clients", "asked", "answers a second", "p50 ms", "p99 ms", "refused")
    rows = tuple(
        (
            index, str(clients), ASKED[what], f"{r['per_second']:,.0f}", shown(r["p50_ms"]),
            shown(r["p99_ms"]), str(r["refused"]),
        )
        for (index, clients, what), r in found.items()
    )  # fmt: skip
    return markdown_table(Table("", columns, rows))


def page(records: Sequence[Record]) -> str:
    """Frames of the page in a browser."""
    found = last(records, "index", "webgl", "what")
    columns = (
        "the page", "items", "drawn by", "its own work ms", "frames p50 ms", "p95", "longest",
        "late of", "search p50 ms", "p95",
    )  # fmt: skip
    rows = tuple(
        (
            what, f"{r['items']:,}", "WebGL" if webgl else "canvas",
            f"{r.get('work_ms', r.get('whole_ms')):.1f}", f"{r['frame_p50_ms']:.1f}",
            f"{r['frame_p95_ms']:.1f}", f"{r['frame_max_ms']:,.0f}",
            f"{r['late']} of {r['frame_n']}",
            *(f"{r[k]:.1f}" if k in r else "–" for k in ("search_p50_ms", "search_p95_ms")),
        )
        for (_, webgl, what), r in found.items()
    )  # fmt: skip
    return markdown_table(Table("", columns, rows))


def tables() -> str:
    """All tables."""
    records = read("records.jsonl")
    return "\n\n".join([times(records), crowds(records), page(read("page.jsonl"))])


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{rest.partition(END)[2]}")
