"""Figures of a report: accuracy per prefix, and latency per plan, as PNG files at two pixels a point of the page.

Colours are those of Okabe and Ito, and every series has a marker of its own: it reads in grey, too. No state is kept in pyplot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mrl_search.errors import ConfigError, MrlSearchError
from mrl_search.storage import write_atomically

__all__ = ["AccuracyPoint", "LatencyPoint", "PlanPoint", "accuracy_plot", "latency_plot", "plans_plot"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, GREY, GRID = "#1c2026", "#626a74", "#e3e6ea"
DPI = 192  # twice the 96 of a page
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
    """One plan (or prefix) by its `name`: median and 99th percentile of a single query, in milliseconds."""

    name: str
    p50_ms: float
    p99_ms: float


def accuracy_plot(rows: Sequence[AccuracyPoint], out: Path) -> None:
    """Draw a line for each series over the prefixes, with its 95% intervals, and write it to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    dims, names = sorted({row.dims for row in rows}), list(dict.fromkeys(row.series for row in rows))
    figure, axes = _axes(out, len(rows), (5.8, 3.6))
    for i, name in enumerate(names):
        points = sorted((row for row in rows if row.series == name), key=lambda row: row.dims)
        apart = 2 ** (0.12 * (i - (len(names) - 1) / 2))  # side by side: intervals of equal values stay visible
        errors = ([max(0.0, p.value - p.low) for p in points], [max(0.0, p.high - p.value) for p in points])
        axes.errorbar(
            [p.dims * apart for p in points], [p.value for p in points], errors,
            label=name, color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)],
            linewidth=1.5, markersize=5.5, elinewidth=1.2, capsize=3, markeredgecolor="white", markeredgewidth=0.8,
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    axes.set_xlim(dims[0] / 1.4, dims[-1] * 1.4)
    axes.xaxis.set_major_locator(FixedLocator(dims))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = min(min(row.low, row.value) for row in rows), max(max(row.high, row.value) for row in rows)
    axes.set_ylim(max(-0.02, low - 0.05), min(1.02, high + 0.05))
    axes.set_xlabel("dims of the prefix (log scale)")
    axes.set_ylabel("share right (bars: 95% interval)")
    _save(figure, axes, out)


def latency_plot(points: Sequence[LatencyPoint], out: Path) -> None:
    """Draw median and 99th percentile of each plan, in the order given from the top, and write it to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    figure, axes = _axes(out, len(points), (5.8, 1.2 + 0.36 * len(points)))
    rows = range(len(points))
    p50, p99 = ([max(FASTEST, ms) for ms in values] for values in ([p.p50_ms for p in points], [p.p99_ms for p in points]))
    axes.hlines(rows, p50, p99, color=GRID, linewidth=4, zorder=2)
    axes.scatter(p50, rows, s=52, color=COLOURS[0], marker=MARKERS[0], label="median", zorder=4)
    axes.scatter(p99, rows, s=44, color=COLOURS[1], marker=MARKERS[3], label="99th percentile", zorder=3)
    for values, side, align, colour in ((p50, -8, "right", INK), (p99, 8, "left", GREY)):
        for row, ms in enumerate(values):
            text = f"{float(f'{ms:.2g}'):g}"  # two digits, and never 1.2e+02
            axes.annotate(text, (ms, row), (side, 0), textcoords="offset points", ha=align, va="center_baseline", fontsize=8, color=colour)
    axes.set_xscale("log")
    axes.set_xlim(min(p50) / 1.8, max(p99) * 1.8)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yticks(rows, [p.name for p in points])
    axes.set_ylim(len(points) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.set_xlabel("milliseconds for one query (log scale)")
    _save(figure, axes, out)


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """One plan that was tried: p50 of a single query in milliseconds, and its `value`, a share from 0 to 1; `best` if none beats it."""

    name: str
    ms: float
    value: float
    best: bool
    chosen: bool


def plans_plot(points: Sequence[PlanPoint], out: Path, measure: str) -> None:
    """Draw every plan by its time and what it is worth, those that none beats as a line, the chosen one by name, to the PNG file `out`.

    Raises:
        ConfigError: no point, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    figure, axes = _axes(out, len(points), (6.2, 3.8))
    beaten = [p for p in points if not p.best]
    axes.scatter([p.ms for p in beaten], [p.value for p in beaten], s=14, color=GREY, alpha=0.5, label="plans tried")
    best = sorted((p for p in points if p.best), key=lambda p: p.ms)
    times, values = [p.ms for p in best], [p.value for p in best]
    axes.plot(times, values, color=COLOURS[0], marker="s", markersize=5, linewidth=1.5, label="no other beats these")
    for p in points:
        if p.chosen:
            axes.scatter([p.ms], [p.value], s=70, color=COLOURS[1], marker="D", label=f"chosen: {p.name}", zorder=5)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("milliseconds for one query, one thread (log scale)")
    axes.set_ylabel(f"{measure} on the queries that chose")
    _save(figure, axes, out)


def _axes(out: Path, count: int, inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty plot on white, with light lines; refuses what cannot be drawn before anything is."""
    if not count:
        raise ConfigError(f"There is nothing to plot in {out}.", "Measure at least one prefix.")
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out} is not a name for a plot.", "End it with .png.")
    figure = Figure(inches, DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(facecolor="white")
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(GREY)
    axes.tick_params(length=0, colors=GREY, labelcolor=INK, labelsize=9)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=GREY, fontsize=9)
    return figure, axes


def _save(figure: Figure, axes: Axes, out: Path) -> None:
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, labelcolor=INK, fontsize=9, loc="outside upper right", ncols=3)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MrlSearchError(f"{out.parent} cannot be made: {error.strerror}.", "Choose another place for the plot.") from error
    with write_atomically(out) as draft:
        figure.savefig(draft, format="png", dpi=DPI)
