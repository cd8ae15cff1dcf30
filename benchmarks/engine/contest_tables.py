"""A contest as tables: the headline, times at each target, then memory, build and first touch."""

from typing import Any

from mrl_search.report.page import Table, markdown_table

__all__ = ["TUNED", "at", "contest_page", "exact_ones", "headline", "peers_at"]

OURS = "mrl-search"
TUNED = f"{OURS} tuned"
PARTS = ("coarse_bytes", "rows_bytes", "mapped_bytes")
Record = dict[str, Any]


def exact_ones(contest: list[Record]) -> list[Record]:
    return [r for r in contest if "p50_ms" in r and r["target"] is None]


def at(contest: list[Record], target: float) -> list[Record]:
    """Who was timed at a target, fastest first."""
    timed = [r for r in contest if "p50_ms" in r and r["target"] == target]
    return sorted(timed, key=lambda r: r["p50_ms"])


def reaches(record: Record) -> bool:
    """Whether the recall of fresh queries is not below the target by more than chance."""
    return record["target"] is None or record["recall_high"] >= record["target"]


def peers_at(contest: list[Record], target: float) -> list[Record]:
    """Others that reach a target, exact ones too."""
    able = [r for r in [*at(contest, target), *exact_ones(contest)] if reaches(r)]
    return [r for r in able if not r["contestant"].startswith(OURS)]


def headline(contest: list[Record], target: float) -> str:
    """mrl-search against the fastest exact search of the run and the fastest peer that reaches."""
    own = next((r for r in at(contest, target) if r["contestant"] == TUNED), None)
    if own is None:
        return f"At {target}: mrl-search has no plan."
    exact = sorted(exact_ones(contest), key=lambda r: r["p50_ms"])
    peers = peers_at(contest, target)
    said = [f"At {target}: {own['p50_ms']:.3f} ms (p99 {own['p99_ms']:.3f}), recall {recall(own)}"]
    if not reaches(own):
        said.append("**which misses the target**")
    if exact:
        said.append(ratio("the fastest exact search", own, exact[0], "p50_ms"))
    if peers:
        best = min(peers, key=lambda r: r["p50_ms"])
        said.append(ratio("the fastest peer", own, best, "p50_ms"))
        batch = max(peers, key=lambda r: r["batch_per_s_1_thread"])
        times = own["batch_per_s_1_thread"] / batch["batch_per_s_1_thread"]
        said.append(f"in batches {times:.2f}x the fastest peer ({batch['contestant']})")
    return "; ".join(said) + "."


def ratio(what: str, own: Record, other: Record, key: str) -> str:
    times = other[key] / own[key]
    return f"{times:.2f}x as fast as {what} ({other['contestant']}, {other[key]:.3f} ms)"


def recall(record: Record) -> str:
    low, high = record["recall_low"], record["recall_high"]
    return f"{record['recall']:.4f} ({low:.4f} to {high:.4f})"


def setting(record: Record) -> str:
    words = record["setting"]
    return words["plan"] if "plan" in words else ", ".join(f"{k} {v}" for k, v in words.items())


def times_table(contest: list[Record], target: float) -> Table:
    columns = ("contestant", "setting", "recall@10 (95%)", "p50 ms", "p99 ms", "batch/s, 1 thread")
    many = contest[0]["cores"] > 1
    most = max(r["timings"] for r in contest if "timings" in r)
    exact = sorted(exact_ones(contest), key=lambda r: r["p50_ms"])
    rows = tuple(
        (
            r["contestant"] + f" ({r['timings']} queries)" * (r["timings"] < most),
            setting(r) or "exact", recall(r) + " misses" * (not reaches(r)),
            f"{r['p50_ms']:.3f}", f"{r['p99_ms']:.3f}", f"{r['batch_per_s_1_thread']:,.0f}",
            *[f"{r['batch_per_s_all_threads']:,.0f}"] * many,
        )
        for r in [*at(contest, target), *exact]
    )  # fmt: skip
    return Table("", (*columns, *["all threads"] * many), rows)


def cost_table(contest: list[Record]) -> Table:
    """A row a contestant, as measured with its setting for .99."""
    columns = (
        "contestant", "build", "build s", "coarse B/vector", "rows in memory", "rows mapped",
        "RSS MB", "open s, cold", "first query ms", "first touch p50 ms", "p99 ms",
    )  # fmt: skip
    once = {r["contestant"]: r for r in contest if "p50_ms" in r}
    rows = tuple(
        (
            name, r["effort"], "" if name.startswith(OURS) else f"{r['build_s']:.0f}",
            *(f"{r[part] / r['n']:,.0f}" for part in PARTS),
            f"{r['rss_bytes'] / 1e6:,.0f}", f"{r['open_cold_s']:.2f}",
            f"{r['first_query_ms']:.1f}", f"{r['cold_p50_ms']:.3f}", f"{r['cold_p99_ms']:.3f}",
        )
        for name, r in once.items()
    )  # fmt: skip
    return Table("", columns, rows)


def contest_page(contest: list[Record]) -> str:
    """Everything that one contest found, as Markdown."""
    first = contest[0]
    targets = sorted({r["target"] for r in contest if r.get("target") is not None})
    parts = [f"### {first['n']:,} vectors, {first['vectors']}"]
    parts.append("\n".join(f"- {headline(contest, t)}" for t in targets))
    for target in targets:
        parts += [f"At {target}:", markdown_table(times_table(contest, target))]
        missed = [r for r in contest if r.get("target") == target and "p50_ms" not in r]
        if missed:
            told = "; ".join(f"{r['contestant']} ({r['reason']})" for r in missed)
            parts.append(f"Did not reach it on the tuning queries: {told}.")
    parts.append(markdown_table(cost_table(contest)))
    absent = [f"{r['contestant']} ({r['absent']})" for r in contest if "absent" in r]
    if absent:
        parts.append(f"Absent: {'; '.join(absent)}.")
    timed, e = next(r for r in contest if "p50_ms" in r), first["environment"]
    libraries = {k: v for r in contest for k, v in r.get("versions", {}).items()}
    parts.append(
        f"{e['cpu']} ({', '.join(first['simd'])}), {e['cores']} cores; single queries on one "
        f"thread, {timed['timings']:,} timings in {first['rounds']} rounds; "
        f"{', '.join(f'{k} {v}' for k, v in libraries.items())}; commit {e['commit']}."
    )
    return "\n\n".join(parts)
