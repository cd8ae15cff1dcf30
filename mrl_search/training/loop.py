"""One training run: the loop around a network, a loss and a schedule. It never prints.

All randomness follows from the seed, the epoch and the process. A stopped run continues from its
last complete epoch with the same result (with precision fp16, the loss scale starts again).
"""

import contextlib
import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import accelerate
import torch
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from mrl_search.encoders.checkpoint import ModelFile, save_model
from mrl_search.encoders.network import to_network
from mrl_search.errors import ConfigError, DataError, ModelError, MrlSearchError
from mrl_search.mapping import to_mapping
from mrl_search.provenance import maker
from mrl_search.training import run_folder
from mrl_search.training.closed_form import set_axes
from mrl_search.training.config import ScheduleConfig, TrainConfig
from mrl_search.training.individuals import individual_numbers, individuals_of, partners
from mrl_search.training.objective import Objective
from mrl_search.training.pixels import Pixels, view_side
from mrl_search.training.records import AxesRecord, EpochRecord, OnRecord, StepRecord, ignore
from mrl_search.training.split import digest, split_rows
from mrl_search.training.start import keep_share, load_init, new_network, warn_of_leaks
from mrl_search.training.twins import twins_of
from mrl_search.training.views import shrink

__all__ = ["train_pixels"]


def train_pixels(
    pixels: Pixels,
    config: TrainConfig,
    out: Path,
    source: str,
    tracker: str | None = None,
    on_record: OnRecord = ignore,
) -> EpochRecord | AxesRecord:
    """Train one network on decoded images and write the model to the folder `out`.

    An unfinished run of the same recipe in `out` is continued. See `train` for what is not said
    here: `pixels` are decoded at `pixel_side(config)`; the name `source` is kept in the model;
    `on_record` is called in every process.

    Raises:
        ConfigError: `out` has the run of another recipe, of other images or from another model;
            the model in `init` does not fit; there are too few axes; the tracker or the precision
            is not available.
        DataError: labels are missing that the objective needs, or there are too few images.
        IndexFolderError: another process trains in `out`.
        ModelError: training diverged, the checkpoint is damaged, or the model in `init` is missing.
        MrlSearchError: `out` has a finished run, or cannot be written.
    """
    accelerator = _accelerator(config.schedule, tracker, out)
    run = _Run(pixels, config, accelerator)
    if run_folder.finished(out):
        raise MrlSearchError(f"There is a finished run in {out}.", "Choose another --out.")
    run_folder.check_run(out, config)
    init = load_init(config)
    pictures = digest(pixels.labels, pixels.hashes)
    warn_of_leaks(config, init, pictures)
    origin = {"pictures": pictures, "init": init.weights if init else ""}
    made = {**maker(), **origin}
    set_seed(config.seed)
    run.start(init)
    main = accelerator.is_main_process
    accelerator.wait_for_everyone()
    with run_folder.claimed(out, config) if main else contextlib.nullcontext():
        first = run_folder.load_checkpoint(out, run.network, run.optimizer, origin)
        if main:
            run_folder.trim_records(out, first)
        run.prepare()
        last: EpochRecord | AxesRecord | None = None
        for epoch in range(first, config.schedule.epochs):
            last = run.epoch(epoch, on_record)
            if main:
                network = accelerator.unwrap_model(run.network)
                run_folder.save_epoch(out, last, made, network, run.optimizer.optimizer, origin)
            if tracker:
                losses = {"label_loss": last.label_loss, "instance_loss": last.instance_loss}
                shares = {f"accuracy/{dims}": share for dims, share in last.accuracy.items()}
                accelerator.log(losses | shares, epoch + 1)
            on_record(config, last)
        accelerator.wait_for_everyone()
        training: dict[str, Any] = {
            "source": source,
            "recipe": to_mapping(config),
            "torch": torch.__version__.split("+")[0],
            **made,
            "twins": run.twins,
        }
        if config.schedule.epochs:
            last = last or run_folder.last_record(out)
            training["last_epoch"] = dataclasses.asdict(last)
        if config.axes:
            last = run.set_axes(init, on_record)
            training["axes"] = dataclasses.asdict(last)
            on_record(config, last)
        if main:
            network = accelerator.unwrap_model(run.network)
            save_model(
                out, network, config.name, config.model, run.classes, run.embed_size, training
            )
            (out / run_folder.CHECKPOINT).unlink(missing_ok=True)
        for active in accelerator.trackers:
            active.finish()
        accelerator.wait_for_everyone()
    assert last is not None  # without epochs there are axes
    return last


class _Run:
    """A network with its images, its optimizer and its loss."""

    optimizer: Any  # of torch, then wrapped by accelerate
    network: nn.Module

    def __init__(
        self, pixels: Pixels, config: TrainConfig, accelerator: accelerate.Accelerator
    ) -> None:
        self.pixels, self.config, self.accelerator = pixels, config, accelerator
        self.classes = _classes(pixels, config)
        self.twins = twins_of(pixels)
        self.train_rows, self.validation_rows = split_rows(
            pixels.labels, pixels.hashes, config.data, pixels.paths, self.twins
        )
        self.individuals: Tensor | None = None
        if config.objective.individual:
            names = individuals_of(pixels.paths, pixels.hashes, config.data.individual)
            self.individuals = individual_numbers(names, self.train_rows)
        number = {name: i for i, name in enumerate(self.classes)}
        self.targets = torch.tensor([number.get(label or "", 0) for label in pixels.labels])
        self.batch = config.schedule.batch * accelerator.num_processes
        self.steps = len(self.train_rows) // self.batch
        self.embed_size = config.schedule.embed_size or config.schedule.largest
        self.images: Tensor | None = None  # those of `pixels` at the side that an epoch needs
        if self.steps == 0 and config.schedule.epochs:
            message = f"{len(self.train_rows)} training images do not fill a batch of {self.batch}."
            hint = "Use more images, or --set schedule.batch=16."
            raise DataError(message, hint)

    def start(self, init: ModelFile | None) -> None:
        """Create the network, its optimizer and its loss."""
        config, schedule = self.config, self.config.schedule
        network = new_network(config, self.classes, init)
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parameters = list(self.network.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [p for p in parameters if p.ndim > 1]},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, schedule.lr, weight_decay=schedule.weight_decay)
        teacher = init.network if init else None
        self.objective = Objective(config, len(self.classes), self.accelerator, teacher)

    def prepare(self) -> None:
        """Move network and optimizer to the device."""
        self.network, self.optimizer = self.accelerator.prepare(self.network, self.optimizer)

    def epoch(self, epoch: int, on_record: OnRecord) -> EpochRecord:
        """Train for one epoch, counted from 0, and validate."""
        config, schedule, accelerator = self.config, self.config.schedule, self.accelerator
        start, size = time.perf_counter(), schedule.size(epoch)
        images = self._resized(view_side(config, size))
        seed = config.seed * 1000 + epoch
        set_seed(seed % 2**32)
        generator = torch.Generator().manual_seed(seed * 100 + accelerator.process_index)
        rows, others = torch.from_numpy(self.train_rows), None
        if self.individuals is not None:
            draw = torch.Generator().manual_seed(seed)  # the same in every process
            others = partners(self.individuals, draw)
        order = TensorDataset(torch.arange(len(rows)))
        loader = self._loader(DataLoader(order, schedule.batch, shuffle=True, drop_last=True))
        self.network.train()
        self.objective.begin(epoch)
        sums = torch.zeros(2, device=accelerator.device)
        for step, (positions,) in enumerate(loader):
            parts = [images[rows[positions]], self.targets[rows[positions]]]
            if self.individuals is not None and others is not None:
                parts += [images[rows[others[positions]]], self.individuals[positions]]
            batch, target, *pair = (_moved(part, accelerator.device) for part in parts)
            with accelerator.accumulate(self.network):
                done = (epoch * self.steps + step) / (schedule.epochs * self.steps)
                _set_rate(self.optimizer, schedule, done)
                total, label, instance = self.objective(
                    self.network, batch, target, generator, *pair
                )
                accelerator.backward(total)
                if schedule.clip and accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.network.parameters(), schedule.clip)
                self.optimizer.step()
                self.optimizer.zero_grad()
            sums += torch.stack((label.detach(), instance.detach()))
            what = f"epoch {epoch + 1}/{schedule.epochs}"
            on_record(config, StepRecord(what, step + 1, self.steps, epoch + 1))
        accuracy = self._validate(images, size)
        label_loss, instance_loss = (accelerator.reduce(sums, "mean") / self.steps).tolist()
        seconds = time.perf_counter() - start
        if not math.isfinite(label_loss + instance_loss):
            message = f"Training diverged in epoch {epoch + 1}: the loss is infinite or NaN."
            hint = "Train with a lower schedule.lr."
            raise ModelError(message, hint)
        rate, counts = self.steps * self.batch / seconds, (len(rows), len(self.validation_rows))
        losses = label_loss, instance_loss
        return EpochRecord(
            epoch + 1, schedule.epochs, size, seconds, rate, *losses, *counts, accuracy
        )

    def set_axes(self, init: ModelFile | None, on_record: OnRecord) -> AxesRecord:
        """Set the projection in closed form; every process computes the same one."""
        config, rows = self.config, self.train_rows
        network = self.accelerator.unwrap_model(self.network)
        if init and config.schedule.keep:
            keep_share(network, init.network, config.schedule.keep)
        start, images = time.perf_counter(), self.pixels.images
        for done in set_axes(
            network, config, images[rows], self.targets[rows], self.embed_size,
            self.objective.labels, self.accelerator.autocast,
        ):  # fmt: skip
            on_record(config, StepRecord("axes", done, len(rows)))
        accuracy = self._validate(images, self.embed_size)
        return AxesRecord(time.perf_counter() - start, accuracy)

    def _resized(self, side: int) -> Tensor:
        if self.images is None or self.images.shape[-1] != side:
            images = self.pixels.images
            parts = [shrink(part, side) for part in torch.split(images, 512)]
            self.images = images if images.shape[-1] == side else torch.cat(parts)
        return self.images

    def _loader(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Prepare a loader, whose batches stay on the CPU.

        The accelerator must not keep it: it has a copy of all images.
        """
        prepared: DataLoader[Any] = self.accelerator.prepare_data_loader(
            loader, device_placement=False
        )
        self.accelerator._dataloaders.remove(prepared)
        return prepared

    @torch.inference_mode()
    def _validate(self, images: Tensor, size: int) -> dict[int, float]:
        """Top-1 accuracy of the head of each prefix on the validation images; {} without heads."""
        if not self.config.objective.label:
            return {}
        self.network.eval()
        # large pictures in smaller batches: their feature maps fill the memory
        count = min(256, max(16, 256 * 128**2 // size**2))
        rows = self.validation_rows
        data = TensorDataset(images[rows], self.targets[rows])
        hits: list[Tensor] = []
        for batch, target in self._loader(DataLoader(data, count)):
            batch, target = (_moved(part, self.accelerator.device) for part in (batch, target))
            with self.accelerator.autocast():
                _, logits = self.network(to_network(shrink(batch, size)))
            right = torch.stack([part.argmax(1) == target for part in logits], 1)
            hits.append(self.accelerator.gather_for_metrics(right).cpu())
        shares = torch.cat(hits).double().mean(0).tolist()
        return dict(zip(self.config.model.dims, shares, strict=True))


def _moved(part: Tensor, device: torch.device) -> Tensor:
    """`part` on `device`; a GPU goes on computing meanwhile."""
    return (part.pin_memory() if device.type == "cuda" else part).to(device, non_blocking=True)


def _accelerator(
    schedule: ScheduleConfig, tracker: str | None, out: Path
) -> accelerate.Accelerator:
    precision = schedule.precision
    if precision == "auto":
        on_gpu = torch.cuda.is_available()
        native = torch.cuda.is_bf16_supported() if on_gpu else torch.cpu._is_avx512_bf16_supported()
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
        hint = "Check that the tracker is installed, and that this machine has the precision."
        raise ConfigError(f"Training cannot start: {error}", hint) from error
    return accelerator


def _classes(pixels: Pixels, config: TrainConfig) -> tuple[str, ...]:
    """The class names in alphabetical order; none where labels are not trained."""
    if not config.objective.label:
        return ()
    missing = sum(label is None for label in pixels.labels)
    if missing:
        raise DataError(
            f"{missing} of {len(pixels.labels)} images have no label; the recipe trains labels.",
            "Sort the images into a folder a class, or train with --set objective.label=0.",
        )
    return tuple(sorted({label for label in pixels.labels if label is not None}))


def _set_rate(optimizer: torch.optim.Optimizer, schedule: ScheduleConfig, done: float) -> None:
    """Set the learning rate after a share `done` of all steps: linear warm-up, then decay."""
    warm = done / schedule.warmup if done < schedule.warmup else 1.0
    if schedule.decay == "exponential":
        decay = schedule.gamma ** math.floor(done * schedule.epochs + 1e-9)
    else:
        progress = max(0.0, done - schedule.warmup) / (1 - schedule.warmup)
        decay = 0.5 * (1 + math.cos(math.pi * progress))
    for group in optimizer.param_groups:
        group["lr"] = schedule.lr * min(warm + 1e-3, 1.0) * decay
