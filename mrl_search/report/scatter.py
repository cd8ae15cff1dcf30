"""Prefixes in two dimensions: how far apart the classes lie at each length."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrl_search.report.canvas import LIGHT, MARKERS, Theme, panels, save

__all__ = ["Cloud", "scatter_plot"]


@dataclass(frozen=True, slots=True)
class Cloud:
    """The prefixes of some items along two axes, under a `title`: point i has the label `names[labels[i]]`; an empty name is none."""

    title: str
    x: Sequence[float]
    y: Sequence[float]
    labels: Sequence[int]
    names: Sequence[str]


def scatter_plot(clouds: Sequence[Cloud], out: Path, theme: Theme = LIGHT) -> None:
    """Draw each cloud in a panel of its own, two beside each other, and write them to the PNG file `out`.

    Labels are told apart by colour and marker; the one called "other", and no label, are grey.

    Raises:
        ConfigError: no cloud, or `out` is not a .png.
        MrlSearchError: the place cannot be written.
    """
    columns = min(2, max(1, len(clouds)))
    rows = -(-len(clouds) // columns)
    figure, axes = panels(
        out, len(clouds), (4.2 * columns, 3.7 * rows + 0.4), theme, (max(1, rows), columns)
    )
    present = {label for cloud in clouds for label in cloud.labels}
    for at, cloud in zip(axes, clouds, strict=False):
        plain = [name in ("other", "") for name in cloud.names]
        for label in sorted(present, key=lambda label: (plain[label], label)):
            name, chosen = (
                cloud.names[label],
                [i for i, own in enumerate(cloud.labels) if own == label],
            )
            colour = theme.soft if plain[label] else theme.series[label % len(theme.series)]
            at.scatter(
                [cloud.x[i] for i in chosen], [cloud.y[i] for i in chosen], s=9, linewidths=0, alpha=0.75,
                color=colour, marker="." if plain[label] else MARKERS[label % len(MARKERS)], label=name or "no label",
                zorder=1 if plain[label] else 2,  # grey ones lie behind
            )  # fmt: skip
        at.set_title(cloud.title, fontsize=9.5, color=theme.ink)
        at.set_xlabel("first principal axis")
        at.set_ylabel("second principal axis")
    for at in axes[len(clouds) :]:
        at.set_visible(False)
    save(figure, axes[0], out, theme)
