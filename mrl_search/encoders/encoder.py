"""An encoder: pictures in, vectors out. It owns preprocessing, evaluation mode and the device.

A name opens one: `bundled`, a run folder, or `torchvision:NAME`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import nn

from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.network import to_network
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ModelError
from mrl_search.vectors import default_dims

__all__ = ["Encoder", "NetworkEncoder", "load_encoder"]

BUNDLED = "bundled"
TORCHVISION = "torchvision:"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder(Protocol):
    """Anything that turns pictures into rows.

    Attributes:
        model: what opens it again with `load_encoder`.
        name: for people.
        fingerprint: of the weights and the preprocessing; vectors of different fingerprints must not meet.
        size: side of the pictures it wants, in pixels.
        dims: its prefix lengths, the last one the full length.
        classes: names in the order of the heads' rows; empty without heads.
        heads: weight (classes, d) and bias (classes,), float32, of the linear head of each prefix.
        unit_heads: whether the heads read prefixes of unit length, as cosine heads do; else they read raw ones.
    """

    model: str
    name: str
    fingerprint: str
    size: int
    dims: tuple[int, ...]
    classes: tuple[str, ...]
    heads: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]]
    unit_heads: bool

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(n, size, size, 3) uint8 to (n, dim) float32, not normalised: the length of a row is part of what a linear head sees."""
        ...


@dataclass(eq=False)
class NetworkEncoder:
    """An encoder around a torch network; float32 on every device, so that vectors do not depend on where they were made."""

    model: str
    name: str
    fingerprint: str
    size: int
    dims: tuple[int, ...]
    network: nn.Module
    classes: tuple[str, ...] = ()
    heads: Mapping[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(
        default_factory=dict
    )
    unit_heads: bool = False
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.network = (
            self.network.eval()
            .requires_grad_(False)
            .to(self.device, memory_format=torch.channels_last)
        )  # type: ignore[call-overload]

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = (
            torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device).permute(0, 3, 1, 2)
        )
        x = to_network(images)
        if self.mean != (0.5, 0.5, 0.5):
            mean, std = torch.tensor((self.mean, self.std), device=self.device).view(2, 1, 3, 1, 1)
            x = ((x + 1) / 2 - mean) / std
        with torch.inference_mode():
            return self.network(x).float().cpu().numpy()  # type: ignore[no-any-return]


def load_encoder(model: str = BUNDLED) -> NetworkEncoder:
    """Open an encoder by name.

    Raises:
        ModelError: no such model, or its files are missing, damaged or newer than this software.
    """
    if model.startswith(TORCHVISION):
        return _torchvision_encoder(model)
    if model == BUNDLED:
        return _run_encoder(model, Path(str(resources.files("mrl_search.encoders"))) / "bundled")
    folder = Path(model).expanduser()
    if not folder.exists():
        raise ModelError(
            f"There is no model {model!r}.",
            "MODEL is bundled, a run folder that mrl-search train made, or torchvision:NAME.",
        )
    return _run_encoder(str(folder.resolve()), folder)


def _run_encoder(model: str, folder: Path) -> NetworkEncoder:
    file = load_model(folder)
    parts = {d: file.network.heads.weights(d) for d in file.network.heads.dims}
    heads = {d: (weight.numpy().copy(), bias.numpy().copy()) for d, (weight, bias) in parts.items()}
    fingerprint = xxhash.xxh3_128_hexdigest(f"{file.fingerprint} {file.size}".encode())
    return NetworkEncoder(
        model, file.name, fingerprint, file.size, file.config.dims, file.network.backbone, file.classes, heads,
        unit_heads=file.config.heads == "cosine", training=file.training,
    )  # fmt: skip


def _torchvision_encoder(model: str) -> NetworkEncoder:
    """What the head of a torchvision classifier reads, with the weights torchvision calls DEFAULT (fetched once, then local)."""
    name = model.removeprefix(TORCHVISION)
    models = import_torchvision("torchvision.models")
    if name not in models.list_models(module=models):
        raise ModelError(
            f"torchvision has no model {name!r}.",
            "For example torchvision:resnet18 or torchvision:convnext_tiny.",
        )
    weights = models.get_model_weights(name).DEFAULT
    try:
        network = models.get_model(name, weights=weights)
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: what came is not what its checksum says
        raise ModelError(
            f"The weights of {model} could not be fetched from {weights.url}: {error}.",
            "Connect to the network once, or put the file into the checkpoints folder of torch.hub.get_dir().",
        ) from error
    last = next((a for a in ("fc", "classifier", "head", "heads") if hasattr(network, a)), None)
    if last is None:
        raise ModelError(
            f"{model} has no last layer that this software knows how to leave out.",
            "For example torchvision:resnet18.",
        )
    setattr(network, last, nn.Flatten())
    crop = weights.transforms().crop_size[0]
    with torch.inference_mode():
        dim = network.eval()(torch.zeros(1, 3, crop, crop)).shape[1]
    fingerprint = xxhash.xxh3_128()
    for key, value in network.state_dict().items():
        fingerprint.update(key.encode())
        fingerprint.update(value.contiguous().numpy().tobytes())
    return NetworkEncoder(
        model,
        name,
        fingerprint.hexdigest(),
        crop,
        default_dims(dim),
        network,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )
