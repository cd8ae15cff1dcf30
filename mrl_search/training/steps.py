"""Train by a recipe: its steps one after the other, each from the result of the one before."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from mrl_search.encoders.base import Access
from mrl_search.errors import MrlSearchError
from mrl_search.images.sources import Source, open_source
from mrl_search.training.config import Recipe, TrainConfig
from mrl_search.training.loop import train_pixels
from mrl_search.training.pixels import Pixels, load_pixels, pixel_side
from mrl_search.training.recipes import load_recipe
from mrl_search.training.records import AxesRecord, EpochRecord, OnRecord, StepRecord, ignore
from mrl_search.training.run_folder import check_run, finished
from mrl_search.training.start import load_init

__all__ = ["check_recipe", "train"]


def train(
    source: Source | str | Path,
    recipe: Recipe | str,
    out: str | Path,
    tracker: str | None = None,
    on_record: OnRecord = ignore,
) -> EpochRecord | AxesRecord:
    """Train a Matryoshka network on `source` and write the model to the run folder `out`.

    A stopped run continues when it is called again. All steps of a recipe but the last train in
    `out/steps`.

    Args:
        source: a folder of pictures, one sub-folder a class, or what `open_source` takes.
        recipe: a recipe, or the name of one.
        out: the run folder; `load_encoder(out)` opens the finished model.
        tracker: also log to `tensorboard` or `wandb`.
        on_record: called with the configuration of a step and every record of it.

    Returns:
        The last record: validation accuracy by prefix length.

    Raises:
        MrlSearchError: see `train_pixels`; or `out` has a finished run.

    Example:
        >>> record = train("pictures/", "small", "runs/mine")  # doctest: +SKIP
        >>> record.accuracy[64]  # doctest: +SKIP
        0.97
    """
    recipe = load_recipe(recipe) if isinstance(recipe, str) else recipe
    steps = _steps(recipe, Path(out))
    check_recipe(recipe, Path(out))
    source = open_source(str(source)) if isinstance(source, str | Path) else source
    decoded: tuple[int, int] | None = None  # side and min_side of `pixels`
    for config, folder in steps:
        if finished(folder):
            continue
        wanted = (pixel_side(config), config.data.min_side)
        if wanted != decoded:
            pixels, decoded = _decode(source, config, on_record), wanted
        last = train_pixels(pixels, config, folder, source.name, tracker, on_record)
    PartialState().destroy_process_group()
    return last


def check_recipe(recipe: Recipe, out: Path, access: Access | None = None) -> None:
    """Check, before images are decoded, that `out` can hold a run of `recipe`.

    Pretrained weights in `init` are downloaded here, if `access` permits it.
    """
    if finished(out):
        raise MrlSearchError(f"There is a finished run in {out}.", "Choose another --out.")
    for config, folder in _steps(recipe, out):
        check_run(folder, config)
    load_init(recipe.steps[0], access)


def _steps(recipe: Recipe, out: Path) -> Sequence[tuple[TrainConfig, Path]]:
    """The runs of a recipe with their folders; `init` of each names the folder before it."""
    folders = [out / "steps" / config.name for config in recipe.steps[:-1]] + [out]
    configs = [recipe.steps[0]]
    for config, folder in zip(recipe.steps[1:], folders, strict=False):
        configs.append(replace(config, init=str(folder)))
    return list(zip(configs, folders, strict=True))


def _decode(source: Source, config: TrainConfig, on_record: OnRecord) -> Pixels:
    total = len(source.paths)

    def progress(done: int, total: int) -> None:
        if done < total:
            on_record(config, StepRecord("decoding", done, total))

    pixels = load_pixels(source, pixel_side(config), config.data.min_side, progress)
    on_record(config, StepRecord("decoding", total, total, skipped=tuple(pixels.skipped)))
    return pixels
