"""The tables of a report, from the records of a run alone."""

from mrl_search.measure.records import BRUTE, EXACT, Record, Run
from mrl_search.measure.values import (
    adaptive_of,
    dims_of,
    precision_of,
    rate_of,
    recall_of,
    share_of,
    single_of,
    times_of,
)
from mrl_search.metrics import wilson_interval
from mrl_search.report.numerals import (
    NOTHING,
    bytes_of,
    count,
    digits,
    milliseconds,
    plural,
    share,
    times,
)
from mrl_search.report.page import Table

__all__ = [
    "accuracy_table", "adaptive_table", "control_table", "cost_table", "full_plan", "headline_table", "mislabel_table", "plan_cost_table",
    "plan_table", "run_tables",
]  # fmt: skip

LISTED = 20  # likely mislabels in a terminal
Column = tuple[str, list[str]]


def run_tables(run: Run) -> list[Table]:
    """All tables of a run that have anything to say, in the order of a report; of likely mislabels the first alone."""
    tables = [
        accuracy_table(run), adaptive_table(run), cost_table(run), plan_table(run), plan_cost_table(run), control_table(run),
        mislabel_table(run, LISTED),
    ]  # fmt: skip
    return [table for table in tables if table and table.rows]


def full_plan(run: Run) -> str:
    """The name of the contestant that searches at full length with one stage: what speed-ups are told against."""
    names = [r["name"] for r in run.of("plan")]
    return (
        EXACT
        if EXACT in names
        else f"{run.about['corpus']['dim']} dims"
        if f"{run.about['corpus']['dim']} dims" in names
        else BRUTE
    )


def accuracy_table(run: Run) -> Table:
    """What each prefix knows: linear head, neighbours, precision, instances, and recall of the full length."""
    k, neighbours = run.about["settings"]["k"], run.about["settings"]["neighbours"]
    rows = [
        (r, single_of(run, r["dims"]), run.one("instance", dims=r["dims"])) for r in _prefixes(run)
    ]
    columns = [
        ("dims", [str(r["dims"]) for r, _, _ in rows]),
        ("linear head", [share(share_of(r["linear"])) for r, _, _ in rows]),
        ("1-NN", [share(share_of(p["nearest"])) if p else NOTHING for _, p, _ in rows]),
        (f"{neighbours}-NN", [share(share_of(r["vote"])) for r, _, _ in rows]),
        (f"mAP@{k}", [share(precision_of(p)) if p else NOTHING for _, p, _ in rows]),
        ("instance recall@1", [share(share_of(i["right"])) if i else NOTHING for _, _, i in rows]),
        (
            f"recall@{k} of exact",
            [share(recall_of(p["found"], k)) if p else NOTHING for _, p, _ in rows],
        ),
    ]
    q = run.about["queries"]
    note = f"{count(q['n'])} queries ({q['source']}), shares in % with their 95% intervals (Wilson's; of means, normal). "
    note += f"Accuracy: n = {count(q['labelled'])}. " if q["labelled"] else ""
    if instance := run.one("instance"):
        copies = share_of(instance["right"])
        note += f"Changed copies that should find their original: n = {count(copies.n if copies else 0)}. "
    if q["own"]:
        note += "No query is among its own answers. "
    return _table("Accuracy of each prefix", columns, note)


def adaptive_table(run: Run) -> Table | None:
    """Accuracy against expected dims of `classify --adaptive`, beside each prefix alone on the same queries."""
    if not (found := adaptive_of(run)):
        return None
    n, dims, fixed = found[0].point.n, found[0].cascade.dims, found[0].fixed
    rows = [(f"{d} dims", accuracy, str(d)) for d, accuracy in zip(dims, fixed, strict=True)]
    rows += [
        (
            f"adaptive, {100 * each.give:g}% may be given up",
            each.point.accuracy,
            f"{each.point.expected_dims:.1f}",
        )
        for each in found
    ]
    columns = [
        ("classification", [name for name, _, _ in rows]),
        (
            f"{run.about['settings']['neighbours']}-NN",
            [f"{accuracy:.1%}" for _, accuracy, _ in rows],
        ),
        (
            "less than all dims, points",
            [f"{100 * (fixed[-1] - accuracy):.2f}" for _, accuracy, _ in rows],
        ),
        ("expected dims", [read for _, _, read in rows]),
    ]
    low, high = wilson_interval(round(fixed[-1] * n), n)
    note = "Longer prefixes are read only while the vote is not sure. Thresholds are learnt on one half of the queries, so that no more is "
    note += f"given up with a confidence of 95%, and measured on the other ({count(n)} queries), as all is here "
    note += f"({100 * fixed[-1]:.1f}% has a 95% interval from {100 * low:.1f} to {100 * high:.1f}; arXiv 2205.13147, section 4.2.1)."
    return _table("Adaptive classification", columns, note)


def cost_table(run: Run) -> Table:
    """What a search at each prefix alone costs in time and space."""
    n, vectors = run.about["corpus"]["n"], run.about["corpus"]["vectors"]
    plans = [(r, p) for r in _prefixes(run) if (p := single_of(run, r["dims"]))]
    columns = [
        ("dims", [str(r["dims"]) for r, _ in plans]),
        *_time_columns(run, [p for _, p in plans]),
        ("RAM, bytes a vector", [digits(p["ram"] / n) for _, p in plans]),
        (
            "disk, bytes a vector",
            [
                digits((p["ram"] + vectors) / n if _has_file(run, r["dims"]) else vectors / n)
                for r, p in plans
            ],
        ),
        ("index", [bytes_of(p["ram"]) for _, p in plans]),
    ]
    note = _protocol(run) + "RAM: the index of the prefix. Disk: that, and the stored vectors. "
    return _table("Cost of each prefix", columns, note)


def plan_table(run: Run) -> Table:
    """All contestants: what they answer."""
    k, plans = run.about["settings"]["k"], run.of("plan")
    columns = [
        ("search", [p["name"] for p in plans]),
        ("plan", [p["plan"] for p in plans]),
        ("1-NN", [share(share_of(p["nearest"])) for p in plans]),
        (f"{k}-NN", [share(share_of(p["vote"])) for p in plans]),
        (f"mAP@{k}", [share(precision_of(p)) for p in plans]),
        (f"recall@{k} of exact", [share(recall_of(p["found"], k)) for p in plans]),
        (
            "dims read",
            [digits(p["dims_read"]) if p["dims_read"] is not None else NOTHING for p in plans],
        ),
    ]
    note = "A plan is a list of stages DIMS:KEEP, each of which scores by its prefix and keeps the best. "
    if any(p["dims_read"] is not None for p in plans):
        note += "An early stop reads longer prefixes only while the answers change; dims read is the mean over queries. "
    return _table(
        "Answers of each plan",
        columns,
        note + "Recall is told against a comparison with every vector at full length.",
    )


def plan_cost_table(run: Run) -> Table:
    """All contestants: what they cost."""
    n, plans = run.about["corpus"]["n"], run.of("plan")
    base = times_of(run, full_plan(run))
    speed = [
        base.p50 / t.p50 if base and t else None for t in (times_of(run, p["name"]) for p in plans)
    ]
    columns = [
        ("search", [p["name"] for p in plans]),
        ("speed-up", [times(s) for s in speed]),
        *_time_columns(run, plans),
        ("RAM, bytes a vector", [digits(p["ram"] / n) for p in plans]),
    ]
    note = (
        f"Speed-up: median time of the plan at full length ({full_plan(run)}) over that of the plan. "
        + _protocol(run)
    )
    note += "MFLOPs: multiply-adds, dims x vectors compared, summed over the stages (arXiv 2205.13147, section 4.3). "
    return _table(
        "Cost of each plan",
        columns,
        note + "RAM: the index of the first stage; later ones read the stored vectors.",
    )


def control_table(run: Run) -> Table | None:
    """The prefixes beside PCA, and beside random choices of dims, of the same vectors."""
    if not run.of("control"):
        return None
    k, neighbours = run.about["settings"]["k"], run.about["settings"]["neighbours"]
    columns: list[Column] = [("dims", [str(d) for d in dims_of(run)])]
    for what in ("vote", "found"):
        head = f"{neighbours}-NN" if what == "vote" else f"recall@{k}"
        prefixes = [(r if what == "vote" else single_of(run, r["dims"])) for r in _prefixes(run)]
        columns.append((f"{head}, prefix", [_cell(r, what, k) for r in prefixes]))
        for name in ("pca", "random"):
            columns.append(
                (
                    f"{head}, {name}",
                    [_cell(run.one("control", name=name, dims=d), what, k) for d in dims_of(run)],
                )
            )
    note = "pca: as many principal axes of the corpus, for which it had to be seen. random: as many of the numbers, drawn by chance. "
    return _table("Controls: other ways to make these vectors short", columns, note)


def mislabel_table(run: Run, most: int | None = None) -> Table | None:
    """The pictures that their neighbours contradict at every prefix; the first `most` of them, if that is given."""
    record = run.one("mislabels")
    if record is None or not record["shown"]:
        return None
    shown = record["shown"][:most]
    columns = [
        ("picture", [str(item["path"] or item["id"]) for item in shown]),
        ("label", [item["label"] for item in shown]),
        ("neighbours say", [item["says"] for item in shown]),
        ("votes against its label", [f"{item['against']:.0%}" for item in shown]),
    ]
    note = f"{count(record['count'])} of {count(run.about['queries']['labelled'])} pictures have a label that the vote of their neighbours "
    note += "contradicts at every prefix" + (
        f"; the {len(shown)} clearest are listed." if len(shown) < record["count"] else "."
    )
    return _table("Likely mislabels", columns, note)


def headline_table(run: Run) -> Table:
    """One small table: each prefix, and the plans of several stages, with accuracy, recall and speed."""
    k, neighbours = run.about["settings"]["k"], run.about["settings"]["neighbours"]
    base = times_of(run, full_plan(run))
    rows = [(f"{r['dims']} dims", single_of(run, r["dims"]), r["vote"]) for r in _prefixes(run)]
    rows += [
        (f"{p['name']}, {p['plan']}", p, None)
        for p in run.of("plan")
        if p["dims"] is None and p["name"] not in (BRUTE, "pruned")
    ]
    cells = []
    for name, plan, vote in rows:
        t = times_of(run, plan["name"]) if plan else None
        nearest, whole = share_of(plan["nearest"] if plan else None), share_of(vote)
        cells.append((
            name, f"{nearest.value:.1%}" if nearest else NOTHING, f"{whole.value:.1%}" if whole else NOTHING,
            f"{recall_of(plan['found'], k).value:.1%}" if plan else NOTHING, milliseconds(t.p50 if t else None),
            times(base.p50 / t.p50 if base and t else None),
        ))  # fmt: skip
    heads = ("search", "1-NN", f"{neighbours}-NN", f"recall@{k} of exact", "p50 ms", "speed-up")
    return _table(
        "", [(head, [row[i] for row in cells]) for i, head in enumerate(heads)], _protocol(run)
    )


def _time_columns(run: Run, plans: list[Record]) -> list[Column]:
    t = [times_of(run, p["name"]) for p in plans]
    return [
        ("p50 ms", [milliseconds(x.p50 if x else None) for x in t]),
        ("p95 ms", [milliseconds(x.p95 if x else None) for x in t]),
        ("p99 ms", [milliseconds(x.p99 if x else None) for x in t]),
        (
            "queries/s",
            [digits(rate) if (rate := rate_of(run, p["name"])) else NOTHING for p in plans],
        ),
        (
            "MFLOPs",
            [
                digits(p["multiply_adds"] / 1e6) if p["multiply_adds"] is not None else NOTHING
                for p in plans
            ],
        ),
    ]


def _protocol(run: Run) -> str:
    """How times were taken, in one sentence; empty where none were."""
    settings = run.about["settings"]
    timings = [t for p in run.of("plan") if (t := times_of(run, p["name"]))]
    if not timings:
        return ""
    fewest, most = min(t.n for t in timings), max(t.n for t in timings)
    n = f"{most}" if fewest == most else f"{fewest} to {most}"
    threads = "one thread" if settings["threads"] == 1 else f"{settings['threads']} threads"
    text = f"Times: {n} single queries on {threads}, without embedding, median of {plural(max(t.rounds for t in timings), 'round')} "
    text += f"after {max(t.warm_up for t in timings)} to warm up; queries/s: batches of {settings['batch']}. "
    return text + ("p95 from 20 queries on, p99 from 100 on. " if fewest < 100 else "")


def _has_file(run: Run, dims: int) -> bool:
    return f"prefix-{dims:04d}.faiss" in run.about["corpus"]["files"]


def _prefixes(run: Run) -> list[Record]:
    return sorted(run.of("prefix"), key=lambda r: int(r["dims"]))


def _cell(record: Record | None, what: str, k: int) -> str:
    if record is None or record[what] is None:
        return NOTHING
    return share(share_of(record["vote"]) if what == "vote" else recall_of(record["found"], k))


def _table(title: str, columns: list[Column], note: str) -> Table:
    """A table without the columns of which nothing is known."""
    known = [c for i, c in enumerate(columns) if i == 0 or any(cell != NOTHING for cell in c[1])]
    return Table(
        title,
        tuple(head for head, _ in known),
        tuple(zip(*(cells for _, cells in known), strict=True)),
        note.strip(),
    )
