"""Encoders of libraries: their own pixels and vectors, names, files, downloads and refusals."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import FakeEncoder, write_corpus
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.encoders import timm as timm_encoder
from mrl_search.encoders.base import Access, Offer, Preprocessing
from mrl_search.encoders.network_encoder import NetworkEncoder, device_of
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.timm import preprocessing_of
from mrl_search.encoders.weights import import_library
from mrl_search.errors import ConfigError, ModelError
from mrl_search.images.decode import decode

timm: Any = import_library("timm", "models")


@pytest.fixture(autouse=True)
def answering_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are stand-ins here; no host is asked first."""
    monkeypatch.setattr("mrl_search.encoders.weights.getproxies", lambda: {"https": "a proxy"})


def _file(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def odd_pictures() -> dict[str, bytes]:
    """Pictures that are easily prepared in another way than a library does."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (90, 130, 3), dtype=np.uint8))
    turned = Image.Exif()
    turned[0x0112] = 6
    sixteen = Image.fromarray(rng.integers(0, 65535, (70, 50), dtype=np.uint16))
    return {
        "plain": _file(noise),
        "photograph": _file(noise.resize((901, 700)), "JPEG", quality=90),
        "tall": _file(noise.resize((37, 411))),
        "wide": _file(noise.resize((533, 31))),
        "tiny": _file(noise.resize((3, 5))),
        "one pixel": _file(noise.resize((1, 1))),
        "alpha": _file(Image.merge("RGBA", (*noise.split(), noise.convert("L")))),
        "turned": _file(noise, "JPEG", exif=turned),
        "16 bits": _file(sixteen),
        "grey": _file(noise.convert("L")),
        "palette": _file(noise.convert("P")),
    }


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights for timm:test_resnet."""
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), file)
    return file


# Pixels and vectors


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("interpolation", "crop"), [("bilinear", 0.875), ("bicubic", 1.0)])
def test_pixels_are_those_of_timm(mode: str, interpolation: str, crop: float) -> None:
    config = {
        "input_size": (3, 96, 96), "interpolation": interpolation, "crop_pct": crop,
        "crop_mode": mode, "mean": (0.48, 0.45, 0.4), "std": (0.2, 0.25, 0.3),
    }  # fmt: skip
    own, theirs = preprocessing_of(config), timm.data.create_transform(**config, normalize=False)
    assert (own.mean, own.std) == (config["mean"], config["std"])
    for name, data in odd_pictures().items():
        if mode == "border" and name in ("one pixel",):
            continue
        expected = theirs(decode(data)[0]).permute(1, 2, 0).numpy()
        assert np.array_equal(own.decode(data)[0], expected), name


def test_vectors_are_those_of_timm(weights: Path) -> None:
    encoder = load_encoder(f"timm:test_resnet@{weights}")
    network = timm.create_model("test_resnet", num_classes=0).eval()
    state = timm.models.load_state_dict(str(weights))
    network.load_state_dict({k: v for k, v in state.items() if not k.startswith("fc.")})
    data = timm.data.resolve_model_data_config(network)
    transform = timm.data.create_transform(**data)
    pictures = list(odd_pictures().values())
    pixels = np.stack([encoder.preprocessing.decode(picture)[0] for picture in pictures])
    with torch.inference_mode():
        expected = network(torch.stack([transform(decode(p)[0]) for p in pictures])).numpy()
    rows = encoder.encode(pixels)
    assert rows.shape == expected.shape and encoder.dims[-1] == expected.shape[1]
    assert np.allclose(rows, expected, atol=1e-4 * np.abs(expected).max())
    assert encoder.axes == "pca" and encoder.model == f"timm:test_resnet@{weights}"


def test_a_size_that_is_not_square_is_refused() -> None:
    config = timm.data.resolve_model_data_config(timm.create_model("test_resnet"))
    with pytest.raises(ModelError, match="takes 64 x 32 pixels; only squares"):
        preprocessing_of({**config, "input_size": (3, 32, 64)})


# Names and files


def test_both_kinds_of_files_give_the_same_encoder(weights: Path, tmp_path: Path) -> None:
    torch.save(timm.models.load_state_dict(str(weights)), tmp_path / "resnet.pth")
    first = load_encoder(f"timm:test_resnet@{weights}")
    other = load_encoder(f"timm:test_resnet@{tmp_path / 'resnet.pth'}")
    assert first.fingerprint == other.fingerprint


@pytest.mark.parametrize(
    ("library", "name", "near"),
    [("timm", "resnet118", "timm:resnet18"), ("torchvision", "resnet118", "torchvision:resnet18")],
)
def test_the_nearest_names_are_given(library: str, name: str, near: str) -> None:
    with pytest.raises(ModelError) as error:
        load_encoder(f"{library}:{name}")
    assert error.value.message == f"{library} has no model {name!r}."
    assert near in error.value.hint


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("library", ["timm:test_resnet", "torchvision:resnet18"])
def test_files_that_are_not_these_weights(
    library: str, tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Code()}, "code.pth")
    torch.save({"other": torch.zeros(2)}, "other.pth")
    Path("cut.safetensors").write_bytes(weights.read_bytes()[:1000])
    Path("text.bin").write_text("not weights")
    for name in ("code.pth", "other.pth", "cut.safetensors", "text.bin"):
        with pytest.raises(ModelError) as error:
            load_encoder(f"{library}@{name}")
        assert error.value.message.startswith(f"{tmp_path / name} does not have the weights of")
        assert error.value.hint == "Choose the file of this model."
    assert not Path("ran").exists()
    for missing in ("nowhere.pth", "."):
        with pytest.raises(ModelError, match=r"There is no file|is no file"):
            load_encoder(f"{library}@{missing}")


def test_a_file_of_torchvision(tmp_path: Path) -> None:
    models: Any = import_library("torchvision.models", "")
    torch.manual_seed(1)
    network = models.get_model("resnet18", weights=None)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    encoder = load_encoder(f"torchvision:resnet18@{tmp_path / 'own.pth'}")
    assert encoder.dims[-1] == 512 and encoder.model.endswith("own.pth")
    assert load_encoder(encoder.model).fingerprint == encoder.fingerprint


# Downloads


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache of the hub; a download fails the test."""
    import huggingface_hub.constants
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("timm.models._hub.hf_hub_download", pytest.fail)
    return tmp_path


def test_nothing_is_fetched_before_licence_and_size_were_named(offline: Path) -> None:
    offers: list[Offer] = []

    def refuse(offer: Offer) -> bool:
        offers.append(offer)
        return False

    with pytest.raises(ModelError, match=r"timm:resnet18\.a1_in1k were not downloaded") as error:
        load_encoder("timm:resnet18.a1_in1k", Access(ask=refuse))
    (offer,) = offers
    assert offer.licence == "apache-2.0" and 44e6 < offer.nbytes < 48e6
    assert "huggingface.co/timm/resnet18.a1_in1k" in str(offer) and "45 MB" in str(offer)
    assert "--model timm:resnet18.a1_in1k@FILE" in error.value.hint
    with pytest.raises(ModelError, match="not on this machine"):
        load_encoder("timm:resnet18.a1_in1k", Access(fetch=False, ask=pytest.fail))
    with pytest.raises(ModelError, match="torchvision:resnet50 were not downloaded"):
        load_encoder("torchvision:resnet50", Access(ask=refuse))
    assert 90e6 < offers[1].nbytes < 110e6


def test_weights_in_the_cache_need_no_network(offline: Path, weights: Path) -> None:
    repository = offline / "models--timm--test_resnet.r160_in1k"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "model.safetensors").write_bytes(weights.read_bytes())
    encoder = load_encoder("timm:test_resnet.r160_in1k", Access(fetch=False, ask=pytest.fail))
    assert encoder.fingerprint == load_encoder(f"timm:test_resnet@{weights}").fingerprint


# Options


@pytest.mark.parametrize("command", ["build-index", "query", "evaluate", "classify"])
def test_the_options_reach_the_model(
    command: str, gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Access] = []

    def load(model: str, access: Access) -> FakeEncoder:
        given.append(access)
        return FakeEncoder()

    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", load)
    write_corpus(tmp_path / "few", 2)
    one = str(next((tmp_path / "few").rglob("*.jpg")))
    arguments = {
        "build-index": [str(tmp_path / "few"), "--out", str(tmp_path / "index")],
        "query": [one, "--index", str(gallery / "index"), "--model", "any"],
        "evaluate": [str(tmp_path / "few")],
        "classify": [one, "--index", str(gallery / "index"), "--model", "any"],
    }[command]
    run = CliRunner().invoke(app, [command, *arguments, "--offline", "--yes", "--device", "meta"])
    assert run.exit_code == 0, run.stderr
    assert (given[-1].fetch, given[-1].device) == (False, "meta")
    offer = Offer("timm:x", "somewhere", "MIT", 45_000_000, "a cache")
    assert given[-1].ask is not None and given[-1].ask(offer)  # --yes agrees, and it is said
    if command == "build-index":
        arguments[-1] += "-again"
    run = CliRunner().invoke(app, [command, *arguments])
    assert given[-1].fetch and given[-1].ask is not None and given[-1].device == "auto"


def test_without_a_terminal_nothing_is_downloaded(offline: Path, tmp_path: Path) -> None:
    write_corpus(tmp_path / "few", 1)
    asked = ["build-index", str(tmp_path / "few"), "--out", str(tmp_path / "index")]
    run = CliRunner().invoke(app, [*asked, "--model", "timm:resnet18.a1_in1k"])
    assert run.exit_code == 1 and "about 45 MB" in run.stderr and "apache-2.0" in run.stderr
    assert "were not downloaded" in run.stderr and "--yes" in run.stderr


def test_a_device_that_is_not_here_is_said() -> None:
    with pytest.raises(ConfigError, match="There is no device 'nonsense' here"):
        device_of("nonsense")
    assert device_of("cpu").type == "cpu"


class Hungry(torch.nn.Module):
    """Runs out of memory for more than two pictures."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return x.mean((2, 3))


def test_batches_become_smaller_where_memory_is_short() -> None:
    encoder = NetworkEncoder("m", "n", "f", (3,), Preprocessing(4), Hungry(), device="cpu")
    pictures = np.random.default_rng(0).integers(0, 255, (11, 4, 4, 3), dtype=np.uint8)
    expected = pictures.reshape(11, 16, 3).mean(1) / 127.5 - 1
    assert np.allclose(encoder.encode(pictures), expected, atol=1e-5)


# The list


def test_the_models_are_listed() -> None:
    run = CliRunner().invoke(app, ["models"])
    assert run.exit_code == 0 and "bundled" in run.stdout and "1024" in run.stdout
    assert "timm:NAME" in run.stderr and "onnx:FILE" in run.stderr
    run = CliRunner().invoke(app, ["models", "torchvision"])
    assert "torchvision:resnet18" in run.stdout.splitlines() and "50 models or fewer" in run.stderr
    run = CliRunner().invoke(app, ["models", "nothing"])
    assert run.exit_code == 1 and "There is no list of models of 'nothing'" in run.stderr


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("timm:test_resnet*", ("timm:test_resnet.r160_in1k", 96, 1.5, "apache-2.0")),
        ("torchvision:resnet18", ("torchvision:resnet18", 512, 44.7, "")),
        ("torchvision:regnet_x_400mf", ("torchvision:regnet_x_400mf", 0, 21.3, "")),
        ("open_clip:RN50x4/openai", ("open_clip:RN50x4/openai", 640, 713.2, "")),
        ("open_clip:roberta*", ("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k", 512, 0, "MIT")),
    ],
)  # fmt: skip
def test_a_model_of_a_library_is_described_without_weights(
    pattern: str, expected: tuple[str, int, float, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", None)
    run = CliRunner().invoke(app, ["models", pattern, "--json"])
    (entry,) = map(json.loads, run.stdout.splitlines())
    found = tuple(entry[key] for key in ("model", "dims", "megabytes", "licence"))
    assert (*found[:2], round(found[2], 1), found[3]) == expected
    shown = CliRunner().invoke(app, ["models", pattern]).stdout.splitlines()
    assert shown[0].split() == ["model", "dims", "weights", "licence"]
    assert shown[1].split()[:2] == [expected[0], str(expected[1] or f"{expected[2]:.0f}")]


def test_the_dims_of_a_list_are_those_of_the_vectors() -> None:
    torch.manual_seed(0)
    for name in ("test_resnet.r160_in1k", "test_vit.r160_in1k", "mobilenetv4_conv_small_035"):
        network = timm.create_model(name, num_classes=0).eval()
        size = timm.get_pretrained_cfg(name).input_size
        with torch.inference_mode():
            dims = network(torch.zeros(1, *size)).shape[1]
        assert timm_encoder.described(name)[0] == dims


def test_speed_is_measured_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mrl_search.encoders.catalogue.load_encoder", lambda *_: FakeEncoder())
    plain = CliRunner().invoke(app, ["models", "--json"]).stdout
    assert '"speed": null' in plain and '"dims": 64' in plain
    measured = CliRunner().invoke(app, ["models", "--json", "--measure"]).stdout
    assert '"speed": null' not in measured
