"""Training runs of about a second, on noise with a class in its colour."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from mrl_search.encoders.config import ModelConfig
from mrl_search.training.config import DataConfig, ScheduleConfig, TrainConfig
from mrl_search.training.loop import train_pixels
from mrl_search.training.pixels import Pixels
from mrl_search.training.records import EpochRecord, Record

TINY = TrainConfig(
    name="tiny",
    model=ModelConfig(widths=(8, 8, 16, 16), dims=(8, 16)),
    data=DataConfig(validation=0.2),
    schedule=ScheduleConfig(epochs=3, batch=8, lr=0.01, sizes={"0": 32}, precision="no"),
)


def noise_pixels(n: int = 40, labels: bool = True, side: int = 40) -> Pixels:
    """Noise, reddish for a cat and bluish for a dog: a class can be learned in a few steps.

    The paths name five individuals.
    """
    images = np.random.default_rng(0).integers(0, 160, (n, 3, side, side), dtype=np.uint8)
    images[::2, 0] += 90
    images[1::2, 2] += 90
    names: list[str | None] = [("cat", "dog")[i % 2] if labels else None for i in range(n)]
    hashes, paths = [f"{i:04d}" for i in range(n)], [f"{i % 5}-{i}.jpg" for i in range(n)]
    return Pixels(torch.from_numpy(images), names, hashes, [], list(range(n)), paths)


def change(config: TrainConfig, **changes: object) -> TrainConfig:
    """`config` with `section__key=value` changed."""
    for key, value in changes.items():
        section, _, name = key.partition("__")
        config = replace(
            config,
            **{section: replace(getattr(config, section), **{name: value}) if name else value},
        )
    return config


class Stopped(Exception):
    """A run that a test stops."""


def train_all(
    out: Path,
    config: TrainConfig = TINY,
    pixels: Pixels | None = None,
    stop: Callable[[Record], bool] | None = None,
) -> list[Record]:
    """Train, and return all records; `stop` ends the run at the first record it is true for."""
    records: list[Record] = []

    def on_record(_: TrainConfig, record: Record) -> None:
        records.append(record)
        if stop and stop(record):
            raise Stopped

    with contextlib.suppress(Stopped):
        last = train_pixels(pixels or noise_pixels(), config, out, "a list", on_record=on_record)
        assert not stop and records[-1:] in ([], [last])
    return records


def train_tiny(
    out: Path, config: TrainConfig = TINY, pixels: Pixels | None = None
) -> list[EpochRecord]:
    """Train, and return the records of the epochs."""
    return [r for r in train_all(out, config, pixels) if isinstance(r, EpochRecord)]


def stop_after(
    out: Path, epochs: int, config: TrainConfig = TINY, pixels: Pixels | None = None
) -> None:
    """A run that is stopped as soon as `epochs` epochs are reported."""
    train_all(out, config, pixels, lambda r: isinstance(r, EpochRecord) and r.epoch == epochs)


def weights_of(out: Path) -> dict[str, Tensor]:
    return load_file(out / "model.safetensors")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
