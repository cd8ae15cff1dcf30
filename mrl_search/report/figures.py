"""The figures of a run, drawn from its records into a folder."""

import base64
import binascii
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mrl_search.errors import BrokenImage, DataError
from mrl_search.files import write_atomically
from mrl_search.measure.records import Record, Run
from mrl_search.measure.schema import ALTERED
from mrl_search.metrics import Share
from mrl_search.report import plots
from mrl_search.report.page import Figure
from mrl_search.report.sheet import Row, Tile, contact_sheet
from mrl_search.report.values import dims_of, rate_of, recall_of, share_of, single_of, times_of

__all__ = ["Sketchbook"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Sketchbook:
    """Draws the figures of `run` into `folder`; file names begin with `stem`.

    A figure without records is None.
    """

    run: Run
    folder: Path
    stem: str = ""

    def accuracy(self) -> Figure | None:
        """Every accuracy over the prefixes."""
        prefixes = self.run.by_dims("prefix")
        lines = {
            "linear head": _line(prefixes, lambda r: share_of(r["linear"])),
            "1-NN": _line(self._alone(), lambda r: share_of(r["nearest"])),
            self.run.voters: _line(prefixes, lambda r: share_of(r["vote"])),
        }
        caption = "Share of queries with the right label, by dims of the prefix."
        return self._draw("accuracy", "Accuracy of a prefix", caption, plots.accuracy_plot, lines)

    def recall(self) -> Figure | None:
        """Recall of exact hits and of changed copies over the prefixes."""
        copies = self.run.by_dims("instance")
        lines = {
            f"recall@{self.run.k} of exact": _line(self._alone(), self._recall),
            "instance recall@1": _line(copies, lambda r: share_of(r["right"])),
        }
        caption = f"Share of the {self.run.k} nearest at full length that a prefix alone finds"
        caption += ", and of changed copies." if copies else "."
        return self._draw("recall", "Recall of a prefix", caption, plots.accuracy_plot, lines)

    def prefixes(self) -> Figure | None:
        """Times of each prefix alone."""
        times = _line(self._alone(), lambda r: times_of(self.run, r["name"]))
        rates = _line(self._alone(), lambda r: rate_of(self.run, r["name"]))
        lines = {
            "one query (median)": {d: t.p50 for d, t in times.items()},
            "in a batch": {d: 1e3 / rate for d, rate in rates.items() if d in times},
        }
        caption = "One stage at this prefix, without embedding: a query alone, and in a batch."
        return self._draw("prefixes", "Time of a prefix", caption, plots.prefix_plot, lines)

    def front(self) -> Figure | None:
        """Every plan by recall and time."""
        points = [
            plots.PlanPoint(p["name"], t.p50, self._recall(p).value)
            for p in self.run.of("plan")
            if (t := times_of(self.run, p["name"]))
        ]
        caption = f"Recall@{self.run.k} of the exact hits against the time of one query. "
        caption += "Up and to the left is better."
        return self._draw("front", "Recall and time", caption, plots.front_plot, points)

    def latency(self) -> Figure | None:
        """Times of every plan."""
        names = [p["name"] for p in self.run.of("plan")]
        timed = [(name, t) for name in names if (t := times_of(self.run, name))]
        tail = 99 if all(t.p99 is not None for _, t in timed) else 95
        times = {name: (t.p50, t.p99 if tail == 99 else t.p95) for name, t in timed}
        plot = partial(plots.latency_plot, tail=f"{tail}th percentile")
        caption = f"Median and {tail}th percentile of single queries, without embedding."
        return self._draw("latency", "Time of a plan", caption, plot, times)

    def controls(self) -> Figure | None:
        """Prefixes next to PCA and random dims: accuracy where there are labels, else recall."""
        if not self.run.of("control"):
            return None
        prefixes = self.run.by_dims("prefix")
        labelled = all(r["vote"] is not None for r in prefixes)

        def value(record: Record) -> Share | None:
            return share_of(record["vote"]) if labelled else self._recall(record)

        lines = {"prefix": _line(prefixes if labelled else self._alone(), value)}
        lines |= {n: _line(self.run.by_dims("control", name=n), value) for n in ("pca", "random")}
        measure = f"{self.run.voters} accuracy" if labelled else f"Recall@{self.run.k} of exact"
        caption = f"{measure} of prefixes, principal axes and random dims."
        title = "Prefixes against PCA and random dims"
        return self._draw("controls", title, caption, plots.accuracy_plot, lines)

    def scatter(self) -> Figure | None:
        """Prefixes in two dimensions."""
        clouds = []
        for r in self.run.by_dims("scatter"):
            first, second = r["variance"]
            title = f"{r['dims']} dims, {first:.0%} and {second:.0%} of the variance"
            clouds.append(plots.Cloud(title, r["x"], r["y"], r["labels"], r["names"]))
        caption = "A sample of the corpus: each prefix on its own two principal axes."
        return self._draw(
            "scatter", "Classes in two dimensions", caption, plots.scatter_plot, clouds
        )

    def ladders(self) -> list[Figure]:
        """Queries and their hits, prefix by prefix."""
        caption = "The same query at more and more dims; its own picture is left out."
        figures = [
            self._sheet(r, f"ladder-{r['number']}", f"Hits of {r['title']} by prefix", caption)
            for r in self.run.of("ladder")
        ]
        return [figure for figure in figures if figure]

    def mislabels(self) -> Figure | None:
        """Pictures whose neighbours contradict their label."""
        caption = "The clearest first: the label, and the vote of the neighbours at full length."
        if record := self.run.one("mislabels"):
            return self._sheet(record, "mislabels", "Likely mislabels", caption)
        return None

    def _alone(self) -> list[Record]:
        """The `plan` records of the search at each prefix alone."""
        plans = (single_of(self.run, d) for d in dims_of(self.run))
        return [plan for plan in plans if plan]

    def _recall(self, record: Record) -> Share:
        return recall_of(record["found"], self.run.k)

    def _draw(
        self,
        name: str,
        title: str,
        caption: str,
        plot: Callable[..., None],
        shown: Any,  # noqa: ANN401
    ) -> Figure | None:
        """Draw points, or lines by their names without those that are empty."""
        if isinstance(shown, dict):
            shown = {name: line for name, line in shown.items() if line}
        if not shown:
            return None
        out = self.folder / f"{self.stem}{name}.png"
        plot(shown, out)
        return Figure(title, out, caption)

    def _sheet(self, record: Record, name: str, title: str, caption: str) -> Figure | None:
        """The contact sheet of a record with tiles and thumbnails."""
        if not record["rows"]:
            return None
        out = self.folder / f"{self.stem}{name}.webp"
        rows = [Row(r["title"], [Tile(**tile) for tile in r["tiles"]]) for r in record["rows"]]
        sheet = contact_sheet(rows, thumb=112, read=partial(_thumbnail, record["thumbnails"]))
        with write_atomically(out) as file:
            sheet.save(file, "WEBP", quality=82)
        return Figure(title, out, caption)


def _line(records: Iterable[Record], measure: Callable[[Record], T | None]) -> dict[int, T]:
    """A measure of some records by their dims."""
    return {r["dims"]: found for r in records if (found := measure(r)) is not None}


def _thumbnail(thumbnails: dict[str, str], path: str) -> bytes:
    if path not in thumbnails:
        raise BrokenImage("cannot be read")
    try:
        return base64.b64decode(thumbnails[path], validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"The thumbnail of {path} cannot be read: {error}.", ALTERED) from error
