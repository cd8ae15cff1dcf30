"""Settings that reach a target on the tuning queries, and the fastest of them.

Every ladder is bisected for its lowest rung that reaches the target; those rungs are timed in turn,
single queries on one thread. All contestants use the same tuning queries.
"""

import time

import numpy as np
from contestants import Choice, Contestant, Ladder, Setting
from work import Work, hits

__all__ = ["choose"]

TIMED, ROUNDS = 60, 3
ENOUGH = 2  # ladders in a row that need the same rungs as the one before: harder ones are not tried


class Rungs:
    """Recall along one ladder, each rung measured once."""

    def __init__(self, contestant: Contestant, work: Work, ladder: Ladder) -> None:
        self.contestant, self.ladder = contestant, ladder
        self.queries, self.truth = work.queries("tuning"), work.truth("tuning")
        self.known: dict[int, float] = {}

    def recall(self, rung: int) -> float:
        if rung not in self.known:
            self.contestant.use(self.ladder.at(rung))
            found = self.contestant.search(self.queries)
            self.known[rung] = float(hits(found, self.truth).mean())
        return self.known[rung]

    def lowest(self, target: float, guess: int | None) -> int | None:
        """The lowest rung that reaches `target`; None where the highest does not.

        `guess` is a rung that probably reaches it, so that the highest need not be measured.
        """
        low, high = 0, len(self.ladder.values) - 1
        if guess is not None and self.recall(guess) >= target:
            high = guess
        elif self.recall(high) < target:
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
    found: dict[float, list[tuple[Setting, float]]] = {t: [] for t in targets}
    best, same = 0.0, 0
    before: list[int | None] = []
    for ladder in contestant.ladders(int(work.about["n"])):
        rungs = Rungs(contestant, work, ladder)
        guesses = before if contestant.harder and before else [None] * len(targets)
        lowest = [rungs.lowest(t, guess) for t, guess in zip(targets, guesses, strict=True)]
        best = max(best, *rungs.known.values())
        for target, rung in zip(targets, lowest, strict=True):
            if rung is not None:
                found[target].append((ladder.at(rung), rungs.recall(rung)))
        again = contestant.harder and lowest == before and None not in lowest
        same = same + 1 if again else 0
        before = lowest
        if same == ENOUGH:
            break
    contestant.use_threads(1)
    chosen: list[Choice] = []
    for target in targets:
        if found[target]:
            setting, recall = fastest(contestant, work, found[target])
            chosen.append({"target": target, "setting": setting, "tuning_recall": recall})
        else:
            reason = f"reaches {best:.4f}"
            chosen.append({"target": target, "setting": None, "reason": reason})
    return chosen


def fastest(
    contestant: Contestant, work: Work, found: list[tuple[Setting, float]]
) -> tuple[Setting, float]:
    """The setting with the lowest median of single queries."""
    queries = work.queries("tuning")[:TIMED]
    ms = np.empty((len(found), ROUNDS, TIMED))
    for turn in range(ROUNDS):
        for i, (setting, _) in enumerate(found):
            contestant.use(setting)
            for j, query in enumerate(queries):
                start = time.perf_counter()
                contestant.search(query[None])
                ms[i, turn, j] = time.perf_counter() - start
    return found[int(np.argmin(np.median(ms, axis=(1, 2))))]
