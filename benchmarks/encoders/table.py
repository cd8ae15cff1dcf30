"""Print the tables of README.md from the records: python benchmarks/encoders/table.py."""

import json
from itertools import groupby
from math import sqrt
from pathlib import Path
from typing import Any

from mrl_search.measure.environment import check_clean

HERE = Path(__file__).parent
SHOWN = (8, 16, 32, 64, 128, 256, 1024)
FEW_SHOWN = (8, 32, 128, 1024)
Z = 1.96


def interval(share: float, n: int) -> str:
    """A share with Wilson's 95% interval."""
    centre = (share + Z * Z / 2 / n) / (1 + Z * Z / n)
    half = Z * sqrt(share * (1 - share) / n + Z * Z / 4 / n / n) / (1 + Z * Z / n)
    return f"{share:.1%} [{centre - half:.1%}, {centre + half:.1%}]"


def read(name: str) -> list[dict[str, Any]]:
    """The records of a file."""
    records = [json.loads(line) for line in (HERE / name).read_text().splitlines()]
    for record in records:
        check_clean(record["commit"], name)
    return records


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [titles, tuple("---" if i < 2 else "---:" for i in range(len(titles))), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    axes = read("axes.jsonl")
    for (data, n), group in groupby(axes, lambda r: (r["data"].rpartition("/")[2], r["n"])):
        some = list(group)
        dims = [d for d in SHOWN if any(r["dims"] == d for r in some)]
        for key, title in (
            ("nn20", "20-NN"), ("standard", "changed copies found"), ("hard", "hard copies found"),
        ):  # fmt: skip
            rows = []
            for (model, choice, train), own in groupby(
                some, lambda r: (r["model"], r["axes"], r["train"])
            ):
                by_dims = {r["dims"]: r[key] for r in own}
                full = by_dims[max(by_dims)]
                cells = (f"{by_dims[d]:.1%}" if d in by_dims else "" for d in dims)
                rows.append((f"{model}, {train:,}", choice, *cells, interval(full, n)))
            titles = ("model, pictures", "axes", *map(str, dims), "all dims")
            print(f"**{title}**, {data}, n = {n:,}\n\n{table(titles, rows)}")
    rows = [
        (
            r["model"], r["axes"], str(r["dims"]), interval(r["found"], 12 * r["queries"]),
            interval(r["same_class"], r["pictures"]),
        )
        for r in read("changes.jsonl") if r["dims"] in SHOWN
    ]  # fmt: skip
    titles = ("model", "axes", "dims", "changed copies found", "nearest of the same class")
    print(f"**Other things**\n\n{table(titles, rows)}")
    names = {"nn20": "20-NN", "head": "linear head"}
    rows = [
        (
            name, str(r["dims"]), interval(found["finetuned"], r["n"]),
            interval(found["frozen"], r["n"]), f"{found['better']} : {found['worse']}",
            f"{found['p']:.1g}",
        )
        for key, name in names.items() for r in read("finetune.jsonl") for found in [r[key]]
    ]  # fmt: skip
    titles = ("by", "dims", "fine-tuned", "frozen, axes labels", "only one is right", "p")
    print(f"**Fine-tuned on the animals**\n\n{table(titles, rows)}")
    steeper = read("spectrum.jsonl")
    names = {
        "shortlist": ("nearest ten in 200", (8, 16, 64)), "nn20": ("20-NN", (8, 1024)),
        "standard": ("changed copies", (8, 64, 1024)), "hard": ("hard copies", (64, 1024)),
    }  # fmt: skip
    columns = [(key, title, d) for key, (title, some) in names.items() for d in some]
    rows = []
    for power, group in groupby(steeper, lambda r: r["power"]):
        own = {r["dims"]: r for r in group}
        cells = (f"{own[d][key]:.1%}" for key, _, d in columns)
        rows.append(("as it is" if power is None else f"{power:g}", *cells))
    titles = ("power", *(f"{title}, {d}" for _, title, d in columns))
    print(f"**A steeper spectrum**, n = {steeper[0]['n']:,}\n\n{table(titles, rows)}")
    print(f"**Fewer changed views**\n\n{few_views(read('few.jsonl'))}")


def few_views(records: list[dict[str, Any]]) -> str:
    """Changed copies that axes of a small collection find, by the views that they are fitted to."""
    samples: dict[tuple[Any, ...], list[float]] = {}
    for r in records:
        choice = r["data"], r["viewed"], r["kinds"]
        for name in ("standard", "hard"):
            samples.setdefault((*choice, name, r["dims"]), []).append(r[name])
    rows = []
    for data, viewed, kinds in dict.fromkeys(key[:3] for key in samples):
        found = (
            samples[data, viewed, kinds, name, d]
            for name in ("standard", "hard")
            for d in FEW_SHOWN
        )
        what = f"{viewed} x {kinds}" if kinds else "none: pca"
        rows.append((data, what, *(f"{sum(s) / len(s):.1%}" for s in found)))
    heads = (f"{name} {d}" for name in ("standard", "hard") for d in FEW_SHOWN)
    return table(("data", "pictures x views", *heads), rows)


if __name__ == "__main__":
    main()
