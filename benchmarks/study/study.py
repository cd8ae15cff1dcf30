"""The study: run its parts, and turn their records into tables and figures.

    python benchmarks/study/study.py list
    python benchmarks/study/study.py run significance
    python benchmarks/study/study.py tables
    python benchmarks/study/study.py figures

`study.toml` defines the runs. An interrupted run continues; a recorded one is not run again. Each
training run writes a file in `records/`; `tables.md` and `figures/` are made from these.
"""

from pathlib import Path
from typing import Annotated

import typer
from definition import Job, Study, load_study
from records import JobRecords, read_part

from mrl_search.cli.app import Group
from mrl_search.cli.render import note, progress_bars, show_table
from mrl_search.cli.train import show_record
from mrl_search.files import write_text

HERE = Path(__file__).parent
Definition = Annotated[
    Path, typer.Option("--study", metavar="TOML", help="Definition of the study.")
]
Records = Annotated[Path, typer.Option("--records", metavar="DIR", help="Where the records are.")]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="Folder of the training runs.")]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", metavar="NAME=PATH", help="Another place of a source."),
]
app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _load(definition: Path, sources: list[str] | None = None) -> Study:
    from running import with_sources

    return with_sources(load_study(definition), sources or [])


def _read(study: Study, part: str, records: Path) -> list[JobRecords]:
    """The records of a part, checked against the definition."""
    from running import Places, state_of

    state_of(study, part, Places(records=records))
    return read_part(records, part, [run.name for run in study.part(part).runs])


@app.command("list")
def list_jobs(
    study: Definition = HERE / "study.toml",
    records: Records = HERE / "records",
    runs: Runs = Path("runs/study"),
) -> None:
    """Show every job, its state, and the size of its training."""
    from running import Places, state_of

    loaded = _load(study)
    rows = []
    for part in loaded.parts:
        for s in state_of(loaded, part, Places(runs, records)):
            c = s.job.config
            sizes = "/".join(map(str, dict.fromkeys(c.schedule.sizes.values())))
            rows.append(
                (
                    part,
                    s.job.key,
                    s.state,
                    c.model.backbone,
                    str(c.model.widths[0]),
                    sizes,
                    str(c.schedule.epochs),
                )
            )
    show_table(("part", "job", "state", "backbone", "width", "pixels", "epochs"), rows)


@app.command()
def run(
    part: Annotated[str, typer.Argument(metavar="PART", help="Part of the study.")],
    only: Annotated[
        str | None, typer.Option("--only", metavar="RUN", help="Only this run of the part.")
    ] = None,
    study: Definition = HERE / "study.toml",
    records: Records = HERE / "records",
    runs: Runs = Path("runs/study"),
    source: Sources = None,
) -> None:
    """Train and measure what is not recorded yet; continues an interrupted run."""
    from running import Places, run_part

    from mrl_search.training.records import Record

    loaded = _load(study, source)
    with progress_bars() as progress:

        def notify(job: Job, record: Record | str) -> None:
            if isinstance(record, str):
                note(f"{job.key}  {record}")
            else:
                show_record(record, progress, f"{job.key}  ")

        for job in run_part(loaded, part, Places(runs, records), only, notify):
            note(f"{job.key}  recorded in {records / part}")
    note("next: python benchmarks/study/study.py tables")


@app.command()
def tables(
    study: Definition = HERE / "study.toml",
    records: Records = HERE / "records",
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="Markdown file to write.")
    ] = HERE / "tables.md",
) -> None:
    """Write all tables from the records."""
    from tables import part_tables

    loaded = _load(study)
    parts = [
        part_tables(name, spec, _read(loaded, name, records)) for name, spec in loaded.parts.items()
    ]
    text = (
        "# The study\n\nWritten by `python benchmarks/study/study.py tables` from the records.\n\n"
        + "\n".join(p for p in parts if p)
    )
    write_text(out, text)
    note(f"tables: {out}")


@app.command()
def figures(
    study: Definition = HERE / "study.toml",
    records: Records = HERE / "records",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the figures.")
    ] = HERE / "figures",
) -> None:
    """Draw all figures from the records."""
    from figures import draw_part

    loaded = _load(study)
    for name in loaded.parts:
        for file in draw_part(name, _read(loaded, name, records), out):
            note(f"figure: {file}")


if __name__ == "__main__":
    app()
