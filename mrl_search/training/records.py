"""What a training run reports: the records that `train` passes to its callback."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mrl_search.errors import Skipped
from mrl_search.training.config import TrainConfig

__all__ = ["AxesRecord", "EpochRecord", "OnRecord", "Record", "StepRecord", "ignore"]


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Progress: what is being done, how far, and of how much.

    Attributes:
        what: `decoding`, `axes`, or an epoch such as `epoch 2/9`.
        done: images, or optimizer steps, so far.
        total: images, or steps of the epoch, in all.
        epoch: from 1; 0 outside of epochs.
        skipped: images that cannot be used, in the last record of `decoding`.
    """

    what: str
    done: int
    total: int
    epoch: int = 0
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: mean losses, images a second, and validation accuracy by prefix length."""

    epoch: int
    epochs: int
    size: int
    seconds: float
    images_per_second: float
    label_loss: float
    instance_loss: float
    n_train: int
    n_validation: int
    accuracy: dict[int, float]


@dataclass(frozen=True, slots=True)
class AxesRecord:
    """The axes are set: seconds it took, and validation accuracy by prefix length."""

    seconds: float
    accuracy: dict[int, float]


Record: TypeAlias = StepRecord | EpochRecord | AxesRecord
OnRecord: TypeAlias = Callable[[TrainConfig, Record], None]


def ignore(config: TrainConfig, record: Record) -> None:
    """A callback that does nothing."""
