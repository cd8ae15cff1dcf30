"""Training of pretrained networks, tiny ones of timm with weights from a file."""

import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import write_pictures
from safetensors.torch import save_file
from tiny_runs import (
    TINY,
    change,
    noise_pixels,
    same,
    stop_after,
    train_all,
    train_tiny,
    weights_of,
)
from torch import nn
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.encoders import general
from mrl_search.encoders.base import Access
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaNetwork, to_network
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.weights import import_library
from mrl_search.errors import ConfigError, ModelError
from mrl_search.training.config import AxesConfig, TrainConfig
from mrl_search.training.recipes import load_recipe
from mrl_search.training.records import AxesRecord
from mrl_search.training.start import load_init, new_network

if not find_spec("timm"):
    pytest.skip("timm is not installed", allow_module_level=True)
timm: Any = import_library("timm", "models")
pytestmark = pytest.mark.usefixtures("fresh_accelerate")
CLASSES = ("cat", "dog")
NETWORKS = ("test_resnet", "test_efficientnet", "test_convnext")
PIXELS = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.manual_seed(0))


def pretrained(name: str) -> nn.Module:
    """A network whose batch norms have seen something."""
    torch.manual_seed(7)
    network: nn.Module = timm.create_model(name, num_classes=5)
    network.train()(torch.randn(16, 3, 64, 64))
    return network.eval()


@pytest.fixture
def configured(tmp_path: Path) -> Callable[..., TrainConfig]:
    """The configuration of a tiny run from a network of timm."""

    def make(name: str = "test_resnet", pool: str = "stages", **changes: object) -> TrainConfig:
        file = tmp_path / f"{name}.safetensors"
        save_file(pretrained(name).state_dict(), file)
        model = ModelConfig(f"timm:{name}", dims=(8, 16), pool=pool)
        run = replace(TINY, model=model, init=f"timm:{name}@{file}")
        return change(run, schedule__sizes={"0": 64}, schedule__lr=0.003, **changes)

    return make


def pixels() -> Any:
    return noise_pixels(side=80)


# The first weights


@pytest.mark.parametrize("name", NETWORKS)
def test_the_first_features_are_those_of_the_pretrained_network(
    name: str, configured: Callable[..., TrainConfig]
) -> None:
    network = pretrained(name)
    data = timm.data.resolve_model_data_config(network)
    mean, std = (torch.tensor(data[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        last = network.forward_features((PIXELS / 255 - mean) / std)  # type: ignore[operator]
        expected = network.forward_head(last, pre_logits=True)  # type: ignore[operator]
        for pool in ("last", "stages"):
            config = configured(name, pool)
            backbone: Any = new_network(config, CLASSES, load_init(config)).eval().backbone
            features = backbone.pooled(to_network(PIXELS))
            assert torch.allclose(features[:, -expected.shape[1] :], expected, atol=1e-5)
            assert (features.shape[1] > expected.shape[1]) == (pool == "stages")


def test_stages_are_means_and_deviations_of_maps(configured: Callable[..., TrainConfig]) -> None:
    config, network = configured(), pretrained("test_resnet")
    backbone: Any = new_network(config, CLASSES, load_init(config)).eval().backbone
    with torch.no_grad():
        features = backbone.pooled(to_network(PIXELS))
        maps = network.forward_intermediates(  # type: ignore[operator]
            to_network(PIXELS), indices=4, intermediates_only=True
        )
    channels = [m.shape[1] for m in maps]
    means, deviations = features.split([sum(channels), features.shape[1] - sum(channels)], 1)
    assert torch.allclose(means, torch.cat([m.mean((2, 3)) for m in maps], 1), atol=1e-5)
    spreads = torch.cat([m.std((2, 3), correction=0) for m in maps], 1)
    assert torch.allclose(deviations[:, : sum(channels)], spreads, atol=1e-4)


def test_the_first_features_of_general_are_those_of_its_encoder() -> None:
    pytest.importorskip(general.WEIGHTS)
    encoder = load_encoder("general", Access(device="cpu"))
    pictures = np.random.default_rng(0).integers(0, 255, (2, 192, 192, 3), dtype=np.uint8)
    (config,) = load_recipe("finetune", ["axes.after=256"]).steps
    init = load_init(config)
    network = new_network(config, CLASSES, init).eval()
    x = to_network(torch.from_numpy(pictures).permute(0, 3, 1, 2))
    with torch.no_grad():
        features = network.backbone.pooled(x)  # type: ignore[operator]
    assert np.allclose(features, encoder.encode(pictures), atol=2e-4)


# Runs


@pytest.mark.parametrize("name", NETWORKS)
def test_a_run_learns_and_its_folder_opens_alone(
    name: str, configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured(name)
    first, *others = train_tiny(tmp_path / "run", config, pixels())
    assert others[-1].label_loss < 0.8 * first.label_loss
    assert max(record.accuracy[16] for record in (first, *others)) > 0.7
    (tmp_path / f"{name}.safetensors").unlink()
    encoder = load_encoder(str(tmp_path / "run"), Access(fetch=False, device="cpu"))
    assert (encoder.dims, encoder.heads.classes) == ((8, 16), CLASSES)
    file = load_model(tmp_path / "run")
    assert file.model.backbone == f"timm:{name}"
    again = MatryoshkaNetwork(file.model, 2, 64)
    state = {key: value.float() for key, value in weights_of(tmp_path / "run").items()}
    again.load_state_dict(state, strict=False)
    with torch.no_grad():
        expected = again.eval()(to_network(PIXELS))[0].numpy()
    rows = encoder.encode(PIXELS.permute(0, 2, 3, 1).numpy())
    assert np.allclose(rows, expected, atol=1e-4 * np.abs(expected).max())
    assert not same(file.network.state_dict(), load_init(configured(name)).network.state_dict())  # type: ignore[union-attr]


def test_a_stopped_run_continues_with_the_same_result(
    configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured("test_efficientnet")
    train_tiny(tmp_path / "whole", config, pixels())
    stop_after(tmp_path / "run", 1, config, pixels())
    assert [r.epoch for r in train_tiny(tmp_path / "run", config, pixels())] == [2, 3]
    assert same(weights_of(tmp_path / "run"), weights_of(tmp_path / "whole"))


def test_an_unfinished_run_does_not_continue_from_other_weights(
    configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured()
    stop_after(tmp_path / "run", 1, config, pixels())
    other = {key: value * 2 for key, value in pretrained("test_resnet").state_dict().items()}
    save_file(other, config.init.partition("@")[2])
    with pytest.raises(ConfigError, match="began with other weights in init"):
        train_tiny(tmp_path / "run", config, pixels())


@pytest.mark.parametrize("pool", ["last", "stages"])
def test_axes_are_set_without_training(
    pool: str, configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured("test_efficientnet", pool, axes=AxesConfig(), schedule__epochs=0)
    *_, last = train_all(tmp_path / "run", config, pixels())
    assert isinstance(last, AxesRecord) and min(last.accuracy.values()) > 0.8
    init = load_init(config)
    assert init is not None
    trunk = {k: v for k, v in init.network.state_dict().items() if k.startswith("backbone.trunk")}
    saved = weights_of(tmp_path / "run")
    assert all(torch.equal(saved[k], v.half()) for k, v in trunk.items() if k in saved)


def test_keep_moves_the_network_towards_the_pretrained_weights(
    configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured(axes=AxesConfig(), schedule__epochs=1)
    key, distance = "backbone.trunk.backbone.conv1.weight", []
    init = load_init(config)
    assert init is not None
    for keep in (0.0, 0.5):
        train_all(tmp_path / str(keep), change(config, schedule__keep=keep), pixels())
        before = init.network.state_dict()
        key = next(k for k, v in before.items() if k.startswith("backbone.trunk") and v.ndim == 4)
        distance.append((weights_of(tmp_path / str(keep))[key].float() - before[key]).norm().item())
    assert distance[1] == pytest.approx(distance[0] / 2, rel=0.05)


def test_a_run_starts_from_a_run_of_a_pretrained_network(
    configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = configured(schedule__epochs=1)
    train_tiny(tmp_path / "first", config, pixels())
    second = change(config, init=str(tmp_path / "first"), schedule__lr=1e-12)
    train_tiny(tmp_path / "second", second, pixels())
    key = "backbone.project.weight"
    first, after = (weights_of(tmp_path / name)[key] for name in ("first", "second"))
    assert torch.equal(first, after)


# The command


def test_init_gives_every_step_the_network() -> None:
    recipe = load_recipe("pets", init="timm:test_resnet@weights.pth")
    assert {step.model.backbone for step in recipe.steps} == {"timm:test_resnet"}
    assert recipe.steps[0].init == "timm:test_resnet@weights.pth"
    assert recipe.steps[1].init == "steps/pets-base"
    plain = load_recipe("small", init="runs/mine").steps[0]
    assert (plain.init, plain.model.backbone) == ("runs/mine", "compact")


def test_the_command_trains_a_pretrained_network(
    configured: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    write_pictures(tmp_path / "pictures", 16)
    settings = ["schedule.epochs=1", "schedule.batch=8", "model.dims=[8,16]", "axes.after=8"]
    command = ["train", str(tmp_path / "pictures"), "--recipe", "finetune", "--offline"]
    command += ["--init", configured().init, "--out", str(tmp_path / "run")]
    command += [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert load_model(tmp_path / "run").model.backbone == "timm:test_resnet"


def test_the_command_downloads_nothing_offline(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 4)
    command = ["train", str(tmp_path / "pictures"), "--recipe", "small", "--offline"]
    done = CliRunner().invoke(app, [*command, "--init", "timm:resnet18.a1_in1k"])
    assert done.exit_code == 1
    assert "The weights of timm:resnet18.a1_in1k are not on this machine" in done.output


# Refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "general"}, "init is 'general'; model.backbone is 'compact'; it must be"),
        (
            {"model__backbone": "general", "init": "general", "objective__distil": 0.5},
            "objective.distil is 0.5; it needs a run folder in init.",
        ),
        ({"model__backbone": "timm:"}, "model.backbone is 'timm:'; it must be one of compact,"),
        (
            {"model__backbone": "timm:x@y"},
            "model.backbone is 'timm:x@y'; a file of weights belongs",
        ),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        change(change(TINY, model=ModelConfig(dims=(8, 16))), **settings)
    assert error.value.message.startswith(message)


def test_a_pretrained_network_has_its_own_widths() -> None:
    with pytest.raises(ConfigError, match=r"model.widths is .*; general has widths of its own"):
        ModelConfig("general", widths=(8, 8, 8, 8))
    with pytest.raises(ConfigError, match="general has widths of its own") as error:
        load_recipe("small", init="general", width=48)
    assert error.value.hint == "Leave out --width."


def test_an_unknown_network_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="timm has no model 'test_resnot'") as error:
        load_init(load_recipe("small", init="timm:test_resnot").steps[0])
    assert "timm:test_resnet" in error.value.hint


def test_a_missing_library_is_named_with_its_extra(
    configured: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configured(schedule__epochs=1)
    train_tiny(tmp_path / "run", config, pixels())
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ModelError, match="timm is not installed") as error:
        load_encoder(str(tmp_path / "run"))
    assert error.value.hint == 'pip install "mrl-search[models]"'


def test_sizes_that_the_network_does_not_take(tmp_path: Path) -> None:
    file, name = tmp_path / "vit.safetensors", "vit_tiny_patch16_224"
    save_file(timm.create_model(name).state_dict(), file)
    for size, embed_size in ((64, 0), (224, 192)):
        grown = [f"schedule.embed_size={embed_size}"]
        (config,) = load_recipe("small", grown, size=size, init=f"timm:{name}@{file}").steps
        message = f"timm:{name} does not take pictures of {embed_size or size} pixels: Input height"
        with pytest.raises(ConfigError, match=message):
            load_init(config)
    (config,) = load_recipe("small", size=224, init=f"timm:{name}@{file}").steps
    assert load_init(config) is not None


def test_too_many_dims_for_the_axes(configured: Callable[..., TrainConfig]) -> None:
    config = configured(axes=AxesConfig(), model__dims=(8, 2048, 4096))
    with pytest.raises(ConfigError, match=r"There are \d+ axes for 4096 dims"):
        new_network(config, CLASSES, load_init(config))
