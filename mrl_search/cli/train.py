"""`mrl-search train`: train a Matryoshka network by a recipe."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from mrl_search.cli import options
from mrl_search.cli.options import option
from mrl_search.cli.render import note, progress_bars, show_skipped, show_source

if TYPE_CHECKING:
    from mrl_search.progress import Progress
    from mrl_search.training.config import TrainConfig
    from mrl_search.training.records import Record

__all__ = ["show_record", "train"]

RECIPE_HELP = "A recipe of this package or a TOML file; NAME:STEP for one step of it."
INIT_HELP = (
    "What to start from: a run folder of the same network, or a pretrained network, general or "
    "timm:NAME, whose weights may be a file: timm:NAME@FILE."
)
MIN_SIDE_HELP = "Skip images whose width or height is not above this."
WIDTH_HELP = "Channels of the first stage; the others in proportion."
SIZE_HELP = "Side of the pictures in pixels, in all epochs."
TRACKER_HELP = "Also log to tensorboard or wandb, where installed."
SET_HELP = (
    "Replace a value in all steps, as in schedule.epochs=30, or in one, as in "
    "steps.2.schedule.epochs=30."
)


def train(
    src: options.Src,
    recipe: Annotated[str, option("--recipe NAME", RECIPE_HELP)] = "pets",
    out: Annotated[Path | None, option("--out DIR", "Run folder; default: runs/NAME.")] = None,
    init: Annotated[str, option("--init MODEL", INIT_HELP)] = "",
    min_side: Annotated[int | None, option("--min-side", MIN_SIDE_HELP, min=0)] = None,
    width: Annotated[int | None, option("--width", WIDTH_HELP, min=8)] = None,
    size: Annotated[int | None, option("--size", SIZE_HELP, min=32)] = None,
    seed: Annotated[
        int | None, option("--seed", "Seed of weights, order and views.", min=0)
    ] = None,
    tracker: Annotated[str | None, option("--tracker", TRACKER_HELP)] = None,
    labels: options.Labels = "",
    column: options.Column = None,
    hidden: options.Hidden = False,
    offline: options.Offline = False,
    yes: options.Yes = False,
    setting: Annotated[list[str] | None, option("--set KEY=VALUE", SET_HELP)] = None,
) -> None:
    """Train a Matryoshka network on SRC. A stopped run continues from its last complete epoch."""
    from mrl_search.images.sources import open_source
    from mrl_search.mapping import to_toml
    from mrl_search.training.recipes import load_recipe
    from mrl_search.training.steps import check_recipe
    from mrl_search.training.steps import train as run

    values = {"data.min_side": min_side, "seed": seed}
    overrides = [f"{key}={value}" for key, value in values.items() if value is not None]
    loaded = load_recipe(recipe, [*overrides, *(setting or [])], width, size, init)
    out = out or Path("runs") / loaded.name
    check_recipe(loaded, out, options.access_of(offline=offline, yes=yes))
    source = open_source(src, labels=labels, column=column, hidden=hidden)
    from accelerate import PartialState
    from accelerate.utils import parse_flag_from_env

    # as the accelerator decides later
    main = bool(PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).is_main_process)
    if main:
        show_source(source)
        note(f"# run folder {out}")
        for config in loaded.steps:
            note(to_toml(config))
    with progress_bars(main) as progress:

        def show(config: "TrainConfig", record: "Record") -> None:
            if main:
                step = f"{config.name}  " if len(loaded.steps) > 1 else ""
                show_record(record, progress, step)

        run(source, loaded, out, tracker, show)
    if main:
        note(f"model in {out}\nnext: mrl-search build-index SRC --model {out}")


def show_record(record: "Record", progress: "Progress", run: str = "") -> None:
    """Advance a progress bar, or print a line with losses and validation accuracy."""
    from mrl_search.training.records import EpochRecord, StepRecord

    if isinstance(record, StepRecord):
        progress(run + record.what, record.done, record.total)
        show_skipped(record.skipped)
        return
    line = f"axes  {record.seconds:.0f} s"
    if isinstance(record, EpochRecord):
        line = (
            f"epoch {record.epoch}/{record.epochs}  {record.size} px  {record.seconds:.0f} s"
            f"  {record.images_per_second:.0f} images/s"
            f"  label loss {record.label_loss:.2f}, instance loss {record.instance_loss:.2f}"
        )
    accuracy = "  ".join(f"{d}: {a:.1%}" for d, a in record.accuracy.items())
    note(f"{run}{line}  validation {accuracy}")
