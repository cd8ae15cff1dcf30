"""Axes in closed form: each kind, its share of every prefix, and the effect on a network."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TINY, change, noise_pixels, same, train_all, weights_of
from torch import Tensor, nn

from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaHeads, MatryoshkaNetwork, to_network
from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError
from mrl_search.mapping import to_mapping, to_toml
from mrl_search.training.closed_form import arrange, class_axes, fit_heads, image_axes, set_axes
from mrl_search.training.config import AugmentConfig, AxesConfig, TrainConfig
from mrl_search.training.objective import MatryoshkaLoss
from mrl_search.training.recipes import load_recipe
from mrl_search.training.records import AxesRecord, EpochRecord, StepRecord
from mrl_search.training.split import split_rows
from mrl_search.training.views import views

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
AXES = replace(change(TINY, model__pool="stages", model__dims=(8, 16, 32)), axes=AxesConfig())
BELOW = ("backbone.stem", "backbone.body")  # layers below the projection


def _standard(n: int = 400, features: int = 12, classes: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with their class in the first features, labels, and a covariance between views."""
    generator = torch.Generator().manual_seed(0)
    labels = F.one_hot(torch.arange(n) % classes, classes).double()
    x = torch.randn(n, features, dtype=torch.float64, generator=generator)
    x[:, :classes] += 3 * labels
    x = (x - x.mean(0)) / x.std(0, correction=0)
    return x, labels, torch.diag(torch.linspace(0.1, 2, features, dtype=torch.float64))


# The two kinds


@pytest.mark.parametrize("classes", [2, 5])
def test_class_axes_are_the_predicted_labels(classes: int) -> None:
    x, labels, within = _standard(classes=classes)
    scores = x @ class_axes(x, labels, within).T
    assert scores.shape == (400, classes - 1)
    assert torch.allclose(scores.var(0, correction=0), torch.ones(classes - 1, dtype=torch.float64))
    means = labels.T @ scores / labels.sum(0)[:, None]
    nearest = torch.cdist(scores, means).argmin(1)
    assert (nearest == labels.argmax(1)).double().mean() > 0.9


def test_less_ridge_separates_classes_more_and_ignores_changes_less() -> None:
    x, labels, within = _standard()
    apart, minded = [], []
    for ridge in (0.01, 1.0, 100.0):
        (axis,) = class_axes(x, labels, ridge * within)  # of unit variance
        means = labels.T @ (x @ axis) / labels.sum(0)
        apart.append(float((means[0] - means[1]).abs()))
        minded.append(float(axis @ within @ axis))
    assert apart == sorted(apart, reverse=True) and minded == sorted(minded, reverse=True)
    assert apart[0] > apart[2] + 0.01 and minded[0] > 1.1 * minded[2]


def test_without_classes_there_are_no_class_axes() -> None:
    x, labels, within = _standard()
    assert class_axes(x, labels[:, :0], within).shape == (0, 12)
    assert class_axes(x, labels[:, :1], within).shape == (0, 12)


def test_image_axes_have_their_variances_and_the_most_distinctive_come_first() -> None:
    x, labels, within = _standard()
    values, axes = image_axes(x, labels, within)
    scores = x @ axes.T
    inside = scores - labels @ (labels.T @ scores / labels.sum(0)[:, None])
    assert torch.allclose(inside.T @ inside / len(x), torch.diag(values), atol=1e-9)
    noise = axes @ within @ axes.T
    ratio = values / noise.diagonal()
    assert torch.allclose(noise, torch.diag(noise.diagonal()), atol=1e-9)
    assert torch.allclose(noise.diagonal().sqrt(), ratio / (1 + ratio))
    assert (ratio.diff() <= 1e-9).all()
    # what views change least comes first
    assert axes[0].abs().argmax() < 4 and axes[-1].abs().argmax() > 7


def test_variance_between_classes_does_not_count_for_image_axes() -> None:
    x, labels, within = _standard()
    together, apart = image_axes(x, labels[:, :0], within)[0], image_axes(x, labels, within)[0]
    assert together.sum() > 1.1 * apart.sum() and together[0] > 1.5 * apart[0]


# Their order


def _are_class_axes(axes: Tensor, own: Tensor) -> Tensor:
    return torch.stack([F.cosine_similarity(row[None], own).abs().max() > 1 - 1e-9 for row in axes])


@pytest.mark.parametrize(("classes", "share"), [(2, 0.2), (2, 0.5), (5, 0.3), (5, 0.0)])
def test_every_prefix_gives_the_classes_their_share(classes: int, share: float) -> None:
    x, labels, within = _standard(n=2000, features=64, classes=classes)
    own, (values, images) = class_axes(x, labels, within), image_axes(x, labels, within)
    dims = (4, 8, 16, 32)
    axes = arrange(own, values, images, dims, share)
    assert axes.shape == (32, 64)
    is_class = _are_class_axes(axes, own)
    for start, end in pairwise((0, *dims)):
        count = min(classes - 1, (end - start) // 2) if share else 0
        assert is_class[start : start + count].all() and not is_class[start + count : end].any()
        image_share = values[: int((~is_class[:end]).sum())].sum()
        scores = x @ axes[:end].T
        spent = scores[:, is_class[:end]].square().sum(1).mean()
        assert float(spent / (spent + image_share)) == pytest.approx(share, abs=1e-6)
    assert torch.equal(axes[~is_class], images[: int((~is_class).sum())])


def test_a_band_too_short_for_class_axes_leaves_the_next_its_due() -> None:
    x, labels, within = _standard(n=2000, features=64)
    own, (values, images) = class_axes(x, labels, within), image_axes(x, labels, within)
    axes = arrange(own, values, images, (8, 9, 16), 0.25)
    is_class = _are_class_axes(axes, own)
    spent = (x @ axes.T)[:, is_class].square().sum(1).mean()
    assert not is_class[8] and is_class[9]
    image_share = values[: int((~is_class).sum())].sum()
    assert float(spent / (spent + image_share)) == pytest.approx(0.25, abs=1e-6)


def test_too_few_axes_fill_the_last_band_and_keep_all_angles() -> None:
    x, labels, within = _standard(features=12)
    values, images = image_axes(x, labels, within)
    axes = arrange(x[:0], values, images, (4, 8, 24), 0.0)
    assert axes.shape == (24, 12) and (axes.norm(dim=1) > 0).all()
    assert torch.equal(axes[:8], images[:8])
    assert torch.allclose(x @ axes.T @ axes @ x.T, x @ images.T @ images @ x.T)
    with pytest.raises(ConfigError, match="There are 12 axes for 48 dims"):
        arrange(x[:0], values, images, (4, 8, 16, 48), 0.0)


def test_weights_multiply_the_dims_that_a_prefix_adds() -> None:
    x, labels, within = _standard(n=2000, features=64)
    parts = class_axes(x, labels, within), *image_axes(x, labels, within), (4, 8, 16), 0.25
    plain, weighted = arrange(*parts), arrange(*parts, (2.0, 1.0, 0.5))
    factors = torch.tensor([2.0] * 4 + [1.0] * 4 + [0.5] * 8, dtype=torch.float64)
    assert torch.allclose(weighted, plain * factors[:, None])


# On a network


def _network(heads: str = "cosine", classes: int = 2) -> tuple[MatryoshkaNetwork, ModelConfig]:
    torch.manual_seed(0)
    config = ModelConfig(widths=(8, 8, 16, 16), dims=(8, 16, 32), heads=heads, pool="stages")
    return MatryoshkaNetwork(config, classes), config


def _set(
    network: MatryoshkaNetwork, config: ModelConfig, axes: AxesConfig, images: Tensor,
    smoothing: float = 0.0,
) -> list[int]:  # fmt: skip
    """Set the axes for images of two classes in turn; what it yields."""
    loss = MatryoshkaLoss(nn.CrossEntropyLoss(label_smoothing=smoothing), config.dims)
    targets = torch.arange(len(images)) % 2
    run = TrainConfig(model=config, axes=axes)
    return list(set_axes(network, run, images, targets, 32, loss))


def test_pooled_are_means_of_all_stages_and_deviations_of_all_but_the_last() -> None:
    network, _ = _network()
    backbone = network.backbone.eval()
    x = torch.randn(3, 3, 64, 64)
    pooled = backbone.pooled(x)
    assert pooled.shape == (3, 8 + 8 + 16 + 16 + 8 + 8 + 16)
    first = backbone.body[1](backbone.body[0](backbone.stem(x)))
    last = backbone.body(backbone.stem(x))
    assert torch.allclose(pooled[:, :8], first.mean((2, 3)), atol=1e-6)
    assert torch.allclose(pooled[:, 48:56], first.std((2, 3), correction=0), atol=1e-6)
    assert torch.allclose(pooled[:, 32:48], last.mean((2, 3)), atol=1e-6)


@pytest.mark.parametrize("heads", ["cosine", "linear", "tied"])
def test_axes_set_find_changed_views_where_the_first_projection_did_not(heads: str) -> None:
    network, config = _network(heads)
    images = noise_pixels(200, side=5).images.float()
    images = F.interpolate(images, (40, 40), mode="bicubic").clamp(0, 255).byte()
    targets = torch.arange(200) % 2
    view = AugmentConfig(scale=(0.8, 1.0), jitter=(0.3, 0.3, 0.3, 0.02))
    copies = views(images, 32, view, torch.Generator().manual_seed(9))
    whole = to_network(_shrunk(images))

    def found() -> list[float]:
        network.eval()
        with torch.no_grad():
            rows, queries = network.backbone(whole), network.backbone(copies)
        sims = [F.normalize(queries[:, :d]) @ F.normalize(rows[:, :d]).T for d in config.dims]
        return [(s.argmax(1) == torch.arange(200)).double().mean().item() for s in sims]

    before = found()
    assert _set(network, config, AxesConfig(0.2, (view,)), images, smoothing=0.1) == [128, 200]
    after = found()
    assert all(b > 1.5 * a for a, b in zip(before, after, strict=True)), (before, after)
    _, logits = network(whole)
    assert all((part.argmax(1) == targets).double().mean() > 0.95 for part in logits)
    with torch.no_grad():
        pooled, still = network.backbone.pooled(whole), network.backbone(whole)
        network.train()
        again = network.backbone.norm(network.backbone.project(network.backbone.standard(pooled)))
        assert torch.allclose(again, still, atol=1e-3 * float(still.abs().max()))


def test_axes_after_a_prefix_keep_it_and_fill_the_rest() -> None:
    network, config = _network("linear")
    images = noise_pixels(200).images
    backbone, whole = network.eval().backbone, to_network(_shrunk(images))
    with torch.no_grad():  # the statistics of these images, as after training on them
        x, standard, norm = backbone.pooled(whole), backbone.standard, backbone.norm
        standard.running_var, standard.running_mean = torch.var_mean(x, 0, correction=0)
        x = backbone.project(standard(x))
        norm.running_var, norm.running_mean = torch.var_mean(x, 0, correction=0)
        backbone.norm.weight[:16], backbone.norm.bias[:16] = 2.0, 0.5
    before = backbone(whole).detach()
    _set(network, config, AxesConfig(0.25, after=16), images)
    rows = network.backbone(whole).detach()
    assert torch.allclose(rows[:, :16], before[:, :16], atol=0.01)
    assert not torch.allclose(rows[:, 16:], before[:, 16:], atol=0.15)
    energy = rows.square().mean(0)
    assert float(energy[:16].sum() / energy.sum()) == pytest.approx(0.25, abs=0.01)
    with pytest.raises(ConfigError, match=r"axes\.after is 9; it must be one of the dims but"):
        replace(AXES, axes=AxesConfig(after=9))
    with pytest.raises(ConfigError, match=r"axes\.share is 0\.0; it must be over 0 and below 1"):
        AxesConfig(0.0, after=8)


def test_every_kind_of_view_counts_alike() -> None:
    """Views without randomness: one kind twice changes nothing, another kind does."""
    whole = AugmentConfig(scale=(1.0, 1.0), aspect=(1.0, 1.0), rotate=0.0, jitter=(0.0,) * 4)
    mirrored = replace(whole, flip=1.0)
    cut = replace(whole, flip=0.0, scale=(0.25, 0.25), outside="zeros")
    weights = []
    for kinds in ((mirrored,), (mirrored, mirrored), (mirrored, cut)):
        network, config = _network()
        _set(network, config, AxesConfig(0.2, kinds), noise_pixels().images)
        weights.append(network.backbone.project.weight.detach())
    one, twice, both = weights
    assert torch.allclose(one, twice, atol=1e-3) and not torch.allclose(one, both, atol=0.1)


def test_views_are_read_of_as_many_images_as_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def counted(batch: Tensor, *rest: Any) -> Tensor:
        read.append(len(batch))
        return views(batch, *rest)

    monkeypatch.setattr("mrl_search.training.closed_form.views", counted)
    monkeypatch.setattr("mrl_search.training.closed_form.BATCH", 16)
    weights = []
    for viewed in (0, 99, 5):
        network, config = _network()
        axes = AxesConfig(0.2, viewed=viewed)
        assert _set(network, config, axes, noise_pixels().images) == [16, 32, 40]
        weights.append(network.backbone.project.weight.detach())
    assert read == [16, 16, 8, 16, 16, 8, 2, 2, 1]  # the images 7, 15, 23, 31 and 39
    assert torch.equal(weights[0], weights[1]) and not torch.allclose(weights[0], weights[2])


def _shrunk(images: Tensor) -> Tensor:
    return F.interpolate(images, (32, 32), mode="bilinear", antialias=True)


def test_heads_are_fitted_to_the_minimum() -> None:
    x, labels, _ = _standard(n=300, features=8, classes=3)
    embeddings, targets = x.float(), labels.argmax(1)
    for kind in ("linear", "cosine"):
        heads = MatryoshkaHeads(ModelConfig(dims=(4, 8), heads=kind), 3)
        loss = nn.CrossEntropyLoss(label_smoothing=0.1)
        fit_heads(heads, embeddings, targets, MatryoshkaLoss(loss, (4, 8)))
        for logits in heads(embeddings):
            assert (logits.argmax(1) == targets).double().mean() > 0.85
            value = loss(logits, targets)
            gradient = torch.autograd.grad(value, heads.parameters(), allow_unused=True)
            assert max(float(g.abs().max()) for g in gradient if g is not None) < 0.01
    none = MatryoshkaHeads(ModelConfig(), 0)
    fit_heads(none, embeddings, targets, nn.Identity())  # nothing to do


# In training


def test_ridge_changes_the_axes(tmp_path: Path) -> None:
    for ridge in (0.01, 1.0):
        train_all(tmp_path / str(ridge), replace(AXES, axes=AxesConfig(ridge=ridge)))
    a, b = (weights_of(tmp_path / name)["backbone.project.weight"] for name in ("0.01", "1.0"))
    assert not torch.equal(a, b)


def test_training_ends_with_the_axes_and_its_accuracy_is_that_of_the_model(tmp_path: Path) -> None:
    records = train_all(tmp_path / "run", AXES)
    assert [type(r) for r in records[-3:]] == [EpochRecord, StepRecord, AxesRecord]
    last = records[-1]
    assert isinstance(last, AxesRecord)
    assert records[-2] == StepRecord("axes", 32, 32) and list(last.accuracy) == [8, 16, 32]
    encoder = load_encoder(str(tmp_path / "run"))
    assert encoder.training["axes"]["accuracy"] == json.loads(json.dumps(last.accuracy))
    assert encoder.training["last_epoch"]["epoch"] == 3
    rows = encoder.encode(_shrunk(noise_pixels().images).permute(0, 2, 3, 1).numpy())
    assert rows.shape == (40, 32) and np.isfinite(rows).all()


def test_validation_images_do_not_change_the_weights(tmp_path: Path) -> None:
    pixels = noise_pixels()
    _, validation = split_rows(pixels.labels, pixels.hashes, AXES.data)
    other = pixels.images.clone()
    other[validation] = 255 - other[validation]
    for name, images in (("one", pixels.images), ("other", other)):
        train_all(tmp_path / name, AXES, replace(pixels, images=images))
    assert same(weights_of(tmp_path / "one"), weights_of(tmp_path / "other"))


def test_axes_are_set_at_the_size_that_the_model_embeds_at(tmp_path: Path) -> None:
    train_all(tmp_path / "start", change(AXES, schedule__epochs=1))
    config = change(AXES, init=str(tmp_path / "start"), schedule__epochs=0)
    for size in (32, 40):
        train_all(tmp_path / f"{size}", change(config, schedule__embed_size=size))
    small, large = (weights_of(tmp_path / f"{size}") for size in (32, 40))
    assert load_model(tmp_path / "40").size == 40
    assert not torch.allclose(small["backbone.project.weight"], large["backbone.project.weight"])


def test_a_run_stopped_before_its_axes_continues_with_the_same_result(tmp_path: Path) -> None:
    train_all(tmp_path / "whole", AXES)
    train_all(tmp_path / "stopped", AXES, stop=lambda r: r == StepRecord("axes", 32, 32))
    assert not (tmp_path / "stopped" / "model.json").exists()
    train_all(tmp_path / "stopped", AXES)
    assert same(weights_of(tmp_path / "whole"), weights_of(tmp_path / "stopped"))


def test_axes_without_epochs_keep_the_layers_below_the_projection(tmp_path: Path) -> None:
    plain = change(TINY, model__dims=(8, 16, 32))
    train_all(tmp_path / "plain", plain)
    # no batch to fill
    config = change(AXES, init=str(tmp_path / "plain"), schedule__epochs=0, schedule__batch=999)
    train_all(tmp_path / "axes", config)
    old, new = weights_of(tmp_path / "plain"), weights_of(tmp_path / "axes")
    assert all(torch.equal(old[k], new[k]) for k in old if k.startswith(BELOW))
    assert new["backbone.project.weight"].shape == (32, 80)
    assert load_model(tmp_path / "axes").training.get("last_epoch") is None
    other = change(config, model__widths=(8, 8, 16, 24))
    with pytest.raises(ConfigError, match="has other layers"):
        train_all(tmp_path / "other", other)


def test_keep_is_the_share_of_the_first_weights_in_the_final_mean(tmp_path: Path) -> None:
    train_all(tmp_path / "start", change(TINY, model__dims=(8, 16, 32)))
    config = change(AXES, init=str(tmp_path / "start"))
    train_all(tmp_path / "end", config)
    train_all(tmp_path / "mean", change(config, schedule__keep=0.25))
    start, end, mean = (weights_of(tmp_path / name) for name in ("start", "end", "mean"))
    below = [k for k in start if k.startswith(BELOW) and start[k].is_floating_point()]
    assert any("running_var" in k for k in below)
    for k in below:
        wanted = 0.75 * end[k].float() + 0.25 * start[k].float()
        assert torch.allclose(mean[k].float(), wanted, atol=2e-3), k
    assert any(not torch.allclose(mean[k].float(), end[k].float(), atol=2e-3) for k in below)


def test_a_mirrored_picture_is_embedded_as_the_picture_itself(tmp_path: Path) -> None:
    pixels = noise_pixels()
    train_all(tmp_path / "mirror", change(AXES, model__mirror=True), pixels)
    train_all(tmp_path / "plain", AXES, pixels)
    rows = _shrunk(pixels.images).permute(0, 2, 3, 1).numpy()
    mirror, plain = load_encoder(str(tmp_path / "mirror")), load_encoder(str(tmp_path / "plain"))
    mirrored = rows[:, :, ::-1].copy()
    np.testing.assert_allclose(mirror.encode(rows), mirror.encode(mirrored), atol=1e-5)
    assert np.abs(plain.encode(rows) - plain.encode(mirrored)).max() > 0.1


def test_pooled_of_mirror_images_are_a_mean_and_training_sees_one_picture() -> None:
    network, _ = _network()
    x = torch.randn(3, 3, 32, 32)
    backbone = network.backbone.eval()
    one, other = backbone.pooled(x), backbone.pooled(x.flip(3))
    backbone.mirror = True
    assert torch.equal(backbone.pooled(x), (one + other) / 2)
    backbone.train()
    trained = backbone.pooled(x)
    backbone.mirror = False
    assert torch.equal(trained, backbone.pooled(x))


def test_a_run_that_only_adds_the_mirror_goes_on_from_the_projection_it_began_with(
    tmp_path: Path,
) -> None:
    train_all(tmp_path / "start", AXES)
    config = change(AXES, init=str(tmp_path / "start"), schedule__epochs=1)
    losses = [
        next(r for r in train_all(tmp_path / name, c) if isinstance(r, EpochRecord)).label_loss
        for name, c in (("plain", config), ("mirror", change(config, model__mirror=True)))
    ]
    assert losses[0] == losses[1]


# In recipes


def test_axes_survive_toml_with_their_views(tmp_path: Path) -> None:
    (config,) = load_recipe("pets:axes", ["init=RUN"]).steps
    assert config.axes is not None and len(config.axes.views) == 2
    (tmp_path / "recipe.toml").write_text(to_toml(config))
    assert load_recipe(str(tmp_path / "recipe.toml")).steps == (config,)
    assert to_mapping(config)["axes"]["views"][1]["outside"] == "zeros"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("axes", ["model.pool=last"], "model.pool is 'last'; axes need 'stages'."),
        ("axes", ["axes.share=1"], "axes.share is 1.0; it must be 0 or more, and below 1."),
        ("axes", ["axes.ridge=0"], "axes.ridge is 0.0; it must be positive."),
        ("axes", ["axes.views=[]"], "axes.views is []; it must be at least one view."),
        ("axes", ["axes.viewed=-1"], "axes.viewed is -1; it must be 0 or more."),
        ("axes", ["axes.weights=[1, 0]"], "axes.weights is [1.0, 0.0]; it must be positive each."),
        ("axes", ["axes.weights=[1, 2]"], "axes.weights has 2 values; it must have one for each"),
        ("axes", ["init="], "schedule.epochs is 0; it must be positive unless axes and init"),
        ("classes", ["schedule.epochs=0"], "schedule.epochs is 0; it must be positive unless"),
        ("base", ["model.pool=all"], "model.pool is 'all'; it must be one of last, stages."),
        ("joint", ["schedule.keep=1"], "schedule.keep is 1.0; it must be 0 or more, and below 1"),
        ("classes", ["schedule.keep=0.5"], "schedule.keep is 0.5; it needs init and axes."),
        ("joint", ["init=", "objective.distil=0"], "schedule.keep is 0.25; it needs init and axes"),
    ],
)
def test_axes_that_cannot_be(name: str, changes: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe(f"pets:{name}", ["init=RUN", *changes])
    assert error.value.message.startswith(message)


@pytest.mark.parametrize("change", ["model.pool=stages", "model.mirror=true"])
def test_the_backbone_four_conv_has_neither_stages_nor_a_mirror(change: str) -> None:
    with pytest.raises(ConfigError, match="do not work with the backbone four-conv"):
        load_recipe("seed-matryoshka", [change])
