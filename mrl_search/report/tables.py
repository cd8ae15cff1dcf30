"""The tables of a report, from the records of a run, and how numbers are written in them."""

from collections.abc import Iterable, Sequence
from statistics import median

from mrl_search.measure.records import Record, Run
from mrl_search.measure.schema import unpack
from mrl_search.metrics import Share, wilson_interval
from mrl_search.report.page import Table
from mrl_search.report.values import (
    baseline,
    dims_of,
    precision_of,
    rate_of,
    recall_of,
    share_of,
    single_of,
    times_of,
    trained_of,
)  # fmt: skip

__all__ = [
    "NOTHING", "accuracy_table", "bytes_of", "cascade_table", "control_table", "cost_table",
    "digits", "embedding_ms", "milliseconds", "mislabel_table", "plan_table", "run_tables", "share",
    "speed_up", "table_of", "time_notes", "times", "trained_table", "training_of",
]  # fmt: skip

NOTHING = "–"
LISTED = 20  # likely mislabels in a terminal
Column = tuple[str, list[str]]


def run_tables(run: Run) -> list[Table]:
    """All tables of a run that have rows, in the order of a report."""
    tables = [
        accuracy_table(run), trained_table(run), cascade_table(run), plan_table(run),
        cost_table(run), control_table(run), mislabel_table(run, LISTED),
    ]  # fmt: skip
    return [table for table in tables if table and table.rows]


def accuracy_table(run: Run) -> Table:
    """Each prefix: linear head, neighbours, precision, changed copies, recall of exact hits."""
    k, q = run.k, run.about["queries"]
    prefixes = run.by_dims("prefix")
    plans = [single_of(run, r["dims"]) for r in prefixes]
    copies = [run.one("instance", dims=r["dims"]) for r in prefixes]
    columns = [
        ("dims", [str(r["dims"]) for r in prefixes]),
        ("linear head", [share(share_of(r["linear"])) for r in prefixes]),
        ("1-NN", [share(share_of(p["nearest"]) if p else None) for p in plans]),
        (run.voters, [share(share_of(r["vote"])) for r in prefixes]),
        (f"mAP@{k}", [share(precision_of(p) if p else None) for p in plans]),
        ("instance recall@1", [share(share_of(i["right"]) if i else None) for i in copies]),
        (f"recall@{k} of exact", [share(recall_of(p["found"], k) if p else None) for p in plans]),
    ]
    note = [f"{q['n']:,} queries ({q['source']}); shares in % with 95% intervals."]
    if q["labelled"]:
        note.append(f"Accuracy: n = {q['labelled']:,}.")
    if copied := run.one("instance"):
        instance = Share.of(unpack(copied["right"]))
        note.append(f"Changed copies that should find their original: n = {instance.n:,}.")
    if q["own"]:
        note.append("A query is left out of its own hits.")
    return table_of("Accuracy of each prefix", columns, note)


def training_of(run: Run) -> str:
    """How many of the queries trained the model, in a sentence."""
    n, record = run.about["queries"]["n"], run.one("trained")
    if record is None:
        return "It is not known whether queries trained the model."
    count = record["count"]
    if not count:
        return "None of the queries trained the model."
    return f"{count:,} of the {n:,} queries trained the model: it knows them."


def trained_table(run: Run) -> Table | None:
    """Accuracy on the queries that trained the model, and on the others."""
    trained = trained_of(run)
    if trained is None or trained.all() or not trained.any():
        return None
    prefixes = run.by_dims("prefix")
    plans = [single_of(run, r["dims"]) for r in prefixes]
    measures = {
        "linear head": [r["linear"] for r in prefixes],
        "1-NN": [p["nearest"] if p else None for p in plans],
        run.voters: [r["vote"] for r in prefixes],
    }
    columns = [("dims", [str(r["dims"]) for r in prefixes])]
    for name, outcomes in measures.items():
        for which, rows in (("new", ~trained), ("trained", trained)):
            cells = [share(o and Share.of(unpack(o)[rows])) for o in outcomes]
            columns.append((f"{name}, {which}", cells))
    note = [
        f"new: {(~trained).sum():,} queries that did not train the model; trained:",
        f"{trained.sum():,} that did. Judge the model by the new ones.",
    ]
    return table_of("Accuracy on queries that trained the model, and on others", columns, note)


def cascade_table(run: Run) -> Table | None:
    """Accuracy against dims of adaptive classification, next to each prefix alone."""
    if not (found := run.of("cascade")):
        return None
    fixed, n = {int(d): value for d, value in found[0]["fixed"].items()}, found[0]["n"]
    full = fixed[max(fixed)]
    rows = [(f"{d} dims", value, str(d)) for d, value in fixed.items()]
    rows += [
        (f"adaptive, may lose {100 * r['give']:g}%", r["accuracy"], f"{r['expected_dims']:.1f}")
        for r in found
    ]
    columns = [
        ("classification", [name for name, _, _ in rows]),
        (run.voters, [f"{accuracy:.1%}" for _, accuracy, _ in rows]),
        ("points below all dims", [f"{100 * (full - accuracy):.2f}" for _, accuracy, _ in rows]),
        ("mean dims", [dims for _, _, dims in rows]),
    ]
    low, high = (100 * x for x in wilson_interval(round(full * n), n))
    note = [
        "Longer prefixes are read only while the vote is not sure (arXiv 2205.13147, section",
        "4.2.1). Thresholds are learnt on one half of the queries,",
        "so that the loss stays within its limit with 95% confidence."
        if all("level" in r for r in found)
        else "by the rule of version 0.2, which often lost more than its limit.",
        f"All rows are measured on the other half: n = {n:,},",
        f"so {100 * full:.1f}% has a 95% interval from {low:.1f} to {high:.1f}.",
    ]
    return table_of("Adaptive classification", columns, note)


def plan_table(run: Run) -> Table:
    """Hits of every way to search."""
    k, plans = run.k, run.of("plan")
    columns = [
        ("search", [p["name"] for p in plans]),
        ("plan", [p["plan"] for p in plans]),
        ("1-NN", [share(share_of(p["nearest"])) for p in plans]),
        (f"{k}-NN", [share(share_of(p["vote"])) for p in plans]),
        (f"mAP@{k}", [share(precision_of(p)) for p in plans]),
        (f"recall@{k} of exact", [share(recall_of(p["found"], k)) for p in plans]),
    ]
    note = [
        "A plan is a list of stages DIMS:KEEP; each scores by its prefix and keeps the best.",
        "Recall is measured against exact search at full length.",
    ]
    return table_of("Hits of each plan", columns, note)


def cost_table(run: Run) -> Table:
    """Time and memory of every way to search."""
    n, plans = run.about["corpus"]["n"], run.of("plan")
    t = [times_of(run, p["name"]) for p in plans]
    rates = [rate_of(run, p["name"]) for p in plans]
    adds = [p["multiply_adds"] for p in plans]
    columns = [
        ("search", [p["name"] for p in plans]),
        ("speed-up", [times(speed_up(run, p)) for p in plans]),
        ("p50 ms", [milliseconds(x.p50 if x else None) for x in t]),
        ("p95 ms", [milliseconds(x.p95 if x else None) for x in t]),
        ("p99 ms", [milliseconds(x.p99 if x else None) for x in t]),
        ("queries/s", [digits(rate) if rate else NOTHING for rate in rates]),
        ("MFLOPs", [digits(x / 1e6) if x is not None else NOTHING for x in adds]),
        ("RAM, B/vector", [digits(p["ram"] / n) for p in plans]),
        ("RAM", [bytes_of(p["ram"]) for p in plans]),
    ]
    if ms := embedding_ms(run):
        row = {"search": "embedding a query picture", "p50 ms": milliseconds(ms)}
        columns = [(head, [*cells, row.get(head, NOTHING)]) for head, cells in columns]
    note = [
        *time_notes(run),
        "MFLOPs: multiply-adds, dims x vectors compared (arXiv 2205.13147, section 4.3).",
        "RAM: what the first stage reads. Stored vectors take",
        f"{digits(run.about['corpus']['vectors'] / n)} B/vector on disk.",
    ]
    return table_of("Cost of each plan", columns, note)


def control_table(run: Run) -> Table | None:
    """The prefixes next to PCA and random dims of the same vectors."""
    if not run.of("control"):
        return None
    dims = dims_of(run)
    columns: list[Column] = [("dims", [str(d) for d in dims])]

    def cell(record: Record | None, what: str) -> str:
        if record is None:
            return NOTHING
        return share(share_of(record[what]) if what == "vote" else recall_of(record[what], run.k))

    for what, head in (("vote", run.voters), ("found", f"recall@{run.k}")):
        prefixes = run.by_dims("prefix") if what == "vote" else [single_of(run, d) for d in dims]
        columns.append((f"{head}, prefix", [cell(r, what) for r in prefixes]))
        for name in ("pca", "random"):
            controls = [run.one("control", name=name, dims=d) for d in dims]
            columns.append((f"{head}, {name}", [cell(r, what) for r in controls]))
    note = ["pca: principal axes of the corpus, which PCA must have seen. random: random dims."]
    return table_of("Controls: other ways to shorten these vectors", columns, note)


def mislabel_table(run: Run, limit: int | None = None) -> Table | None:
    """The pictures whose neighbours contradict their label, at most `limit` of them."""
    record = run.one("mislabels")
    if record is None or not record["shown"]:
        return None
    shown = record["shown"][:limit]
    columns = [
        ("picture", [str(item["path"] or item["id"]) for item in shown]),
        ("label", [item["label"] for item in shown]),
        ("neighbours say", [item["says"] for item in shown]),
        ("votes against", [f"{item['against']:.0%}" for item in shown]),
    ]
    labelled = run.about["queries"]["labelled"]
    note = [f"{record['count']:,} of {labelled:,} labels contradict the neighbours at every"]
    more = len(shown) < record["count"]
    note.append(f"prefix; the {len(shown)} clearest are listed." if more else "prefix.")
    return table_of("Likely mislabels", columns, note)


def embedding_ms(run: Run) -> float | None:
    """Median milliseconds to embed one query picture."""
    record = run.one("embedding")
    return median(record["ms"]) if record and record["ms"] else None


def digits(x: float, n: int = 3) -> str:
    """`n` significant digits, never in powers of ten: 0.0123, 1.23, 1,230."""
    rounded = float(f"{x:.{n}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (n - 1) else f"{rounded:.{n}g}"


def share(value: Share | None) -> str:
    """`94.1% [93.8, 94.4]`, with its 95% interval; a dash for None."""
    if value is None:
        return NOTHING
    return f"{value.value:.1%} [{100 * value.low:.1f}, {100 * value.high:.1f}]"


def milliseconds(ms: float | None) -> str:
    """Three digits; a dash for None."""
    return NOTHING if ms is None else digits(ms)


def times(ratio: float | None) -> str:
    """`12×`, `0.5×`; a dash for None."""
    return NOTHING if ratio is None else f"{digits(ratio, 2)}×"


def bytes_of(n: float) -> str:
    """`56.3 MB`, `12.0 kB`."""
    return f"{digits(n / 1e6)} MB" if n >= 1e6 else f"{digits(n / 1e3)} kB"


def speed_up(run: Run, plan: Record) -> float | None:
    """How many times as fast as the fastest exact search a plan is."""
    base, t = baseline(run), times_of(run, plan["name"])
    return base[1] / t.p50 if base and t else None


def time_notes(run: Run) -> list[str]:
    """What speed-ups compare with, and how times were measured; empty where none were."""
    base = baseline(run)
    speed = f"Speed-up: against {base[0]}, the fastest exact search of this run." if base else ""
    s = run.about["settings"]
    timings = [t for p in run.of("plan") if (t := times_of(run, p["name"]))]
    if not timings:
        return []
    fewest, most = min(t.n for t in timings), max(t.n for t in timings)
    n = f"{most}" if fewest == most else f"{fewest} to {most}"
    threads = "one thread" if s["threads"] == 1 else f"{s['threads']} threads"
    rounds, warm_up = max(t.rounds for t in timings), max(t.warm_up for t in timings)
    text = f"Times: {n} single queries on {threads} without embedding, median of {rounds} "
    text += f"round{'s' * (rounds > 1)} after {warm_up} to warm up; "
    text += f"queries/s: batches of {s['batch']}."
    return [speed, text + (" p95 needs 20 queries, p99 100." if fewest < 100 else "")]


def table_of(title: str, columns: Sequence[Column], note: Iterable[str]) -> Table:
    """A table without columns that have no values."""
    known = [c for i, c in enumerate(columns) if i == 0 or any(cell != NOTHING for cell in c[1])]
    heads = tuple(head for head, _ in known)
    rows = tuple(zip(*(cells for _, cells in known), strict=True))
    return Table(title, heads, rows, " ".join(part for part in note if part))
