"""The figures of a run, drawn from its records into a folder."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

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
        points = []
        for d in dims_of(self.run):
            record, plan = self.run.of("prefix", dims=d)[0], single_of(self.run, d)
            points += _points(d, "linear head", share_of(record["linear"]))
            points += _points(d, "1-NN", share_of(plan["nearest"]) if plan else None)
            points += _points(d, self.run.voters, share_of(record["vote"]))
        caption = "Share of queries with the right label, by dims of the prefix."
        return self._draw("accuracy", "Accuracy of a prefix", caption, plots.accuracy_plot, points)

    def recall(self) -> Figure | None:
        """Recall of exact hits and of changed copies over the prefixes."""
        points = []
        for d in dims_of(self.run):
            plan, copies = single_of(self.run, d), self.run.one("instance", dims=d)
            recall = recall_of(plan["found"], self.run.k) if plan else None
            points += _points(d, f"recall@{self.run.k} of exact", recall)
            points += _points(d, "instance recall@1", share_of(copies["right"]) if copies else None)
        caption = f"Share of the {self.run.k} nearest at full length that a prefix alone finds"
        caption += ", and of changed copies." if self.run.of("instance") else "."
        return self._draw("recall", "Recall of a prefix", caption, plots.accuracy_plot, points)

    def prefixes(self) -> Figure | None:
        """Times of each prefix alone."""
        points = []
        for d in dims_of(self.run):
            plan = single_of(self.run, d)
            if plan and (t := times_of(self.run, plan["name"])):
                rate = rate_of(self.run, plan["name"])
                points.append(plots.PrefixLatency(d, t.p50, 1e3 / rate if rate else None))
        caption = "One stage at this prefix, without embedding: a query alone, and in a batch."
        return self._draw("prefixes", "Time of a prefix", caption, plots.prefix_plot, points)

    def front(self) -> Figure | None:
        """Every plan by recall and time."""
        timed = [(p, t) for p in self.run.of("plan") if (t := times_of(self.run, p["name"]))]
        points = [
            plots.PlanPoint(p["name"], t.p50, recall_of(p["found"], self.run.k).value)
            for p, t in timed
        ]
        caption = f"Recall@{self.run.k} of the exact hits against the time of one query. "
        caption += "Up and to the left is better."
        return self._draw("front", "Recall and time", caption, plots.front_plot, points)

    def latency(self) -> Figure | None:
        """Times of every plan."""
        names = [p["name"] for p in self.run.of("plan")]
        timed = [(name, t) for name in names if (t := times_of(self.run, name))]
        tail = 99 if all(t.p99 is not None for _, t in timed) else 95
        points = [
            plots.LatencyPoint(name, t.p50, t.p99 if tail == 99 else t.p95) for name, t in timed
        ]
        plot = partial(plots.latency_plot, tail=f"{tail}th percentile")
        caption = f"Median and {tail}th percentile of single queries, without embedding."
        return self._draw("latency", "Time of a plan", caption, plot, points)

    def controls(self) -> Figure | None:
        """Prefixes next to PCA and random dims: accuracy where there are labels, else recall."""
        labelled = all(r["vote"] is not None for r in self.run.of("prefix"))

        def value(record: Record | None) -> Share | None:
            if record is None:
                return None
            return share_of(record["vote"]) if labelled else recall_of(record["found"], self.run.k)

        points = []
        for d in dims_of(self.run) if self.run.of("control") else ():
            prefix = self.run.one("prefix", dims=d) if labelled else single_of(self.run, d)
            points += _points(d, "prefix", value(prefix))
            for name in ("pca", "random"):
                points += _points(d, name, value(self.run.one("control", name=name, dims=d)))
        measure = f"{self.run.voters} accuracy" if labelled else f"Recall@{self.run.k} of exact"
        caption = f"{measure} of prefixes, principal axes and random dims."
        title = "Prefixes against PCA and random dims"
        return self._draw("controls", title, caption, plots.accuracy_plot, points)

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

    def _draw(
        self, name: str, title: str, caption: str, plot: Callable[..., None], points: Sequence[Any]
    ) -> Figure | None:
        if not points:
            return None
        out = self.folder / f"{self.stem}{name}.png"
        plot(points, out)
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


def _points(dims: int, series: str, share: Share | None) -> list[plots.AccuracyPoint]:
    if share is None:
        return []
    return [plots.AccuracyPoint(dims, series, share.value, share.low, share.high)]


def _thumbnail(thumbnails: dict[str, str], path: str) -> bytes:
    if path not in thumbnails:
        raise BrokenImage("cannot be read")
    try:
        return base64.b64decode(thumbnails[path], validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"The thumbnail of {path} cannot be read: {error}.", ALTERED) from error
