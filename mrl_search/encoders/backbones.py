"""Backbones: pictures in, one embedding each out."""

import torch
from torch import Tensor, nn

from mrl_search.encoders.config import ModelConfig
from mrl_search.errors import ConfigError

__all__ = ["CompactBackbone", "FourConvBackbone", "build_backbone"]


class Residual(nn.Module):
    """Two 3x3 convolutions around a shortcut (ResNet, arXiv 1512.03385, section 3.3).

    A shortcut to fewer pixels averages them, where a strided convolution would drop three of four (ResNet-D, arXiv 1812.01187, section 4).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)
        same = stride == 1 and inputs == outputs
        pool = (
            nn.Identity()
            if stride == 1
            else nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
        )
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(
                pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        z: Tensor = self.act(self.norm2(self.conv2(y)) + self.shortcut(x))
        return z


class CompactBackbone(nn.Module):
    """A narrow 18-layer residual network, made for processors without a GPU.

    (n, 3, s, s) float32 in (-1, 1) to (n, dim) float32, for any s from 32 up. The embedding is batch-normalised, so that every
    dim carries weight in the cosine from the first step of training on. It is a projection of what `pooled` gives.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...] = (48, 96, 192, 320),
        pool: str = "last",
        mirror: bool = False,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.mirror = mirror
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(first // 2), nn.ReLU(inplace=True),
            nn.Conv2d(first // 2, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU(inplace=True),
        )  # fmt: skip
        blocks: list[nn.Module] = []
        inputs = first
        for i, outputs in enumerate(widths):
            blocks += [
                Residual(inputs, outputs, stride=1 if i == 0 else 2),
                Residual(outputs, outputs, stride=1),
            ]
            inputs = outputs
        self.body = nn.Sequential(*blocks)
        features = inputs if pool == "last" else sum(widths) + sum(widths[:-1])
        self.standard: nn.Module = (
            nn.Identity() if pool == "last" else nn.BatchNorm1d(features, affine=False)
        )
        self.project = nn.Linear(features, dim, bias=False)
        self.norm = nn.BatchNorm1d(dim)

    def pooled(self, x: Tensor) -> Tensor:
        """(n, 3, s, s) to (n, features): means, and deviations, of maps over the picture, as `ModelConfig.pool` says.

        With `mirror`, outside of training, the mean of what the picture and its mirror image give.
        """
        if self.mirror and not self.training:
            return (self._pooled(x) + self._pooled(x.flip(3))) / 2
        return self._pooled(x)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "last":
            last: Tensor = self.body(self.stem(x))
            return last.mean((2, 3))
        maps = [self.stem(x)]
        for block in self.body:
            maps.append(block(maps[-1]))
        stages = [m.float() for m in maps[2::2]]
        return torch.cat(
            [m.mean((2, 3)) for m in stages] + [m.std((2, 3), correction=0) for m in stages[:-1]], 1
        )

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.norm(self.project(self.standard(self.pooled(x))))
        return embedding


class FourConvBackbone(nn.Module):
    """The seed's network: four convolutions, each with a rectifier and max pooling, and one linear layer.

    (n, 3, side, side) float32 in (-1, 1) to (n, dim) float32. With the widths 256, 512, 512, 512 and 256 pixels the shapes are those
    of the seed: 256x81x81, 512x25x25, 512x11x11, 512x4x4, 8192, dim. They follow from kernels of 12, 5, 3 and 3 pixels without padding
    and pools of 3, 3, 2 and 2 ("Matryoshka Representation Learning: Classifying Cats vs. Dogs (Part 1)", Model Configuration), where no
    activation is named; a rectifier is taken.

    Raises:
        ConfigError: pictures so small that nothing is left of them.
    """

    KERNELS, POOLS = (12, 5, 3, 3), (3, 3, 2, 2)

    def __init__(
        self, dim: int, widths: tuple[int, ...] = (256, 512, 512, 512), side: int = 256
    ) -> None:
        super().__init__()
        left = side
        for kernel, pool in zip(self.KERNELS, self.POOLS, strict=True):
            left = max(0, left - kernel + 1) // pool
        if left < 1:
            raise ConfigError(
                f"The backbone four-conv cannot see pictures of {side} pixels.",
                "Its pictures have at least 113: --size 128.",
            )
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel), nn.ReLU(inplace=True), nn.MaxPool2d(pool)
            )
            for inputs, outputs, kernel, pool in zip(
                (3, *widths), widths, self.KERNELS, self.POOLS, strict=False
            )
        )
        self.project = nn.Linear(widths[-1] * left * left, dim)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        embedding: Tensor = self.project(x.flatten(1))
        return embedding


def build_backbone(config: ModelConfig, side: int = 256) -> nn.Module:
    """The backbone that `config` describes, its weights at random.

    Args:
        config: of the network.
        side: of its pictures, in pixels: what the linear layer of `four-conv` is made for. `compact` takes any.

    Raises:
        ConfigError: it cannot have such pictures.
    """
    if config.backbone == "four-conv":
        return FourConvBackbone(config.dims[-1], config.widths, side)
    return CompactBackbone(config.dims[-1], config.widths, config.pool, config.mirror)
