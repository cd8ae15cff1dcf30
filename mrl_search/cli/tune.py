"""`mrl-search tune`: choose the cheapest plan that finds what is asked for, and keep it with the index."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import Json, bytes_of, open_index

if TYPE_CHECKING:
    from mrl_search.search.tune import Trial

__all__ = ["tune"]


class Objective(StrEnum):
    """What a plan is tuned for."""

    RECALL = "recall"
    CLASS = "class"
    INSTANCE = "instance"


KS = {Objective.RECALL: 10, Objective.CLASS: 20}
USES = {
    Objective.RECALL: "query",
    Objective.CLASS: "classify",
    Objective.INSTANCE: "instance",
}  # names under which plans are stored


def tune(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="DIR", help="The index to tune; default: the newest in indexes/."),
    ] = None,
    recall: Annotated[
        float,
        typer.Option(
            "--recall",
            min=0,
            max=1,
            help="Share of what exact search gives that the plan must give, up to 1.",
        ),
    ] = 0.99,
    objective: Annotated[
        Objective,
        typer.Option(
            "--objective",
            help="recall: the nearest neighbours. class: the right label by their vote. instance: the original of a changed copy first.",
        ),
    ] = Objective.RECALL,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", min=1, help="Answers wanted; default: 10, for class 20, for instance 1."
        ),
    ] = None,
    queries: Annotated[
        int,
        typer.Option(
            "--queries", min=20, help="Items of the index to ask with, drawn with a fixed seed."
        ),
    ] = 1000,
    max_ram: Annotated[
        str | None,
        typer.Option(
            "--max-ram",
            metavar="SIZE",
            help="What the first stage may keep in memory: 200MB, 1.5GB, 800kB.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="PNG", help="Also draw all plans, and those that none beats."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose the cheapest plan of an index that keeps the recall asked for, and store it: query and classify use theirs by default."""
    if plot:
        from mrl_search.report.canvas import check_name

        check_name(plot)
    most = bytes_of(max_ram) if max_ram else None
    index = open_index(folder)
    from mrl_search.cli.render import json_line, note, percent, progress_bars, show_table
    from mrl_search.search import tune as tuning
    from mrl_search.store.manifest import store_plan

    rows = tuning.sample(index, queries)
    with progress_bars() as progress:
        if objective is Objective.INSTANCE:
            from mrl_search.measure.copies import instance_goal

            goal = instance_goal(index, rows, k or 1, progress)
        else:
            goal = (tuning.Goal.recall if objective is Objective.RECALL else tuning.Goal.votes)(
                index, rows, k or KS[objective]
            )
        found = tuning.tune(index, goal, recall, most, progress)
    kept = {
        "plan": str(found.chosen.plan), "objective": str(objective), "target": recall, "k": goal.k, "value": found.held_out,
        "ci95": list(found.interval), "n": found.n, "exact": found.exact, "p50_ms": found.chosen.ms, "exact_p50_ms": found.exact_ms,
        "ram_bytes": found.chosen.ram,
    }  # fmt: skip
    store_plan(index.folder, USES[objective], kept)
    best = tuning.front(found.trials)
    if plot:
        from mrl_search.report.plots import PlanPoint, plans_plot

        every = [
            PlanPoint(str(t.plan), t.ms or 0.0, t.value, t in best, t == found.chosen)
            for t in found.trials
        ]
        plans_plot(every, plot, str(objective))
    if as_json:
        json_line({**kept, "front": [_line(t) for t in best]})
        return
    table = [
        (
            str(t.plan), percent(t.value), f"{t.ms:.3f}", f"{found.exact_ms / (t.ms or 1):,.1f}", f"{t.ram / len(index):,.0f}",
            "chosen" if t.plan == found.chosen.plan else "",
        )
        for t in best
    ]  # fmt: skip
    show_table(
        ("plan", str(objective), "p50 ms", "times exact", "RAM, B/vector", ""),
        table,
        f"{index.folder}: plans that no other beats",
    )
    note(
        f"{len(found.trials)} plans timed, single queries on one thread; exact search: {percent(found.exact)} in {found.exact_ms:.3f} ms"
    )
    note(
        f"chosen: {found.chosen.plan}, {percent(found.held_out, found.interval)} on {found.n} other queries, which check it"
    )
    if plot:
        note(f"plot: {plot}")
    told = (
        f" --plan {found.chosen.plan} -k {goal.k}" if objective is Objective.INSTANCE else ""
    )  # which no command uses by default
    command = "classify" if objective is Objective.CLASS else "query"
    note(f"stored in {index.folder}\nnext: mrl-search {command} IMAGE --index {index.folder}{told}")


def _line(trial: "Trial") -> dict[str, object]:
    return {
        "plan": str(trial.plan),
        "value": trial.value,
        "p50_ms": trial.ms,
        "ram_bytes": trial.ram,
    }
