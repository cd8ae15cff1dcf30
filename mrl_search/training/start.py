"""What a run of training begins with: weights at random, or those of the model that its recipe names in `init`."""

import dataclasses
import warnings
from pathlib import Path

from torch import Tensor, nn

from mrl_search.encoders.backbones import CompactBackbone
from mrl_search.encoders.checkpoint import ModelFile, load_model
from mrl_search.encoders.network import MatryoshkaNetwork
from mrl_search.errors import ConfigError
from mrl_search.mapping import to_mapping
from mrl_search.training.closed_form import bands
from mrl_search.training.config import TrainConfig

__all__ = ["keep_share", "load_init", "new_network", "warn_of_leaks"]


def load_init(config: TrainConfig) -> ModelFile | None:
    """The model that a recipe names in `init`; None where its run begins anew.

    Raises:
        ModelError: there is none, or it cannot be read.
        ConfigError: it has other layers than the recipe.
    """
    if not config.init:
        return None
    begun = load_model(Path(config.init))
    _check_fit(config, begun)
    return begun


def warn_of_leaks(config: TrainConfig, begun: ModelFile | None, pictures: str) -> None:
    """Warn where the model in `init` may have been trained on pictures that validate now: the division is of the whole set."""
    known = {} if begun is None else begun.training
    data = to_mapping(config.data)
    if (
        known.get("pictures", pictures) != pictures
        or {**data, **known.get("recipe", {}).get("data", {})} != data
    ):
        message = f"The model in {config.init} was trained on other pictures, or on another part of these: some that validate may have trained."
        warnings.warn(message, stacklevel=3)


def new_network(
    config: TrainConfig, classes: tuple[str, ...], begun: ModelFile | None
) -> MatryoshkaNetwork:
    """The network of a recipe, its weights at random or those of `begun`; axes that are to be set leave its projection at random.

    Raises:
        ConfigError: `begun` does not fit, or there are too few axes.
    """
    size = max(config.schedule.sizes.values())
    network = MatryoshkaNetwork(config.model, len(classes), size)
    if config.axes:  # are there enough of them?
        assert isinstance(network.backbone, CompactBackbone)
        bands(
            config.model.dims,
            max(0, len(classes) - 1),
            network.backbone.project.in_features,
            config.axes.share,
        )
    if begun is None:
        return network
    _check_fit(config, begun, classes)
    if begun.config.pool == config.model.pool:
        network.load_state_dict(begun.network.state_dict())
    else:
        network.load_state_dict(_below_projection(begun.network), strict=False)
    return network


def _check_fit(
    config: TrainConfig, begun: ModelFile, classes: tuple[str, ...] | None = None
) -> None:
    """Raise ConfigError unless a run can begin with the model in its `init`; without `classes`, as far as the recipe tells."""
    fits = config.model.backbone == "compact" or begun.size == max(config.schedule.sizes.values())
    model = begun.config
    if config.axes:  # which make the projection anew
        model = dataclasses.replace(model, pool=config.model.pool, mirror=config.model.mirror)
    if not fits or model != config.model or classes not in (None, begun.classes):
        raise ConfigError(
            f"The model in {config.init} has other layers or classes than this run.",
            "Start from a model of the same [model] and labels.",
        )


def _below_projection(network: nn.Module) -> dict[str, Tensor]:
    """The state of the layers whose maps are pooled."""
    return {
        name: value
        for name, value in network.state_dict().items()
        if name.startswith(("backbone.stem", "backbone.body"))
    }


def keep_share(network: nn.Module, begun: nn.Module, share: float) -> None:
    """Move the layers below the projection by `share` towards those of the model that the run began with."""
    before = _below_projection(begun)
    for name, value in _below_projection(network).items():
        if value.is_floating_point():
            value.lerp_(before[name].to(value), share)  # in place: the network's own tensor
