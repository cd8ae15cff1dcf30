"""What every figure of a report is drawn on: paper, ink and colours for a light and for a dark page, and a file that repeats byte for byte.

Colours are those of Okabe and Ito, and every series has a marker of its own: it reads in grey, too. No state is kept in pyplot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from mrl_search.errors import ConfigError
from mrl_search.files import write_atomically, writing

__all__ = [
    "DARK", "LIGHT", "MARKERS", "Theme", "blank", "check_name", "dims_axis", "figure_of", "panels", "save", "time_axis", "two_digits",
    "write_figure",
]  # fmt: skip

MARKERS = ("o", "s", "^", "D", "v", "P")
DPI = 192  # twice the 96 of a page
STABLE: Any = {
    "svg.hashsalt": "mrl-search",
    "svg.fonttype": "path",
}  # ids in an SVG are drawn from the salt, not from chance


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of a figure: `paper` behind everything, `ink` for words, `soft` for axes, `grid`, and `series` in their order."""

    paper: str
    ink: str
    soft: str
    grid: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff",
    "#1c2026",
    "#626a74",
    "#e3e6ea",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"),
)
DARK = Theme(
    "#14171b",
    "#e7eaee",
    "#a3acb7",
    "#343a42",
    ("#56B4E9", "#E69F00", "#2FBF94", "#CC79A7", "#F0E442", "#D55E00"),
)


def blank(out: Path, count: int, inches: tuple[float, float], theme: Theme) -> tuple[Figure, Axes]:
    """An empty plot with light lines; refuses what cannot be drawn before anything is.

    Raises:
        ConfigError: there is nothing to draw (`count` is 0), or `out` is not a .png.
    """
    figure, axes = panels(out, count, inches, theme, (1, 1))
    return figure, axes[0]


def panels(
    out: Path, count: int, inches: tuple[float, float], theme: Theme, grid: tuple[int, int]
) -> tuple[Figure, list[Axes]]:
    """A figure with several empty plots, in `grid` (rows, columns); raises as `blank` does."""
    if not count:
        raise ConfigError(f"There is nothing to plot in {out}.", "Measure at least one prefix.")
    check_name(out)
    return figure_of(inches, theme, grid)


def figure_of(
    inches: tuple[float, float], theme: Theme, grid: tuple[int, int], share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """As `panels`, for a file that has no name yet; `share_y` gives all plots the same y axis."""
    figure = Figure(inches, DPI, facecolor=theme.paper, layout="constrained")
    FigureCanvasAgg(figure)
    made = list(
        np.atleast_1d(
            figure.subplots(*grid, sharey=share_y, subplot_kw={"facecolor": theme.paper})
        ).ravel()
    )
    for axes in made:
        soften(axes, theme)
    return figure, made


def check_name(out: Path) -> None:
    """Raise ConfigError unless `out` is a .png."""
    if out.suffix.lower() != ".png":
        raise ConfigError(f"{out} is not a name for a plot.", "End it with .png.")


def soften(axes: Axes, theme: Theme) -> None:
    """Light lines, no frame: what is drawn stands out."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(theme.soft)
    axes.tick_params(length=0, colors=theme.soft, labelcolor=theme.ink, labelsize=9)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=theme.soft, fontsize=9)


def dims_axis(axes: Axes, dims: Sequence[int]) -> None:
    """Prefix lengths along the bottom, each with its number, at equal distances where they double."""
    axes.set_xscale("log", base=2)
    axes.set_xlim(min(dims) / 1.4, max(dims) * 1.4)
    axes.xaxis.set_major_locator(FixedLocator(list(dims)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("dims of the prefix (log scale)")


def time_axis(axes: Axes, which: str, label: str) -> None:
    """Milliseconds on the axis `which`, x or y, on a log scale with plain numbers."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_label_text(label)


def two_digits(x: float) -> str:
    """`x` with two significant digits, never as 1.2e+02."""
    return f"{float(f'{x:.2g}'):g}"


def save(figure: Figure, axes: Axes, out: Path, theme: Theme) -> None:
    """Put the legend of `axes` above, and write the file; raises as `write_figure` does."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            frameon=False,
            labelcolor=theme.ink,
            fontsize=9,
            loc="outside upper right",
            ncols=3,
        )
    write_figure(figure, out)


def write_figure(figure: Figure, out: Path) -> None:
    """Write `out`, a .png or a .svg: the same figure gives the same bytes.

    Raises:
        MrlSearchError: the place cannot be written.
    """
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"Date": None} if out.suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context(STABLE), write_atomically(out) as draft:
        figure.savefig(draft, format=out.suffix[1:].lower(), dpi=DPI, metadata=metadata)
