"""The figures of a report, from the records of a run alone: drawn into a folder, for a light and for a dark page."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mrl_search.errors import DataError
from mrl_search.files import write_atomically
from mrl_search.measure.records import Run
from mrl_search.measure.values import (
    Share,
    dims_of,
    rate_of,
    recall_of,
    share_of,
    single_of,
    times_of,
)
from mrl_search.report.canvas import DARK, LIGHT
from mrl_search.report.page import Figure
from mrl_search.report.plots import (
    AccuracyPoint,
    FrontPoint,
    LatencyPoint,
    PrefixLatency,
    accuracy_plot,
    front_plot,
    latency_plot,
    prefix_plot,
)
from mrl_search.report.scatter import Cloud, scatter_plot

__all__ = ["Sketchbook"]

Plot = Callable[..., None]


@dataclass(frozen=True, slots=True)
class Sketchbook:
    """Draws the figures of `run` into `folder`, the name of each file after `stem`. A figure without records is None."""

    run: Run
    folder: Path
    stem: str = ""

    def accuracy(self) -> Figure | None:
        """Each accuracy over the prefixes."""
        run, neighbours = self.run, self.run.about["settings"]["neighbours"]
        points = []
        for d in dims_of(run):
            record, plan = run.of("prefix", dims=d)[0], single_of(run, d)
            points += _points(d, "linear head", share_of(record["linear"]))
            points += _points(d, "1-NN", share_of(plan["nearest"]) if plan else None)
            points += _points(d, f"{neighbours}-NN", share_of(record["vote"]))
        caption = "Share of queries that get their own label, by the length of the prefix; bars are 95% intervals."
        return self._draw("accuracy", "Accuracy of a prefix", caption, accuracy_plot, points)

    def recall(self) -> Figure | None:
        """What each prefix alone finds."""
        run, k = self.run, self.run.about["settings"]["k"]
        points = []
        for d in dims_of(run):
            plan, copies = single_of(run, d), run.one("instance", dims=d)
            points += _points(
                d, f"recall@{k} of exact", recall_of(plan["found"], k) if plan else None
            )
            points += _points(d, "instance recall@1", share_of(copies["right"]) if copies else None)
        caption = f"What a prefix alone finds of the {k} nearest at full length"
        caption += ", and of pictures by a changed copy." if run.of("instance") else "."
        return self._draw("recall", "Recall of a prefix", caption, accuracy_plot, points)

    def prefixes(self) -> Figure | None:
        """The time of each prefix alone."""
        points = []
        for d in dims_of(self.run):
            plan = single_of(self.run, d)
            t, rate = (
                (times_of(self.run, plan["name"]), rate_of(self.run, plan["name"]))
                if plan
                else (None, None)
            )
            points += [PrefixLatency(d, t.p50, 1e3 / rate if rate else None)] if t else []
        caption = "One stage at this prefix, without embedding the query: asked alone, and as one of a batch."
        return self._draw("prefixes", "Time of a prefix", caption, prefix_plot, points)

    def front(self) -> Figure | None:
        """Every plan by recall and time."""
        k = self.run.about["settings"]["k"]
        timed = [(p, t) for p in self.run.of("plan") if (t := times_of(self.run, p["name"]))]
        points = [FrontPoint(p["name"], recall_of(p["found"], k).value, t.p50) for p, t in timed]
        caption = f"Every way to search: recall@{k} of the exact answer against the time of one query. Up and to the left is better."
        return self._draw("front", "Recall and time", caption, front_plot, points)

    def latency(self) -> Figure | None:
        """The times of every plan."""
        timed = [
            (p["name"], t) for p in self.run.of("plan") if (t := times_of(self.run, p["name"]))
        ]
        tail = "99th percentile" if all(t.p99 is not None for _, t in timed) else "95th percentile"
        points = [
            LatencyPoint(name, t.p50, t.p99 if tail.startswith("99") else t.p95)
            for name, t in timed
        ]
        caption = f"Median and {tail} of single queries, without embedding."
        return self._draw(
            "latency", "Time of a plan", caption, partial(latency_plot, tail=tail), points
        )

    def controls(self) -> Figure | None:
        """Prefixes beside PCA and random dims: the vote of the neighbours where there are labels, else recall."""
        run, k, neighbours = (
            self.run,
            self.run.about["settings"]["k"],
            self.run.about["settings"]["neighbours"],
        )
        labelled = all(r["vote"] is not None for r in run.of("prefix"))
        points = []
        for d in dims_of(run) if run.of("control") else ():
            plan = single_of(run, d)
            prefix = (
                share_of(run.of("prefix", dims=d)[0]["vote"])
                if labelled
                else recall_of(plan["found"], k)
                if plan
                else None
            )
            points += _points(d, "prefix", prefix)
            for name in ("pca", "random"):
                if control := run.one("control", name=name, dims=d):
                    points += _points(
                        d,
                        name,
                        share_of(control["vote"]) if labelled else recall_of(control["found"], k),
                    )
        measure = f"{neighbours}-NN accuracy" if labelled else f"recall@{k} of the exact answer"
        caption = f"{measure} of prefixes, of as many principal axes, and of as many numbers chosen by chance."
        return self._draw("controls", "What the training bought", caption, accuracy_plot, points)

    def scatter(self) -> Figure | None:
        """Prefixes in two dimensions."""
        clouds = []
        for r in sorted(self.run.of("scatter"), key=lambda r: int(r["dims"])):
            title = f"{r['dims']} dims, axes hold {r['variance'][0]:.0%} and {r['variance'][1]:.0%} of the variance"
            clouds.append(Cloud(title, r["x"], r["y"], r["labels"], r["names"]))
        caption = "A sample of the corpus: each prefix along its own two principal axes."
        return self._draw("scatter", "Classes in two dimensions", caption, scatter_plot, clouds)

    def ladders(self) -> list[Figure]:
        """One query and its hits, prefix by prefix."""
        caption = "The same query at a few dims, at more, and at all; the query's own picture is left out."
        sheets = [
            (r["sheet"], f"ladder-{r['number']}", f"Hits of {r['title']}, prefix by prefix")
            for r in self.run.of("ladder")
        ]
        return [self._sheet(sheet, name, title, caption) for sheet, name, title in sheets if sheet]

    def mislabels(self) -> Figure | None:
        """Pictures that their neighbours contradict."""
        record = self.run.one("mislabels")
        if record is None or not record["sheet"]:
            return None
        caption = (
            "The clearest first: the label of each, and what its neighbours say at full length."
        )
        return self._sheet(record["sheet"], "mislabels", "Likely mislabels, to look at", caption)

    def _draw(
        self, name: str, title: str, caption: str, plot: Plot, points: Sequence[object]
    ) -> Figure | None:
        if not points:
            return None
        light, dark = (
            self.folder / f"{self.stem}{name}.png",
            self.folder / f"{self.stem}{name}-dark.png",
        )
        plot(points, light, LIGHT)
        plot(points, dark, DARK)
        return Figure(title, light, caption, dark)

    def _sheet(self, sheet: str, name: str, title: str, caption: str) -> Figure:
        path = self.folder / f"{self.stem}{name}.webp"
        try:
            data = base64.b64decode(sheet, validate=True)
        except (binascii.Error, ValueError) as error:
            raise DataError(
                f"A record holds a sheet that cannot be read: {error}.",
                "Measure again: the file was altered.",
            ) from error
        with write_atomically(path) as draft:
            draft.write_bytes(data)
        return Figure(title, path, caption)


def _points(dims: int, series: str, share: Share | None) -> list[AccuracyPoint]:
    return (
        [] if share is None else [AccuracyPoint(dims, series, share.value, share.low, share.high)]
    )
