"""Encoders of the library torchvision: a classifier of ImageNet without its last layer."""

from pathlib import Path

import torch
import xxhash
from torch import nn

from mrl_search.encoders.base import Preprocessing, fingerprint
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ModelError
from mrl_search.vectors import default_dims

__all__ = ["torchvision_encoder"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMPLIED = Preprocessing(224, mean=MEAN, std=STD)  # of the fingerprints that indexes have
LAST_LAYERS = ("fc", "classifier", "head", "heads")


def torchvision_encoder(name: str, fetch: bool = True) -> NetworkEncoder:
    """The model `name` with the weights that torchvision calls DEFAULT, downloaded once.

    Raises:
        ModelError: there is no such model, its weights cannot be downloaded, or are not on this
            machine and `fetch` is false.
    """
    models = import_torchvision("torchvision.models")
    if name not in models.list_models(module=models):
        hint = "For example torchvision:resnet18 or torchvision:convnext_tiny."
        raise ModelError(f"torchvision has no model {name!r}.", hint)
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if not (fetch or file.exists()):
        message = f"The weights of torchvision:{name} are not on this machine: there is no {file}."
        raise ModelError(message, f"To download them, name the model: --model torchvision:{name}")
    try:
        network = models.get_model(name, weights=weights)
    except (OSError, RuntimeError) as error:  # RuntimeError: the checksum differs
        raise ModelError(
            f"The weights of torchvision:{name} could not be downloaded from {weights.url}:"
            f" {error}.",
            "Connect to the network once, or put the file into the checkpoints folder of"
            " torch.hub.get_dir().",
        ) from error
    last = next((layer for layer in LAST_LAYERS if hasattr(network, layer)), None)
    if last is None:
        message = f"torchvision:{name} has none of the last layers {', '.join(LAST_LAYERS)}."
        hint = "Choose another model, for example torchvision:resnet18."
        raise ModelError(message, hint)
    setattr(network, last, nn.Flatten())
    preprocessing = Preprocessing(weights.transforms().crop_size[0], mean=MEAN, std=STD)
    with torch.inference_mode():
        sample = torch.zeros(1, 3, preprocessing.size, preprocessing.size)
        dim = network.eval()(sample).shape[1]
    state = xxhash.xxh3_128()
    for key, value in network.state_dict().items():
        state.update(key.encode())
        state.update(value.contiguous().numpy().tobytes())
    return NetworkEncoder(
        f"torchvision:{name}",
        name,
        fingerprint(state.hexdigest(), preprocessing, IMPLIED),
        default_dims(dim),
        preprocessing,
        network,
    )
