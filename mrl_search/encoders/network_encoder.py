"""An encoder around a torch network. It owns evaluation mode, the device and normalisation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mrl_search.encoders.base import LinearHeads, Preprocessing
from mrl_search.encoders.network import to_network

__all__ = ["NetworkEncoder"]


@dataclass(eq=False)
class NetworkEncoder:
    """An `Encoder` around a torch network, in float32 on every device.

    `network` maps (n, 3, size, size) float32 to (n, dim).
    """

    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    network: nn.Module
    heads: LinearHeads = field(default_factory=LinearHeads)
    training: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network = self.network.eval().requires_grad_(False)
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        images = torch.from_numpy(np.ascontiguousarray(pictures)).to(self.device)
        x = to_network(images.permute(0, 3, 1, 2))
        channels = (self.preprocessing.mean, self.preprocessing.std)
        if channels != ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)):
            mean, std = torch.tensor(channels, device=self.device).view(2, 1, 3, 1, 1)
            x = ((x + 1) / 2 - mean) / std
        with torch.inference_mode():
            return self.network(x).float().cpu().numpy()  # type: ignore[no-any-return]
