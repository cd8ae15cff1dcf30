"""Plots of a report: accuracy and latency per prefix, latency per plan, recall against latency, as PNG files at two pixels a point."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrl_search.report.canvas import (
    LIGHT,
    MARKERS,
    Theme,
    blank,
    dims_axis,
    save,
    time_axis,
    two_digits,
)

__all__ = [
    "AccuracyPoint", "FrontPoint", "LatencyPoint", "PlanPoint", "PrefixLatency", "accuracy_plot", "front_plot", "latency_plot",
    "plans_plot", "prefix_plot",
]  # fmt: skip

FASTEST = 1e-4  # ms: what a clock without ticks shows as zero still has a place on a log axis


@dataclass(frozen=True, slots=True)
class AccuracyPoint:
    """One measure at one prefix: `value` a share from 0 to 1, between `low` and `high` with 95% confidence."""

    dims: int
    series: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class LatencyPoint:
    """One plan (or prefix) by its `name`: median and a high percentile (None: not known) of a single query, in milliseconds."""

    name: str
    p50_ms: float
    tail_ms: float | None


@dataclass(frozen=True, slots=True)
class PrefixLatency:
    """One prefix: median of a single query, and time per query in a batch, in milliseconds; None where it was not measured."""

    dims: int
    p50_ms: float
    batch_ms: float | None


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One plan by its `name`: how much of the exact answer it finds, and the median of a single query in milliseconds."""

    name: str
    recall: float
    p50_ms: float


def accuracy_plot(rows: Sequence[AccuracyPoint], out: Path, theme: Theme = LIGHT) -> None:
    """Draw a line for each series over the prefixes, with its 95% intervals, and write it to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    names = list(dict.fromkeys(row.series for row in rows))
    figure, axes = blank(out, len(rows), (5.8, 3.6), theme)
    for i, name in enumerate(names):
        points = sorted((row for row in rows if row.series == name), key=lambda row: row.dims)
        apart = 2 ** (
            0.12 * (i - (len(names) - 1) / 2)
        )  # side by side: intervals of equal values stay visible
        errors = (
            [max(0.0, p.value - p.low) for p in points],
            [max(0.0, p.high - p.value) for p in points],
        )
        axes.errorbar(
            [p.dims * apart for p in points], [p.value for p in points], errors,
            label=name, color=theme.series[i % len(theme.series)], marker=MARKERS[i % len(MARKERS)],
            linewidth=1.5, markersize=5.5, elinewidth=1.2, capsize=3, markeredgecolor=theme.paper, markeredgewidth=0.8,
        )  # fmt: skip
    dims_axis(axes, sorted({row.dims for row in rows}))
    low, high = (
        min(min(row.low, row.value) for row in rows),
        max(max(row.high, row.value) for row in rows),
    )
    room = max(0.02, (high - low) * 0.08)
    axes.set_ylim(max(-0.02, low - room), min(1.02, high + room))
    axes.set_ylabel("share right (bars: 95% interval)")
    save(figure, axes, out, theme)


def latency_plot(
    points: Sequence[LatencyPoint], out: Path, theme: Theme = LIGHT, tail: str = "99th percentile"
) -> None:
    """Draw the median of each plan and what is called `tail`, in the order given from the top, and write it to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    figure, axes = blank(out, len(points), (5.8, 1.2 + 0.36 * len(points)), theme)
    median = [(row, max(FASTEST, p.p50_ms)) for row, p in enumerate(points)]
    high = [(row, max(FASTEST, p.tail_ms)) for row, p in enumerate(points) if p.tail_ms is not None]
    axes.hlines(
        [row for row, _ in high],
        [median[row][1] for row, _ in high],
        [ms for _, ms in high],
        color=theme.grid,
        linewidth=4,
        zorder=2,
    )
    for series, size, number, name, side, align, colour in (
        (median, 52, 0, "median", -8, "right", theme.ink),
        (high, 44, 1, tail, 8, "left", theme.soft),
    ):
        marker, order = MARKERS[3 * number], 4 - number
        if series:
            axes.scatter(
                [ms for _, ms in series], [row for row, _ in series], s=size, color=theme.series[number], marker=marker, label=name,
                zorder=order,
            )  # fmt: skip
        for row, ms in series:
            axes.annotate(
                two_digits(ms),
                (ms, row),
                (side, 0),
                textcoords="offset points",
                ha=align,
                va="center_baseline",
                fontsize=8,
                color=colour,
            )
    axes.set_xlim(min(ms for _, ms in median) / 1.8, max(ms for _, ms in median + high) * 1.8)
    time_axis(axes, "x", "milliseconds for one query (log scale)")
    axes.set_yticks(range(len(points)), [p.name for p in points])
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.grid(False, axis="y")
    save(figure, axes, out, theme)


def prefix_plot(points: Sequence[PrefixLatency], out: Path, theme: Theme = LIGHT) -> None:
    """Draw the time of one query over the prefixes, asked alone and in a batch, and write it to the PNG file `out`; raises as above."""
    figure, axes = blank(out, len(points), (5.8, 3.6), theme)
    points = sorted(points, key=lambda p: p.dims)
    for i, (name, series) in enumerate((
        ("one query (median)", [(p.dims, p.p50_ms) for p in points]),
        ("each of a batch", [(p.dims, p.batch_ms) for p in points if p.batch_ms is not None]),
    )):  # fmt: skip
        times = [max(FASTEST, ms or 0.0) for _, ms in series]
        axes.plot(
            [d for d, _ in series], times, label=name, color=theme.series[i], marker=MARKERS[i], linewidth=1.5, markersize=5.5,
            markeredgecolor=theme.paper, markeredgewidth=0.8,
        )  # fmt: skip
        for (d, _), ms in zip(series, times, strict=True):
            axes.annotate(
                two_digits(ms),
                (d, ms),
                (0, 7),
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=8,
                color=theme.ink,
            )
    dims_axis(axes, [p.dims for p in points])
    time_axis(axes, "y", "milliseconds a query (log scale)")
    axes.margins(y=0.14)
    save(figure, axes, out, theme)


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """One plan that was tried: p50 of a single query in milliseconds, and its `value`, a share from 0 to 1; `best` if none beats it."""

    name: str
    ms: float
    value: float
    best: bool
    chosen: bool


def plans_plot(points: Sequence[PlanPoint], out: Path, measure: str, theme: Theme = LIGHT) -> None:
    """Draw every plan by its time and what it is worth, those that none beats as a line, the chosen one by name, to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    figure, axes = blank(out, len(points), (6.2, 3.8), theme)
    beaten = [p for p in points if not p.best]
    axes.scatter(
        [p.ms for p in beaten],
        [p.value for p in beaten],
        s=14,
        color=theme.soft,
        alpha=0.5,
        label="plans tried",
    )
    best = sorted((p for p in points if p.best), key=lambda p: p.ms)
    axes.plot(
        [p.ms for p in best], [p.value for p in best], label="no other beats these", color=theme.series[0], marker="s", markersize=5,
        linewidth=1.5,
    )  # fmt: skip
    for p in points:
        if p.chosen:
            axes.scatter(
                [p.ms],
                [p.value],
                s=70,
                color=theme.series[1],
                marker="D",
                label=f"chosen: {p.name}",
                zorder=5,
            )
    time_axis(axes, "x", "milliseconds for one query, one thread (log scale)")
    axes.set_ylabel(f"{measure} on the queries that chose")
    save(figure, axes, out, theme)


def front_plot(points: Sequence[FrontPoint], out: Path, theme: Theme = LIGHT) -> None:
    """Draw every plan by its recall and its time, those that none beats in both as a front, and write it to the PNG file `out`.

    Points are numbered from the fastest on, and named in a list beside the plot; raises as above.
    """
    figure, axes = blank(out, len(points), (8.6, 4.2), theme)
    points = sorted(points, key=lambda p: (p.p50_ms, -p.recall))
    front = [p for i, p in enumerate(points) if all(p.recall > q.recall for q in points[:i])]
    axes.plot(
        [max(FASTEST, p.p50_ms) for p in front], [p.recall for p in front], color=theme.series[0], linewidth=1.5, zorder=2,
        drawstyle="steps-post",
    )  # fmt: skip
    for some, colour, marker, name in (
        (front, theme.series[0], MARKERS[0], "no other is as fast and as good"),
        ([p for p in points if p not in front], theme.series[1], MARKERS[3], "another is"),
    ):
        axes.scatter(
            [max(FASTEST, p.p50_ms) for p in some],
            [p.recall for p in some],
            s=50,
            color=colour,
            marker=marker,
            label=name,
            zorder=3,
        )
    for number, p in enumerate(points, 1):
        left = p in front and front.index(p) % 2 == 0
        side, across, along = (
            ((-7, 4), "right", "bottom") if left else ((7, -4), "left", "top")
        )  # off the line
        axes.annotate(
            str(number), (max(FASTEST, p.p50_ms), p.recall), side, textcoords="offset points", ha=across, va=along, fontsize=8,
            color=theme.ink,
        )  # fmt: skip
    names = "\n".join(
        f"{number}  {p.name}  ({p.recall:.1%}, {two_digits(p.p50_ms)} ms)"
        for number, p in enumerate(points, 1)
    )
    axes.annotate(
        names,
        (1.03, 1),
        xycoords="axes fraction",
        va="top",
        fontsize=8,
        color=theme.ink,
        linespacing=1.7,
    )
    time_axis(axes, "x", "milliseconds for one query, median (log scale)")
    axes.set_ylabel("recall of the exact answer")
    axes.margins(0.1)
    save(figure, axes, out, theme)
