"""The bench: accuracy of every prefix, answers and times of every plan, controls and pictures, measured into a journal of records.

Accuracy needs labels, pictures need their files; what cannot be had is absent, and the rest is measured. What the journal has already
is not measured again.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from mrl_search.engines import Index
from mrl_search.measure.accuracy import Copies
from mrl_search.measure.contestants import Contestant, contestants, memory, multiply_adds
from mrl_search.measure.controls import CONTROLS, LARGEST, control_answers, projections
from mrl_search.measure.outcomes import answers, judge, votes
from mrl_search.measure.pictures import (
    LADDERS,
    SCATTERED,
    ladder_record,
    mislabel_record,
    scatter_record,
    shown_dims,
)
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import BRUTE, EXACT, Journal, Run, pack, unpack
from mrl_search.measure.settings import BenchSettings
from mrl_search.measure.timing import Answer, Round, batch_seconds, rehearse, threads_of, time_round
from mrl_search.progress import Progress
from mrl_search.search import kernels, search
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits

__all__ = ["measure", "measure_instances"]


def measure(
    index: Index, queries: QuerySet, settings: BenchSettings, journal: Journal, progress: Progress
) -> Run:
    """Measure what the journal does not have yet, and return all of it.

    Raises:
        ConfigError: the index cannot run one of its own plans.
        MrlSearchError: the journal cannot be written.
    """
    bench = _Bench(index, queries, settings, journal, progress)
    bench.prefixes()
    bench.plans()
    bench.controls()
    bench.times()
    bench.pictures()
    if not journal.run.done:
        journal.add("done")
    return journal.run


def measure_instances(index: Index, copies: Copies, journal: Journal) -> None:
    """Search changed copies of pictures at every prefix: does each find its original first?"""
    for d in index.dims:
        if not journal.has("instance", dims=d):
            first = search(index, index.to_space(copies.rows), Plan.single(d, 1)).ids[:, 0]
            journal.add(
                "instance",
                dims=d,
                right=pack((index.embeddings.hashes[first] == copies.originals) & (first >= 0)),
            )


@dataclass(frozen=True, eq=False)
class _Bench:
    index: Index
    queries: QuerySet
    settings: BenchSettings
    journal: Journal
    progress: Progress

    @cached_property
    def contestants(self) -> list[Contestant]:
        return contestants(self.index, self.settings.k)

    @cached_property
    def truth(self) -> BatchHits:
        """The true neighbours at full length of every query, itself left out: (n, k); brute force where no index compares with all."""
        chosen = next((c for c in self.contestants if c.name == EXACT), self.contestants[0])
        return self._answers(replace(chosen, name="exact neighbours"), self.settings.k)

    def prefixes(self) -> None:
        """Records `prefix`: the linear head and the vote of the neighbours, where there are labels; the full length first.

        Confidence is the winner's share of the votes, in 255ths.
        """
        queries = self.queries
        own = queries.labels[queries.labelled]
        for d in reversed(self.index.dims):
            if self.journal.has("prefix", dims=d):
                continue
            linear = vote = confidence = None
            if queries.embeddings.has_head(d, own):
                linear = pack(
                    queries.embeddings.linear_predictions(d)[queries.rows][queries.labelled] == own
                )
            if len(own):
                asked = Contestant(f"{d} dims", Plan.single(d, self.settings.neighbours))
                if voted := votes(
                    self.index, queries, self._answers(asked, self.settings.neighbours)
                ):
                    vote, confidence = (
                        pack(voted[0] == own),
                        pack(np.rint(255 * voted[1]).astype(np.int64)),
                    )
            self.journal.add("prefix", dims=d, linear=linear, vote=vote, confidence=confidence)

    def plans(self) -> None:
        """Records `plan`: what each contestant answers, what it computes, and what it holds in memory."""
        for c in self.contestants:
            if self.journal.has("plan", name=c.name):
                continue
            known = c.name in (BRUTE, EXACT)  # the true neighbours, found already
            hits = self.truth if known else self._answers(c, self.settings.k)
            read = None if hits.dims is None else float(hits.dims.mean())
            self.journal.add(
                "plan", name=c.name, plan=str(c), dims=c.single, multiply_adds=multiply_adds(self.index, c), ram=memory(self.index, c.plan),
                dims_read=read, **judge(self.index, self.queries, hits, self.truth.ids).record(),
            )  # fmt: skip

    def controls(self) -> None:
        """Records `control`: the same prefixes of other axes."""
        k, neighbours, dims = self.settings.k, self.settings.neighbours, self.index.dims
        if len(self.index) > LARGEST or all(
            self.journal.has("control", name=name, dims=d) for name in CONTROLS for d in dims
        ):
            return
        for name, projection in projections(self.index, self.settings.seed).items():
            hits_at = control_answers(
                self.index, self.queries, projection, dims, max(k, neighbours)
            )
            for number, (d, hits) in enumerate(hits_at, 1):
                self.progress(f"control {name}", number, len(dims))
                if not self.journal.has("control", name=name, dims=d):
                    voted = judge(
                        self.index, self.queries, hits.first(neighbours), self.truth.ids
                    ).record()["vote"]
                    found = judge(self.index, self.queries, hits.first(k), self.truth.ids).record()[
                        "found"
                    ]
                    self.journal.add("control", name=name, dims=d, vote=voted, found=found)

    def times(self) -> None:
        """Records `latency` and `batch`, round by round; in each, one contestant after the other answers all its queries."""
        kernels.load()
        settings = self.settings
        rows = self.queries.timed(settings.timed, settings.seed)
        batch = rows[np.arange(settings.batch) % len(rows)]
        answer = {c.name: self._searcher(c) for c in self.contestants}
        how: dict[str, Round] = {}
        for number in range(1, settings.rounds + 1):
            todo = {
                name: a
                for name, a in answer.items()
                if not self.journal.has("latency", plan=name, round=number)
            }
            with threads_of(settings.threads):
                for name, a in todo.items():
                    how[name] = (
                        how.get(name) or self._round_of(name) or rehearse(a, rows, settings.rounds)
                    )
                said = f"timing, round {number}"
                for name, ms in (
                    time_round(
                        todo, rows, how, lambda done, n, s=said: self.progress(s, done, n)
                    ).items()
                    if todo
                    else ()
                ):  # type: ignore[misc]
                    self.journal.add(
                        "latency", plan=name, round=number, warm_up=how[name].warm_up, ms=[round(t, 4) for t in ms]
                    )  # fmt: skip
                for name, a in answer.items():
                    if not self.journal.has("batch", plan=name, round=number):
                        self.journal.add(
                            "batch",
                            plan=name,
                            round=number,
                            queries=len(batch),
                            seconds=round(batch_seconds(a, batch), 6),
                        )

    def pictures(self) -> None:
        """Records `scatter`, `ladder` and, where there are labels, `mislabels`."""
        seed = self.settings.seed
        for d in shown_dims(self.index, SCATTERED):
            if not self.journal.has("scatter", dims=d):
                self.journal.add("scatter", **scatter_record(self.index, d, seed))
        for number in range(1, LADDERS + 1):
            if not self.journal.has("ladder", number=number):
                self.journal.add("ladder", **ladder_record(self.index, self.queries, number, seed))
        right = [r["vote"] for r in self.journal.run.of("prefix")]
        if None not in right and not self.journal.has("mislabels"):
            wrong = self.queries.labelled[
                ~np.any([unpack(bits).astype(bool) for bits in right], axis=0)
            ]
            self.journal.add(
                "mislabels",
                **mislabel_record(self.index, self.queries, wrong, self.settings.neighbours),
            )

    def _answers(self, contestant: Contestant, k: int) -> BatchHits:
        return answers(
            self.index,
            self.queries,
            contestant,
            k,
            lambda done, n: self.progress(contestant.name, done, n),
        )

    def _searcher(self, contestant: Contestant) -> Answer:
        return lambda rows: contestant.search(self.index, rows, self.settings.k)

    def _round_of(self, name: str) -> Round | None:
        """How a contestant was timed in an earlier round, so that every round times the same queries."""
        before = self.journal.run.one("latency", plan=name)
        return Round(len(before["ms"]), before["warm_up"]) if before else None
