"""Backbones: pictures in, one embedding each out."""

import torch
from torch import Tensor, nn

from mrl_search.encoders.config import ModelConfig, is_pretrained
from mrl_search.encoders.pooled import PooledBackbone
from mrl_search.encoders.pretrained import PretrainedBackbone
from mrl_search.errors import require

__all__ = ["CompactBackbone", "FourConvBackbone", "build_backbone"]


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet, arXiv 1512.03385, section 3.3).

    With a stride, the shortcut averages pixels (ResNet-D, arXiv 1812.01187, section 4).
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            pool = nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)
            self.shortcut = nn.Sequential(
                pool if stride != 1 else nn.Identity(),
                nn.Conv2d(inputs, outputs, 1, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        z: Tensor = self.act(self.norm2(self.conv2(y)) + self.shortcut(x))
        return z


class CompactBackbone(PooledBackbone):
    """A narrow 18-layer residual network, made for processors without a GPU.

    (n, 3, s, s) float32 in (-1, 1) to (n, dim) float32, for any s from 32 up. The embedding is
    batch-normalised, so that every dimension counts in the cosine from the first step of training.
    It is a linear function of `pooled`. See `ModelConfig` for `pool` and `mirror`.
    """

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...] = (48, 96, 192, 320),
        pool: str = "last",
        mirror: bool = False,
    ) -> None:
        super().__init__(mirror)
        self.pool = pool
        first = widths[0]
        layers: list[nn.Module] = []
        for inputs, outputs in ((3, first // 2), (first // 2, first)):
            layers += [
                nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
        self.stem = nn.Sequential(*layers)
        blocks: list[nn.Module] = []
        inputs = first
        for i, outputs in enumerate(widths):
            blocks += [
                Residual(inputs, outputs, stride=1 if i == 0 else 2),
                Residual(outputs, outputs, stride=1),
            ]
            inputs = outputs
        self.body = nn.Sequential(*blocks)
        stages = pool == "stages"
        self.set_projection(sum(widths) + sum(widths[:-1]) if stages else inputs, dim, stages)

    def statistics(self, x: Tensor) -> Tensor:
        if self.pool == "last":
            last: Tensor = self.body(self.stem(x))
            return last.mean((2, 3))
        maps = [self.stem(x)]
        for block in self.body:
            maps.append(block(maps[-1]))
        stages = [m.float() for m in maps[2::2]]
        means = [m.mean((2, 3)) for m in stages]
        deviations = [m.std((2, 3), correction=0) for m in stages[:-1]]
        return torch.cat(means + deviations, 1)


class FourConvBackbone(nn.Module):
    """The network of the original study: four convolutions and one linear layer.

    (n, 3, side, side) float32 in (-1, 1) to (n, dim) float32. "Matryoshka Representation Learning:
    Classifying Cats vs. Dogs (Part 1)", Model Configuration: with the default widths and 256
    pixels the shapes are 256x81x81, 512x25x25, 512x11x11, 512x4x4, 8192, dim. With
    `activation` "none", as in the published code, only the pooling is not linear.
    """

    KERNELS, POOLS = (12, 5, 3, 3), (3, 3, 2, 2)

    def __init__(
        self,
        dim: int,
        widths: tuple[int, ...] = (256, 512, 512, 512),
        side: int = 256,
        activation: str = "relu",
    ) -> None:
        super().__init__()
        stages: list[nn.Module] = []
        inputs, map_side = 3, side
        for outputs, kernel, pool in zip(widths, self.KERNELS, self.POOLS, strict=True):
            convolution = nn.Conv2d(inputs, outputs, kernel)
            act = nn.ReLU(inplace=True) if activation == "relu" else nn.Identity()
            stages.append(nn.Sequential(convolution, act, nn.MaxPool2d(pool)))
            inputs, map_side = outputs, max(0, map_side - kernel + 1) // pool
        require(
            map_side > 0,
            f"Pictures of {side} pixels are too small for the backbone four-conv; it needs 113.",
            "For example --size 128.",
        )
        self.stages = nn.ModuleList(stages)
        self.project = nn.Linear(inputs * map_side**2, dim)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        embedding: Tensor = self.project(x.flatten(1))
        return embedding


def build_backbone(config: ModelConfig, side: int = 256) -> nn.Module:
    """The backbone of `config` with random weights."""
    if config.backbone == "four-conv":
        return FourConvBackbone(config.dims[-1], config.widths, side, config.activation)
    if is_pretrained(config.backbone):
        name, dim = config.backbone, config.dims[-1]
        return PretrainedBackbone(name, dim, side, config.pool, config.mirror)
    return CompactBackbone(config.dims[-1], config.widths, config.pool, config.mirror)
