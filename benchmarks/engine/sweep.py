"""Settings that reach a target on the tuning queries, and the fastest of them.

Every ladder is bisected for its lowest rung that reaches the target, on the first SKETCH queries.
Those rungs are timed, and the fastest FINALISTS are bisected again, on all tuning queries, and
timed in turn: single queries on one thread. All contestants use the same tuning queries.
"""

import time

import numpy as np
from contestants import Choice, Contestant, Ladder, Setting
from work import Work

__all__ = ["choose"]

SKETCH, FINALISTS = 250, 6
TIMED, ROUNDS = 60, 3
ENOUGH = 2  # ladders in a row that need the same rungs as the one before: harder ones are not tried
Found = tuple[Ladder, int]  # a ladder, and the rung of it that is wanted


class Rungs:
    """Recall along one ladder on the first `count` tuning queries, each rung measured once."""

    def __init__(self, contestant: Contestant, work: Work, ladder: Ladder, count: int) -> None:
        self.contestant, self.ladder = contestant, ladder
        self.work, self.part = work, slice(0, count)
        self.queries = work.queries("tuning")[self.part]
        self.known: dict[int, float] = {}

    def recall(self, rung: int) -> float:
        if rung not in self.known:
            self.contestant.use(self.ladder.at(rung))
            found = self.contestant.search(self.queries)
            self.known[rung] = float(self.work.hits("tuning", self.part, found).mean())
        return self.known[rung]

    def lowest(self, target: float, guess: int | None) -> int | None:
        """The lowest rung that reaches `target`; None where the highest does not.

        `guess` is a rung near it: rungs are tried from there, in growing steps.
        """
        low, high, step = 0, len(self.ladder.values) - 1, 1
        if guess is not None:
            if self.recall(guess) >= target:
                high = guess
                while high > low and self.recall(max(low, high - step)) >= target:
                    high, step = max(low, high - step), 2 * step
                low = min(high, max(low, high - step + 1))
            else:
                low = guess + 1
                while low <= high and self.recall(min(high, low + step - 1)) < target:
                    low, step = low + step, 2 * step
                high = min(high, low + step - 1)
        if low > high or (guess is None and self.recall(high) < target):
            return None
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.recall(middle) >= target else (middle + 1, high)
        return low


def choose(contestant: Contestant, work: Work, targets: list[float], cores: int) -> list[Choice]:
    """For each target the fastest setting, with its recall of the tuning queries.

    Where no setting reaches a target, `setting` is None and `reason` tells the best recall. An
    exact contestant has one setting, for the target None.
    """
    if contestant.exact:
        return [{"target": None, "setting": {}, "tuning_recall": 1.0}]
    contestant.use_threads(cores)
    own = contestant.choose(work, targets)
    if own is not None:
        return own
    found, best = sketched(contestant, work, targets)
    chosen: list[Choice] = []
    every = len(work.queries("tuning"))
    for target in targets:
        contestant.use_threads(1)
        finalists = fastest(contestant, work, found[target], 1)[:FINALISTS]
        contestant.use_threads(cores)
        exact: list[Found] = []
        recalls = []
        for ladder, guess in finalists:
            rungs = Rungs(contestant, work, ladder, every)
            rung = rungs.lowest(target, guess)
            best = max(best, *rungs.known.values())
            if rung is not None:
                exact.append((ladder, rung))
                recalls.append(rungs.recall(rung))
        contestant.use_threads(1)
        if exact:
            ladder, rung = first = fastest(contestant, work, exact, ROUNDS)[0]
            how: Choice = {"setting": ladder.at(rung), "tuning_recall": recalls[exact.index(first)]}
        else:
            how = {"setting": None, "reason": f"reaches {best:.4f}"}
        chosen.append({"target": target, **how})
    return chosen


def sketched(
    contestant: Contestant, work: Work, targets: list[float]
) -> tuple[dict[float, list[Found]], float]:
    """For each target the lowest rung of each ladder that reaches it on the first SKETCH queries.

    The best recall that was seen comes with them.
    """
    found: dict[float, list[Found]] = {t: [] for t in targets}
    best, same, group = 0.0, 0, 0
    before: list[int | None] = [None] * len(targets)
    for ladder in contestant.ladders(int(work.about["n"])):
        if ladder.group != group:
            group, same, before = ladder.group, 0, [None] * len(targets)
        elif same == ENOUGH:
            continue
        rungs = Rungs(contestant, work, ladder, SKETCH)
        guesses = before if contestant.harder else [None] * len(targets)
        lowest = [rungs.lowest(t, guess) for t, guess in zip(targets, guesses, strict=True)]
        best = max(best, *rungs.known.values())
        for target, rung in zip(targets, lowest, strict=True):
            if rung is not None:
                found[target].append((ladder, rung))
        again = contestant.harder and lowest == before and None not in lowest
        same = same + 1 if again else 0
        before = lowest
    return found, best


def fastest(contestant: Contestant, work: Work, found: list[Found], rounds: int) -> list[Found]:
    """By rising median of single queries."""
    queries = work.queries("tuning")[:TIMED]
    settings: list[Setting] = [ladder.at(rung) for ladder, rung in found]
    ms = np.empty((len(found), rounds, TIMED))
    for turn in range(rounds):
        for i, setting in enumerate(settings):
            contestant.use(setting)
            for j, query in enumerate(queries):
                start = time.perf_counter()
                contestant.search(query[None])
                ms[i, turn, j] = time.perf_counter() - start
    order = np.argsort(np.median(ms, axis=(1, 2)), kind="stable") if found else []
    return [found[i] for i in order]
