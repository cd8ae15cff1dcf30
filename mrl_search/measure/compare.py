"""Two benchmarks of the same queries: what became worse.

Accuracy and recall are compared by paired tests, times by their ratio.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mrl_search.errors import DataError
from mrl_search.measure.environment import same_machine
from mrl_search.measure.records import Run
from mrl_search.measure.schema import unpack
from mrl_search.metrics import mcnemar_exact

__all__ = ["ALPHA", "Comparison", "Difference", "check_same_queries", "compare"]

ALPHA = 0.05  # significance level


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure of a prefix or plan in both benchmarks: a share, or milliseconds."""

    what: str
    measure: str
    base: float
    new: float
    p: float | None  # of the paired test; None for a time
    worse: bool  # significantly, or a time beyond the tolerance


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, and `notes` on what could not be compared."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> list[Difference]:
        """The differences for the worse."""
        return [d for d in self.differences if d.worse]


def compare(new: Run, base: Run, tolerance: float = 0.5) -> Comparison:
    """Compare two benchmarks.

    A share is worse where it fell and a paired exact test is significant at 5% divided by the
    number of tests (Bonferroni). A median time is worse where it is more than 1 + `tolerance`
    times the old one. Times on other machines or threads are not compared; `notes` says so.
    """
    check_same_queries(new, base)
    notes = list(_changed_plans(new, base))
    pairs, unpaired = [], defaultdict(list)
    before, after = _measures(base), _measures(new)
    for what, name, scale in {**before, **after}:
        old, now = before.get((what, name, scale)), after.get((what, name, scale))
        if old is None or now is None:
            only = "this benchmark" if old is None else "the base"
            unpaired[f"{name} is only in {only}"].append(what)
        elif len(unpack(old)) != len(unpack(now)):
            unpaired[f"{name} has other queries in the base"].append(what)
        else:
            pairs.append((what, name, unpack(old) / scale, unpack(now) / scale))
    notes += [f"{text}: {', '.join(of)}." for text, of in unpaired.items()]
    differences = []
    for what, name, earlier, later in pairs:
        p = mcnemar_exact(later > earlier, later < earlier)  # of counts: the sign test
        shares = float(earlier.mean()), float(later.mean())
        worse = shares[1] < shares[0] and p < ALPHA / len(pairs)
        differences.append(Difference(what, name, *shares, p, worse))
    a, b = base.about, new.about
    if not same_machine(a["environment"], b["environment"]):
        machine = "{cpu}, {cores} cores, {os}".format_map(a["environment"])
        notes.append(f"Times are not compared: the base is from another machine ({machine}).")
    elif a["settings"]["threads"] != b["settings"]["threads"]:
        count = a["settings"]["threads"]
        notes.append(f"Times are not compared: the base was measured with {count} threads.")
    else:
        differences += _times(new, base, tolerance)
    return Comparison(tuple(differences), tuple(notes))


def check_same_queries(new: Run, base: Run) -> None:
    """Raise DataError where outcomes cannot be paired: other queries or numbers of neighbours."""
    a, b = base.about, new.about
    if a["queries"]["fingerprint"] != b["queries"]["fingerprint"]:
        message = f"The base {base.name} has other queries; outcomes cannot be paired."
        hint = "Use the same pictures and labels for both: --queries SRC, and the same --sample."
        raise DataError(message, hint)
    for name in ("k", "neighbours"):
        old, now = a["settings"][name], b["settings"][name]
        if old != now:
            raise DataError(f"The base was measured with {name} = {old}, this one with {now}.")


Measure = tuple[str, str, int]  # prefix or plan, name of the measure, largest value of a query


def _measures(run: Run) -> dict[Measure, str]:
    """The packed outcomes of all queries by each measure."""
    found: dict[Measure, str | None] = {}
    for r in run.by_dims("prefix"):
        found[f"{r['dims']} dims", "linear head", 1] = r["linear"]
        found[f"{r['dims']} dims", run.voters, 1] = r["vote"]
    for r in run.by_dims("instance"):
        found[f"{r['dims']} dims", "instance recall@1", 1] = r["right"]
    for r in run.of("plan"):
        found[r["name"], "1-NN", 1] = r["nearest"]
        found[r["name"], f"recall@{run.k}", run.k] = r["found"]
    return {measure: packed for measure, packed in found.items() if packed is not None}


def _times(new: Run, base: Run, tolerance: float) -> Iterator[Difference]:
    for plan in new.of("plan"):
        name = plan["name"]
        rounds = [[r["ms"] for r in run.of("latency", plan=name)] for run in (base, new)]
        if all(rounds):
            old, now = (float(np.median(np.median(ms, axis=0))) for ms in rounds)
            yield Difference(name, "p50 ms", old, now, None, now > (1 + tolerance) * old)


def _changed_plans(new: Run, base: Run) -> Iterator[str]:
    """Plans of the base that are gone, or have other stages."""
    now = {p["name"]: p["plan"] for p in new.of("plan")}
    for p in base.of("plan"):
        name, plan = p["name"], now.get(p["name"])
        if plan is None:
            yield f"{name} is only in the base."
        elif plan != p["plan"]:
            yield f"{name} was {p['plan']} in the base, and is {plan}."
