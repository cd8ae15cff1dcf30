"""Networks, their files, and encoders, with a message for every damaged file."""

import dataclasses
import errno
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xxhash
from fakes import fail_writes
from PIL import Image
from safetensors.torch import load_file, save_file

from mrl_search.encoders import own, registry
from mrl_search.encoders.backbones import CompactBackbone, build_backbone
from mrl_search.encoders.base import INTERPOLATIONS, Access, Preprocessing, fingerprint
from mrl_search.encoders.checkpoint import load_model, save_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.network import MatryoshkaHeads, MatryoshkaNetwork
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ConfigError, FileError, ModelError
from mrl_search.mapping import to_mapping

TINY = ModelConfig(widths=(8, 8, 16, 16), dims=(8, 16))
TRAINING = {"source": "nowhere", "recipe": {"name": "tiny"}, "last_epoch": {"epoch": 3}}


@pytest.fixture(autouse=True)
def answering_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are stand-ins here; no host is asked first."""
    monkeypatch.setattr("mrl_search.encoders.weights.getproxies", lambda: {"https": "a proxy"})


def _network(classes: int = 2, seed: int = 0) -> MatryoshkaNetwork:
    """A tiny network whose batch norms have seen something."""
    torch.manual_seed(seed)
    network = MatryoshkaNetwork(TINY, classes)
    network.train()
    for _ in range(3):
        network(torch.randn(8, 3, 32, 32) * 0.5)
    return network.eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(tmp_path / "run", _network(), "tiny", TINY, ("cat", "dog"), 32, TRAINING)
    return tmp_path / "run"


def _pictures(n: int, side: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


# Networks


@pytest.mark.parametrize("side", [32, 40, 64])
def test_a_backbone_takes_any_size(side: int) -> None:
    backbone = CompactBackbone(16, (4, 4, 8, 8)).eval()
    embedding = backbone(torch.zeros(2, 3, side, side))
    assert (embedding.shape, embedding.dtype) == ((2, 16), torch.float32)


def test_a_backbone_halves_the_picture_five_times() -> None:
    backbone = CompactBackbone(16, (4, 4, 8, 8))
    assert backbone.stem(torch.zeros(1, 3, 64, 64)).shape == (1, 4, 16, 16)
    assert backbone.body(torch.zeros(1, 4, 16, 16)).shape == (1, 8, 2, 2)


def test_embeddings_are_batch_normalised_while_training() -> None:
    torch.manual_seed(0)
    embedding = CompactBackbone(16, (4, 4, 8, 8)).train()(torch.randn(64, 3, 32, 32))
    assert torch.allclose(embedding.mean(0), torch.zeros(16), atol=1e-4)
    assert torch.allclose(embedding.var(0, unbiased=False), torch.ones(16), atol=0.05)


def test_the_names_in_the_config_count() -> None:
    backbone = build_backbone(ModelConfig(widths=(8, 8, 16, 24), dims=(8, 24)))
    assert backbone.project.weight.shape == (24, 24)


def test_each_head_sees_exactly_its_prefix() -> None:
    torch.manual_seed(0)
    heads = MatryoshkaHeads(ModelConfig(dims=(2, 4, 8)), 3)
    embedding = torch.randn(5, 8)
    before = heads(embedding)
    for head, d, part in zip(heads.heads, (2, 4, 8), before, strict=True):
        assert torch.allclose(part, embedding[:, :d] @ head.weight.T + head.bias, atol=1e-6)
    embedding[:, 3] += 1  # in the prefixes of 4 and 8, not of 2
    after = heads(embedding)
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1])
    assert not torch.allclose(after[2], before[2])


def test_cosine_heads_score_by_angle() -> None:
    torch.manual_seed(0)
    heads = MatryoshkaHeads(ModelConfig(dims=(2, 4), heads="cosine", scale=5.0), 3)
    embedding = torch.randn(6, 4)
    for d, logits in zip((2, 4), heads(embedding), strict=True):
        weight = heads.heads[(2, 4).index(d)].weight
        expected = 5 * torch.nn.functional.cosine_similarity(
            embedding[:, None, :d], weight[None], dim=2
        )
        assert torch.allclose(logits, expected, atol=1e-6)
        w, b = heads.weights(d)
        assert torch.allclose(w.norm(dim=1), torch.full((3,), 5.0))
        assert not b.any()
    for a, b in zip(heads(embedding), heads(embedding * 7), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_without_classes_there_are_no_heads() -> None:
    network = MatryoshkaNetwork(TINY, 0).eval()
    embedding, logits = network(torch.zeros(2, 3, 32, 32))
    assert embedding.shape == (2, 16)
    assert logits == []


# Files


def test_a_model_comes_back_from_the_disk(folder: Path) -> None:
    network, file = _network(), load_model(folder)
    assert (file.name, file.model, file.classes) == ("tiny", TINY, ("cat", "dog"))
    assert (file.size, file.training) == (32, TRAINING)
    assert file.weights == xxhash.xxh3_128_hexdigest((folder / "model.safetensors").read_bytes())
    assert not file.network.training
    assert not any(p.requires_grad for p in file.network.parameters())
    for name, value in network.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(file.network.state_dict()[name], value.half().float()), name
    x = torch.randn(4, 3, 32, 32)
    (before, logits_before), (after, logits_after) = network(x), file.network(x)
    assert torch.allclose(before, after, atol=0.02)
    for a, b in zip(logits_before, logits_after, strict=True):
        assert torch.allclose(a, b, atol=0.02)


def test_a_model_is_data_and_nothing_is_left_over(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors"]
    weights = load_file(folder / "model.safetensors")
    assert {v.dtype for v in weights.values()} == {torch.float16}
    assert json.loads((folder / "model.json").read_text()) == {
        "format": 1, "name": "tiny", "model": to_mapping(TINY), "classes": ["cat", "dog"],
        "size": 32, "training": TRAINING,
        "weights": xxhash.xxh3_128_hexdigest((folder / "model.safetensors").read_bytes()),
    }  # fmt: skip


def test_saving_again_replaces_the_model(folder: Path) -> None:
    save_model(folder, _network(3, seed=1), "other", TINY, ("a", "b", "c"), 48, {})
    file = load_model(folder)
    assert (file.name, file.classes, file.size) == ("other", ("a", "b", "c"), 48)


def _edit(**changes: object):
    def damage(folder: Path) -> None:
        description = json.loads((folder / "model.json").read_text())
        for key, value in changes.items():
            description[key] = value
            if value is None:
                del description[key]
        (folder / "model.json").write_text(json.dumps(description))

    return damage


def _weights(change, honest: bool = True):
    """Change the bytes of the weights; when `honest`, the description is made to fit."""

    def damage(folder: Path) -> None:
        file = folder / "model.safetensors"
        file.write_bytes(change(file.read_bytes()))
        if honest:
            _edit(weights=xxhash.xxh3_128_hexdigest(file.read_bytes()))(folder)

    return damage


def _without_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["backbone.project.weight"]
    save_file(weights, folder / "model.safetensors")
    _weights(bytes)(folder)


DAMAGES = {
    "no description": (lambda f: (f / "model.json").unlink(), "There is no finished model in "),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "model.safetensors cannot be read: there is no such file or folder",
    ),
    "description cut short": (
        lambda f: (f / "model.json").write_bytes((f / "model.json").read_bytes()[:100]),
        "cannot be read as JSON: ",
    ),
    "description of something else": (
        lambda f: (f / "model.json").write_text("[]"),
        "does not describe a model",
    ),
    "description not text": (
        lambda f: (f / "model.json").write_bytes(b"\xff\xfe\x00"),
        "cannot be read as JSON: ",
    ),
    "newer format": (_edit(format=2), "has format 2; this version reads up to 1"),
    "format is text": (_edit(format="new"), "cannot be read: "),
    "weights altered": (
        _weights(lambda b: b[:-1] + bytes([b[-1] ^ 1]), honest=False),
        "is damaged",
    ),
    "weights cut short": (_weights(lambda b: b[: len(b) // 2], honest=False), "is damaged"),
    "weights cut short before they were described": (
        _weights(lambda b: b[: len(b) // 2]),
        "cannot be read: ",
    ),
    "weights empty": (_weights(lambda b: b""), "cannot be read: "),
    "a tensor is missing": (_without_a_tensor, "does not fit"),
    "other classes": (_edit(classes=["a", "b", "c"]), "cannot be read: "),
    "no classes": (_edit(classes=[]), "does not fit"),
    "no name": (_edit(name=None), "key 'name' is missing"),
    "no size": (_edit(size=None), "key 'size' is missing"),
    "no training": (_edit(training=None), "key 'training' is missing"),
    "size is text": (_edit(size="big"), "size is 'big'; it must be int"),
    "size is negative": (_edit(size=-1), "size is -1; it must be positive"),
    "size is infinite": (_edit(size=math.inf), "size is inf; it must be int"),
    "network is a list": (_edit(model=[]), "model is []; it must be ModelConfig"),
    "training is text": (_edit(training="long"), "training is 'long'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_model_is_a_sentence(folder: Path, damage: str) -> None:
    change, words = DAMAGES[damage]
    change(folder)
    with pytest.raises(ModelError) as error:
        load_model(folder)
    assert words in error.value.message
    assert str(folder) in error.value.message
    assert error.value.hint


@pytest.mark.parametrize(
    ("model", "words"),
    [({"backbone": "huge"}, "huge"), ({"depth": 3}, "depth"), ({"dims": "all"}, "dims")],
)
def test_a_description_of_an_unknown_network_is_a_sentence(
    folder: Path, model: dict, words: str
) -> None:
    _edit(model=model)(folder)
    with pytest.raises(ModelError, match=words) as error:
        load_model(folder)
    assert str(folder) in error.value.message and "upgrade" in error.value.hint


def test_a_save_that_fails_leaves_no_model_behind(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_writes(monkeypatch, errno.ENOSPC)
    with pytest.raises(FileError, match=r"model.safetensors cannot be written: the disk is full"):
        save_model(folder, _network(), "tiny", TINY, ("cat", "dog"), 32, {})
    with pytest.raises(ModelError, match="There is no finished model"):
        load_model(folder)


# Encoders


def test_a_run_folder_is_an_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, file = load_encoder(str(folder)), load_model(folder)
    assert (encoder.model, encoder.name) == (str(folder), "tiny")
    assert (encoder.preprocessing, encoder.dims) == (Preprocessing(32), (8, 16))
    assert encoder.heads.classes == ("cat", "dog") and not encoder.heads.unit
    assert encoder.training == TRAINING
    pictures = _pictures(5)
    rows = encoder.encode(pictures)
    assert (rows.shape, rows.dtype) == ((5, 16), np.float32)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
    embedding, logits = file.network(x)
    assert np.allclose(rows, embedding.numpy(), atol=1e-4)
    for d, part in zip((8, 16), logits, strict=True):
        weight, bias = encoder.heads.weights[d]
        assert (weight.shape, bias.shape, weight.dtype) == ((2, d), (2,), np.float32)
        assert np.allclose(rows[:, :d] @ weight.T + bias, part.numpy(), atol=1e-4)
    monkeypatch.chdir(folder.parent)
    assert load_encoder("run").model == str(folder)  # found again from anywhere


def test_the_fingerprint_is_of_weights_and_preprocessing(folder: Path) -> None:
    first = load_encoder(str(folder)).fingerprint
    save_model(folder, _network(), "renamed", TINY, ("cat", "dog"), 32, {})
    assert load_encoder(str(folder)).fingerprint == first
    save_model(folder, _network(), "tiny", TINY, ("cat", "dog"), 48, TRAINING)
    assert load_encoder(str(folder)).fingerprint != first
    save_model(folder, _network(seed=1), "tiny", TINY, ("cat", "dog"), 32, TRAINING)
    assert load_encoder(str(folder)).fingerprint != first


def test_the_bundled_model_keeps_the_fingerprint_that_indexes_have(tmp_path: Path) -> None:
    encoder = load_encoder()
    assert encoder.preprocessing == Preprocessing(176, mirror=True)
    assert encoder.fingerprint == xxhash.xxh3_128_hexdigest(b"a67411b6b0faee3c2f828c5a78b2c00a 176")
    assert encoder.fingerprint == "df6c67b5967004c41b8f30748f7f7294"


def test_a_mirrored_model_has_another_fingerprint(folder: Path) -> None:
    plain = load_encoder(str(folder))
    weights = xxhash.xxh3_128_hexdigest((folder / "model.safetensors").read_bytes())
    assert plain.fingerprint == xxhash.xxh3_128_hexdigest(f"{weights} 32".encode())
    _edit(model={**to_mapping(TINY), "mirror": True})(folder)
    mirrored = load_encoder(str(folder))
    assert mirrored.preprocessing == Preprocessing(32, mirror=True)
    assert mirrored.fingerprint != plain.fingerprint
    pictures = _pictures(3)
    both = plain.encode(pictures) + plain.encode(pictures[:, :, ::-1])
    np.testing.assert_allclose(mirrored.encode(pictures), both / 2, atol=1e-4)
    own.MIRRORED.add(weights)  # as the bundled weights are
    try:
        assert load_encoder(str(folder)).fingerprint == plain.fingerprint
        _edit(model={**to_mapping(TINY), "mirror": False})(folder)
        changed = load_encoder(str(folder)).fingerprint
        assert changed not in (plain.fingerprint, mirrored.fingerprint)
    finally:
        own.MIRRORED.remove(weights)


def test_every_part_of_the_preprocessing_is_in_the_fingerprint() -> None:
    usual = Preprocessing(32)
    others = [
        Preprocessing(48),
        Preprocessing(32, fit="cover", resize=36),
        Preprocessing(32, resize=36),
        Preprocessing(32, fill=(1, 2, 3)),
        Preprocessing(32, interpolation="bicubic"),
        Preprocessing(32, mean=(0.4, 0.5, 0.5)),
        Preprocessing(32, std=(0.4, 0.5, 0.5)),
        Preprocessing(32, mirror=True),
    ]
    assert {p.name for p in dataclasses.fields(Preprocessing)} == {
        name for p in others for name in to_mapping(p) if getattr(p, name) != getattr(usual, name)
    }
    values = [fingerprint("f00d", p, usual) for p in (usual, *others)]
    assert values[0] == "f00d" and len(set(values)) == 9
    assert values[1] == fingerprint("f00d", Preprocessing(48), usual)


# Preprocessing


def test_a_store_can_use_the_values_of_an_encoder_without_torch() -> None:
    code = "import sys, mrl_search.encoders.base; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def _columns() -> Image.Image:
    """8 x 4 pixels; the grey value of a pixel is ten times its column."""
    return Image.fromarray(np.tile(10 * np.arange(8, dtype=np.uint8)[None, :, None], (4, 1, 3)))


def test_the_whole_picture_is_squashed() -> None:
    assert Preprocessing(4).pixels(_columns().resize((4, 4), 0))[0, :, 0].tolist() == [
        10, 30, 50, 70,
    ]  # fmt: skip


def test_a_cover_keeps_the_central_square() -> None:
    cover = Preprocessing(4, fit="cover", resize=4)
    assert cover.pixels(_columns())[0, :, 0].tolist() == [20, 30, 40, 50]
    middle = Preprocessing(2, fit="cover", resize=4)
    file = io.BytesIO()
    _columns().save(file, "PNG")
    pixels, size = middle.decode(file.getvalue())
    assert pixels[:, :, 0].tolist() == [[30, 40], [30, 40]] and size == (8, 4)


def test_a_contained_picture_is_filled_up() -> None:
    contain = Preprocessing(8, fit="contain", resize=8, fill=(1, 2, 3))
    pixels = contain.pixels(_columns())
    assert pixels[2:6, :, 0].tolist() == [list(range(0, 80, 10))] * 4
    assert (pixels[[0, 1, 6, 7]] == [1, 2, 3]).all()


def test_only_the_middle_of_a_very_long_picture_is_resized() -> None:
    line = Image.new("RGB", (200_000, 1), "red")
    assert (Preprocessing(64, fit="cover", resize=64).pixels(line) == [255, 0, 0]).all()


def test_interpolation_changes_the_pixels() -> None:
    edge = Image.fromarray(np.repeat([[[0], [255]]], 2, axis=0).repeat(3, 2).astype(np.uint8))
    rows = {
        i: Preprocessing(6, interpolation=i).pixels(edge)[0, :, 0].tolist() for i in INTERPOLATIONS
    }
    assert rows["bilinear"] == [0, 0, 85, 170, 255, 255] and rows["bicubic"] != rows["bilinear"]
    assert len({tuple(row) for row in rows.values()}) == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 0}, "size is 0; it must be positive."),
        ({"size": 8, "fit": "crop"}, "fit is 'crop'; it must be one of squash, cover, contain."),
        ({"size": 8, "fit": "cover"}, "resize is 0; it must be positive for the fit cover."),
        ({"size": 8, "interpolation": "nearest"}, "interpolation is 'nearest'; it must be one of "),
    ],
)
def test_preprocessing_that_cannot_be(values: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        Preprocessing(**values)
    assert error.value.message.startswith(message)


def test_rows_do_not_depend_on_what_else_is_in_the_batch(folder: Path) -> None:
    encoder, pictures = load_encoder(str(folder)), _pictures(9)
    together = encoder.encode(pictures)
    alone = np.concatenate([encoder.encode(pictures[i : i + 1]) for i in range(9)])
    assert np.allclose(together, alone, atol=1e-5)
    assert np.allclose(encoder.encode(pictures[::-1]), together[::-1], atol=1e-5)
    assert np.array_equal(encoder.encode(pictures), together)


def test_a_network_left_in_training_mode_is_put_right(folder: Path) -> None:
    network = _network().backbone.train()
    encoder = NetworkEncoder("m", "n", "f", (8, 16), Preprocessing(32), network)
    assert not encoder.network.training
    before = encoder.network.norm.running_mean.clone()
    encoder.encode(_pictures(4))
    assert torch.equal(encoder.network.norm.running_mean, before)


class Means(torch.nn.Module):
    """The mean of each channel of the input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def test_mean_and_std_are_applied_to_the_channels_in_order() -> None:
    picture = np.zeros((1, 4, 4, 3), np.uint8) + np.array([0, 51, 255], np.uint8)
    plain = NetworkEncoder("m", "n", "f", (3,), Preprocessing(4), Means())
    assert np.allclose(plain.encode(picture), [[-1, -0.6, 1]], atol=1e-6)
    preprocessing = Preprocessing(4, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.1))
    scaled = NetworkEncoder("m", "n", "f", (3,), preprocessing, Means())
    assert np.allclose(scaled.encode(picture), [[-0.2, 0, 7]], atol=1e-5)


def test_pictures_may_be_a_view_of_a_larger_array(folder: Path) -> None:
    encoder, pictures = load_encoder(str(folder)), _pictures(6)
    view = pictures[::2]
    assert np.allclose(encoder.encode(view), encoder.encode(view.copy()), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "words"),
    [("runs/none", "There is no model 'runs/none'"), (".", "There is no finished model in .")],
)
def test_a_model_that_is_not_there_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError) as error:
        load_encoder(name)
    assert words in error.value.message


def test_bundled_is_looked_for_in_the_package(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.parent / "bundled").symlink_to(folder)
    monkeypatch.setattr(
        registry.resources, "files", lambda package: {"mrl_search.encoders": folder.parent}[package]
    )
    encoder = load_encoder()
    assert (encoder.model, encoder.name) == ("bundled", "tiny")


# torchvision


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's models with random weights, always the same ones."""
    models = import_torchvision("torchvision.models")
    get_model = models.get_model

    def random_weights(name: str, weights: object) -> torch.nn.Module:
        assert weights == models.get_model_weights(name).DEFAULT
        torch.manual_seed(7)
        return get_model(name, weights=None)

    monkeypatch.setattr(models, "get_model", random_weights)


@pytest.mark.parametrize(
    ("name", "dims", "size"),
    [
        ("resnet18", (8, 16, 32, 64, 128, 256, 512), 224),
        ("mobilenet_v3_small", (8, 16, 32, 64, 128, 256, 512, 576), 224),
    ],
)
@pytest.mark.usefixtures("no_download")
def test_a_torchvision_model_without_its_last_layer(
    name: str, dims: tuple[int, ...], size: int
) -> None:
    encoder = load_encoder(f"torchvision:{name}")
    expected = Preprocessing(size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    assert (encoder.model, encoder.name) == (f"torchvision:{name}", name)
    assert (encoder.preprocessing, encoder.dims) == (expected, dims)
    assert (encoder.heads.classes, dict(encoder.heads.weights)) == ((), {})
    models = import_torchvision("torchvision.models")
    torch.manual_seed(7)
    whole = models.get_model(name, weights=models.get_model_weights(name).DEFAULT).eval()
    seen: list[torch.Tensor] = []
    last = whole.fc if hasattr(whole, "fc") else whole.classifier
    last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pictures = _pictures(2, size)
    transform = models.get_model_weights(name).DEFAULT.transforms()
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (transform.mean, transform.std))
    with torch.inference_mode():
        whole((x - mean) / std)
    rows = encoder.encode(pictures)
    assert rows.dtype == np.float32
    near = 1e-4 * math.sqrt(float(seen[0].square().mean())) + 1e-6
    assert np.allclose(rows, seen[0].numpy(), rtol=1e-3, atol=near)


@pytest.mark.usefixtures("no_download")
def test_the_fingerprint_of_a_torchvision_model_is_of_its_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = load_encoder("torchvision:mobilenet_v3_small")
    first, state = encoder.fingerprint, xxhash.xxh3_128()
    for key, value in encoder.network.state_dict().items():
        state.update(key.encode() + value.contiguous().numpy().tobytes())
    assert first == state.hexdigest()  # as indexes have it
    models = import_torchvision("torchvision.models")
    get_model = models.get_model

    def changed(name: str, weights: object) -> torch.nn.Module:
        network = get_model(name, weights=weights)
        next(network.parameters()).add_(1e-3)
        return network

    monkeypatch.setattr(models, "get_model", torch.no_grad()(changed))
    assert load_encoder("torchvision:mobilenet_v3_small").fingerprint != first


def test_an_unknown_torchvision_model_is_a_sentence() -> None:
    with pytest.raises(ModelError) as error:
        load_encoder("torchvision:resnet19")
    assert error.value.message == "torchvision has no model 'resnet19'."
    assert "torchvision:resnet18" in error.value.hint


@pytest.mark.parametrize(
    "problem",
    [
        OSError("<urlopen error [Errno -2] Name or service not known>"),
        RuntimeError("invalid hash value"),
    ],
)
def test_weights_that_cannot_be_fetched_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, problem: Exception
) -> None:
    def unreachable(name: str, weights: object) -> None:
        raise problem

    monkeypatch.setattr(import_torchvision("torchvision.models"), "get_model", unreachable)
    with pytest.raises(ModelError) as error:
        load_encoder("torchvision:resnet18")
    assert error.value.message.startswith(
        "The weights of torchvision:resnet18 could not be downloaded from https://"
    )
    assert str(problem) in error.value.message
    assert error.value.hint


def test_a_name_that_only_stands_in_an_index_fetches_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(import_torchvision("torchvision.models"), "get_model", pytest.fail)
    with pytest.raises(ModelError, match="torchvision:resnet18 are not on this machine") as error:
        load_encoder("torchvision:resnet18", Access(fetch=False))
    assert "--model torchvision:resnet18\n" in error.value.hint


def test_torchvision_is_imported_once() -> None:
    assert import_torchvision("torchvision.models") is import_torchvision("torchvision.models")
    with pytest.raises(ModuleNotFoundError):
        import_torchvision("torchvision.nothing")


def test_a_host_that_does_not_answer_is_a_quick_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrl_search.encoders.weights.getproxies", dict)

    def refuse(place: object, timeout: float) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr("mrl_search.encoders.weights.socket.create_connection", refuse)
    with pytest.raises(ModelError, match=r"download.pytorch.org does not answer") as error:
        load_encoder("torchvision:resnet18")
    assert ".pth elsewhere and put it into" in error.value.hint
