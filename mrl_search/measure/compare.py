"""Two benches of the same queries: what became worse, by paired tests for accuracy and recall, by a ratio for time."""

from dataclasses import dataclass

from mrl_search.errors import ConfigError, DataError
from mrl_search.measure.records import Record, Run, same_machine, unpack
from mrl_search.measure.values import ALPHA, dims_of, recall_of, share_of, times_of
from mrl_search.metrics import mcnemar_exact

__all__ = ["Comparison", "Difference", "check_same_queries", "compare"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One measure in both benches: a share or milliseconds; `p` of the paired test (None for a time), `worse` if it counts."""

    what: str
    measure: str
    base: float
    new: float
    p: float | None
    worse: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """All differences, and in `notes` what could not be compared and why."""

    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def worse(self) -> list[Difference]:
        """The differences that count."""
        return [d for d in self.differences if d.worse]


def compare(new: Run, base: Run, tolerance: float = 0.5) -> Comparison:
    """Compare two benches.

    A share is worse where fewer queries are right (or more neighbours missed) and a paired exact test says so at 5%, divided by the
    number of tests (Bonferroni), so that a bench of forty measures does not cry wolf. A median time is worse where it is more than
    1 + `tolerance` times the old one; times of another machine, or other threads, are not compared, and `notes` says so.

    Raises:
        ConfigError: the tolerance is negative.
        DataError: see `check_same_queries`.
    """
    if tolerance < 0:
        raise ConfigError(
            f"A tolerance cannot be {tolerance}.", "0.5 lets a time be half as long again."
        )
    check_same_queries(new, base)
    a, b = base.about, new.about
    every = _pairs(new, base)
    pairs = [
        (what, measure, old, now)
        for what, measure, old, now in every
        if old and now and _same_length(old, now)
    ]
    shares = [
        _share(what, measure, old, now, len(pairs), b["settings"]["k"])
        for what, measure, old, now in pairs
    ]
    notes = _missing(new, base) + _unpaired(every)
    if not same_machine(a["environment"], b["environment"]):
        notes.append(
            "Times are not compared: the base was measured on another machine "
            f"({a['environment']['cpu']}, {a['environment']['cores']} cores, {a['environment']['os']})."
        )
    elif a["settings"]["threads"] != b["settings"]["threads"]:
        notes.append(
            f"Times are not compared: the base was measured on {a['settings']['threads']} threads."
        )
    else:
        shares += _times(new, base, tolerance)
    return Comparison(tuple(shares), tuple(notes))


def check_same_queries(new: Run, base: Run) -> None:
    """Raise DataError where the outcomes of two benches, which may have just begun, cannot be paired: other queries or neighbours."""
    a, b = base.about, new.about
    if a["queries"]["fingerprint"] != b["queries"]["fingerprint"]:
        raise DataError(
            f"The base {base.name} was measured with other queries, so outcomes cannot be paired.",
            "Measure both with the same pictures and labels: --queries SRC, the same --sample and seed.",
        )
    for name in ("k", "neighbours"):
        if a["settings"][name] != b["settings"][name]:
            raise DataError(
                f"The base was measured with {name} = {a['settings'][name]}, this one with {b['settings'][name]}.",
                "Use one of them.",
            )


def _pairs(new: Run, base: Run) -> list[tuple[str, str, str | None, str | None]]:
    """(what, measure, outcomes in the base, outcomes now) of all that can be measured, packed; None where a bench has none."""
    pairs = []
    neighbours, k = new.about["settings"]["neighbours"], new.about["settings"]["k"]
    for d in sorted({*dims_of(new), *dims_of(base)}):
        measures = (
            ("prefix", "linear", "linear head"),
            ("prefix", "vote", f"{neighbours}-NN"),
            ("instance", "right", "instance recall@1"),
        )
        for kind, key, measure in measures:
            pairs.append(
                (f"{d} dims", measure, _get(base, kind, key, dims=d), _get(new, kind, key, dims=d))
            )
    for plan in new.of("plan"):
        for key, measure in (("nearest", "1-NN"), ("found", f"recall@{k}")):
            pairs.append(
                (plan["name"], measure, _get(base, "plan", key, name=plan["name"]), plan[key])
            )
    return pairs


def _get(run: Run, kind: str, key: str, **where: object) -> str | None:
    record: Record | None = run.one(kind, **where)
    return None if record is None else record[key]


def _same_length(a: str, b: str) -> bool:
    return len(unpack(a)) == len(unpack(b))


def _share(what: str, measure: str, old: str, now: str, tests: int, k: int) -> Difference:
    before, after = unpack(old).astype(int), unpack(now).astype(int)
    p = mcnemar_exact(
        after > before, after < before
    )  # for counts: the sign test, which queries found more and which fewer
    values = [recall_of(x, k) if measure.startswith("recall@") else share_of(x) for x in (old, now)]
    first, second = (v.value if v else 0.0 for v in values)
    return Difference(what, measure, first, second, p, second < first and p < ALPHA / tests)


def _times(new: Run, base: Run, tolerance: float) -> list[Difference]:
    found = []
    for plan in new.of("plan"):
        before, after = times_of(base, plan["name"]), times_of(new, plan["name"])
        if before and after:
            found.append(
                Difference(
                    plan["name"],
                    "p50 ms",
                    before.p50,
                    after.p50,
                    None,
                    after.p50 > (1 + tolerance) * before.p50,
                )
            )
    return found


def _unpaired(every: list[tuple[str, str, str | None, str | None]]) -> list[str]:
    """Which measures only one bench has, or both of other queries: a line for each measure."""
    notes: dict[str, list[str]] = {}
    for what, measure, old, now in every:
        if (old is None) != (now is None):
            notes.setdefault(
                f"{measure} is in {'this bench' if old is None else 'the base'} alone", []
            ).append(what)
        elif old and now and not _same_length(old, now):
            notes.setdefault(f"{measure} is of other queries than in the base", []).append(what)
    return [f"{said}: {', '.join(of)}." for said, of in notes.items()]


def _missing(new: Run, base: Run) -> list[str]:
    """What the base has and the new bench has not."""
    now = {p["name"]: p["plan"] for p in new.of("plan")}
    notes = [f"{p['name']} is in the base alone." for p in base.of("plan") if p["name"] not in now]
    notes += [
        f"{p['name']} was {p['plan']} in the base, and is {now[p['name']]}."
        for p in base.of("plan")
        if now.get(p["name"], p["plan"]) != p["plan"]
    ]
    return notes
