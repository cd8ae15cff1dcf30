"""The folder of a training run.

It holds `recipe.toml`, `records.jsonl` (a line an epoch), `checkpoint.safetensors` (the last
complete epoch, removed at the end) and, when the run is finished, the model.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from mrl_search.encoders.checkpoint import DESCRIPTION
from mrl_search.errors import ConfigError, DataError, ModelError, MrlSearchError
from mrl_search.files import append, claim, make_folder, reading, write_atomically, write_text
from mrl_search.mapping import from_mapping, parse_json, read_toml, to_toml
from mrl_search.training.config import TrainConfig
from mrl_search.training.records import EpochRecord

__all__ = [
    "CHECKPOINT", "RECORDS", "check_run", "claimed", "finished", "last_record", "load_checkpoint",
    "save_epoch", "trim_records",
]  # fmt: skip

CHECKPOINT, RECORDS, RECIPE = "checkpoint.safetensors", "records.jsonl", "recipe.toml"


def finished(out: Path) -> bool:
    """Whether `out` holds a finished run."""
    return (out / DESCRIPTION).exists()


def check_run(out: Path, config: TrainConfig) -> None:
    """Check that `out` can hold a run of `config`, and is not the folder of another one."""
    above = next(place for place in (out, *out.parents) if place.exists())
    if not above.is_dir():
        hint = "Choose another --out."
        raise MrlSearchError(f"{out} cannot be a folder: {above} is a file.", hint)
    recipe = out / RECIPE
    if not recipe.exists():
        return
    values = read_toml(recipe)
    # values, not text: an older version knew fewer settings. The checkpoint verifies `init`.
    there = from_mapping(TrainConfig, values | {"init": config.init}, str(recipe))
    if there != config:
        hint = f"Choose another --out, or remove {out}."
        raise ConfigError(f"The run in {out} has another recipe.", hint)


@contextlib.contextmanager
def claimed(out: Path, config: TrainConfig) -> Iterator[None]:
    """Create the folder of a run, lock it for this process, and write its recipe."""
    make_folder(out)
    with claim(out):
        write_text(out / RECIPE, to_toml(config))
        yield


def save_epoch(
    out: Path,
    record: EpochRecord,
    made: Mapping[str, Any],
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    origin: Mapping[str, str],
) -> None:
    """Append the record of an epoch and what `made` it, then replace the checkpoint.

    Its tensors are named `network.NAME` and `optimizer.PARAMETER.NAME`.
    """
    append(out / RECORDS, (json.dumps({**dataclasses.asdict(record), **made}) + "\n").encode())
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(v) for name, v in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with write_atomically(out / CHECKPOINT) as file:
        file.write(save(tensors, metadata={"epoch": str(record.epoch), **origin}))


def load_checkpoint(
    out: Path, network: nn.Module, optimizer: torch.optim.Optimizer, origin: Mapping[str, str]
) -> int:
    """Load the checkpoint in `out`, if there is one, and return how many epochs it has.

    `origin` has fingerprints of the `pictures` and of the model in `init` of this run.
    """
    if not (out / CHECKPOINT).exists():
        return 0
    weights: dict[str, Tensor] = {}
    state: dict[int, dict[str, Tensor]] = {}
    try:
        with reading(out / CHECKPOINT), safe_open(out / CHECKPOINT, "pt") as file:
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
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
    except (SafetensorError, RuntimeError, ValueError, KeyError, TypeError) as error:
        hint = f"Remove {out} to start again."
        raise ModelError(f"{out / CHECKPOINT} is damaged, or of another network.", hint) from error
    for key, value in origin.items():
        if metadata.get(key, value) != value:  # an older version did not write it
            what = "pictures or labels" if key == "pictures" else "weights in init"
            hint = f"Choose another --out, or remove {out}."
            raise ConfigError(f"The unfinished run in {out} began with other {what}.", hint)
    return epoch


def trim_records(out: Path, epochs: int) -> None:
    """Remove the records of all but the first `epochs` epochs."""
    if not epochs:
        (out / RECORDS).unlink(missing_ok=True)
        return
    lines = _records(out) if (out / RECORDS).exists() else []
    with write_atomically(out / RECORDS) as file:
        file.write(b"".join(line + b"\n" for line in lines[:epochs]))


def last_record(out: Path) -> EpochRecord:
    """The record of the last epoch.

    Raises:
        ModelError: it is damaged, or missing.
    """
    try:
        values = parse_json(_records(out)[-1], f"the last line of {out / RECORDS}")
        values["accuracy"] = {int(dims): share for dims, share in values["accuracy"].items()}
        return EpochRecord(**{f.name: values[f.name] for f in dataclasses.fields(EpochRecord)})
    except (DataError, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        message = f"The records of the epochs in {out / RECORDS} are damaged."
        raise ModelError(message, f"Remove {out} to start again.") from error


def _records(out: Path) -> list[bytes]:
    with reading(out / RECORDS):
        return (out / RECORDS).read_bytes().splitlines()
