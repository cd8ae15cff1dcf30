"""Stop every command at every write point in every way, and try 10,000 damaged inputs of each kind.

    python benchmarks/torture/run.py [--count N]     about 40 minutes on two cores
    python benchmarks/torture/run.py --table         only write the table again

The machines are in `tests/torture/`; `.ci/run` runs them in a shorter form. Results go to
`records.jsonl` beside this file, and the table into `README.md`.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests"))

from torture.machines import results  # noqa: E402

from mrl_search.measure.environment import environment  # noqa: E402

BEGIN, END = "<!-- from run.py -->\n", "<!-- until here -->"
BAD = ("signals", "tracebacks", "hangs", "memory")


def measure(count: int) -> None:
    """Run everything, and write a record for each command and each kind of input."""
    runs = (("crashes", "--full"), ("fuzzers", "--count", count))
    with ThreadPoolExecutor() as pool:
        crashes, inputs = pool.map(lambda run: list(results(*run)), runs)
    found = [*crashes, *inputs]
    about = {"environment": environment()}
    text = "".join(json.dumps({**record, **about}) + "\n" for record in found)
    (HERE / "records.jsonl").write_text(text)


def table(records: list[dict[str, Any]]) -> str:
    """The table of tried and bad."""
    heads = "tried | refused | signals | tracebacks | over 10 s | over 1 GB"
    lines = [f"| inputs | {heads} |"]
    lines.append("| --- |" + " ---: |" * 6)
    for r in records:
        if r["kind"] == "inputs":
            bad = " | ".join(str(len(r[name])) for name in BAD)
            lines.append(f"| {r['what']} | {r['tried']:,} | {r['refused']:,} | {bad} |")
    lines += ["", "| command | write points | kills | failed writes | lost |"]
    lines.append("| --- |" + " ---: |" * 4)
    crashes = [r for r in records if r["kind"] == "crashes"]
    for r in crashes:
        counts = " | ".join(f"{r[name]:,}" for name in ("points", "kills", "failures"))
        lines.append(f"| {r['what']} | {counts} | {len(r['lost'])} |")
    sums = [sum(r[name] for r in crashes) for name in ("points", "kills", "failures")]
    counts, lost = " | ".join(f"{n:,}" for n in sums), sum(len(r["lost"]) for r in crashes)
    lines.append(f"| all | {counts} | {lost} |")
    e = records[0]["environment"]
    hours = sum(r["seconds"] for r in records) / 60
    lines += ["", f"{hours:.0f} minutes on {e['cpu']}, {e['os']}; commit {e['commit']}."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=10_000, help="inputs of each kind")
    parser.add_argument("--table", action="store_true", help="only write the table again")
    options = parser.parse_args()
    if not options.table:
        measure(options.count)
    lines = (HERE / "records.jsonl").read_text().splitlines()
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    readme.write_text(
        before + BEGIN + "\n" + table(list(map(json.loads, lines))) + "\n" + END + after
    )


if __name__ == "__main__":
    main()
