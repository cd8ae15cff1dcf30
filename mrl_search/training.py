"""Training: the loop around a network, two losses and a schedule. It yields records of what it does and never prints.

A run folder holds `recipe.toml`, `records.jsonl` (one line an epoch), `checkpoint.safetensors` (the last whole epoch, removed at the
end) and, when the run is finished, the model. All chance follows from the seed, the epoch and the process, so a run that was stopped
goes on from its last epoch as if nothing had happened (with `precision` fp16 the scale of the loss begins anew). It goes on only with the
pictures and the model that it began with.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import set_seed
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from mrl_search.axes import set_axes
from mrl_search.config import ScheduleConfig, TrainConfig, to_mapping, to_toml
from mrl_search.data.augment import shrink, to_network
from mrl_search.data.individuals import Pairs, individual_numbers, individuals_of, partners
from mrl_search.data.pixels import Pixels
from mrl_search.data.splits import digest, split_rows
from mrl_search.errors import ConfigError, DataError, ModelError, MrlSearchError
from mrl_search.initial import keep_share, load_init, new_network, warn_of_leaks
from mrl_search.models.checkpoint import DESCRIPTION, save_model
from mrl_search.objective import Objective
from mrl_search.recipes import load_recipe
from mrl_search.storage import claim, write_atomically, writing

__all__ = ["AxesRecord", "EpochRecord", "Record", "StepRecord", "check_run", "pixel_side", "train"]

CHECKPOINT, RECORDS, RECIPE = "checkpoint.safetensors", "records.jsonl", "recipe.toml"


@dataclass(frozen=True, slots=True)
class StepRecord:
    """Progress inside an epoch: steps done and in all, and images a second so far in it."""

    epoch: int
    step: int
    steps: int
    rate: float


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One epoch: mean losses, images a second, and top-1 accuracy of each prefix's linear head on `n_validation` images."""

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
    """Setting the axes in the end: images read and in all, and seconds; when it is done, validation accuracy as in an epoch."""

    step: int
    steps: int
    seconds: float
    accuracy: dict[int, float] | None = None


Record = StepRecord | EpochRecord | AxesRecord


def pixel_side(config: TrainConfig) -> int:
    """The side that images are decoded to, in pixels: that of the largest trained on, and a quarter more where crops should stay sharp."""
    side = _side(config, max(config.schedule.sizes.values()))
    return max(side, config.schedule.embed_size) if config.axes else side  # axes are set at the size at which the model embeds


def _side(config: TrainConfig, size: int) -> int:
    seen = (config.augment, *([config.weak] if config.weak else []), *(config.axes.views if config.axes else ()))
    wide = round(1.25 * size) if any(view.crops for view in seen) else size
    return min(wide, max(size, config.data.native or wide))


def train(pixels: Pixels, config: TrainConfig, out: Path, source: str, tracker: str | None = None) -> Iterator[Record]:
    """Train the network that `config` describes on `pixels` (decoded at `pixel_side`) and leave the model in `out`.

    A folder that holds an unfinished run of the same recipe is continued; a finished one is refused.

    Raises:
        ConfigError: `out` holds the run of another recipe, of other pictures, or of another model in `init`; the model in `init` does
            not fit; there are too few axes; or `tracker` or the precision is not to be had here.
        DataError: labels are missing where the objective needs them, or there are too few images.
        IndexFolderError: another process trains in `out`.
        ModelError: the loss is no number any more, the checkpoint in `out` is damaged, or there is no model where `init` says.
        MrlSearchError: `out` holds a finished run, lies below a file, or cannot be written.
    """
    accelerator = _accelerator(config.schedule, tracker, out)
    schedule = config.schedule
    classes = _classes(pixels, config)
    rows_train, rows_validation = split_rows(pixels.labels, pixels.hashes, config.data, pixels.paths)
    names = individuals_of(pixels.paths, pixels.hashes, config.data)
    individuals = individual_numbers(names, rows_train) if config.objective.individual else None
    targets = torch.tensor([classes.index(label) if label in classes else 0 for label in pixels.labels])
    steps = len(rows_train) // (schedule.batch * accelerator.num_processes)
    if steps == 0 and schedule.epochs:
        raise DataError(
            f"{len(rows_train)} training images do not fill one batch of {schedule.batch}.", "Use more images, or --set schedule.batch=16."
        )
    check_run(out, config)
    begun = load_init(config)
    pictures = digest(pixels.labels, pixels.hashes)
    warn_of_leaks(config, begun, pictures)
    origin = {"pictures": pictures, "init": begun.fingerprint if begun else ""}
    set_seed(config.seed)
    network: nn.Module = new_network(config, classes, begun).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    accelerator.wait_for_everyone()
    with _held(out) if accelerator.is_main_process else contextlib.nullcontext():
        if accelerator.is_main_process:
            with write_atomically(out / RECIPE) as part:
                part.write_text(to_toml(config), encoding="utf-8")

        decayed: dict[str, Any] = {"params": [p for p in network.parameters() if p.ndim > 1]}
        plain: dict[str, Any] = {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0}
        optimizer: Any = torch.optim.AdamW([decayed, plain], schedule.lr, weight_decay=schedule.weight_decay)
        first = _resume(out, network, optimizer, origin, accelerator.is_main_process)
        network, optimizer = accelerator.prepare(network, optimizer)
        objective = Objective(config, len(classes), accelerator, begun.network if begun else None)
        images: Tensor | None = None
        side = 0
        for epoch in range(first, schedule.epochs):
            start, size = time.perf_counter(), schedule.size(epoch)
            if _side(config, size) != side or images is None:
                side = _side(config, size)
                whole = pixels.images.shape[-1] == side
                images = pixels.images if whole else torch.cat([shrink(part, side) for part in torch.split(pixels.images, 512)])
            set_seed((config.seed * 1000 + epoch) % 2**32)
            chance = torch.Generator().manual_seed((config.seed * 1000 + epoch) * 100 + accelerator.process_index)
            data: Dataset[Any] = TensorDataset(images[rows_train], targets[rows_train])
            if individuals is not None:
                draw = torch.Generator().manual_seed(config.seed * 1000 + epoch)  # the same in every process
                data = Pairs(images[rows_train], targets[rows_train], partners(individuals, draw), individuals)
            loader = _prepared(accelerator, DataLoader(data, schedule.batch, shuffle=True, drop_last=True))
            network.train()
            objective.begin(epoch)
            sums = torch.zeros(2, device=accelerator.device)
            for step, (batch, target, *pair) in enumerate(loader):
                with accelerator.accumulate(network):
                    _set_rate(optimizer, schedule, (epoch * steps + step) / (schedule.epochs * steps))
                    total, label, instance = objective(network, batch, target, chance, *pair)
                    accelerator.backward(total)
                    optimizer.step()
                    optimizer.zero_grad()
                sums += torch.stack((label.detach(), instance.detach()))
                yield StepRecord(
                    epoch + 1, step + 1, steps, (step + 1) * schedule.batch * accelerator.num_processes / (time.perf_counter() - start)
                )
            accuracy = _validate(accelerator, network, images[rows_validation], targets[rows_validation], size, config)
            label_mean, instance_mean = (accelerator.reduce(sums, "mean") / steps).tolist()
            seconds = time.perf_counter() - start
            rate = steps * schedule.batch * accelerator.num_processes / seconds
            if not math.isfinite(label_mean + instance_mean):
                raise ModelError(f"Training diverged in epoch {epoch + 1}: its loss is not a number.", "Train with a lower schedule.lr.")
            record = EpochRecord(
                epoch + 1, schedule.epochs, size, seconds, rate, label_mean, instance_mean,
                len(rows_train), len(rows_validation), accuracy,
            )  # fmt: skip
            if accelerator.is_main_process:
                with (out / RECORDS).open("a") as file:  # before the checkpoint: records that have none are cut off when the run goes on
                    file.write(json.dumps(dataclasses.asdict(record)) + "\n")
                _save_checkpoint(out, accelerator.unwrap_model(network), optimizer.optimizer, epoch + 1, origin)
            if tracker:
                accelerator.log(
                    {"label_loss": label_mean, "instance_loss": instance_mean} | {f"accuracy/{d}": a for d, a in accuracy.items()},
                    epoch + 1,
                )
            yield record
        accelerator.wait_for_everyone()
        final, size = accelerator.unwrap_model(network), schedule.embed_size or max(schedule.sizes.values())
        training: dict[str, Any] = {"source": source, "pictures": pictures, "recipe": to_mapping(config)}
        training["torch"] = torch.__version__.split("+")[0]
        if config.axes:  # every process computes the same ones
            if begun and schedule.keep:
                keep_share(final, begun.network, schedule.keep)
            start, count = time.perf_counter(), len(rows_train)
            setting = set_axes(
                final, config.model.dims, pixels.images[rows_train], targets[rows_train], len(classes), size, config.axes,
                objective.labels, config.seed, accelerator.autocast,
            )  # fmt: skip
            for done in setting:
                yield AxesRecord(done, count, time.perf_counter() - start)
            accuracy = _validate(accelerator, network, pixels.images[rows_validation], targets[rows_validation], size, config)
            axes = AxesRecord(count, count, time.perf_counter() - start, accuracy)
            training["axes"] = dataclasses.asdict(axes)
            yield axes
        if accelerator.is_main_process:
            if schedule.epochs:
                training["last_epoch"] = json.loads((out / RECORDS).read_text().splitlines()[-1])
            save_model(out, final, config.name, config.model, classes, size, training)
            (out / CHECKPOINT).unlink(missing_ok=True)
        accelerator.end_training()


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    """Make the folder of a run, and hold it for this process."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with claim(out):
        yield


def _accelerator(schedule: ScheduleConfig, tracker: str | None, out: Path) -> accelerate.Accelerator:
    precision = schedule.precision
    if precision == "auto":
        native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
        precision = "bf16" if native else "no"
    try:
        accelerator = accelerate.Accelerator(
            mixed_precision=precision,
            gradient_accumulation_steps=schedule.accumulate,
            log_with=tracker,
            project_dir=out if tracker else None,
        )
        if tracker and not accelerator.log_with:
            raise ImportError(f"the package of the tracker {tracker!r} is not installed")
        if tracker:
            accelerator.init_trackers("mrl-search")
    except (ValueError, ImportError) as error:
        raise ConfigError(
            f"Training cannot start: {error}", "Is the tracker installed, and does this machine know that precision?"
        ) from error
    return accelerator


def _prepared(accelerator: accelerate.Accelerator, loader: DataLoader[Any]) -> DataLoader[Any]:
    """`loader` made ready, and not kept: an accelerator remembers each one, and with it a copy of all images every epoch."""
    prepared: DataLoader[Any] = accelerator.prepare(loader)
    accelerator._dataloaders.remove(prepared)
    return prepared


def _classes(pixels: Pixels, config: TrainConfig) -> tuple[str, ...]:
    if not config.objective.label:
        return ()
    missing = sum(label is None for label in pixels.labels)
    if missing:
        raise DataError(
            f"{missing} of {len(pixels.labels)} images have no label, and the recipe learns labels.",
            "Sort the images into one folder a class, or train with --set objective.label=0.",
        )
    return tuple(sorted({label for label in pixels.labels if label is not None}))


def check_run(out: Path, config: TrainConfig) -> None:
    """Raise unless `out` is new, or holds an unfinished run of the same recipe."""
    if (out / DESCRIPTION).exists():
        raise MrlSearchError(f"There is a finished run in {out}.", "Choose another --out.")
    above = next(place for place in (out, *out.parents) if place.exists())
    if not above.is_dir():
        raise MrlSearchError(f"{out} cannot be a folder, as {above} is a file.", "Choose another --out.")
    recipe = out / RECIPE
    if recipe.exists() and load_recipe(str(recipe)) != config:  # values, not text: an older version knew fewer settings
        raise ConfigError(f"The unfinished run in {out} has another recipe.", f"Choose another --out, or remove {recipe}.")


def _set_rate(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, done: float) -> None:
    """Set the learning rate for the moment when the share `done` of all steps is behind us: linear warm-up, then the schedule's decay."""
    warm = done / schedule.warmup if done < schedule.warmup else 1.0
    if schedule.decay == "exponential":
        left = schedule.gamma ** math.floor(done * schedule.epochs + 1e-9)
    else:
        left = 0.5 * (1 + math.cos(math.pi * max(0.0, done - schedule.warmup) / (1 - schedule.warmup)))
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr * min(warm + 1e-3, 1.0) * left


@torch.inference_mode()
def _validate(
    accelerator: accelerate.Accelerator, network: nn.Module, images: Tensor, targets: Tensor, size: int, config: TrainConfig
) -> dict[int, float]:
    """Top-1 accuracy of the linear head of each prefix; empty where there are no heads."""
    if not config.objective.label:
        return {}
    network.eval()
    count = min(256, max(16, 256 * 128**2 // size**2))  # large pictures in smaller batches: their feature maps fill the memory
    loader = _prepared(accelerator, DataLoader(TensorDataset(images, targets), count))
    right: list[Tensor] = []
    for batch, target in loader:
        with accelerator.autocast():
            _, logits = network(to_network(shrink(batch, size)))
        hits = torch.stack([part.argmax(1) == target for part in logits], 1)
        right.append(accelerator.gather_for_metrics(hits).cpu())
    share = torch.cat(right).double().mean(0).tolist()
    return dict(zip(config.model.dims, share, strict=True))


def _save_checkpoint(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, epoch: int, origin: Mapping[str, str]) -> None:
    """The state after `epoch` epochs as one safetensors file: tensors named `network.NAME` and `optimizer.PARAMETER.NAME`."""
    tensors = {f"network.{k}": v for k, v in network.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    with write_atomically(out / CHECKPOINT) as part:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, part, metadata={"epoch": str(epoch), **origin})


def _resume(out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, origin: Mapping[str, str], main: bool) -> int:
    """Load the checkpoint in `out`, if there is one, and say how many epochs are done; the `main` process cuts the records to those epochs.

    Raises:
        ConfigError: it is of a run that began with other pictures, or with another model, than `origin` names.
        ModelError: the checkpoint is damaged, or of another network.
    """
    if not (out / CHECKPOINT).exists():
        if main:
            (out / RECORDS).unlink(missing_ok=True)
        return 0
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with safe_open(out / CHECKPOINT, "pt") as file:
            metadata = file.metadata()
            epoch = int(metadata["epoch"])
            for key in file.keys():  # noqa: SIM118 - not a mapping
                kind, _, name = key.partition(".")
                if kind == "network":
                    weights[name] = file.get_tensor(key)
                else:
                    parameter, _, field = name.partition(".")
                    state.setdefault(int(parameter), {})[field] = file.get_tensor(key)
        network.load_state_dict(weights)
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{out / CHECKPOINT} cannot be read, or is of another network.", f"Remove {out} to start again.") from error
    for what, name in origin.items():
        if metadata.get(what, name) != name:  # a checkpoint of an older version does not say
            began = "pictures or labels" if what == "pictures" else "weights in init"
            raise ConfigError(f"The unfinished run in {out} began with other {began}.", f"Choose another --out, or remove {out}.")
    if main:
        lines = (out / RECORDS).read_text().splitlines() if (out / RECORDS).exists() else []
        with write_atomically(out / RECORDS) as part:
            part.write_text("".join(line + "\n" for line in lines[:epoch]))
    return epoch
