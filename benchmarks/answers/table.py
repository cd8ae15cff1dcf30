"""Put the tables of records.jsonl into README.md, between its markers."""

import json
from pathlib import Path

HERE = Path(__file__).parent
BEGIN, END = "<!-- from table.py -->\n", "<!-- until here -->\n"


def table() -> str:
    records = [json.loads(line) for line in (HERE / "records.jsonl").read_text().splitlines()]
    lines = [
        "| corpus | plan | energy in the first stage | recall@10 | hits proven | queries wholly proven |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for r in (
        r
        for r in records
        if r["what"] == "proofs" and (":200," in r["plan"] or ":1000," in r["plan"])
    ):
        energy = r["energy"][r["plan"].partition(":")[0]]
        shares = " | ".join(
            f"{share:.1%}" for share in (energy, r["recall"], r["hits_proven"], r["queries_proven"])
        )
        lines.append(f"| {r['corpus']} ({r['n']:,}) | `{r['plan']}` | {shares} |")
    lies = sum(r["lies"] for r in records if r["what"] == "proofs")
    queries = sum(r["queries"] for r in records if r["what"] == "proofs")
    lines += [
        "",
        f"{queries:,} certified queries, checked against brute force: {lies} proofs were wrong.",
        "",
    ]
    lines += ["| corpus | ms of one query, p50, one thread, in one run |", "| --- | --- |"]
    for r in (r for r in records if r["what"] == "costs"):
        lines.append(
            f"| {r['corpus']} ({r['n']:,}) | "
            + "; ".join(f"{name} {ms:.2f}" for name, ms in r["p50_ms"].items())
            + " |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    readme.write_text(before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2])
