"""`mrl-search tune`: choose the cheapest plan that finds enough, and keep it with the index."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli.opening import open_index
from mrl_search.cli.options import IndexArgument, Json, bytes_of, option
from mrl_search.cli.render import json_line, note, percent, progress_bars, show_table
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.index import Index
    from mrl_search.search.tune import Trial

__all__ = ["tune"]


class Objective(StrEnum):
    """What is tuned for."""

    RECALL = "recall"
    CLASS = "class"
    INSTANCE = "instance"
    ADAPTIVE = "adaptive"


OBJECTIVE_HELP = (
    "recall: the nearest neighbours. class: the right label by their vote. instance: the original "
    "of a changed copy first. adaptive: thresholds for classify --adaptive."
)
RECALL_HELP = "Share of what exact search gives that a plan must surely give to other queries."
K_HELP = "Neighbours. Default: 10; class, adaptive 20; instance 1."
GIVE_HELP = (
    "With adaptive: share of answers that may be lost, with 95% confidence. Default: 0.01, for "
    "which at least 299 labelled items are needed."
)
QUERIES_HELP = (
    "Items of the index to search with, at most. Default: 1,000; up to 4,000 for a recall above "
    ".996."
)
RAM_HELP = "Memory of the first stage, such as 200MB."
PLOT_HELP = "Draw all plans, and the Pareto front."


def tune(
    folder: IndexArgument = None,
    recall: Annotated[float, option("--recall", RECALL_HELP, min=0.01, max=1)] = 0.99,
    objective: Annotated[Objective, option("--objective", OBJECTIVE_HELP)] = Objective.RECALL,
    k: Annotated[int | None, option("-k", K_HELP, min=1)] = None,
    give: Annotated[float | None, option("--give", GIVE_HELP, min=0, max=1)] = None,
    queries: Annotated[int | None, option("--queries", QUERIES_HELP, min=20)] = None,
    max_ram: Annotated[str | None, option("--max-ram SIZE", RAM_HELP)] = None,
    plot: Annotated[Path | None, option("--plot PNG", PLOT_HELP)] = None,
    as_json: Json = False,
) -> None:
    """Find the cheapest plan that is good enough, and store it.

    query and classify run the stored plan by default.
    """
    if give is not None and objective is not Objective.ADAPTIVE:
        raise ConfigError("--give is for --objective adaptive.", "Leave it out.")
    if plot:
        from mrl_search.report.plots import check_name

        check_name(plot)
    most = bytes_of(max_ram) if max_ram else None
    index = open_index(folder)
    from mrl_search.search.goal import NEIGHBOURS, USES, queries_to_tune
    from mrl_search.search.tune import front

    k = k or NEIGHBOURS[objective]
    if objective is Objective.ADAPTIVE:
        _learn(index, k, give, as_json)
        return
    with progress_bars() as progress:
        goal: object = str(objective)
        if objective is Objective.INSTANCE:
            from mrl_search.measure.copies import instance_goal

            rows = queries_to_tune(index.corpus, queries, recall)
            goal = instance_goal(index, rows, k, progress)
        found = index.tune(goal, recall, k=k, queries=queries, max_ram=most, progress=progress)  # type: ignore[arg-type]
    best = front(found.trials)
    if plot:
        from mrl_search.report.plots import PlanPoint, front_plot

        every = [
            PlanPoint(str(t.plan), t.ms or 0.0, t.value, t == found.chosen) for t in found.trials
        ]
        front_plot(every, plot, f"{objective} on the queries that choose")
    if as_json:
        stored = index.manifest.plans[USES[objective]]
        json_line({**stored, "front": [_line(t) for t in best]})  # type: ignore[dict-item]
        return
    table = []
    for t in best:
        mark = "chosen" if t.plan == found.chosen.plan else ""
        times = f"{t.ms:.3f}", f"{found.exact_ms / (t.ms or 1):,.1f}"
        table.append((str(t.plan), percent(t.value), *times, f"{t.ram / len(index):,.0f}", mark))
    columns = ("plan", str(objective), "p50 ms", "times exact", "RAM, B/vector", "")
    show_table(columns, table, f"{index.folder}: Pareto front")
    exact = f"exact search as by query --exact: {percent(found.exact)} in {found.exact_ms:.3f} ms"
    note(f"{len(found.trials)} plans timed, single queries on one thread; {exact}")
    checked = percent(found.held_out, found.interval)
    verb = "is right in" if objective is Objective.CLASS else "finds"
    note(f"chosen: {found.chosen.plan}; it {verb} {checked} on {found.n} other queries")
    if plot:
        note(f"plot: {plot}")
    instance = objective is Objective.INSTANCE  # no command runs this plan by default
    options = f" --plan {found.chosen.plan} -k {k}" if instance else ""
    command = "classify" if objective is Objective.CLASS else "query"
    note(f"stored in {index.folder}")
    query = "--vector QUERY.npy" if index.manifest.own_vectors else "IMAGE"
    note(f"next: mrl-search {command} {query} --index {index.folder}{options}")


def _learn(index: "Index", k: int, give: float | None, as_json: bool) -> None:
    from mrl_search.search.cascade import GIVE, fewest_cases

    give = GIVE if give is None else give
    learned = index.learn_thresholds(k, give)
    p = learned.point
    if as_json:
        json_line(index.manifest.plans["adaptive"])  # type: ignore[arg-type]
        return
    full = index.dims[-1]
    if p.expected_dims == full:
        none = f"No early stop stays within the {give:.1%} limit with {p.n:,} labelled items"
        few = 0 < give < 1 and p.n < (least := fewest_cases(give))
        need = f" It takes at least {least:,}." if few else ""
        note(f"{none}.{need} Allow a larger loss with --give {max(0.05, 2 * give):.2f}.")
    right = f"{p.accuracy:.1%} right with {p.expected_dims:.0f} dims on average"
    compared = f"{learned.full_accuracy:.1%} with {full}"
    note(f"On the {p.n:,} items it was learnt from, each without itself: {right}, {compared}.")
    note(f"stored in {index.folder}")
    query = "--vector QUERY.npy" if index.manifest.own_vectors else "IMAGE"
    note(f"next: mrl-search classify {query} --adaptive --index {index.folder}")


def _line(trial: "Trial") -> dict[str, object]:
    return {
        "plan": str(trial.plan), "value": trial.value, "p50_ms": trial.ms, "ram_bytes": trial.ram,
    }  # fmt: skip
