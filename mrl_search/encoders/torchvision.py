"""Encoders of the library torchvision: a classifier of ImageNet without its last layer."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mrl_search.encoders.base import Access, Offer, Preprocessing, fingerprint
from mrl_search.encoders.network_encoder import NetworkEncoder, output_dims
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.encoders.weights import (
    downloading,
    name_and_file,
    unknown_model,
    weights_hash,
    wrong_weights,
)
from mrl_search.errors import ModelError
from mrl_search.vectors import default_dims

__all__ = ["described", "open_encoder"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMPLIED = Preprocessing(224, mean=MEAN, std=STD)  # of the fingerprints that indexes have
LAST_LAYERS = ("fc", "classifier", "head", "heads")
INITIAL = {name: {"init_weights": False} for name in ("googlenet", "inception_v3")}  # slow else


def open_encoder(text: str, access: Access) -> NetworkEncoder:
    """The model `NAME` with the weights that torchvision calls DEFAULT, or `NAME@FILE`.

    Raises:
        ModelError: there is no such model, its weights cannot be downloaded, or may not be; or the
            file has other weights.
    """
    models = import_torchvision("torchvision.models")
    name, given = name_and_file(text, "torchvision")
    if name not in models.list_models(module=models):
        raise unknown_model("torchvision", name, models.list_models(module=models), "resnet18")
    weights = models.get_model_weights(name).DEFAULT
    file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
    if given:
        network = models.get_model(name, weights=None)
        try:
            network.load_state_dict(torch.load(given, map_location="cpu", weights_only=True))
        except Exception as error:  # a damaged file raises anything
            raise wrong_weights(given, f"torchvision:{name}", error) from error
    else:
        place, size = str(file.parent), _size(weights)
        offer = Offer(f"torchvision:{name}", weights.url, "", size, place)
        by_hand = f"download {weights.url} elsewhere and put it into {place}"
        with downloading(offer, access, by_hand, there=file.exists()):
            network = models.get_model(name, weights=weights)
    last = _last_layer(network)
    if last is None:
        message = f"torchvision:{name} has none of the last layers {', '.join(LAST_LAYERS)}."
        hint = "Choose another model, for example torchvision:resnet18."
        raise ModelError(message, hint)
    setattr(network, last, nn.Flatten())
    preprocessing = Preprocessing(weights.transforms().crop_size[0], mean=MEAN, std=STD)
    network.eval()
    return NetworkEncoder(
        f"torchvision:{name}" + (f"@{given}" if given else ""),
        name,
        fingerprint(weights_hash(network), preprocessing, IMPLIED),
        default_dims(output_dims(network, preprocessing.size)),
        preprocessing,
        network,
        device=access.device,
        axes="pca",
    )


def described(name: str) -> tuple[int, int, str]:
    """Dims of the vectors of a model, bytes of its weights, and their licence, without weights.

    The dims are 0 where the network takes its weights to be made or run; torchvision states no
    licences.
    """
    models = import_torchvision("torchvision.models")
    weights = models.get_model_weights(name).DEFAULT
    side, dims = weights.transforms().crop_size[0], 0
    with torch.device("meta"), suppress(AssertionError, NotImplementedError):
        network = models.get_model(name, weights=None, **INITIAL.get(name, {})).eval()
        if last := _last_layer(network):
            setattr(network, last, nn.Flatten())
            dims = output_dims(network, side)
    return dims, _size(weights), ""


def _last_layer(network: nn.Module) -> str | None:
    return next((layer for layer in LAST_LAYERS if hasattr(network, layer)), None)


def _size(weights: Any) -> int:  # noqa: ANN401
    return int(weights.meta.get("_file_size", 0) * 1e6)
