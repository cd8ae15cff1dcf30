"""A model on disk: `model.safetensors` and `model.json`, written last. Data, never code."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load, save

from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaNetwork
from mrl_search.errors import ConfigError, FileError, ModelError, require
from mrl_search.files import make_folder, reading, write_atomically, write_text
from mrl_search.mapping import from_mapping, read_json

__all__ = ["ModelFile", "load_model", "save_model"]

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
COUNTER = "num_batches_tracked"  # of batch norms; not saved
COPY_AGAIN = "Copy or train the model again."


@dataclass(frozen=True)
class Description:
    """The content of `model.json`.

    Attributes:
        format: of these values.
        name: of the recipe.
        model: the settings of the network.
        classes: class names, in the order of the heads' rows.
        size: side of the pictures, in pixels.
        weights: XXH3-128 of the file of weights.
        training: how it was trained: recipe, pictures, metrics.
    """

    format: int
    name: str
    model: ModelConfig
    classes: tuple[str, ...]
    size: int
    weights: str
    training: Mapping[str, Any]

    def __post_init__(self) -> None:
        require(self.size > 0, f"size is {self.size}; it must be positive.")


@dataclass(frozen=True, eq=False)
class ModelFile(Description):
    """A network in evaluation mode with its weights, and its description."""

    network: MatryoshkaNetwork


def save_model(
    folder: Path,
    network: MatryoshkaNetwork,
    name: str,
    config: ModelConfig,
    classes: tuple[str, ...],
    size: int,
    training: Mapping[str, Any],
) -> None:
    """Write a model into `folder`, its weights in float16. See `Description` for the arguments."""
    make_folder(folder)
    state = {}
    for key, value in network.state_dict().items():
        if key.endswith(COUNTER):
            continue
        value = value.detach().cpu().contiguous()
        state[key] = value.half() if value.is_floating_point() else value
        if not state[key].isfinite().all():
            message = f"The weights {key} are infinite, NaN, or too large for float16."
            hint = "Train with a lower schedule.lr."
            raise ModelError(message, hint)
    (folder / DESCRIPTION).unlink(missing_ok=True)
    weights = save(state)
    with write_atomically(folder / WEIGHTS) as file:
        file.write(weights)
    mark = xxhash.xxh3_128_hexdigest(weights)
    description = Description(FORMAT, name, config, classes, size, mark, dict(training))
    write_text(folder / DESCRIPTION, json.dumps(asdict(description), indent=2) + "\n")


def load_model(folder: Path) -> ModelFile:
    """Read the model in `folder`.

    Raises:
        ModelError: it is missing, not finished, damaged or newer.
        FileError: the system does not read it.
    """
    if not (folder / DESCRIPTION).is_file():
        hint = "Finish its training with mrl-search train, or choose another model."
        raise ModelError(f"There is no finished model in {folder}: {DESCRIPTION} is missing.", hint)
    try:
        return _read(folder)
    except ConfigError as error:
        hint = f"{COPY_AGAIN} If a newer version has written it, upgrade mrl-search."
        raise ModelError(f"The model in {folder} cannot be read: {error.message}", hint) from error
    except FileError as error:
        if not error.missing:
            raise
        raise ModelError(error.message, COPY_AGAIN) from error
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"The model in {folder} cannot be read: {error}.", COPY_AGAIN) from error


def _read(folder: Path) -> ModelFile:
    weights_file, description_file = folder / WEIGHTS, folder / DESCRIPTION
    values = read_json(description_file, ModelError, COPY_AGAIN)
    if not isinstance(values, dict):
        raise ModelError(f"{description_file} does not describe a model.", COPY_AGAIN)
    if isinstance(values.get("format"), int) and values["format"] > FORMAT:
        raise ModelError(
            f"{description_file} has format {values['format']}; this version reads up to {FORMAT}.",
            "Upgrade mrl-search.",
        )
    description = from_mapping(Description, values, str(description_file))
    with reading(weights_file):
        data = weights_file.read_bytes()
    if xxhash.xxh3_128_hexdigest(data) != description.weights:
        raise ModelError(
            f"{weights_file} is damaged: its checksum is not the one in {DESCRIPTION}.", COPY_AGAIN
        )
    network = MatryoshkaNetwork(description.model, len(description.classes), description.size)
    state = {k: v.float() if v.is_floating_point() else v for k, v in load(data).items()}
    keys = network.load_state_dict(state, strict=False)
    missing = [key for key in keys.missing_keys if not key.endswith(COUNTER)]
    if wrong := missing + keys.unexpected_keys:
        raise ModelError(f"{weights_file} does not fit {description_file}: {wrong[0]}.", COPY_AGAIN)
    network.eval().requires_grad_(False)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return ModelFile(**vars(description), network=network)
