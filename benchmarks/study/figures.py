"""The figures of a study as PNG files, from its records; the same records give the same bytes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import compress
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from records import JobRecords

from mrl_search.report.plots import COLOURS, INK, MARKERS, figure_of, write_figure

__all__ = ["draw_part"]

PANEL = (3.3, 2.9)  # inches


def draw_part(name: str, jobs: Sequence[JobRecords], out: Path) -> list[Path]:
    """Draw curves, planes, spectra and adaptive classification of a part; returns the files.

    Raises:
        MrlSearchError: the place cannot be written.
    """
    first = [job for job in jobs if job.job["repetition"] <= 0 and job.job["fold"] <= 0]
    seed = min((job.job["seed"] for job in first), default=0)
    shown = [job for job in first if job.job["seed"] == seed]
    figures = {
        "curves": _curves(
            [job for job in shown if any(line["accuracy"] for line in job.of("epoch"))]
        ),
        "planes": _planes([job for job in shown if job.of("scatter")]),
        "spectra": _spectra(shown),
        "adaptive": _adaptive([job for job in shown if job.of("cascade")]),
    }
    files = []
    for what, figure in figures.items():
        if figure is not None:
            files.append(out / f"{name}-{what}.png")
            write_figure(figure, files[-1])
    return files


def _curves(jobs: Sequence[JobRecords]) -> Figure | None:
    """Validation accuracy by epoch: a panel a system, a line a prefix."""
    if not jobs:
        return None
    figure, panels = _panels(len(jobs), share_y=True)
    lengths = sorted({int(d) for job in jobs for line in job.of("epoch") for d in line["accuracy"]})
    for axes, job in zip(panels, jobs, strict=True):
        epochs = job.of("epoch")
        for i, d in enumerate(lengths):
            values = [line["accuracy"].get(str(d)) for line in epochs]
            if None not in values:
                axes.plot(
                    [line["epoch"] for line in epochs],
                    values,
                    **_style(i),
                    label=str(d),
                    markersize=3.5,
                )
        axes.set_title(job.job["run"], color=INK, fontsize=9)
        axes.set_xlabel("epoch")
    panels[0].set_ylabel("validation accuracy of the linear head")
    _legend(figure, panels, "dims")
    return figure


def _planes(jobs: Sequence[JobRecords]) -> Figure | None:
    """Validation images on their principal plane: a panel a system and prefix, six labels."""
    if not jobs:
        return None
    most = max(len(job.of("scatter")) for job in jobs)
    columns = most if most > 1 else 4
    planes: list[tuple[str, Mapping[str, Any]] | None] = []
    for job in jobs:
        own = [(job.job["run"], line) for line in job.of("scatter")]
        if len(own) > 1:  # a row of its own
            planes += [None] * (-len(planes) % columns)
        planes += own + [None] * (-len(own) % columns if len(own) > 1 else 0)
    often = Counter(label for plane in planes if plane for label in plane[1]["label"])
    names = sorted(sorted(often, key=lambda label: (-often[label], label))[: len(COLOURS)])
    figure, panels = _panels(len(planes), columns, ticks=False)
    for axes, plane in zip(panels, planes, strict=True):
        if plane is None:
            axes.set_visible(False)
            continue
        run, line = plane
        for i, label in enumerate(names):
            here = [own == label for own in line["label"]]
            x, y = (list(compress(line[axis], here)) for axis in "xy")
            axes.scatter(
                x, y, s=7, color=COLOURS[i], marker=MARKERS[i], linewidths=0, alpha=0.7, label=label
            )
        axes.set_title(f"{run}, {line['dims']} dims", color=INK, fontsize=9)
    _legend(figure, panels, "")
    return figure


def _spectra(jobs: Sequence[JobRecords]) -> Figure | None:
    """Singular values of the embeddings of the training images, relative to the largest.

    A line ends with its last axis: a network has no more of them than features.
    """
    if not jobs:
        return None
    figure, (axes,) = _panels(1, inches=(5.8, 3.6))
    for i, job in enumerate(jobs):
        (line,) = job.of("spectrum")
        values = [value for value in line["values"] if value > 0]
        style = {
            **_style(i),
            "marker": MARKERS[i % len(MARKERS)],
            "markevery": [2**k - 1 for k in range(11) if 2**k <= len(values)],
        }
        axes.plot(
            range(1, len(values) + 1),
            values,
            **style,
            markersize=3.5,
            label=f"{job.job['run']}: {len(values)} axes",
        )
    _log2(axes)
    axes.set_yscale("log")
    axes.set_xlabel("axis (log scale)")
    axes.set_ylabel("singular value, relative to the first")
    _legend(figure, [axes], "")
    return figure


def _adaptive(jobs: Sequence[JobRecords]) -> Figure | None:
    """Accuracy against mean dims of adaptive classification, and of every fixed prefix."""
    if not jobs:
        return None
    figure, panels = _panels(len(jobs))
    for axes, job in zip(panels, jobs, strict=True):
        for i, (by, name) in enumerate((("head", "linear heads"), ("nn20", "20-NN"))):
            lines = [line for line in job.of("cascade") if line["by"] == by]
            if not lines:
                continue
            fixed = {int(d): share for d, share in lines[0]["fixed"].items()}
            axes.plot(
                list(fixed),
                list(fixed.values()),
                color=COLOURS[i],
                linestyle=":",
                marker="o",
                markersize=3,
                label=f"{name}, fixed",
            )
            points = sorted((line["expected_dims"], line["accuracy"]) for line in lines)
            x, y = zip(*points, strict=True)
            axes.plot(
                x, y, color=COLOURS[i], marker=MARKERS[3], markersize=5, label=f"{name}, adaptive"
            )
        _log2(axes)
        axes.set_title(job.job["run"], color=INK, fontsize=9)
        axes.set_xlabel("mean dims (log scale)")
    panels[0].set_ylabel("accuracy")
    _legend(figure, panels, "")
    return figure


def _log2(axes: Axes) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _style(i: int) -> dict[str, Any]:
    return {
        "color": COLOURS[i % len(COLOURS)],
        "marker": MARKERS[i % len(MARKERS)],
        "linewidth": 1.2,
        "linestyle": "-" if i < 6 else "--",
    }


def _panels(
    count: int,
    columns: int = 4,
    share_y: bool = False,
    ticks: bool = True,
    inches: tuple[float, float] = PANEL,
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, at most `columns` side by side."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure, grid = figure_of(
        (inches[0] * columns, inches[1] * rows + 0.5), (rows, columns), share_y
    )
    if not ticks:
        for axes in grid[:count]:
            axes.tick_params(labelleft=False, labelbottom=False)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count]


def _legend(figure: Figure, panels: Sequence[Axes], title: str) -> None:
    """One legend for all panels, each name once."""
    entries: dict[str, Any] = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    inches = 0.6 + 0.06 * max(map(len, entries))  # of an entry
    figure.legend(
        list(entries.values()),
        list(entries),
        title=title or None,
        frameon=False,
        labelcolor=INK,
        fontsize=8,
        loc="outside lower center",
        ncols=min(8, max(1, int(figure.get_figwidth() / inches))),
    )
