"""Tuning: the cheapest plan that keeps a wanted share of what exact search finds.

Every first stage that may pay is searched once, deep; shorter shortlists and middle stages are
slices of that. A `Goal` says what answers are worth; time is measured, single queries, one thread.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.kernels import best
from mrl_search.engines.spec import SCAN
from mrl_search.errors import ConfigError, DataError
from mrl_search.metrics import share_interval
from mrl_search.progress import Progress, silent
from mrl_search.search.cascade import LEVEL, surely_within
from mrl_search.search.corpus import Corpus
from mrl_search.search.first import MARGIN, candidates, propose
from mrl_search.search.goal import Goal
from mrl_search.search.others import leave_out
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.search.scoring import Known, pair_scores
from mrl_search.search.timing import Answer, Pace, median_ms, threads, time_round
from mrl_search.store.rows import Ids
from mrl_search.vectors import prefix

__all__ = ["Trial", "Tuned", "front", "tune"]

DEEPEST = 2000  # candidates of a first stage, at most
DEEPER = 3  # times the shortlist of the highest effort: beyond, lower efforts find little
SHORTLISTS = (
    1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5, 9, 11, 13, 16, 20, 25, 30, 35, 40, 50, 60, 75, 90, 110, 130,
    160, 200,
)  # fmt: skip
"""Lengths of shortlists to try, times k."""
LONGER = (0, 1, 2, 4, 6, 8)
"""Shortlists from the first that reaches the target on: the check may ask for the longest."""
MIDDLE = 4  # times k: shortlists from which a middle stage may pay
FAILURES = 2  # plans that fail their check before it ends
TIMED, ROUNDS = 40, 3
NEAR = 1.3  # times the time of the front: plans that are timed in all rounds


@dataclass(frozen=True, slots=True)
class Trial:
    """One plan that was tried.

    Attributes:
        plan: the plan.
        value: its mean mark on the queries that choose.
        reached: whether it reaches the target, by more than the standard error.
        ram: bytes that its first stage keeps in memory.
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
        held_out: its mean mark on the `n` queries that check.
        interval: 95% interval of `held_out`.
        n: number of queries that check.
        exact: mean mark of exact search on all queries.
        exact_ms: p50 of exact search, in the same run.
        trials: all plans that were timed.
    """

    chosen: Trial
    held_out: float
    interval: tuple[float, float]
    n: int
    exact: float
    exact_ms: float
    trials: tuple[Trial, ...]

    def record(self, goal: Goal, target: float) -> dict[str, object]:
        """The chosen plan as a manifest keeps it."""
        return {
            "plan": str(self.chosen.plan), "objective": goal.name, "target": target, "k": goal.k,
            "value": self.held_out, "ci95": list(self.interval), "n": self.n, "exact": self.exact,
            "p50_ms": self.chosen.ms, "exact_p50_ms": self.exact_ms, "ram_bytes": self.chosen.ram,
        }  # fmt: skip


def tune(
    corpus: Corpus, goal: Goal, target: float, max_ram: int | None = None,
    progress: Progress = silent,
) -> Tuned:  # fmt: skip
    """Find the cheapest plan whose mark is at least `target` times that of exact search.

    A third of the queries choose plans that reach the target by more than chance. The others check
    these, from the one that found most on: each must surely keep the target, and the second that
    fails ends the check. Each is tested at half of 5%, so that no plan below the target is chosen
    with 95% confidence. Exact search is chosen where no faster plan passes. The first stage may
    keep `max_ram` bytes in memory.

    Raises:
        ConfigError: a target that is not a share, or that no plan reaches; or no prefix index fits.
        DataError: fewer than 20 queries.
    """
    if not 0 < target <= 1:
        raise ConfigError(f"The target is {target}; it must be over 0 and at most 1.")
    if len(goal.queries) < 20:
        few = f"Tuning needs at least 20 queries; there are {len(goal.queries)}."
        raise DataError(few, "Use a larger index, or more queries.")
    choose, check = np.split(np.arange(len(goal.queries)), [len(goal.queries) // 3])
    best_marks = goal.score(np.arange(len(goal.queries)), goal.exact)
    known = Known(corpus.vectors, goal.queries[choose])
    judge = _Judge(goal, choose, target * best_marks[choose], known)
    trials = _search_all(corpus, judge, _starts(corpus, max_ram), progress)
    timed, exact_ms = _timed(corpus, goal, _promising(trials), progress)
    reached = sorted((t for t in timed if t.reached), key=lambda t: (-t.value, -(t.ms or 0.0)))
    if max_ram is None or corpus.vectors.nbytes <= max_ram:
        value = float(best_marks[choose].mean())
        timed.append(Trial(Plan.EXACT, value, True, corpus.vectors.nbytes, exact_ms))
        reached.insert(0, timed[-1])
    if not reached:
        closest = max(timed, key=lambda t: t.value)
        none = f"No plan for {corpus.folder} reaches {target:.1%} of exact search"
        hint = "Lower the target, allow more memory, or build with other kinds (--factory)."
        raise ConfigError(f"{none}; {closest.plan} has {closest.value:.1%}.", hint)
    best_of_check = best_marks[check]

    def marks_of(trial: Trial) -> NDArray[np.float64]:
        if trial.plan == Plan.EXACT:
            return best_of_check
        return goal.score(check, _answers(corpus, goal, check, trial.plan))

    def keeps(marks: NDArray[np.float64]) -> bool:
        return marks is best_of_check or _keeps(marks, best_of_check, target, goal)

    chosen, marks = _checked(_faster(reached), marks_of, keeps)
    if chosen is None:
        none = f"No plan surely reaches {target:.1%} of exact search on the queries that check it"
        hint = "Lower the target, or tune with more --queries."
        raise ConfigError(f"{none}; {reached[0].plan} has {marks.mean():.1%}.", hint)
    found = float(marks.mean()), share_interval(marks, goal.steps), len(check)
    return Tuned(chosen, *found, float(best_marks.mean()), exact_ms, tuple(timed))


def _checked(
    trials: Sequence[Trial], marks_of: Callable[[Trial], NDArray[np.float64]],
    keeps: Callable[[NDArray[np.float64]], bool],
) -> tuple[Trial | None, NDArray[np.float64]]:  # fmt: skip
    """The last plan that passes the check, with its marks; None with those of the first.

    The order does not depend on the check. At most two plans below the target are tested before it
    ends: where each passes in 2.5%, one is chosen in at most 5%.
    """
    passed, failures, first = None, 0, np.empty(0)
    for trial in trials:
        marks = marks_of(trial)
        if trial is trials[0]:
            first = marks
        if keeps(marks):
            passed = trial, marks
            continue
        failures += 1
        if failures == FAILURES:
            break
    return passed or (None, first)


def _faster(trials: Sequence[Trial]) -> list[Trial]:
    """Those that are faster than all before them."""
    found: list[Trial] = []
    for trial in trials:
        if not found or (trial.ms or 0.0) < (found[-1].ms or 0.0):
            found.append(trial)
    return found


def _keeps(
    marks: NDArray[np.float64], exact: NDArray[np.float64], target: float, goal: Goal
) -> bool:
    """Whether a plan surely keeps the share `target` of the marks of exact search."""
    if goal.name == "recall":
        return share_interval(marks, goal.steps)[0] >= target
    give = (1 - target) * float(exact.mean())
    lost, won = int((exact > marks).sum()), int((marks > exact).sum())
    return bool(surely_within(lost, won, len(marks), give, LEVEL / FAILURES))


def front(trials: tuple[Trial, ...]) -> list[Trial]:
    """The Pareto front in time and mark, by rising time."""
    kept: list[Trial] = []
    for trial in sorted((t for t in trials if t.ms is not None), key=lambda t: (t.ms, -t.value)):
        if not kept or trial.value > kept[-1].value:
            kept.append(trial)
    return kept


def _starts(corpus: Corpus, max_ram: int | None) -> list[int]:
    """Prefix lengths that may begin a plan: those that fit, with an index where there is one."""
    every = {d: corpus.prefix_index(d) for d in corpus.dims}
    fitting = {d: i for d, i in every.items() if max_ram is None or i.ram_bytes <= max_ram}
    if not fitting:
        least = min(every.values(), key=lambda i: i.ram_bytes)
        hint = f"The smallest, {least.dims} dims, takes {least.ram_bytes:,}."
        raise ConfigError(f"No prefix index fits in {max_ram:,} bytes.", hint)
    return [d for d, i in fitting.items() if i.kind != SCAN] or list(fitting)


def _efforts(corpus: Corpus, dims: int) -> tuple[int, ...]:
    return corpus.prefix_index(dims).efforts or (0,)


@dataclass(frozen=True, eq=False, slots=True)
class _Judge:
    """Marks plans by their answers to the queries at `rows`; `needed` is a mark for each.

    `known` keeps scores of whole vectors from one plan to the next.
    """

    goal: Goal
    rows: Ids
    needed: NDArray[np.float64]
    known: Known

    def trial(self, plan: Plan, hits: BatchHits, ram: int) -> Trial:
        own = hits.rows == self.goal.own[self.rows, None]
        marks = self.goal.score(self.rows, leave_out(hits, own, self.goal.k))
        more = marks - self.needed
        return Trial(plan, float(marks.mean()), more.mean() >= more.std() / len(more) ** 0.5, ram)


def _search_all(corpus: Corpus, judge: _Judge, dims: list[int], progress: Progress) -> list[Trial]:
    trials: dict[str, Trial] = {}
    done, total = 0, sum(len(_efforts(corpus, d)) for d in dims)
    for d in dims:
        for looks, found in enumerate(_looks(corpus, judge, d), 1):
            for trial in found:
                trials.setdefault(str(trial.plan), trial)
            progress("searching", done + looks, total)
        done += len(_efforts(corpus, d))
    progress("searching", total, total)
    return list(trials.values())


def _looks(corpus: Corpus, judge: _Judge, dims: int) -> Iterator[list[Trial]]:
    """Plans that begin at `dims`, one effort after another.

    Try the highest effort first; if it misses the target, skip this prefix. The others follow in
    rising order, up to one whose shortlist is as short as that of the highest.
    """
    *lower, highest = _efforts(corpus, dims)
    found = list(_trials(corpus, judge, dims, highest))
    yield found
    shortest, alone = _shortest(found), found[0].reached
    for effort in lower if shortest else ():
        found = list(_trials(corpus, judge, dims, effort, DEEPER * shortest, alone))
        yield found
        if 0 < _shortest(found) <= shortest:
            return


def _shortest(trials: list[Trial]) -> int:
    """The shortest shortlist that reaches the target; 0 where none does."""
    return min((t.plan.stages[0].keep or 1 for t in trials if t.reached), default=0)


def _trials(
    corpus: Corpus, judge: _Judge, dims: int, effort: int, deepest: int = DEEPEST,
    alone: bool = True,
) -> Iterator[Trial]:  # fmt: skip
    """Plans that begin at `dims` with `effort`, of two and three stages; `alone`: of one, too."""
    index, k = corpus.prefix_index(dims), judge.goal.k
    queries, ram = judge.goal.queries[judge.rows], index.ram_bytes
    if alone:
        stage = Stage(dims, None, effort)
        single = propose(corpus, index, queries, stage, k + 1, corpus.alive)
        yield judge.trial(Plan((stage,)), BatchHits(single[1], single[0]), ram)
    depth = min(DEEPEST, max(deepest, MIDDLE * k), len(corpus.live_rows))
    if index.widens:
        depth = min(depth, effort - MARGIN)  # a larger k would look harder than the plan does
    if dims == corpus.dim or depth <= k:
        return
    lengths = sorted({n for n in (round(times * k) for times in SHORTLISTS) if n <= depth})
    _, ids = candidates(corpus, index, prefix(queries, dims), depth, effort)
    whole, last = judge.known.scores(ids), Stage(corpus.dim)
    reached = len(lengths)  # place of the first that reaches the target
    for at, keep in enumerate(lengths):
        if at > reached and at - reached not in LONGER:
            continue
        shortlist, scores = ids[:, :keep], whole[:, :keep]
        top, first = best(scores, shortlist, k + 1), Stage(dims, keep, effort)
        two = judge.trial(Plan((first, last)), BatchHits(top[1], top[0]), ram)
        yield two
        pays = at <= reached and keep >= MIDDLE * k and index.lists is None  # lists need none
        if two.reached and pays:
            yield from _middles(corpus, judge, queries, first, shortlist, scores, lengths, ram)
        if two.reached:
            reached = min(reached, at)


def _middles(
    corpus: Corpus, judge: _Judge, queries: NDArray[np.float32], first: Stage, shortlist: Ids,
    scores: NDArray[np.float32], lengths: list[int], ram: int,
) -> Iterator[Trial]:  # fmt: skip
    """Plans that cut a long shortlist on a middle prefix before it is read whole."""
    for middle in (d for d in corpus.dims if first.dims < d < corpus.dim):
        marks = pair_scores(corpus.vectors, queries, shortlist, middle)
        order = np.argsort(-marks, axis=1, kind="stable")
        for shorter in (n for n in lengths if n < (first.keep or 0)):
            cut = order[:, :shorter]
            left = np.take_along_axis(shortlist, cut, axis=1)
            top = best(np.take_along_axis(scores, cut, axis=1), left, judge.goal.k + 1)
            plan = Plan((first, Stage(middle, shorter), Stage(corpus.dim)))
            three = judge.trial(plan, BatchHits(top[1], top[0]), ram)
            if three.reached:
                yield three
                break


def _promising(trials: list[Trial]) -> list[Trial]:
    """Plans worth timing: those that reach the target, and each start's last one that does not."""
    short: dict[tuple[int, int, int], Trial] = {}
    for trial in trials:
        if not trial.reached:
            first = trial.plan.stages[0]
            short[first.dims, first.effort, len(trial.plan.stages)] = trial
    return [t for t in trials if t.reached] + list(short.values())


def _answers(corpus: Corpus, goal: Goal, rows: Ids, plan: Plan) -> BatchHits:
    """What `plan` gives the queries at `rows`, each without its own row."""
    k = goal.k if (plan.shortest or goal.k + 1) <= goal.k else goal.k + 1
    hits = search(corpus, goal.queries[rows], plan, k)
    return leave_out(hits, hits.rows == goal.own[rows, None], goal.k)


def _timed(
    corpus: Corpus, goal: Goal, trials: list[Trial], progress: Progress
) -> tuple[list[Trial], float]:
    """`trials` with their times, and the time of exact search: p50 of single queries in ms."""
    queries = goal.queries[np.linspace(0, len(goal.queries) - 1, TIMED).astype(int)]

    def searcher(plan: Plan) -> Answer:
        return lambda rows: search(corpus, rows, plan, goal.k)

    answers = {str(plan): searcher(plan) for plan in (*(t.plan for t in trials), Plan.EXACT)}
    paces = dict.fromkeys(answers, Pace(len(queries), warm_up=2))
    rounds: dict[str, list[list[float]]] = {name: [] for name in answers}
    ms: dict[str, float] = {}
    total = ROUNDS * len(answers)
    with threads(1):
        for number in range(ROUNDS):

            def report(done: int, of: int, before: int = number * len(answers)) -> None:
                progress("timing", before + done * (total // ROUNDS) // of, total)

            again = {name: answers[name] for name in (_near_front(trials, ms) if ms else answers)}
            for name, times in time_round(again, queries, paces, report).items():
                rounds[name].append(times)
            ms = {name: float(np.median(median_ms(times))) for name, times in rounds.items()}
    return [replace(trial, ms=ms[str(trial.plan)]) for trial in trials], ms[str(Plan.EXACT)]


def _near_front(trials: list[Trial], ms: dict[str, float]) -> list[str]:
    """Plans that no plan of at least their mark beats by far, and exact search."""
    kept, least = [str(Plan.EXACT)], np.inf
    for trial in sorted(trials, key=lambda t: (-t.value, ms[str(t.plan)])):
        least = min(least, ms[str(trial.plan)])
        if ms[str(trial.plan)] <= NEAR * least:
            kept.append(str(trial.plan))
    return kept
