"""Encoders of the library timm: a backbone without its classifier, with its own preprocessing."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mrl_search.encoders.base import Access, Offer, Preprocessing, fingerprint
from mrl_search.encoders.network_encoder import NetworkEncoder, output_dims
from mrl_search.encoders.weights import (
    cached_file,
    downloading,
    import_library,
    name_and_file,
    unknown_model,
    weights_hash,
    wrong_weights,
)
from mrl_search.errors import ModelError
from mrl_search.vectors import default_dims

__all__ = ["described", "load_network", "open_encoder", "preprocessing_of"]

FITS = {"center": "cover", "squash": "squash", "border": "contain"}
T = TypeVar("T")
FILES = ("model.safetensors", "pytorch_model.bin")


def open_encoder(text: str, access: Access) -> NetworkEncoder:
    """The model `NAME` with the weights that timm has for it, or `NAME@FILE`.

    Raises:
        ModelError: timm is not installed or has no such model; its weights cannot be downloaded, or
            may not be; or the file has other weights.
    """
    network = load_network(text, access)
    timm = import_library("timm", "models")
    name, file = name_and_file(text, "timm")
    preprocessing = preprocessing_of(timm.data.resolve_model_data_config(network))
    implied = Preprocessing(preprocessing.size)
    return NetworkEncoder(
        f"timm:{text if '@' not in text else f'{name}@{file}'}",
        name,
        fingerprint(weights_hash(network), preprocessing, implied),
        default_dims(output_dims(network, preprocessing.size)),
        preprocessing,
        network,
        device=access.device,
        axes="pca",
    )


def described(name: str) -> tuple[int, int, str]:
    """Dims of the vectors of a model, bytes of its weights, and their licence, without weights.

    The dims are 0 where the network only tells them when it runs with weights.
    """
    timm = import_library("timm", "models")
    config = timm.get_pretrained_cfg(name)
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=0).eval()
        try:
            dims = int(network(torch.zeros(1, *config.input_size)).shape[-1])
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            dims = 0
    size = sum(p.numel() * p.element_size() for p in network.parameters())
    return dims, size, config.license or ""


def load_network(text: str, access: Access) -> nn.Module:
    """The network `NAME` or `NAME@FILE` without its classifier, in evaluation mode.

    Raises:
        ModelError: see `open_encoder`.
    """
    timm = import_library("timm", "models")
    name, file = name_and_file(text, "timm")
    base, _, tag = name.partition(".")
    if not timm.is_model(name) or (tag and name not in timm.list_pretrained(f"{base}.*")):
        known = timm.list_models() + timm.list_pretrained()
        raise unknown_model("timm", name, known, "resnet18.a1_in1k")
    config = timm.get_pretrained_cfg(name)
    cached = None if file else _on_this_machine(config)
    if local := file or cached:
        return load_file(timm, name, local, own=cached is not None).eval()
    return _download(timm, name, config, access).eval()


def preprocessing_of(data: dict[str, Any]) -> Preprocessing:
    """The preprocessing that a data configuration of timm describes."""
    _, height, width = data["input_size"]
    if height != width:
        raise ModelError(f"The model takes {width} x {height} pixels; only squares are supported.")
    mean, std = (_channels(map(float, data[key])) for key in ("mean", "std"))
    border = data.get("crop_mode") == "border"
    return Preprocessing(
        height,
        interpolation=data["interpolation"],
        mean=mean,
        std=std,
        fit=FITS[data.get("crop_mode", "center")],
        resize=int(height / data["crop_pct"]),
        fill=_channels(round(255 * v) for v in mean) if border else (0, 0, 0),
    )


def _channels(values: Iterable[T]) -> tuple[T, T, T]:
    red, green, blue = values
    return red, green, blue


def load_file(timm: Any, name: str, file: Path, own: bool = False) -> nn.Module:  # noqa: ANN401
    """The model `name` without its classifier, with weights from `file`.

    `own`: the file is one that timm has for this model, and may need timm's conversion.

    Raises:
        ModelError: the file has other weights, or none.
    """
    try:
        if own:
            overlay = {"file": str(file), "custom_load": False}
            network: nn.Module = timm.create_model(
                name, pretrained=True, num_classes=0, pretrained_cfg_overlay=overlay
            )
            return network
        network = timm.create_model(name, num_classes=0)
        missing = timm.models.load_checkpoint(network, str(file), strict=False).missing_keys
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except Exception as error:  # a damaged file raises anything
        raise wrong_weights(file, f"timm:{name}", error) from error
    return network


def _on_this_machine(config: Any) -> Path | None:  # noqa: ANN401
    """The file of the pretrained weights in the cache of the hub or of torch; None without one."""
    if config is None:
        return None
    if config.hf_hub_id:
        names = (config.hf_hub_filename,) if config.hf_hub_filename else FILES
        return cached_file(config.hf_hub_id, names)
    file = Path(torch.hub.get_dir(), "checkpoints", Path(config.url or "none").name)
    return file if file.is_file() else None


def _download(timm: Any, name: str, config: Any, access: Access) -> nn.Module:  # noqa: ANN401
    if config is None or not config.has_weights:
        known = timm.list_pretrained(f"{name.partition('.')[0]}*")
        hint = f"Name a file: timm:{name}@FILE." + (f" With weights: {known[0]}." if known else "")
        raise ModelError(f"timm has no weights for {name}.", hint)
    _, size, licence = described(name)
    source = f"huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    place = "the cache of the hub" if config.hf_hub_id else f"{torch.hub.get_dir()}/checkpoints"
    offer = Offer(f"timm:{name}", source, licence, size, place)
    file = config.hf_hub_filename or FILES[0]
    address = f"https://{source}/resolve/main/{file}" if config.hf_hub_id else config.url
    by_hand = f"download {address} elsewhere and name it: timm:{name}@FILE"
    with downloading(offer, access, by_hand):
        network: nn.Module = timm.create_model(name, pretrained=True, num_classes=0)
    return network
