"""Plots as PNG files at two pixels a point; the same values give the same bytes.

Nothing to draw, or a file name that does not end in .png, is a ConfigError.

Colours are those of Okabe and Ito, and every series has its own marker, so plots read in grey too.
No state is kept in pyplot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mrl_search.errors import ConfigError
from mrl_search.files import make_folder, write_atomically
from mrl_search.metrics import Share
from mrl_search.report.lettering import drawable, families

__all__ = [
    "COLOURS", "INK", "MARKERS", "Cloud", "PlanPoint", "accuracy_plot", "check_name", "figure_of",
    "front_plot", "latency_plot", "prefix_plot", "scatter_plot", "write_figure",
]  # fmt: skip

PAPER, INK, SOFT, GRID = "#ffffff", "#1c2026", "#626a74", "#e3e6ea"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
DPI = 192  # twice the 96 of a page
FASTEST = 1e-4  # ms; a coarse clock may say 0, which a log axis cannot show
OTHERS = ("other", "")  # names of labels without a colour of their own
LISTED = 16  # plans; of more, only the Pareto front is named


@dataclass(frozen=True, slots=True)
class PlanPoint:
    """One plan: median milliseconds of single queries, and a score from 0 to 1."""

    name: str
    ms: float
    value: float
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Cloud:
    """Points on two axes under a title; point i has the label `names[labels[i]]`, "" for none."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[int]
    names: Sequence[str]


def accuracy_plot(lines: Mapping[str, Mapping[int, Share]], out: Path) -> None:
    """Draw shares over the prefixes, a line each by its name, with 95% intervals, to a PNG file."""
    figure, axes = _blank(out, len(lines), (5.8, 3.6))
    for i, (name, line) in enumerate(lines.items()):
        shift = 2 ** (0.12 * (i - (len(lines) - 1) / 2))  # equal intervals do not hide each other
        below = [max(0.0, s.value - s.low) for s in line.values()]
        above = [max(0.0, s.high - s.value) for s in line.values()]
        x, y = [dims * shift for dims in line], [s.value for s in line.values()]
        axes.errorbar(x, y, (below, above), label=name, elinewidth=1.2, capsize=3, **_line(i))
    _dims_axis(axes, lines)
    shares = [share for line in lines.values() for share in line.values()]
    low = min(min(s.low, s.value) for s in shares)
    high = max(max(s.high, s.value) for s in shares)
    room = max(0.02, (high - low) * 0.08)
    axes.set_ylim(max(-0.02, low - room), min(1.02, high + room))
    axes.set_ylabel("share right (bars: 95% interval)")
    _save(figure, axes, out)


def latency_plot(
    plans: Mapping[str, tuple[float, float | None]], out: Path, tail: str = "99th percentile"
) -> None:
    """Draw milliseconds of each plan, from the top: median and `tail` (None: unknown)."""
    figure, axes = _blank(out, len(plans), (5.8, 1.2 + 0.36 * len(plans)))
    medians = {row: max(FASTEST, ms) for row, (ms, _) in enumerate(plans.values())}
    tails = {row: max(FASTEST, ms) for row, (_, ms) in enumerate(plans.values()) if ms is not None}
    starts = [medians[row] for row in tails]
    axes.hlines(list(tails), starts, list(tails.values()), color=GRID, linewidth=4, zorder=2)
    for i, (series, name) in enumerate(((medians, "median"), (tails, tail))):
        if series:
            x, y = list(series.values()), list(series)
            style: dict[str, Any] = {"color": COLOURS[i], "marker": MARKERS[3 * i], "zorder": 4 - i}
            axes.scatter(x, y, s=52 - 8 * i, label=name, **style)
        side, align, colour = ((-8, "right", INK), (8, "left", SOFT))[i]
        for row, ms in series.items():
            _annotate(axes, _two_digits(ms), (ms, row), (side, 0), align, "center_baseline", colour)
    axes.set_xlim(min(medians.values()) / 1.8, max([*medians.values(), *tails.values()]) * 1.8)
    _time_axis(axes, "x", "milliseconds for one query (log scale)")
    axes.set_yticks(range(len(plans)), list(plans))
    axes.set_ylim(len(plans) - 0.4, -0.6)
    axes.grid(False, axis="y")
    _save(figure, axes, out)


def prefix_plot(lines: Mapping[str, Mapping[int, float]], out: Path) -> None:
    """Draw milliseconds of a query over the prefixes, a line each by its name."""
    figure, axes = _blank(out, len(lines), (5.8, 3.6))
    for i, (name, line) in enumerate(lines.items()):
        times = {d: max(FASTEST, ms) for d, ms in line.items()}
        axes.plot(list(times), list(times.values()), label=name, **_line(i))
        for d, ms in times.items():
            _annotate(axes, _two_digits(ms), (d, ms), (0, 7), "center", "bottom")
    _dims_axis(axes, lines)
    _time_axis(axes, "y", "milliseconds a query (log scale)")
    axes.margins(y=0.14)
    _save(figure, axes, out)


def front_plot(
    points: Sequence[PlanPoint], out: Path, value: str = "recall of the exact hits"
) -> None:
    """Draw every plan by time and `value`, with the Pareto front.

    Plans, or those on the front of very many, are numbered from the fastest on, and named in a
    list next to the plot.
    """
    figure, axes = _blank(out, len(points), (8.6, 4.2))
    front, others = _pareto(points)
    line: dict[str, Any] = {"linewidth": 1.5, "zorder": 2, "drawstyle": "steps-post"}
    axes.plot(*_places(front), color=COLOURS[0], **line)
    chosen = [p for p in points if p.chosen]
    groups = (front, "Pareto front"), (others, "other plans"), (chosen, "chosen")
    for i, (group, name) in enumerate(groups):
        style: dict[str, Any] = {"color": COLOURS[i], "marker": "oDs"[i], "zorder": 3 + i}
        size = 16 if group is others and len(points) > LISTED else 50
        if group:
            axes.scatter(*_places(group), s=size, label=name, **style)
    names = []
    for number, p in enumerate(sorted(points if len(points) <= LISTED else front, key=_by_time), 1):
        above = p in front and front.index(p) % 2 == 0  # away from the line
        shift, across, along = ((-7, 4), "right", "bottom") if above else ((7, -4), "left", "top")
        at = (max(FASTEST, p.ms), p.value)
        _annotate(axes, str(number), at, shift, across, along)
        names.append(f"{number}  {p.name}  ({p.value:.1%}, {_two_digits(p.ms)} ms)")
    text: dict[str, Any] = {"va": "top", "fontsize": 8, "color": INK, "linespacing": 1.7}
    axes.annotate("\n".join(names), (1.03, 1), xycoords="axes fraction", **text)
    _time_axis(axes, "x", "milliseconds for one query, median (log scale)")
    axes.set_ylabel(value)
    axes.margins(0.1)
    _save(figure, axes, out)


def _by_time(point: PlanPoint) -> tuple[float, float]:
    return point.ms, -point.value


def _pareto(points: Sequence[PlanPoint]) -> tuple[list[PlanPoint], list[PlanPoint]]:
    """The plans that no other beats in time and score, by time; and all others."""
    front: list[PlanPoint] = []
    for p in sorted(points, key=_by_time):
        if not front or p.value > front[-1].value:
            front.append(p)
    return front, [p for p in points if p not in front]


def _places(points: Sequence[PlanPoint]) -> tuple[list[float], list[float]]:
    return [max(FASTEST, p.ms) for p in points], [p.value for p in points]


def scatter_plot(clouds: Sequence[Cloud], out: Path) -> None:
    """Draw each cloud in its own panel, two in a row; there is one at least.

    Each label has a colour and a marker; "other" and no label are grey.
    """
    columns = min(2, len(clouds))
    rows = -(-len(clouds) // columns)
    figure, panels = figure_of((4.2 * columns, 3.7 * rows + 0.4), (rows, columns))
    present = {label for cloud in clouds for label in cloud.labels}
    for axes, cloud in zip(panels, clouds, strict=False):
        for label in sorted(present, key=lambda label: (cloud.names[label] in OTHERS, label)):
            name, grey = cloud.names[label], cloud.names[label] in OTHERS
            chosen = [i for i, own in enumerate(cloud.labels) if own == label]
            style: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": 0.75, "zorder": 2 - grey}
            style["color"] = SOFT if grey else COLOURS[label % len(COLOURS)]
            style["marker"] = "." if grey else MARKERS[label % len(MARKERS)]
            x, y = ([axis[i] for i in chosen] for axis in (cloud.x, cloud.y))
            shown = f" {name}" if name.startswith("_") else name  # a legend leaves out _names
            axes.scatter(x, y, label=shown or "no label", **style)
        axes.set_title(cloud.title, fontsize=9.5, color=INK)
        axes.set_xlabel("first principal axis")
        axes.set_ylabel("second principal axis")
    for axes in panels[len(clouds) :]:
        axes.set_visible(False)
    _save(figure, panels[0], out)


def figure_of(
    inches: tuple[float, float], grid: tuple[int, int] = (1, 1), share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with empty panels in `grid` (rows, columns), with light lines and no frame."""
    figure = Figure(inches, DPI, facecolor=PAPER, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(np.atleast_1d(figure.subplots(*grid, sharey=share_y)).ravel())
    for axes in panels:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.spines["bottom"].set_color(SOFT)
        axes.tick_params(length=0, colors=SOFT, labelcolor=INK, labelsize=9)
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color=SOFT, fontsize=9)
    return figure, panels


def write_figure(figure: Figure, out: Path) -> None:
    """Write the PNG file `out`; its folder is created. Text is drawn as it is, in any script."""
    make_folder(out.parent)
    texts: list[Text] = [t for t in figure.findobj(Text) if t.get_text()]
    for text in texts:
        text.set_text("\n".join(map(drawable, text.get_text().split("\n"))))
    names = families(line for text in texts for line in text.get_text().split("\n"))
    for text in texts:
        text.set_text(text.get_text().replace("$", r"\$"))  # no formula
        text.set_fontfamily(names)
    with write_atomically(out) as file:
        figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})


def check_name(out: Path) -> None:
    """Raise ConfigError unless `out` is a .png."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out} is not the name of a plot.", "End it with .png.")


def _blank(out: Path, count: int, inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty plot; ConfigError if there is nothing to draw, or `out` is not a .png."""
    if not count:
        raise ConfigError(f"There is nothing to plot in {out}.", "Measure at least one prefix.")
    check_name(out)
    figure, (axes,) = figure_of(inches)
    return figure, axes


def _line(i: int) -> dict[str, Any]:
    """Style of the i-th line."""
    return {
        "color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "linewidth": 1.5,
        "markersize": 5.5, "markeredgecolor": PAPER, "markeredgewidth": 0.8,
    }  # fmt: skip


def _annotate(
    axes: Axes, text: str, at: tuple[float, float], shift: tuple[int, int],
    across: str, along: str, colour: str = INK,
) -> None:  # fmt: skip
    style: dict[str, Any] = {"textcoords": "offset points", "fontsize": 8, "color": colour}
    axes.annotate(text, at, shift, ha=across, va=along, **style)


def _dims_axis(axes: Axes, lines: Mapping[str, Mapping[int, object]]) -> None:
    """The prefix lengths of some lines on the x axis, on a log scale."""
    dims = sorted({d for line in lines.values() for d in line})
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(dims) / 1.4, max(dims) * 1.4)
    axes.xaxis.set_major_locator(FixedLocator(dims))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("dims of the prefix (log scale)")


def _time_axis(axes: Axes, which: str, label: str) -> None:
    """Milliseconds on the x or y axis, on a log scale with plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def _two_digits(x: float) -> str:
    """Two significant digits, never as 1.2e+02."""
    return f"{float(f'{x:.2g}'):g}"


def _save(figure: Figure, axes: Axes, out: Path) -> None:
    """Put the legend of `axes` above the plot, and write it."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        style: dict[str, Any] = {"frameon": False, "labelcolor": INK, "fontsize": 9, "ncols": 3}
        figure.legend(handles, labels, loc="outside upper right", **style)
    write_figure(figure, out)
