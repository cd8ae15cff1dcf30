"""`mrl-search train`: train a Matryoshka network by a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import Src

if TYPE_CHECKING:
    from collections.abc import Callable

    from mrl_search.training.config import TrainConfig
    from mrl_search.training.loop import Record

__all__ = ["run_training", "show_record", "train"]


def train(
    src: Src,
    recipe: Annotated[
        str,
        typer.Option("--recipe", metavar="NAME", help="A recipe of this package, or a TOML file."),
    ] = "pets",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Run folder; default: runs/NAME, after the recipe."
        ),
    ] = None,
    min_side: Annotated[
        int | None,
        typer.Option(
            "--min-side", min=0, help="Leave out images not over so many pixels on both sides."
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(
            "--width",
            min=8,
            help="Channels of the network's first stage; the others follow in proportion.",
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", min=32, help="Side of the pictures in pixels, in all epochs."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of weights, order and views.")
    ] = None,
    tracker: Annotated[
        str | None,
        typer.Option("--tracker", help="Also log to tensorboard or wandb, where installed."),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Replace a value of the recipe, as in schedule.epochs=30.",
        ),
    ] = None,
) -> None:
    """Train a Matryoshka network on SRC; a run that was stopped goes on from its last whole epoch."""
    from mrl_search.training.recipes import load_recipe

    given = [f"data.min_side={min_side}"] * (min_side is not None) + [f"seed={seed}"] * (
        seed is not None
    )
    config = load_recipe(recipe, [*given, *(setting or [])], width, size)
    out = out or Path("runs") / config.name
    if run_training(src, config, out, tracker):
        typer.echo(f"model in {out}\nnext: mrl-search build-index SRC --model {out}", err=True)


def run_training(src: str, config: "TrainConfig", out: Path, tracker: str | None = None) -> bool:
    """Train and show it; true in the one process that speaks for all under `accelerate launch`."""
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    from mrl_search.cli.render import note, progress_bars, show_skipped
    from mrl_search.images.sources import open_source
    from mrl_search.mapping import to_toml
    from mrl_search.training.loop import check_run, pixel_side
    from mrl_search.training.loop import train as run
    from mrl_search.training.pixels import load_pixels
    from mrl_search.training.start import load_init

    check_run(out, config)
    load_init(config)  # now, and not only when all pictures are decoded
    source = open_source(src)
    main = bool(
        PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).is_main_process
    )  # as the accelerator will, which comes later
    if main:
        note(
            f"# {len(source.paths):,} images of {source.name}, run folder {out}\n{to_toml(config)}"
        )
    with progress_bars(main) as progress:
        pixels = load_pixels(
            source,
            pixel_side(config),
            config.data.min_side,
            lambda done, total: progress("decoding", done, total),
        )
        for record in run(pixels, config, out, source.name, tracker):
            if main:
                show_record(record, config.schedule.epochs, progress)
    if main:
        show_skipped(pixels.skipped)
    return main


def show_record(
    record: "Record", epochs: int, progress: "Callable[[str, int, int], None]", run: str = ""
) -> None:
    """Move a bar on, or print a line: time, rate, losses, and the validation accuracy of every prefix. `run` says of which run."""
    from mrl_search.cli.render import note
    from mrl_search.training.loop import AxesRecord, EpochRecord, StepRecord

    if isinstance(record, StepRecord):
        progress(f"{run}epoch {record.epoch}/{epochs}", record.step, record.steps)
        return
    if isinstance(record, AxesRecord) and record.accuracy is None:
        progress(f"{run}axes", record.step, record.steps)
        return
    accuracy = "  ".join(f"{d}: {a:.1%}" for d, a in (record.accuracy or {}).items())
    what = f"axes  {record.seconds:.0f} s"
    if isinstance(record, EpochRecord):
        losses = f"label loss {record.label_loss:.2f}, instance loss {record.instance_loss:.2f}"
        rate = f"{record.images_per_second:.0f} images/s"
        what = f"epoch {record.epoch}/{epochs}  {record.size} px  {record.seconds:.0f} s  {rate}  {losses}"
    note(f"{run}{what}  validation {accuracy}")
