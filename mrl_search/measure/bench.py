"""The benchmark: accuracy of every prefix, hits and times of every plan, controls and pictures.

Accuracy needs labels, pictures need their files; what cannot be measured is left out. Records that
the journal already has are not measured again.
"""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from mrl_search.index import Index
from mrl_search.measure.accuracy import Copies, copies_found, outcomes, prefix_outcomes
from mrl_search.measure.contestants import (
    Contestant,
    answers,
    contestants,
    find,
    memory,
    multiply_adds,
)  # fmt: skip
from mrl_search.measure.controls import CONTROLS, LARGEST, control_answers, projections
from mrl_search.measure.pictures import (
    LADDERS,
    SCATTERED,
    ladder_record,
    mislabel_record,
    scatter_record,
    shown_dims,
)  # fmt: skip
from mrl_search.measure.queries import QuerySet, shuffled
from mrl_search.measure.records import Journal, Run
from mrl_search.measure.schema import pack, unpack
from mrl_search.measure.settings import BenchSettings
from mrl_search.metrics import found_at_k
from mrl_search.progress import Progress
from mrl_search.search.cascade import trade_off
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.timing import Answer, Pace, batch_seconds, pace_of, threads, time_round

__all__ = ["measure", "measure_copies", "measure_training"]


def measure(
    corpus: Corpus, queries: QuerySet, settings: BenchSettings, journal: Journal, progress: Progress
) -> Run:
    """Measure what the journal does not have yet, and return all of it."""
    bench = _Bench(corpus, queries, settings, journal, progress)
    bench.prefixes()
    bench.plans()
    bench.controls()
    bench.times()
    bench.pictures()
    if not journal.run.done:
        journal.add("done")
    return journal.run


def measure_training(index: Index, queries: QuerySet, journal: Journal) -> None:
    """Record `trained`: how many queries trained the model, and which of the labelled ones."""
    trained = None if journal.has("trained") else queries.trained(index)
    if trained is not None:
        some = trained[queries.labelled]
        journal.add("trained", count=int(trained.sum()), labelled=pack(some))


def measure_copies(corpus: Corpus, copies: Copies, journal: Journal) -> None:
    """Records `instance`: does each changed copy find its original first, at every prefix?"""
    for d in corpus.dims:
        if not journal.has("instance", dims=d):
            journal.add("instance", dims=d, right=pack(copies_found(corpus, copies, d)))


@dataclass(frozen=True, eq=False)
class _Bench:
    corpus: Corpus
    queries: QuerySet
    settings: BenchSettings
    journal: Journal
    progress: Progress

    @cached_property
    def contestants(self) -> list[Contestant]:
        return contestants(self.corpus, self.settings.k)

    @cached_property
    def truth(self) -> BatchHits:
        """The true neighbours of every query at full length, itself left out: (n, k)."""
        progress = partial(self.progress, "true hits")
        return answers(self.corpus, self.queries, Plan.EXACT, self.settings.k, progress)

    def prefixes(self) -> None:
        """Records `prefix`: linear head and vote of the neighbours, full length first; `cascade`.

        Confidence is the winner's share of the votes, in 255ths.
        """
        journal, voters = self.journal, self.settings.neighbours
        for d in reversed(self.corpus.dims):
            if not journal.has("prefix", dims=d):
                progress = partial(self.progress, f"votes at {d} dims")
                linear, hits = prefix_outcomes(self.corpus, self.queries, d, voters, progress)
                journal.add(
                    "prefix", dims=d, linear=None if linear is None else pack(linear),
                    vote=hits and pack(hits.vote),
                    confidence=hits and pack(np.rint(255 * hits.confidence).astype(np.int64)),
                )  # fmt: skip
        records = [journal.run.of("prefix", dims=d)[0] for d in self.corpus.dims]
        if any(r["vote"] is None for r in records):
            return
        votes = np.column_stack([unpack(r["vote"]) == 1 for r in records])
        confidence = np.column_stack([unpack(r["confidence"]) / 255 for r in records])
        for trade in trade_off(confidence, votes, self.corpus.dims):
            if not journal.has("cascade", give=trade.give):
                journal.add("cascade", **trade.record())

    def plans(self) -> None:
        """Records `plan`: hits of each contestant, its multiply-adds and its memory."""
        k = self.settings.k
        for c in self.contestants:
            if not self.journal.has("plan", name=c.name):
                hits = self.truth
                if not c.exact:
                    progress = partial(self.progress, c.name)
                    hits = answers(self.corpus, self.queries, c.plan, k, progress)
                self.journal.add(
                    "plan", name=c.name, plan=str(c), dims=c.single, exact=c.exact,
                    multiply_adds=multiply_adds(self.corpus, c), ram=memory(self.corpus, c),
                    **self._labels_of(hits), found=pack(found_at_k(hits.rows, self.truth.rows)),
                )  # fmt: skip

    def controls(self) -> None:
        """Records `control`: the same dims of other axes."""
        k, voters, dims = self.settings.k, self.settings.neighbours, self.corpus.dims
        has = [self.journal.has("control", name=name, dims=d) for name in CONTROLS for d in dims]
        if len(self.corpus) > LARGEST or all(has):
            return
        for name, projection in projections(self.corpus, self.settings.seed).items():
            found = control_answers(self.corpus, self.queries, projection, dims, max(k, voters))
            for number, (d, hits) in enumerate(found, 1):
                self.progress(f"control {name}", number, len(dims))
                if not self.journal.has("control", name=name, dims=d):
                    vote = self._labels_of(hits.first(voters))["vote"]
                    count = pack(found_at_k(hits.first(k).rows, self.truth.rows))
                    self.journal.add("control", name=name, dims=d, vote=vote, found=count)

    def times(self) -> None:
        """Records `latency` and `batch`: in each round every contestant answers all its queries."""
        s = self.settings
        rows = self.queries.vectors[shuffled(len(self.queries), s.timed, s.seed)]
        batch = rows[np.arange(s.batch) % len(rows)]
        paces: dict[str, Pace] = {}
        for number in range(1, s.rounds + 1):
            progress = partial(self.progress, f"timing, round {number}")
            todo = self._untimed("latency", number)
            with threads(s.threads):
                for name, answer in todo.items():
                    paces.setdefault(name, self._pace(name) or pace_of(answer, rows, s.rounds))
                for name, ms in time_round(todo, rows, paces, progress).items():
                    times = [round(t, 4) for t in ms]
                    warm_up = paces[name].warm_up
                    self.journal.add("latency", plan=name, round=number, warm_up=warm_up, ms=times)
                for name, answer in self._untimed("batch", number).items():
                    seconds = round(batch_seconds(answer, batch), 6)
                    record = {"queries": len(batch), "seconds": seconds}
                    self.journal.add("batch", plan=name, round=number, **record)

    def pictures(self) -> None:
        """Records `scatter`, `ladder` and, where there are labels, `mislabels`."""
        s, journal = self.settings, self.journal
        for d in shown_dims(self.corpus, SCATTERED):
            if not journal.has("scatter", dims=d):
                journal.add("scatter", **scatter_record(self.corpus, d, s.seed))
        for number in range(1, LADDERS + 1):
            if not journal.has("ladder", number=number):
                journal.add("ladder", **ladder_record(self.corpus, self.queries, number, s.seed))
        votes = [r["vote"] for r in journal.run.of("prefix")]
        if None not in votes and not journal.has("mislabels"):
            right = np.any([unpack(vote) == 1 for vote in votes], axis=0)
            wrong = self.queries.labelled[~right]
            record = mislabel_record(self.corpus, self.queries, wrong, s.neighbours)
            journal.add("mislabels", **record)

    def _labels_of(self, hits: BatchHits) -> dict[str, Any]:
        """Hits compared with labels, as a record holds them; None without labels."""
        rows, labels = self.queries.labelled, self.corpus.collection.labels
        if not len(rows) or not self.corpus.collection.labelled.any():
            return {"nearest": None, "vote": None, "precision": None}
        some = BatchHits(hits.rows[rows], hits.scores[rows])
        found = outcomes(some, labels, self.queries.labels[rows])
        mean, sd = float(found.precision.mean()), float(found.precision.std())
        precision = {"mean": mean, "sd": sd, "n": len(rows)}
        return {"nearest": pack(found.nearest), "vote": pack(found.vote), "precision": precision}

    def _untimed(self, kind: str, number: int) -> dict[str, Answer]:
        """The contestants that have no times of this kind and round."""
        return {
            c.name: partial(find, self.corpus, plan=c.plan, k=self.settings.k)
            for c in self.contestants
            if not self.journal.has(kind, plan=c.name, round=number)
        }

    def _pace(self, name: str) -> Pace | None:
        """How a contestant was timed before: every round times the same queries."""
        before = self.journal.run.one("latency", plan=name)
        return Pace(len(before["ms"]), before["warm_up"]) if before else None
