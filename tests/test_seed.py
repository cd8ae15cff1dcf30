"""The systems of the original study: network, augmentation, schedule, and whole runs."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fakes import write_corpus
from tiny_runs import noise_pixels, stop_after, train_tiny
from typer.testing import CliRunner, Result

from mrl_search.cli.app import app
from mrl_search.encoders.backbones import FourConvBackbone, build_backbone
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaHeads, MatryoshkaNetwork
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ConfigError
from mrl_search.mapping import to_toml
from mrl_search.training import loop as training
from mrl_search.training.config import AugmentConfig, DataConfig, ScheduleConfig, TrainConfig
from mrl_search.training.objective import MatryoshkaLoss
from mrl_search.training.pixels import pixel_side
from mrl_search.training.recipes import load_recipe as load
from mrl_search.training.split import split_rows, stratified_split
from mrl_search.training.views import blurred, views

SEED = ("seed-matryoshka", "seed-baseline", "seed-fixed-8")
DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)


def load_recipe(name: str, *args: object, **kwargs: object) -> TrainConfig:
    """The only step of a recipe."""
    (config,) = load(name, *args, **kwargs).steps
    return config


pytestmark = pytest.mark.usefixtures("fresh_accelerate")


# The network


def test_every_shape_is_that_of_the_seed() -> None:
    network = build_backbone(load_recipe("seed-matryoshka").model, 256).eval()
    shapes = []
    x = torch.zeros(1, 3, 256, 256)
    for stage in network.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(256, 81, 81), (512, 25, 25), (512, 11, 11), (512, 4, 4)]
    assert x.flatten(1).shape == (1, 8192)
    assert (network.project.in_features, network.project.out_features) == (8192, 1024)
    assert network.project(x.flatten(1)).shape == (1, 1024)


def test_nothing_stands_between_convolution_and_pooling_as_published() -> None:
    published = load_recipe("seed-matryoshka").model
    assert published.activation == "none" and load_recipe("seed-matryoshka").schedule.clip == 1
    torch.manual_seed(0)
    plain = FourConvBackbone(8, (8, 16, 16, 16), 128, "none")
    rectified = FourConvBackbone(8, (8, 16, 16, 16), 128)
    rectified.load_state_dict(plain.state_dict())
    x = torch.randn(2, 3, 128, 128)
    first, other = plain.stages[0](x), rectified.stages[0](x)
    assert (first < 0).any() and torch.equal(other, first.clamp(min=0))
    assert torch.equal(first, torch.nn.functional.max_pool2d(plain.stages[0][0](x), 3))
    with pytest.raises(ConfigError, match="activation = 'none' needs"):
        replace(published, backbone="compact", widths=(8, 8, 8, 8))


def test_kernels_and_pools_are_those_of_the_seed_and_nothing_is_padded() -> None:
    network = FourConvBackbone(8, (8, 16, 16, 16), 128)
    convolutions, pools = [s[0] for s in network.stages], [s[2] for s in network.stages]
    assert [c.kernel_size for c in convolutions] == [(12, 12), (5, 5), (3, 3), (3, 3)]
    assert {(c.stride, c.padding) for c in convolutions} == {((1, 1), (0, 0))}
    assert [p.kernel_size for p in pools] == [3, 3, 2, 2]


@pytest.mark.parametrize(
    ("side", "width", "flat"), [(256, 64, 128 * 16), (128, 64, 128), (113, 8, 16), (200, 8, 16 * 9)]
)
def test_the_reduced_network_keeps_its_proportions(side: int, width: int, flat: int) -> None:
    config = load_recipe("seed-matryoshka", width=width, size=side)
    assert config.model.widths == (width, 2 * width, 2 * width, 2 * width)
    network = build_backbone(config.model, side).eval()
    assert network.project.in_features == flat
    assert network(torch.zeros(2, 3, side, side)).shape == (2, 1024)


def test_the_heads_are_those_of_the_seed() -> None:
    shapes = {
        name: [tuple(h.weight.shape) for h in MatryoshkaHeads(load_recipe(name).model, 2).heads]
        for name in SEED
    }
    assert shapes == {
        "seed-matryoshka": [(2, d) for d in DIMS],
        "seed-baseline": [(2, 1024)],
        "seed-fixed-8": [(2, 8)],
    }
    assert build_backbone(load_recipe("seed-fixed-8", width=8).model, 256).project.out_features == 8


def test_pictures_too_small_for_the_seed_are_a_sentence() -> None:
    with pytest.raises(
        ConfigError, match="Pictures of 112 pixels are too small for the backbone four-conv"
    ):
        FourConvBackbone(8, (8, 8, 8, 8), 112)
    with pytest.raises(ConfigError, match="the backbone four-conv needs one size"):
        load_recipe("seed-baseline", ['schedule.sizes={"0"=128,"3"=256}'])
    with pytest.raises(ConfigError, match="the backbone four-conv needs one size"):
        load_recipe("seed-baseline", ["schedule.embed_size=300"])


def test_tied_heads_share_the_first_columns_of_one_matrix() -> None:
    torch.manual_seed(0)
    heads = MatryoshkaHeads(ModelConfig(dims=(2, 4, 8), heads="tied"), 3)
    assert [tuple(p.shape) for p in heads.parameters()] == [(3, 8), (3,)]
    (own,) = heads.heads
    embedding = torch.randn(5, 8)
    for d, logits in zip((2, 4, 8), heads(embedding), strict=True):
        assert torch.allclose(logits, embedding[:, :d] @ own.weight[:, :d].T + own.bias, atol=1e-6)
        weight, bias = heads.weights(d)
        assert torch.equal(weight, own.weight[:, :d]) and torch.equal(bias, own.bias)


def test_a_loss_on_a_short_prefix_moves_only_the_columns_that_it_reads() -> None:
    heads = MatryoshkaHeads(ModelConfig(dims=(2, 4, 8), heads="tied"), 3)
    heads(torch.randn(5, 8))[1].square().sum().backward()
    (own,) = heads.heads
    assert torch.all(own.weight.grad[:, :4] != 0) and torch.all(own.weight.grad[:, 4:] == 0)


def test_the_loss_of_tied_heads_by_hand() -> None:
    """One image of the first of two classes; logits (2, 0) and (5, -1), weights 1 and 0.5."""
    heads = MatryoshkaHeads(ModelConfig(dims=(1, 2), heads="tied"), 2)
    with torch.no_grad():
        heads.heads[0].weight.copy_(torch.tensor([[2.0, 3.0], [0.0, -1.0]]))
        heads.heads[0].bias.zero_()
    loss = MatryoshkaLoss(torch.nn.CrossEntropyLoss(), (1, 2), (1.0, 0.5))(
        heads(torch.ones(1, 2)), torch.tensor([0])
    )
    assert loss.item() == pytest.approx(
        math.log1p(math.exp(-2)) + 0.5 * math.log1p(math.exp(-6)), rel=1e-5
    )


# Training


def test_blur_is_the_gaussian_of_three_by_three() -> None:
    torchvision = import_torchvision("torchvision.transforms.v2.functional")
    images = torch.rand(4, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.3, 0.8, 2.0, 0.0])
    got = blurred(images, sigma)
    for i in range(3):
        assert torch.allclose(
            got[i], torchvision.gaussian_blur(images[i], [3, 3], [float(sigma[i])]), atol=1e-5
        )
    assert torch.equal(got[3], images[3])
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 1
    side = math.exp(-0.5 / 0.8**2)
    kernel = torch.tensor([side, 1, side]) / (1 + 2 * side)
    assert torch.allclose(
        blurred(spike, torch.tensor([0.8]))[0, 0, 1:4, 1:4], kernel[:, None] * kernel, atol=1e-6
    )


def test_blur_is_a_probability_and_changes_no_other_view() -> None:
    images = torch.randint(
        0, 256, (300, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    sharp, some, every = (
        views(images, 8, replace(AugmentConfig(), blur=p), torch.Generator().manual_seed(4))
        for p in (0.0, 0.3, 1.0)
    )
    changed = (some - sharp).abs().amax((1, 2, 3)) > 1e-5
    assert 60 <= int(changed.sum()) <= 120
    assert torch.equal(some[changed], every[changed])  # the same draw decides how much
    assert every.std() < 0.9 * sharp.std()


def test_the_seed_s_views_are_whole_pictures_that_may_be_mirrored() -> None:
    images = noise_pixels(8, side=24).images
    config = replace(load_recipe("seed-matryoshka").augment, blur=0.0)
    view = views(images, 24, config, torch.Generator().manual_seed(0))
    plain = images.float() / 127.5 - 1
    mirrored = [torch.allclose(v, p.flip(2), atol=1e-4) for v, p in zip(view, plain, strict=True)]
    kept = [torch.allclose(v, p, atol=1e-4) for v, p in zip(view, plain, strict=True)]
    assert [not k for k in kept] == mirrored and 0 < sum(mirrored) < 8
    assert (
        pixel_side(load_recipe("seed-matryoshka")) == 256
    )  # nothing is cut off, so nothing more is decoded
    assert pixel_side(load_recipe("pets:base")) == 160


def test_the_learning_rate_falls_by_fifteen_percent_after_every_epoch() -> None:
    schedule = load_recipe("seed-matryoshka").schedule
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=123.0)
    seen = []
    for step in range(15 * 3):  # three steps an epoch
        training._set_rate(optimizer, schedule, step / 45)
        seen.append(optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.0004 * 0.85 ** (step // 3) for step in range(45)])
    training._set_rate(
        optimizer, ScheduleConfig(lr=1, warmup=0.5, decay="exponential", epochs=10, gamma=0.5), 0.25
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.501 * 0.5**2)


@pytest.mark.parametrize(
    "setting",
    ["schedule.decay=linear", "schedule.gamma=0", "schedule.gamma=1.5", "model.heads=shared"],
)
def test_settings_that_make_no_sense(setting: str) -> None:
    with pytest.raises(ConfigError):
        load_recipe("seed-matryoshka", [setting])


def test_the_recipes_differ_in_their_prefixes_alone() -> None:
    one, two, three = (load_recipe(name) for name in SEED)
    assert (one.model.dims, two.model.dims, three.model.dims) == (DIMS, (1024,), (8,))
    for other in (two, three):
        assert replace(other, name=one.name, model=one.model) == one
    s = one.schedule
    assert (s.epochs, s.batch, s.accumulate, s.lr, s.weight_decay) == (15, 8, 4, 4e-4, 0.01)
    assert (s.decay, s.gamma, s.size(14)) == ("exponential", 0.85, 256)
    assert (one.data.min_side, one.data.validation) == (100, 0.1)
    assert (one.objective.instance, one.augment.blur) == (0.0, 1.0)


SMALL = ["schedule.epochs=3", "schedule.precision=no"]


@pytest.mark.parametrize("name", SEED)
def test_a_recipe_runs_and_its_model_comes_back(name: str, tmp_path: Path) -> None:
    config = load_recipe(name, SMALL, 8, 113)
    records = train_tiny(tmp_path, config, noise_pixels(side=113))
    assert [list(r.accuracy) for r in records] == [list(config.model.dims)] * 3
    assert all(r.instance_loss == 0 for r in records)
    model, encoder = load_model(tmp_path), load_encoder(str(tmp_path))
    assert (model.model, model.size) == (config.model, 113)
    rows = encoder.encode(noise_pixels(4, side=113).images.permute(0, 2, 3, 1).numpy())
    assert rows.shape == (4, config.model.dims[-1])


def test_a_killed_run_of_the_seed_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    config = load_recipe(
        "seed-matryoshka", [*SMALL, "model.heads=tied", "schedule.gamma=0.5"], 8, 113
    )
    train_tiny(tmp_path / "whole", config, noise_pixels(side=113))
    stop_after(tmp_path / "killed", 1, config, noise_pixels(side=113))
    text = (tmp_path / "killed" / "recipe.toml").read_text()
    assert text == to_toml(config)
    (tmp_path / "killed" / "recipe.toml").write_text(
        text.replace("swap = false\n", "")
    )  # as a version without that setting wrote it
    rest = train_tiny(tmp_path / "killed", config, noise_pixels(side=113))
    assert [r.epoch for r in rest] == [2, 3]
    weights = [load_model(tmp_path / name).network.state_dict() for name in ("whole", "killed")]
    assert all(torch.equal(a, weights[1][name]) for name, a in weights[0].items())


def test_the_two_folds_of_a_half_are_each_other_turned_round() -> None:
    labels, hashes = ["cat", "dog"] * 20, [f"{i:02d}" for i in range(40)]
    one = split_rows(labels, hashes, DataConfig(validation=0.5, split_seed=3))
    two = split_rows(labels, hashes, DataConfig(validation=0.5, split_seed=3, swap=True))
    assert [r.tolist() for r in one] == [
        r.tolist() for r in stratified_split(labels, hashes, 0.5, 3)
    ]
    assert [r.tolist() for r in two] == [r.tolist() for r in one[::-1]] and len(one[0]) == len(
        one[1]
    ) == 20


def train_small(tmp_path: Path, *more: str) -> Result:
    """Train a small fixed-8 network on the pictures in a folder, by the command."""
    options = ["--recipe", "seed-fixed-8", "--width", "8", "--size", "113", *more]
    command = ["train", str(tmp_path / "pictures"), *options, "--out", str(tmp_path / "run")]
    return CliRunner().invoke(app, command)


def test_width_and_size_are_options_of_train(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 8, size=120)
    result = train_small(tmp_path, "--set", "schedule.epochs=1")
    assert result.exit_code == 0, result.output
    model = load_model(tmp_path / "run")
    assert (model.model.widths, model.size) == ((8, 16, 16, 16), 113)
    recipe = model.training["recipe"]["schedule"]
    assert (recipe["sizes"], recipe["embed_size"]) == ({"0": 113}, 0)


def test_min_side_is_an_option_of_train(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 2, size=120)  # over the 100 pixels of the recipe
    result = train_small(tmp_path, "--min-side", "120")
    assert result.exit_code == 1
    assert "120 x 120 pixels; both sides must be above 120 pixels" in " ".join(
        result.output.split()
    )


def test_a_network_without_a_side_is_the_seed_s() -> None:
    network = MatryoshkaNetwork(replace(load_recipe("seed-fixed-8").model, widths=(8, 8, 8, 8)), 2)
    assert network.backbone.project.in_features == 8 * 16
