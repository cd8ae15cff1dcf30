"""The network that a run starts from: random weights, or those of `init`."""

import dataclasses
import warnings
from pathlib import Path

from torch import Tensor, nn

from mrl_search.encoders import general
from mrl_search.encoders import timm as timm_encoder
from mrl_search.encoders.base import Access
from mrl_search.encoders.checkpoint import FORMAT, ModelFile, load_model
from mrl_search.encoders.config import is_pretrained
from mrl_search.encoders.network import MatryoshkaNetwork
from mrl_search.encoders.pooled import PooledBackbone
from mrl_search.encoders.pretrained import PretrainedBackbone
from mrl_search.encoders.registry import LIBRARIES
from mrl_search.encoders.weights import weights_hash
from mrl_search.errors import ConfigError
from mrl_search.mapping import to_mapping
from mrl_search.training.closed_form import bands
from mrl_search.training.config import TrainConfig

__all__ = ["keep_share", "load_init", "new_network", "warn_of_leaks"]


def load_init(config: TrainConfig, access: Access | None = None) -> ModelFile | None:
    """The model in `init`; None without one.

    Args:
        config: of the run.
        access: whether pretrained weights may be downloaded.
    """
    if not config.init:
        return None
    if is_pretrained(config.init):
        return _pretrained(config, access or Access())
    if config.init == "bundled" or config.init.partition(":")[0] in LIBRARIES:
        hint = "It takes general, timm:NAME, or a run folder."
        raise ConfigError(f"--init does not take {config.init!r}.", hint)
    init = load_model(Path(config.init))
    _check_fit(config, init)
    return init


def _pretrained(config: TrainConfig, access: Access) -> ModelFile:
    """A pretrained network as a model without classes; its projection is random."""
    if config.init == general.NAME:
        weights = general.lite0()
    else:
        weights = timm_encoder.load_network(config.init.removeprefix("timm:"), access)
    network, size = MatryoshkaNetwork(config.model, 0, config.schedule.largest), config.schedule
    assert isinstance(network.backbone, PretrainedBackbone)
    network.backbone.load_trunk(weights)
    for side in {*size.sizes.values(), size.embed_size or size.largest}:
        network.backbone.check_side(side)
    network.eval().requires_grad_(False)
    mark = weights_hash(weights)
    return ModelFile(FORMAT, config.init, config.model, (), size.largest, mark, {}, network=network)


def warn_of_leaks(config: TrainConfig, init: ModelFile | None, pictures: str) -> None:
    """Warn where images that validate now may have trained `init`; `pictures` is their digest."""
    known = init.training if init else {}
    data = to_mapping(config.data)
    other_data = {**data, **known.get("recipe", {}).get("data", {})} != data
    if known.get("pictures", pictures) != pictures or other_data:
        message = (
            f"The model in {config.init} was trained on other images, or on another part of these."
            " Some images that validate may have trained it."
        )
        warnings.warn(message, stacklevel=3)


def new_network(
    config: TrainConfig, classes: tuple[str, ...], init: ModelFile | None
) -> MatryoshkaNetwork:
    """The network of a run with its first weights. With axes, the projection is random."""
    network = MatryoshkaNetwork(config.model, len(classes), config.schedule.largest)
    if config.axes:
        assert isinstance(network.backbone, PooledBackbone)
        features = network.backbone.project.in_features
        after, share = config.axes.after, config.axes.share
        dims = [d - after for d in config.model.dims if d > after]
        bands(dims, max(0, len(classes) - 1), features, 0.0 if after else share)
    if init is None:
        return network
    if is_pretrained(config.init):
        network.load_state_dict(_below_projection(init.network), strict=False)
        return network
    _check_fit(config, init, classes)
    if init.model.pool == config.model.pool:
        network.load_state_dict(init.network.state_dict())
    else:
        network.load_state_dict(_below_projection(init.network), strict=False)
    return network


def _check_fit(
    config: TrainConfig, init: ModelFile, classes: tuple[str, ...] | None = None
) -> None:
    """Raise ConfigError unless the layers, and the `classes` if given, of `init` are the run's."""
    fits = config.model.backbone == "compact" or init.size == config.schedule.largest
    model = init.model
    if config.axes and not config.axes.after:  # the axes replace the whole projection
        model = dataclasses.replace(model, pool=config.model.pool, mirror=config.model.mirror)
    if not fits or model != config.model or classes not in (None, init.classes):
        message = f"The model in {config.init} has other layers or classes than this run."
        hint = "Start from a model with the same [model] settings and labels."
        raise ConfigError(message, hint)


def _below_projection(network: nn.Module) -> dict[str, Tensor]:
    """The state of the layers below the pooling."""
    below = ("backbone.stem", "backbone.body", "backbone.trunk")
    return {name: value for name, value in network.state_dict().items() if name.startswith(below)}


def keep_share(network: nn.Module, init: nn.Module, share: float) -> None:
    """Move the layers below the projection by `share` towards those of `init`, in place."""
    before = _below_projection(init)
    for name, value in _below_projection(network).items():
        if value.is_floating_point():
            value.lerp_(before[name].to(value), share)
