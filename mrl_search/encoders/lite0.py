"""EfficientNet-Lite0 (arXiv 1905.11946) with fixed weights, in plain torch.

timm has the same network, but its import takes longer than that of torch.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

__all__ = ["Lite0"]

STAGES = (  # blocks, and the stride of the first one
    (1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1),
)  # fmt: skip
EPS = 1e-3  # of batch norms


class Convolution(nn.Module):
    """A convolution with its batch norm in it, and ReLU6 if wanted; padded as TensorFlow does.

    A stride of 2 takes maps with an even number of rows and columns. TensorFlow pads these by one
    more at their end: a kernel with a zero row and column before it gives the same, equally padded,
    and no map has to be copied.
    """

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, active: bool) -> None:
        super().__init__()
        if stride > 1:
            weight = functional.pad(weight, (1, 0, 1, 0))
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self.stride, self.active = stride, active
        self.groups = len(weight) if weight.shape[1] == 1 else 1
        self.padding = (weight.shape[-1] - 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        x = functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return functional.relu6(x, inplace=True) if self.active else x


class Residual(nn.Module):
    """Layers whose result is added to what they are given."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x)
        return result


class Lite0(nn.Module):
    """The network up to its last convolution; its parts have the names that timm gives them.

    It takes (n, 3, side, side) float32 in (-1, 1), with a side that is a multiple of 32.

    Args:
        state: the arrays of its weights in their order: of each convolution the kernel, then scale,
            shift, mean, variance and count of its batch norm; at last those of the classifier.

    Raises:
        ValueError: they are not of this network.
    """

    def __init__(self, state: Sequence[Tensor]) -> None:
        super().__init__()
        rest = iter(state[:-2])
        try:
            self.conv_stem = _convolution(rest, 3, 2)
            blocks, channels = [], 32
            for count, stride in STAGES:
                stage = nn.Sequential()
                for at in range(count):
                    block, channels = _block(rest, channels, stride if at == 0 else 1)
                    stage.append(block)
                blocks.append(stage)
            self.blocks = nn.Sequential(*blocks)
            self.conv_head = _convolution(rest, channels, 1)
        except (StopIteration, IndexError, RuntimeError) as error:
            raise ValueError("too few weights, or of other shapes") from error
        if next(rest, None) is not None or state[-2].shape[1:] != self.conv_head.bias.shape:
            raise ValueError("too many weights")
        self.bn1, self.bn2 = nn.Identity(), nn.Identity()


def _block(rest: Iterator[Tensor], channels: int, stride: int) -> tuple[nn.Module, int]:
    """A block of the network and the number of channels that it gives.

    The first one, of 32 channels, does not expand them.
    """
    first = [] if channels == 32 else [_convolution(rest, channels, 1)]
    width = len(first[0].bias) if first else channels
    parts = [*first, _convolution(rest, 1, stride), _convolution(rest, width, 1, active=False)]
    out = len(parts[-1].bias)
    kind = Residual if stride == 1 and out == channels else nn.Sequential
    return kind(*parts), out


def _convolution(
    rest: Iterator[Tensor], inputs: int, stride: int, active: bool = True
) -> Convolution:
    kernel, scale, shift, mean, variance, _ = (next(rest) for _ in range(6))
    if kernel.shape[1] != inputs:
        raise IndexError
    weight, bias = fuse_conv_bn_weights(kernel, None, mean, variance, EPS, scale, shift)
    return Convolution(torch.as_tensor(weight), torch.as_tensor(bias), stride, active)
