"""Pretrained networks of timm as backbones: their pooled maps, and a projection to train."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mrl_search.encoders.pooled import PooledBackbone
from mrl_search.encoders.weights import import_library, unknown_model
from mrl_search.errors import ConfigError

__all__ = ["ARCHITECTURE", "PretrainedBackbone", "StagePooling"]

ARCHITECTURE = "tf_efficientnet_lite0"  # of `general`
STAGES = 4  # the last ones that are pooled; EfficientNets pool all
EFFICIENT_NET = ("conv_stem", "bn1", "blocks", "conv_head", "bn2")


class StagePooling(nn.Module):
    """A backbone of timm's EfficientNet, as the statistics of the maps of all its stages.

    (n, 3, s, s) float32 to (n, features) float32: means and deviations of the channels of all
    stages, and the means of the last convolution.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        b: Any = self.backbone
        maps = [b.bn1(b.conv_stem(x))]
        for stage in b.blocks:
            maps.append(stage(maps[-1]))
        head = b.bn2(b.conv_head(maps[-1])).float().mean((2, 3))
        return torch.cat([*_statistics(maps[1:]), head], 1)


class BlockPooling(nn.Module):
    """A network of timm, as the statistics of the maps of its last stages.

    (n, 3, s, s) float32 to (n, features) float32: means and deviations of the channels, and the
    features that timm pools.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        b: Any = self.backbone
        last, maps = b.forward_intermediates(x, indices=STAGES)
        return torch.cat([*_statistics(maps), b.forward_head(last, pre_logits=True).float()], 1)


def _statistics(maps: Iterable[Tensor]) -> list[Tensor]:
    """The (n, channels) float32 means, then deviations, of each of these (n, channels, h, w)."""
    maps = [m.float() for m in maps]
    means = [m.mean((2, 3)) for m in maps]
    squares = [m.square().mean((2, 3)) for m in maps]
    spreads = [(s - m * m).clamp(min=1e-12).sqrt() for s, m in zip(squares, means, strict=True)]
    return means + spreads


class PretrainedBackbone(PooledBackbone):
    """A network of timm without its classifier, and a projection.

    (n, 3, s, s) float32 in (-1, 1) to (n, dim) float32, for the sizes that the network takes.
    Its first weights are random; `load_trunk` takes those of a pretrained network.

    Args:
        name: `general`, or `timm:NAME`.
        dim: of the embedding.
        side: of the largest pictures, in pixels.
        pool: `last`, the features that timm pools, or `stages`.
        mirror: see `ModelConfig`.

    Raises:
        ModelError: timm is not installed, or has no such network.
        ConfigError: the network has no stages, or takes no pictures of `side` pixels.
    """

    trunk: nn.Module
    scale: Tensor
    shift: Tensor

    def __init__(self, name: str, dim: int, side: int, pool: str, mirror: bool) -> None:
        super().__init__(mirror)
        library, _, model = name.partition(":")
        timm = import_library("timm", "models" if model else "general")
        model = model or ARCHITECTURE
        if not timm.is_model(model):
            raise unknown_model(library, model, timm.list_models(), "resnet18")
        network: Any = timm.create_model(model, num_classes=0)
        data = timm.data.resolve_model_data_config(network)
        # (-1, 1) to what the network is trained with: (picture - mean) / std
        mean, std = torch.tensor([data["mean"], data["std"]]).view(2, 1, 3, 1, 1)
        self.register_buffer("scale", 0.5 / std)
        self.register_buffer("shift", (0.5 - mean) / std)
        self.name = name
        self.trunk = network
        if pool == "stages":
            is_efficient = all(hasattr(network, layer) for layer in EFFICIENT_NET)
            if not is_efficient and not hasattr(network, "forward_intermediates"):
                message = f"{name} has no stages for model.pool = 'stages'."
                raise ConfigError(message, "Use --set model.pool=last.")
            self.trunk = StagePooling(network) if is_efficient else BlockPooling(network)
        self.set_projection(self.check_side(side), dim, standard=True)

    def check_side(self, side: int) -> int:
        """The number of pooled features of pictures of `side` pixels.

        Raises:
            ConfigError: the network does not take such pictures.
        """
        training = self.trunk.training
        self.trunk.eval()
        try:
            with torch.no_grad():
                device = self.scale.device
                features = self.statistics(torch.zeros(1, 3, side, side, device=device))
        except (AssertionError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0].rstrip(".") if str(error) else "no reason given"
            message = f"{self.name} does not take pictures of {side} pixels: {reason}."
            raise ConfigError(message, "Use the size that it was trained with: --size.") from error
        finally:
            self.trunk.train(training)
        return features.shape[1]

    def load_trunk(self, network: nn.Module) -> None:
        """Take the weights of a network of the same architecture; its classifier is left out."""
        trunk: Any = self.trunk
        own: nn.Module = getattr(trunk, "backbone", trunk)
        state, keys = network.state_dict(), own.state_dict()
        own.load_state_dict({key: state[key] for key in keys})

    def statistics(self, x: Tensor) -> Tensor:
        features: Tensor = self.trunk(x * self.scale + self.shift)
        return features.float()
