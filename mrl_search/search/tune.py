"""Tuning: the cheapest plan that keeps the share asked for of what exact search would give, on the user's own vectors.

Every start dim and effort that may pay is searched once, deep; shorter shortlists and middle stages are slices of that. What a plan is
worth is told by a `Goal`; what it costs is measured, one query at a time, on one thread.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index, efforts, is_graph
from mrl_search.errors import ConfigError, DataError
from mrl_search.metrics import wilson_interval
from mrl_search.progress import Progress, silent
from mrl_search.search.exact.pruned import exact_pruned
from mrl_search.search.kernels import best, load
from mrl_search.search.others import leave_out_rows
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.search.scoring import MARGIN, Rows, ask, is_exact, pair_scores, propose
from mrl_search.search.vote import vote
from mrl_search.store.manifest import prefix_file

__all__ = [
    "Goal",
    "Trial",
    "Tuned",
    "default_plan",
    "exact_by_default",
    "exact_others",
    "front",
    "sample",
    "tune",
]

DEEPEST = 2000  # candidates that are looked at, at most
SHORTLISTS = (
    1,
    1.5,
    2,
    2.5,
    3,
    4,
    5,
    6,
    7.5,
    9,
    11,
    13,
    16,
    20,
    25,
    30,
    35,
    40,
    50,
    60,
    75,
    90,
    110,
    130,
    160,
    200,
)  # times k
TOLERANCE = 0.005  # what a plan may miss the target by on the queries that check it
MIDDLE = 4  # times k: from this shortlist on a middle stage may pay
TIMED, ROUNDS = 40, 3  # queries, and times that each is asked


@dataclass(frozen=True, eq=False)
class Goal:
    """What to tune for: `score` gives each query a mark from 0 to 1 for its answers, and exact search's mean is what can be had.

    Attributes:
        name: `recall`, `class` or `instance`.
        k: answers a query gets.
        queries: (n, dim) float32, in the space of the index.
        own: (n,) row of each query in the index itself, left out of its answer; -1 where it has none.
        exact: what exact search at full length gives, (n, k).
        score: (rows of the queries, their answers (rows, k)) to marks (rows,).
    """

    name: str
    k: int
    queries: NDArray[np.float32]
    own: Rows
    exact: BatchHits
    score: Callable[[Rows, BatchHits], NDArray[np.float64]]

    @classmethod
    def recall(cls, index: Index, rows: Rows, k: int = 10) -> "Goal":
        """Share of the true `k` neighbours of the items at `rows` that are found, as exact search at full length gives them."""
        k = min(k, len(index) - 1)
        queries = np.asarray(index.embeddings.vectors[rows], dtype=np.float32)
        truth = exact_others(index, queries, rows, k)

        def score(asked: Rows, hits: BatchHits) -> NDArray[np.float64]:
            found: NDArray[np.float64] = (hits.ids[:, :, None] == truth.ids[asked][:, None, :]).any(
                axis=2
            ).sum(axis=1) / k
            return found

        return cls("recall", k, queries, rows, truth, score)

    @classmethod
    def votes(cls, index: Index, rows: Rows, k: int = 20) -> "Goal":
        """Whether the vote of the `k` neighbours gives the items at `rows` their own label; those without one are not asked.

        Raises:
            DataError: none has a label.
        """
        labels = index.embeddings.labels
        rows = rows[[labels[row] is not None for row in rows]]
        if not len(rows):
            raise DataError(
                f"The items of {index.folder} have no labels to tune by.",
                "Tune for recall instead.",
            )
        queries = np.asarray(index.embeddings.vectors[rows], dtype=np.float32)

        def score(asked: Rows, hits: BatchHits) -> NDArray[np.float64]:
            voted = vote(hits, labels)
            return np.array(
                [v.label == labels[row] for v, row in zip(voted, rows[asked], strict=True)],
                dtype=np.float64,
            )

        k = min(k, len(index) - 1)
        return cls("class", k, queries, rows, exact_others(index, queries, rows, k), score)


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan that was tried.

    Attributes:
        plan: the plan.
        value: its mean mark on the queries that choose.
        reached: whether that is the target at least, by more than the standard error of the difference.
        ram: bytes that its first stage keeps in memory: the FAISS index of the prefix, or the stored prefixes where it scans them.
        ms: p50 of single queries; None where it was not timed.
    """

    plan: Plan
    value: float
    reached: bool
    ram: int
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found.

    Attributes:
        chosen: the plan to use.
        held_out: its mean mark on the `n` queries that check, within `interval` with 95% confidence (Wilson's); a little flattering where
            they turned cheaper plans down.
        interval: see above.
        n: see above.
        exact: mean mark of exact search on all queries.
        exact_ms: p50 of exact search, in the same run as the trials.
        trials: all plans that were timed.
    """

    chosen: Trial
    held_out: float
    interval: tuple[float, float]
    n: int
    exact: float
    exact_ms: float
    trials: tuple[Trial, ...]


def tune(
    index: Index, goal: Goal, target: float, max_ram: int | None = None, progress: Progress = silent
) -> Tuned:
    """Find the cheapest plan whose mark is at least `target` times that of exact search.

    Half of the queries choose, the other half checks: a plan must reach the target on the first by more than chance may give it, and
    within half a point on the second.

    Args:
        index: what is searched.
        goal: what a plan is worth, and the queries to ask.
        target: share of what exact search gives, up to 1.
        max_ram: bytes that the first stage may keep in memory.
        progress: is told what is being done, how much of it, and of how much.

    Raises:
        ConfigError: a target that makes no sense, or that no plan reaches; no prefix index small enough.
        DataError: fewer than 20 queries.
    """
    if not 0 < target <= 1:
        raise ConfigError(f"The target is a share up to 1, not {target}.", "For example 0.99.")
    if len(goal.queries) < 20:
        raise DataError(
            f"{len(goal.queries)} queries are too few to tune by.",
            "Use a larger index, or more queries.",
        )
    half = len(goal.queries) // 2
    choose, check = np.arange(half), np.arange(half, len(goal.queries))
    best_marks = goal.score(np.arange(len(goal.queries)), goal.exact)
    judge = _Judge(goal, choose, target * best_marks[choose])
    dims = [d for d in index.dims if max_ram is None or ram_of(index, d) <= max_ram]
    dims = [
        d for d in dims if not index.scans(d)
    ] or dims  # a scan is never the cheapest where something else is to be had
    if not dims:
        least = min(index.dims, key=lambda d: ram_of(index, d))
        raise ConfigError(
            f"No prefix index fits in {max_ram:,} bytes.",
            f"The smallest, {least} dims, takes {ram_of(index, least):,}.",
        )
    trials: dict[str, Trial] = {}
    done, total = 0, sum(len(_efforts(index, d)) for d in dims)
    for d in dims:
        for looked, found in enumerate(_looks(index, judge, d), 1):
            for trial in found:
                trials.setdefault(str(trial.plan), trial)
            progress("searching", done + looked, total)
        done += len(_efforts(index, d))
    progress("searching", total, total)
    timed, exact_ms = _timed(index, goal, _promising(list(trials.values())), progress)
    reached = sorted((t for t in timed if t.reached), key=lambda t: t.ms or 0.0)
    if not reached:
        closest = max(timed, key=lambda t: t.value)
        raise ConfigError(
            f"No plan that was tried on {index.folder} reaches {target:.1%} of exact search; {closest.plan} has {closest.value:.1%}.",
            "Ask for less, allow more memory, or build the index with other kinds (--factory).",
        )
    checked: list[tuple[Trial, NDArray[np.float64]]] = []
    for trial in reached:
        checked.append((trial, goal.score(check, _answers(index, goal, check, trial.plan))))
        if checked[-1][1].mean() >= target * best_marks[check].mean() - TOLERANCE:
            break
    else:
        best_trial, marks = max(checked, key=lambda pair: float(pair[1].mean()))
        raise ConfigError(
            f"No plan reaches {target:.1%} of exact search on the queries that check it; {best_trial.plan} has {marks.mean():.1%}.",
            "Ask for less, or tune with more --queries.",
        )
    chosen, marks = checked[-1]
    interval = wilson_interval(
        float(marks.sum()), len(marks)
    )  # a little wide where marks are shares
    return Tuned(
        chosen,
        float(marks.mean()),
        interval,
        len(check),
        float(best_marks.mean()),
        exact_ms,
        tuple(timed),
    )


def sample(index: Index, count: int) -> Rows:
    """Rows of the index to ask with, `count` of them at most: (n,) int64, drawn with a fixed seed and in no order."""
    return np.random.default_rng(0).permutation(len(index))[:count]


def exact_others(index: Index, queries: NDArray[np.float32], own: Rows, k: int) -> BatchHits:
    """The true `k` nearest of each query but its own row, -1 for none: (n, k)."""
    return leave_out_rows(exact_pruned(index, queries, k + 1), own, k)


def default_plan(index: Index, k: int, use: str = "query") -> Plan:
    """The plan that was tuned for `use`, `query` or `classify`, if it was tuned for as many answers; else exact search at full length."""
    tuned = index.manifest.plans.get(use)
    if isinstance(tuned, dict) and "plan" in tuned:
        plan = Plan.parse(str(tuned["plan"]), 1)
        *early, last = plan.stages
        if last.keep >= k and set(plan.dims) <= set(index.dims):
            return Plan((*early, Stage(last.dims, k, last.effort)))
    return Plan.single(index.dim, k)


def exact_by_default(index: Index, k: int, use: str = "query") -> bool:
    """Whether `default_plan` stands for exact search, which the index at full length does not give: `exact_pruned` does."""
    return default_plan(index, k, use) == Plan.single(index.dim, k) and not is_exact(
        index, index.dim, None
    )


def front(trials: tuple[Trial, ...]) -> list[Trial]:
    """The trials that no other beats in both time and mark, by rising time: the Pareto front."""
    kept: list[Trial] = []
    for trial in sorted((t for t in trials if t.ms is not None), key=lambda t: (t.ms, -t.value)):
        if not kept or trial.value > kept[-1].value:
            kept.append(trial)
    return kept


def ram_of(index: Index, dims: int) -> int:
    """Bytes that a first stage at `dims` keeps in memory."""
    if index.scans(dims):
        return len(index) * dims * np.dtype(index.manifest.dtype).itemsize
    return index.manifest.files[prefix_file(dims)].bytes


def _efforts(index: Index, dims: int) -> tuple[int, ...]:
    return (0,) if index.scans(dims) else efforts(index.prefix_index(dims))


@dataclass(frozen=True, eq=False, slots=True)
class _Judge:
    """Marks plans by their answers to the queries at `rows`, and says whether they are as good as `needed`, a mark for each of them."""

    goal: Goal
    rows: Rows
    needed: NDArray[np.float64]

    def trial(self, plan: Plan, hits: BatchHits, ram: int) -> Trial:
        marks = self.goal.score(
            self.rows, leave_out_rows(hits, self.goal.own[self.rows], self.goal.k)
        )
        surplus = marks - self.needed
        return Trial(
            plan,
            float(marks.mean()),
            bool(surplus.mean() >= surplus.std() / np.sqrt(len(surplus))),
            ram,
        )


def _looks(index: Index, judge: _Judge, dims: int) -> Iterator[list[Trial]]:
    """The plans that begin at `dims`, of one effort after another, as far as these may pay.

    The hardest look comes first. Where that falls short, no other is tried; the others follow from the least on, up to one that
    makes do with as short a shortlist as the hardest.
    """
    *lesser, hardest = _efforts(index, dims)
    found = list(_trials(index, judge, dims, hardest))
    yield found
    shortest = _shortest(found)
    for effort in lesser if shortest else ():
        found = list(_trials(index, judge, dims, effort))
        yield found
        if 0 < _shortest(found) <= shortest:
            return


def _shortest(trials: list[Trial]) -> int:
    """The shortest shortlist that reaches the goal; 0 where none does."""
    return min((trial.plan.stages[0].keep for trial in trials if trial.reached), default=0)


def _trials(index: Index, judge: _Judge, dims: int, effort: int) -> Iterator[Trial]:
    """Plans that begin at `dims` with `effort`, of one to three stages."""
    queries, k, ram = judge.goal.queries[judge.rows], judge.goal.k, ram_of(index, dims)
    yield judge.trial(
        Plan((Stage(dims, k, effort),)), propose(index, queries, Stage(dims, k + 1, effort)), ram
    )
    if dims == index.dim:
        return
    depth = min(DEEPEST, len(index))
    if not index.scans(dims) and is_graph(index.prefix_index(dims)):
        depth = min(
            depth, effort - MARGIN
        )  # asked for more it would look harder than the plan does
    if depth <= k:
        return
    shortlists = sorted({n for n in (round(times * k) for times in SHORTLISTS) if n <= depth})
    deep = Stage(dims, depth, effort)
    ids = propose(index, queries, deep).ids if index.scans(dims) else ask(index, queries, deep)[1]
    whole, last = pair_scores(index, queries, ids, index.dim), Stage(index.dim, k)
    reached = False
    for keep in shortlists:
        shortlist, scores = ids[:, :keep], whole[:, :keep]
        two = judge.trial(
            Plan((Stage(dims, keep, effort), last)), best(shortlist, scores, k + 1), ram
        )
        yield two
        if reached:
            return  # a longer shortlist costs more and is not needed; one more is tried, because those that check may ask for it
        reached = two.reached
        if not reached or keep < MIDDLE * k:
            continue
        for middle in (
            d for d in index.dims if dims < d < index.dim
        ):  # a long shortlist, cut before it is read whole
            order = np.argsort(
                -pair_scores(index, queries, shortlist, middle), axis=1, kind="stable"
            )
            for shorter in (n for n in shortlists if n < keep):
                cut = order[:, :shorter]
                hits = best(
                    np.take_along_axis(shortlist, cut, axis=1),
                    np.take_along_axis(scores, cut, axis=1),
                    k + 1,
                )
                three = judge.trial(
                    Plan((Stage(dims, keep, effort), Stage(middle, shorter), last)), hits, ram
                )
                if three.reached:
                    yield three
                    break


def _promising(trials: list[Trial]) -> list[Trial]:
    """What is worth timing: the plans that reach the goal, and of every start and effort the last one that falls short of it."""
    short: dict[tuple[int, int, int], Trial] = {}
    for trial in trials:
        if not trial.reached:
            first = trial.plan.stages[0]
            short[first.dims, first.effort, len(trial.plan.stages)] = trial
    return [t for t in trials if t.reached] + list(short.values())


def _answers(index: Index, goal: Goal, rows: Rows, plan: Plan) -> BatchHits:
    """What `plan` gives the queries at `rows`, asked for one more, as each query's own row is left out."""
    *early, last = plan.stages
    wider = (
        Plan((*early, Stage(last.dims, goal.k + 1, last.effort)))
        if not early or early[-1].keep > goal.k
        else plan
    )
    return leave_out_rows(search(index, goal.queries[rows], wider), goal.own[rows], goal.k)


def _timed(
    index: Index, goal: Goal, trials: list[Trial], progress: Progress
) -> tuple[list[Trial], float]:
    """`trials` with their times, and that of exact search: p50 of single queries in ms, FAISS and the kernels on one thread.

    A plan answers all queries in a row, as one in use does; a round is every plan's turn, so that a slow moment of the machine is not
    one plan's bad luck.
    """
    queries = goal.queries[np.linspace(0, len(goal.queries) - 1, TIMED).astype(int)]
    jobs: list[Callable[[NDArray[np.float32]], object]] = [
        partial(search, index, plan=trial.plan) for trial in trials
    ]
    jobs.append(partial(exact_pruned, index, k=goal.k))
    load()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    times = np.empty((ROUNDS, len(jobs), len(queries)))
    try:
        for job in jobs:
            job(queries[:2])
        for round_, number, query in np.ndindex(times.shape):
            start = time.perf_counter()
            jobs[number](queries[query])
            times[round_, number, query] = time.perf_counter() - start
            if query == 0:
                progress("timing", round_ * len(jobs) + number + 1, ROUNDS * len(jobs))
    finally:
        faiss.omp_set_num_threads(before)
    *p50, exact_ms = (np.median(np.median(times, axis=0), axis=1) * 1e3).tolist()
    return [replace(trial, ms=ms) for trial, ms in zip(trials, p50, strict=True)], exact_ms
