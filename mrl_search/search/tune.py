"""Tuning: the cheapest plan that keeps the share asked for of what exact search would give, on the user's own vectors.

Every start dim and effort is searched once, deep; shorter shortlists and middle stages are slices of that. What a plan is worth is told
by a `Goal`; what it costs is measured, one query at a time, on one thread.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.config import Plan, Stage
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index, efforts
from mrl_search.manifest import prefix_file
from mrl_search.results import BatchHits
from mrl_search.search.others import leave_out_rows
from mrl_search.search.pruned import exact_pruned
from mrl_search.search.ranking import best
from mrl_search.search.run import search
from mrl_search.search.stage import Rows, pair_scores, propose
from mrl_search.search.vote import vote

__all__ = ["Goal", "Trial", "Tuned", "default_plan", "front", "sample", "tune"]

DEEPEST = 2000  # candidates that are looked at, at most
SHORTLISTS = (1, 1.5, 2, 3, 5, 7.5, 10, 15, 20, 30, 50, 75, 100, 150, 200)  # times k
MIDDLE = 4  # times k: from this shortlist on a middle stage may pay
TIMED, ROUNDS = 40, 3  # queries, and times that each is asked
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class Goal:
    """What to tune for: `score` gives each query a mark from 0 to 1 for its answers, and exact search's mean is what can be had.

    Attributes:
        name: `recall`, `class` or `instance`.
        k: answers a query gets.
        queries: (n, dim) float32, in the space of the index.
        own: (n,) row of each query in the index itself, left out of its answer; -1 where it has none.
        score: (rows of the queries, ids (rows, k)) to marks (rows,).
    """

    name: str
    k: int
    queries: NDArray[np.float32]
    own: Rows
    score: Callable[[Rows, Rows], NDArray[np.float64]]

    @classmethod
    def recall(cls, index: Index, rows: Rows, k: int = 10) -> "Goal":
        """Share of the true `k` neighbours of the items at `rows` that are found, as exact search at full length gives them."""
        k = min(k, len(index) - 1)
        queries = np.asarray(index.embeddings.vectors[rows], dtype=np.float32)
        truth = leave_out_rows(exact_pruned(index, queries, k + 1), rows, k).ids

        def score(asked: Rows, ids: Rows) -> NDArray[np.float64]:
            found: NDArray[np.float64] = (ids[:, :, None] == truth[asked][:, None, :]).any(axis=2).sum(axis=1) / k
            return found

        return cls("recall", k, queries, rows, score)

    @classmethod
    def votes(cls, index: Index, rows: Rows, k: int = 20) -> "Goal":
        """Whether the vote of the `k` neighbours gives the items at `rows` their own label; those without one are not asked.

        Raises:
            DataError: none has a label.
        """
        labels = index.embeddings.labels
        rows = rows[[labels[row] is not None for row in rows]]
        if not len(rows):
            raise DataError(f"The items of {index.folder} have no labels to tune by.", "Tune for recall instead.")
        queries = np.asarray(index.embeddings.vectors[rows], dtype=np.float32)

        def score(asked: Rows, ids: Rows) -> NDArray[np.float64]:
            voted = vote(BatchHits(ids, pair_scores(index, queries[asked], ids, index.dim)), labels)
            return np.array([v.label == labels[row] for v, row in zip(voted, rows[asked], strict=True)], dtype=np.float64)

        return cls("class", min(k, len(index) - 1), queries, rows, score)


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan that was tried: its mean mark on the queries it was chosen by, p50 of single queries in ms (None: not timed), and bytes.

    `ram` is what its first stage keeps in memory: the FAISS index of the prefix, or the stored prefixes where it scans them.
    """

    plan: Plan
    value: float
    ram: int
    ms: float | None = None


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found.

    Attributes:
        chosen: the plan to use.
        held_out: its mean mark on queries that had no part in the choice, and `n` of them.
        n: see above.
        exact: mean mark of exact search on all queries.
        exact_ms: p50 of exact search.
        trials: all plans that were timed, exact search among them.
    """

    chosen: Trial
    held_out: float
    n: int
    exact: float
    exact_ms: float
    trials: tuple[Trial, ...]


def tune(index: Index, goal: Goal, target: float, max_ram: int | None = None, progress: Progress | None = None) -> Tuned:
    """Find the cheapest plan whose mark is at least `target` times that of exact search.

    Half of the queries choose, the other half checks: a plan must reach the target on both, within half a point on the second.

    Args:
        index: what is searched.
        goal: what a plan is worth, and the queries to ask.
        target: share of what exact search gives, up to 1.
        max_ram: bytes that the first stage may keep in memory.
        progress: is told what is being done, how much of it, and of how much.

    Raises:
        ConfigError: a target that makes no sense, or no prefix index small enough.
        DataError: fewer than 20 queries.
    """
    if not 0 < target <= 1:
        raise ConfigError(f"The target is a share up to 1, not {target}.", "For example 0.99.")
    if len(goal.queries) < 20:
        raise DataError(f"{len(goal.queries)} queries are too few to tune by.", "Use a larger index, or more queries.")
    half = len(goal.queries) // 2
    choose, check = np.arange(half), np.arange(half, len(goal.queries))
    exact = exact_pruned(index, goal.queries, goal.k + 1)
    best_marks = goal.score(np.arange(len(goal.queries)), leave_out_rows(exact, goal.own, goal.k).ids)
    wanted = target * best_marks[choose].mean()
    dims = [d for d in index.dims if max_ram is None or ram_of(index, d) <= max_ram]
    dims = [d for d in dims if not index.scans(d)] or dims  # a scan is never the cheapest where something else is to be had
    starts = [(d, e) for d in dims for e in _efforts(index, d)]
    if not starts:
        least = min(index.dims, key=lambda d: ram_of(index, d))
        raise ConfigError(f"No prefix index fits in {max_ram:,} bytes.", f"The smallest, {least} dims, takes {ram_of(index, least):,}.")
    trials: dict[str, Trial] = {}
    for done, (d, effort) in enumerate(starts, 1):
        for trial in _trials(index, goal, choose, d, effort, wanted):
            trials.setdefault(str(trial.plan), trial)
        if progress:
            progress("searching", done, len(starts))
    full = Trial(Plan.single(index.dim, goal.k), float(best_marks[choose].mean()), ram_of(index, index.dim))
    timed = _timed(index, goal, [*_promising(list(trials.values()), wanted), full], progress)
    cheapest = sorted((t for t in timed if t.value >= wanted), key=lambda t: t.ms or 0.0)
    for trial in cheapest:
        marks = goal.score(check, _answers(index, goal, check, trial.plan))
        if marks.mean() >= target * best_marks[check].mean() - 0.005 * target or trial is cheapest[-1]:
            break
    exact_ms = next(t.ms for t in timed if t.plan == full.plan) or 0.0
    return Tuned(trial, float(marks.mean()), len(check), float(best_marks.mean()), exact_ms, tuple(timed))


def sample(index: Index, count: int) -> Rows:
    """Rows of the index to ask with, `count` of them at most: (n,) int64, drawn with a fixed seed and in no order."""
    return np.random.default_rng(0).permutation(len(index))[:count]


def default_plan(index: Index, k: int, use: str = "query") -> Plan:
    """The plan that was tuned for `use`, `query` or `classify`, if it was tuned for as many answers; else exact search at full length."""
    tuned = index.manifest.plans.get(use)
    if isinstance(tuned, dict) and "plan" in tuned:
        *early, last = Plan.parse(str(tuned["plan"]), 1).stages
        if last.keep >= k:
            return Plan((*early, Stage(last.dims, k, last.effort)))
    return Plan.single(index.dim, k)


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


def _trials(index: Index, goal: Goal, rows: Rows, dims: int, effort: int, wanted: float) -> Iterator[Trial]:
    """Plans that begin at `dims` with `effort`, of one to three stages, with their marks on the queries at `rows`."""
    queries, own, k, ram = goal.queries[rows], goal.own[rows], goal.k, ram_of(index, dims)
    depth = min(DEEPEST, len(index))
    found = propose(index, queries, Stage(dims, depth, effort))
    alone = leave_out_rows(found, own, k)
    if dims == index.dim and not effort:
        return  # exact search, which is tried anyway
    yield Trial(Plan((Stage(dims, k, effort),)), _mark(goal, rows, alone.ids), ram)
    if dims == index.dim:
        return
    shortlists = sorted({min(depth, round(times * k)) for times in SHORTLISTS})
    whole = pair_scores(index, queries, found.ids, index.dim)

    def two_stages(ids: Rows, scores: NDArray[np.float32], keep: int) -> float:
        return _mark(goal, rows, leave_out_rows(best(ids[:, :keep], scores[:, :keep], k + 1), own, k).ids)

    for keep in shortlists:
        value = two_stages(found.ids, whole, keep)
        yield Trial(Plan((Stage(dims, keep, effort), Stage(index.dim, k))), value, ram)
        if value < wanted or keep < MIDDLE * k:
            continue
        for middle in (d for d in index.dims if 2 * dims <= d < index.dim):  # an enough-long shortlist, cut before it is read whole
            order = np.argsort(-pair_scores(index, queries, found.ids[:, :keep], middle), axis=1, kind="stable")
            ids, scores = np.take_along_axis(found.ids, order, axis=1), np.take_along_axis(whole, order, axis=1)
            for shorter in (n for n in shortlists if n < keep):
                value = two_stages(ids, scores, shorter)
                if value >= wanted:
                    yield Trial(Plan((Stage(dims, keep, effort), Stage(middle, shorter), Stage(index.dim, k))), value, ram)
                    break
        return  # a longer shortlist costs more and is not needed


def _mark(goal: Goal, rows: Rows, ids: Rows) -> float:
    return float(goal.score(rows, ids).mean())


def _promising(trials: list[Trial], wanted: float) -> list[Trial]:
    """What is worth timing: of every start and effort the plans that reach the goal, and the last one that falls short of it."""
    short: dict[tuple[Stage, int], Trial] = {}
    for trial in trials:
        if trial.value < wanted:
            first = trial.plan.stages[0]
            short[Stage(first.dims, 1, first.effort), len(trial.plan.stages)] = trial
    return [t for t in trials if t.value >= wanted] + list(short.values())


def _answers(index: Index, goal: Goal, rows: Rows, plan: Plan) -> Rows:
    """Ids that `plan` gives the queries at `rows`, asked for one more, as each query's own row is left out."""
    *early, last = plan.stages
    wider = Plan((*early, Stage(last.dims, goal.k + 1, last.effort))) if not early or early[-1].keep > goal.k else plan
    return leave_out_rows(search(index, goal.queries[rows], wider), goal.own[rows], goal.k).ids


def _timed(index: Index, goal: Goal, trials: list[Trial], progress: Progress | None) -> list[Trial]:
    """`trials` with their times: single queries on one thread, plans in turn, so that a slow moment meets all of them."""
    queries = goal.queries[np.linspace(0, len(goal.queries) - 1, TIMED).astype(int)]
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    times = np.empty((len(trials), ROUNDS, len(queries)))
    try:
        for trial in trials:
            search(index, queries[:2], trial.plan)
        for number, round_, query in np.ndindex(times.shape[0], ROUNDS, len(queries)):
            start = time.perf_counter()
            search(index, queries[query], trials[number].plan)
            times[number, round_, query] = time.perf_counter() - start
            if progress and query == 0:
                progress("timing", number * ROUNDS + round_ + 1, len(trials) * ROUNDS)
    finally:
        faiss.omp_set_num_threads(before)
    p50 = np.median(np.median(times, axis=1), axis=1) * 1e3
    return [Trial(t.plan, t.value, t.ram, float(ms)) for t, ms in zip(trials, p50, strict=True)]
