"""What a training run reports: the records that `train` passes to its callback."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from mrl_search.errors import Skipped
from mrl_search.training.config import TrainConfig

__all__ = [
    "AxesRecord",
    "DecodeRecord",
    "EpochRecord",
    "OnRecord",
    "Record",
    "StepRecord",
    "ignore",
]


@dataclass(frozen=True, slots=True)
class DecodeRecord:
    """Progress of decoding: images done and in all, and in the last record those skipped."""

    done: int
    total: int
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Progress in an epoch: optimizer steps done and in all, and images a second."""

    epoch: int
    step: int
    steps: int
    rate: float


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
    """Progress of the axes: images done and in all. The last record has validation accuracy."""

    step: int
    steps: int
    seconds: float
    accuracy: dict[int, float] | None = None


Record: TypeAlias = DecodeRecord | StepRecord | EpochRecord | AxesRecord
OnRecord: TypeAlias = Callable[[TrainConfig, Record], None]


def ignore(config: TrainConfig, record: Record) -> None:
    """A callback that does nothing."""
