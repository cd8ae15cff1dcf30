"""A model on disk: `model.safetensors` and `model.json`, written whole or not at all; data, never code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaNetwork
from mrl_search.errors import ConfigError, ModelError
from mrl_search.files import write_atomically
from mrl_search.mapping import from_mapping, to_mapping

__all__ = ["ModelFile", "load_model", "save_model"]

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True, eq=False)
class ModelFile:
    """A network in evaluation mode with what it needs to be used: picture side in pixels, class names, weights fingerprint."""

    network: MatryoshkaNetwork
    name: str
    config: ModelConfig
    classes: tuple[str, ...]
    size: int
    fingerprint: str
    training: Mapping[str, Any]


def save_model(
    folder: Path,
    network: MatryoshkaNetwork,
    name: str,
    config: ModelConfig,
    classes: tuple[str, ...],
    size: int,
    training: Mapping[str, Any],
) -> None:
    """Write a model into `folder`: weights in float16, the description last. `training` is kept as it is: recipe, data, metrics.

    Raises:
        ModelError: a weight is not finite, or not in float16: its training diverged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        k: v.detach().cpu().contiguous()
        for k, v in network.state_dict().items()
        if not k.endswith("num_batches_tracked")
    }
    state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    for key, value in state.items():
        if not value.isfinite().all():
            raise ModelError(
                f"{key} of the network holds numbers that are not finite, or too large.",
                "Train with a lower schedule.lr.",
            )
    (folder / DESCRIPTION).unlink(missing_ok=True)
    weights = save(state)
    with write_atomically(folder / WEIGHTS) as part:
        part.write_bytes(weights)
    description = {
        "format": FORMAT, "name": name, "model": to_mapping(config), "classes": list(classes), "size": size,
        "weights": xxhash.xxh3_128_hexdigest(weights), "training": dict(training),
    }  # fmt: skip
    with write_atomically(folder / DESCRIPTION) as part:
        part.write_text(json.dumps(description, indent=2) + "\n")


def load_model(folder: Path) -> ModelFile:
    """Read the model in `folder`.

    Raises:
        ModelError: not there, unfinished, damaged, or of a newer format.
    """
    description_file, weights_file = folder / DESCRIPTION, folder / WEIGHTS
    if not description_file.is_file():
        raise ModelError(
            f"There is no finished model in {folder}: {DESCRIPTION} is missing.",
            "Finish its training with mrl-search train, or name another model.",
        )
    try:
        description = json.loads(description_file.read_text())
        if description["format"] > FORMAT:
            raise ModelError(
                f"{description_file} has format {description['format']}; this version reads up to {FORMAT}.",
                "Upgrade mrl-search.",
            )
        config = from_mapping(ModelConfig, description["model"], str(description_file))
        data = weights_file.read_bytes()
        fingerprint = xxhash.xxh3_128_hexdigest(data)
        if fingerprint != description["weights"]:
            raise ModelError(
                f"{weights_file} is damaged: it is not the file that {DESCRIPTION} describes.",
                "Copy or train the model again.",
            )
        network = MatryoshkaNetwork(config, len(description["classes"]), int(description["size"]))
        state: dict[str, Tensor] = {
            k: v.float() if v.is_floating_point() else v for k, v in load_file(weights_file).items()
        }
        problems = network.load_state_dict(state, strict=False)
        missing = [k for k in problems.missing_keys if not k.endswith("num_batches_tracked")]
        if missing or problems.unexpected_keys:
            raise ModelError(
                f"{weights_file} does not fit {description_file}: {(missing + problems.unexpected_keys)[0]}.",
                "Train the model again.",
            )
        name, classes, size, training = (
            description["name"],
            tuple(description["classes"]),
            int(description["size"]),
            description["training"],
        )
    except ConfigError as error:
        raise ModelError(
            f"The model in {folder} cannot be read: {error.message}",
            "It may be of a newer version: upgrade.",
        ) from error
    except OSError as error:
        raise ModelError(
            f"{error.filename} cannot be read: {error.strerror}.", "Copy or train the model again."
        ) from error
    except (ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        raise ModelError(
            f"The model in {folder} cannot be read: {error}.", "Copy or train the model again."
        ) from error
    network.eval().requires_grad_(False)
    return ModelFile(
        network.to(memory_format=torch.channels_last),
        name,
        config,
        classes,
        size,
        fingerprint,
        training,
    )  # type: ignore[call-overload]
