"""An encoder around a torch network. It owns evaluation mode, the device and normalisation."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mrl_search.encoders.base import LinearHeads, Preprocessing
from mrl_search.encoders.network import to_network
from mrl_search.errors import ConfigError

__all__ = ["NetworkEncoder", "device_of", "normalised", "output_dims"]

LARGEST_BATCH = 256  # on a GPU
BATCH_PIXELS = 64 * 256 * 256  # of a batch on the CPU, so that its maps fit in memory


@dataclass(eq=False)
class NetworkEncoder:
    """An `Encoder` around a torch network, in float32 on every device.

    `network` maps (n, 3, size, size) float32 to (n, dim). `batch` is the largest number of pictures
    that the CPU embeds at once. Batches become smaller where the memory
    of the device is too small for them.
    """

    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    network: nn.Module
    heads: LinearHeads = field(default_factory=LinearHeads)
    training: Mapping[str, Any] = field(default_factory=dict)
    device: str | torch.device = "auto"
    axes: str = "none"
    batch: int = 64

    def __post_init__(self) -> None:
        self.device = device_of(str(self.device))
        on_cpu = self.device.type == "cpu"
        most = max(1, BATCH_PIXELS // self.preprocessing.size**2)
        self._batch = min(self.batch, most) if on_cpu else LARGEST_BATCH
        network = self.network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        while True:
            starts = range(0, len(pictures), self._batch)
            try:
                return np.concatenate([self._encode(pictures[i : i + self._batch]) for i in starts])
            except torch.OutOfMemoryError:
                if self._batch == 1:
                    raise
                self._batch //= 2

    def _encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device)
        with torch.inference_mode():
            x = normalised(images, self.preprocessing)
            return self.network(x).float().cpu().numpy()  # type: ignore[no-any-return]


def normalised(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """(n, size, size, 3) uint8 pixels as the input of a network: (n, 3, size, size) float32."""
    x = to_network(pixels.permute(0, 3, 1, 2))
    channels = (preprocessing.mean, preprocessing.std)
    if channels == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)):
        return x
    mean, std = torch.tensor(channels, device=pixels.device).view(2, 1, 3, 1, 1)
    standard: Tensor = ((x + 1) / 2 - mean) / std
    return standard


def device_of(name: str = "auto") -> torch.device:
    """The device of this name; `auto` is a GPU where there is one.

    Each process that `accelerate launch` starts has a GPU of its own.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            own = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
            return torch.device("cuda", own) if own else torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        float(torch.zeros(1, device=device))
    except Exception as error:  # every backend has its own
        raise ConfigError(f"There is no device {name!r} here.", "Use auto or cpu.") from error
    return device


def output_dims(network: nn.Module, size: int) -> int:
    """Dims of the vectors of a network in evaluation mode that takes pictures of `size` pixels."""
    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, size, size)).shape[1])
