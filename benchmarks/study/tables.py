"""The tables of a study, as Markdown, from its records alone."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from definition import PartSpec
from numpy.typing import NDArray
from records import JobRecords, outcomes_of
from significance import combined_f_test, equivalence_test, holm

from mrl_search.metrics import mcnemar_exact, wilson_interval
from mrl_search.report.page import Table, markdown_table

__all__ = ["part_tables"]

MARGIN = 0.01  # of "as good as": one point
SHARES = {
    "head": "Linear head, top-1",
    "probe": "Linear probe (closed form), top-1",
    "nn1": "1-NN, top-1",
    "nn20": "20-NN, top-1",
    "map10": "mAP@10 by label",
    "group_head": "Group of the head's class",
    "group_nn20": "Group by 20-NN",
    "instance_standard": "Instance recall@1, standard copies",
    "instance_hard": "Instance recall@1, hard copies",
    "head_train": "Linear head on its training images, top-1",
}
Cells = dict[int, list[float]]


def part_tables(name: str, part: PartSpec, jobs: Sequence[JobRecords]) -> str:
    """All tables of one part, from whatever jobs are done; empty when there are none."""
    if not jobs:
        return ""
    blocks = [f"## {name}", part.about, _facts(jobs)]
    for share, title in SHARES.items():
        rows = _rows(jobs, share)
        if rows:
            blocks += [f"**{title}** ({_cells_are(jobs)})", _grid(rows)]
    if part.cross_validate:
        blocks += _cross_validation(part, jobs)
    else:
        blocks += _shared_validation(part, jobs)
    blocks += _adaptive(jobs)
    return "\n\n".join(block for block in blocks if block) + "\n"


def _facts(jobs: Sequence[JobRecords]) -> str:
    n = sorted({line["n"] for job in jobs for line in job.of("prefix")})
    devices = sorted(
        {f"{job.job['device']} ({job.job['machine']}, {job.job['cores']} cores)" for job in jobs}
    )
    low, high = wilson_interval(round(0.95 * n[0]), n[0])
    trained = [sum(line["seconds"] for line in job.of("epoch")) for job in jobs]
    hours = (
        sum(max(job.job["seconds"], seconds) for job, seconds in zip(jobs, trained, strict=True))
        / 3600
    )  # it may have been stopped
    return (
        f"{len(jobs)} runs on {jobs[0].job['images']:,} images, "
        f"{', '.join(f'{k:,}' for k in n)} of them for validation "
        f"(a share of 95% has a 95% interval of ± {(high - low) / 2:.1%}); "
        f"{hours:.1f} hours on {', '.join(devices)}."
    )


def _cells_are(jobs: Sequence[JobRecords]) -> str:
    """What the cells of a part are means of."""
    if any(job.job["fold"] >= 0 for job in jobs):
        return "mean of the folds ± half their range"
    runs = Counter(job.job["run"] for job in jobs)
    most = max(runs.values())
    few = [name for name, count in runs.items() if count == 1 < most]
    seeds = (
        "one seed"
        if most == 1
        else f"mean of {most} seeds ± half their range"
        + (f"; {', '.join(few)}: one seed" if few else "")
    )
    shuffles = {
        line["of"] for job in jobs for line in job.of("prefix") if line["of"].startswith("random")
    }
    return seeds + (
        f"; random dims: mean of {len(shuffles)} shuffles ± half their range" if shuffles else ""
    )


def _rows(jobs: Sequence[JobRecords], share: str) -> dict[str, Cells]:
    """For each row of a table the values of its cells by prefix length, one a seed."""
    rows: dict[str, Cells] = {}
    for job in jobs:
        for line in job.of("prefix"):
            of = line["of"]
            if share in line["shares"] and (of == "own" or share != "head_train"):
                row = (
                    job.job["row"]
                    if of == "own"
                    else f"{job.job['run']}, {'PCA' if of == 'pca' else 'random dims'}"
                )
                rows.setdefault(row, {}).setdefault(line["dims"], []).append(line["shares"][share])
    return rows


def _grid(rows: Mapping[str, Cells]) -> str:
    dims = sorted({d for cells in rows.values() for d in cells})
    body = [(row, *(_cell(cells.get(d, [])) for d in dims)) for row, cells in rows.items()]
    return table(("dims", *map(str, dims)), body)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {(max(values) - min(values)) / 2:.1%}" if len(values) > 1 else ""
    return f"{np.mean(values):.1%}{spread}"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return markdown_table(Table("", tuple(columns), tuple(map(tuple, rows))))


def _outcomes(job: JobRecords) -> dict[int, NDArray[np.bool_]]:
    """What the heads of a system got right, (n,) bool by prefix length."""
    lines = [line for line in job.of("prefix") if line["of"] == "own" and "head" in line["right"]]
    return {line["dims"]: outcomes_of(line["right"]["head"], line["n"]) for line in lines}


def _cross_validation(part: PartSpec, jobs: Sequence[JobRecords]) -> list[str]:
    """The F test for every pair and prefix; McNemar and equivalence on both folds together.

    McNemar's test is left out where re-saved twins are kept on one side for one system alone: their
    folds differ by a few pictures.
    """
    by = {(job.job["run"], job.job["repetition"], job.job["fold"]): _outcomes(job) for job in jobs}
    blocks = []
    for a, b in part.compare:
        whole = [
            r for r in range(5) if all(by.get((run, r, fold)) for run in (a, b) for fold in (0, 1))
        ]
        if len(whole) < 5:
            blocks.append(
                f"*{a} against {b}: {len(whole)} of 5 repetitions are done; the tests need all.*"
            )
            continue
        body = []
        full, longest = (max(by[run, 0, 0]) for run in (a, b))
        for d in by[b, 0, 0]:
            difference = [
                [float(by[b, r, f][d].mean() - by[a, r, f][full].mean()) for f in (0, 1)]
                for r in range(5)
            ]
            test = combined_f_test(difference)
            joined = [
                (
                    np.concatenate([by[a, r, f][full] for f in (0, 1)]),
                    np.concatenate([by[b, r, f][d] for f in (0, 1)]),
                )
                for r in range(5)
            ]
            mcnemar = [mcnemar_exact(x, y) for x, y in joined if len(x) == len(y)]
            own = [np.concatenate([by[b, r, f][longest] for f in (0, 1)]) for r in range(5)]
            equal = (
                [equivalence_test(y, z, MARGIN) for (_, y), z in zip(joined, own, strict=True)]
                if d != longest
                else []
            )
            body.append(
                (
                    str(d),
                    f"{np.mean(difference):+.2%}",
                    f"{test.f:.2f}",
                    test.p,
                    _span(mcnemar),
                    _span([e.p_worse for e in equal]),
                    _span([e.p for e in equal]),
                )
            )
        columns = (
            "dims",
            f"{b} minus {a}",
            "F(10, 5)",
            "p of F",
            "corrected",
            "p of McNemar, 5 repetitions",
            f"p of no worse than {longest} dims",
            f"p of equivalence to {longest} dims",
        )
        blocks += [
            f"**{b}, each prefix, against {a} at {full} dims** "
            "(linear heads, 5x2 cross-validation)",
            table(columns, _corrected(body, 3)),
            _legend(),
        ]
    return blocks


def _corrected(body: Sequence[tuple[Any, ...]], at: int) -> list[tuple[str, ...]]:
    """Rows with the p in column `at`, and after it the p that Holm corrects for all rows."""
    both = zip(body, holm([row[at] for row in body]), strict=True)
    return [(*row[:at], _p(row[at]), _p(p), *row[at + 1 :]) for row, p in both]


def _shared_validation(part: PartSpec, jobs: Sequence[JobRecords]) -> list[str]:
    """McNemar and equivalence for every pair and prefix, and of each prefix to full length."""
    by = {(job.job["run"], job.job["seed"]): _outcomes(job) for job in jobs}
    blocks = []
    for a, b in part.compare:
        for seed in part.seeds:
            one, two = by.get((a, seed)), by.get((b, seed))
            if not one or not two:
                continue
            full, longest, body = one[max(one)], two[max(two)], []
            for d, right in two.items():
                other = equivalence_test(right, full, MARGIN)
                own = equivalence_test(right, longest, MARGIN) if d != max(two) else None
                low, high = other.interval
                body.append(
                    (
                        str(d),
                        f"{other.difference:+.2%} ({low:+.1%} to {high:+.1%})",
                        mcnemar_exact(full, right),
                        _p(other.p),
                        *((_p(own.p_worse), _p(own.p)) if own else ("", "")),
                    )
                )
            columns = (
                "dims",
                f"{b} minus {a} (95% interval)",
                "p of McNemar",
                "corrected",
                "p of equivalence",
                f"p of no worse than {max(two)} dims",
                f"p of equivalence to {max(two)} dims",
            )
            title = f"**{b}, each prefix, against {a} at {max(one)} dims** "
            title += f"(linear heads, seed {seed}, n = {len(full):,})"
            known = None if len(two) > 1 else -2  # a single prefix is not compared with itself
            rows = [row[:known] for row in _corrected(body, 2)]
            blocks += [title, table(columns[:known], rows), _legend()]
    return blocks


def _legend() -> str:
    return (
        "Equivalence: two one-sided score tests for paired proportions (Tango 1998), margin "
        f"{MARGIN:.0%}; a small p means as good as, neither better nor worse. No worse: one of the "
        "two, which a better prefix passes, too. Corrected: by Holm, for all rows of the table."
    )


def _span(values: Sequence[float]) -> str:
    """The least and the largest p of several repetitions."""
    return f"{_p(min(values))} to {_p(max(values))}" if values else ""


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _adaptive(jobs: Sequence[JobRecords]) -> list[str]:
    """Accuracy and mean dims of adaptive classification, and of the shortest and longest prefix."""
    body, gives, earlier = [], set(), False
    for job in jobs:
        if job.job["fold"] > 0 or job.job["repetition"] > 0:
            continue
        for by, name in (("head", "linear heads"), ("nn20", "20-NN")):
            lines = [line for line in job.of("cascade") if line["by"] == by]
            if lines:
                fixed = lines[0]["fixed"]
                ends = min(fixed, key=int), max(fixed, key=int)
                gives |= {line["give"] for line in lines}
                earlier |= any("level" not in line for line in lines)
                cells = (f"{line['accuracy']:.1%} at {line['expected_dims']:.1f}" for line in lines)
                body.append(
                    (
                        f"{job.job['key']}, {name}",
                        *(f"{fixed[end]:.1%} at {end}" for end in ends),
                        *cells,
                    )
                )
    if not body:
        return []
    title = (
        "**Adaptive classification**: accuracy at mean dims, by how much accuracy may be lost "
        "(thresholds learnt on half of the validation images, measured on the other half"
    )
    title += (
        "; by the rule of version 0.2, which often lost more than it allowed)" if earlier else ")"
    )
    return [
        title,
        table(
            ("run", "shortest", "longest", *(f"give {give:.2%}" for give in sorted(gives))), body
        ),
    ]
