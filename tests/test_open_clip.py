"""Models of open_clip: pixels and vectors as open_clip's own, and a sentence for every mistake."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tiny_clip import CONFIG, NAME, weights

from mrl_search.encoders.base import Access, Offer, Preprocessing
from mrl_search.encoders.open_clip import preprocessing_of
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.weights import import_library
from mrl_search.errors import ModelError
from mrl_search.images.decode import decode

__all__ = ["weights"]  # a fixture

TEXTS = ["a dog on a beach", "two cats", "A dog on a beach"]
REPOSITORY = "nobody/tiny-clip"


@pytest.fixture(autouse=True)
def answering_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Downloads are stand-ins here; no host is asked first."""
    monkeypatch.setattr("mrl_search.encoders.weights.getproxies", lambda: {"https": "a proxy"})


@pytest.fixture
def library() -> Any:
    return import_library("open_clip", "models")


@pytest.fixture
def pretrained(
    weights: Path, library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """Gives `tiny-clip` the weights `made` and `squashed`; returns the empty cache of the hub."""
    from huggingface_hub import constants, file_download

    own = library.pretrained._pcfg(hf_hub=f"{REPOSITORY}/")
    tags = {"made": own, "squashed": {**own, "resize_mode": "squash", "quick_gelu": True}}
    monkeypatch.setitem(library.pretrained._PRETRAINED, NAME, tags)
    for module in (constants, file_download):
        if hasattr(module, "HF_HUB_CACHE"):
            monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_into_cache(cache: Path, weights: Path) -> None:
    """The layout of files that the hub's own library makes."""
    repository = cache / f"models--{REPOSITORY.replace('/', '--')}"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    state = torch.load(weights, weights_only=True)
    save_file(
        {k: v.contiguous() for k, v in state.items()}, snapshot / "open_clip_model.safetensors"
    )


def odd_pictures() -> Iterator[bytes]:
    """Files: tall, wide, tiny, transparent, turned by EXIF, 16 bits, grey, palette."""
    rng = np.random.default_rng(0)

    def noise(height: int, width: int, channels: int = 3) -> Image.Image:
        small = rng.integers(0, 256, (max(1, height // 4), max(1, width // 4), channels), np.uint8)
        return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(rng.integers(0, 65536, (41, 67), np.uint16))
    for picture, options in (
        (noise(301, 40), {}), (noise(33, 400), {}), (noise(1, 1), {}), (noise(3, 2), {}),
        (noise(32, 32), {}), (noise(65, 64), {}), (noise(90, 61, 4), {}), (deep, {}),
        (noise(50, 71), {"exif": turned}), (noise(80, 80).convert("L"), {}),
        (noise(57, 83).convert("P"), {}),
    ):  # fmt: skip
        file = io.BytesIO()
        picture.save(file, "PNG", **options)
        yield file.getvalue()


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [32, 47])
def test_pixels_are_those_of_open_clip(
    library: Any, mode: str, interpolation: str, size: int
) -> None:
    config = library.transform.PreprocessCfg(
        size=size, resize_mode=mode, interpolation=interpolation, fill_color=99,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0),
    )  # fmt: skip
    theirs = library.transform.image_transform_v2(config, is_train=False)
    own = preprocessing_of(vars(config))
    for data in odd_pictures():
        image, _ = decode(data)
        expected = (theirs(image) * 255).round().byte().permute(1, 2, 0).numpy()
        assert np.array_equal(own.pixels(image), expected), (image.size, mode)
        assert np.array_equal(own.decode(data)[0], expected)


def test_vectors_are_those_of_open_clip(weights: Path, library: Any) -> None:
    encoder = load_encoder(f"open_clip:{NAME}@{weights}")
    theirs, _, transform = library.create_model_and_transforms(NAME, pretrained=str(weights))
    theirs.eval()
    images = [decode(data)[0] for data in odd_pictures()]
    with torch.inference_mode():
        pictures = theirs.encode_image(torch.stack([transform(image) for image in images]))
        texts = theirs.encode_text(library.get_tokenizer(NAME)(TEXTS))
    rows = encoder.encode(np.stack([encoder.preprocessing.pixels(image) for image in images]))
    assert np.abs(rows - pictures.numpy()).max() < 1e-5 * np.abs(rows).max()
    read = encoder.encode_text(TEXTS)
    assert read.dtype == np.float32 and np.abs(read - texts.numpy()).max() < 1e-6
    assert np.array_equal(read[0], read[2]) and not np.allclose(read[0], read[1])
    assert encoder.logit_scale == pytest.approx(np.exp(3))
    assert (encoder.dims, encoder.name) == ((8, 16), NAME)
    assert encoder.model == f"open_clip:{NAME}@{weights}"


def test_the_preprocessing_is_that_of_the_weights(weights: Path, pretrained: Path) -> None:
    made = load_encoder(f"open_clip:{NAME}/made@{weights}")
    squashed = load_encoder(f"open_clip:{NAME}/squashed@{weights}")
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    cover = Preprocessing(32, "bicubic", mean, std, fit="cover", resize=32)
    assert made.preprocessing == cover
    assert squashed.preprocessing == Preprocessing(32, "bicubic", mean, std, resize=32)
    with pytest.raises(ModelError, match="differ in their preprocessing") as error:
        load_encoder(f"open_clip:{NAME}@{weights}")
    assert error.value.hint.endswith(f"{NAME}/made@FILE")


def test_the_fingerprint_covers_weights_activation_and_preprocessing(
    weights: Path, pretrained: Path, library: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = load_encoder(f"open_clip:{NAME}/made@{weights}")
    assert load_encoder(f"open_clip:{NAME}/made@{weights}").fingerprint == made.fingerprint
    own = library.get_pretrained_cfg(NAME, "made")
    found = {made.fingerprint}
    for tag, change in (
        ("quick", {"quick_gelu": True}), ("linear", {"interpolation": "bilinear"}),
        ("long", {"resize_mode": "longest"}), ("grey", {"mean": (0.5, 0.5, 0.5)}),
    ):  # fmt: skip
        monkeypatch.setitem(library.pretrained._PRETRAINED[NAME], tag, {**own, **change})
        found.add(load_encoder(f"open_clip:{NAME}/{tag}@{weights}").fingerprint)
    for key in ("logit_scale", "token_embedding.weight", "visual.proj"):
        state = torch.load(weights, weights_only=True)
        state[key] = state[key] + 0.01
        torch.save(state, tmp_path / "other.pt")
        found.add(load_encoder(f"open_clip:{NAME}/made@{tmp_path / 'other.pt'}").fingerprint)
    assert len(found) == 8


def test_weights_that_need_quick_gelu_get_it(weights: Path, pretrained: Path, library: Any) -> None:
    quick = load_encoder(f"open_clip:{NAME}/squashed@{weights}")
    theirs = library.create_model(NAME, pretrained=str(weights), force_quick_gelu=True).eval()
    with torch.inference_mode():
        expected = theirs.encode_text(library.get_tokenizer(NAME)(TEXTS)).numpy()
    assert np.abs(quick.encode_text(TEXTS) - expected).max() < 1e-6
    plain = load_encoder(f"open_clip:{NAME}/made@{weights}")
    assert np.abs(plain.encode_text(TEXTS) - expected).max() > 1e-4


def test_weights_in_the_cache_of_the_hub_need_no_network(
    weights: Path, pretrained: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_into_cache(pretrained, weights)
    monkeypatch.setattr(library, "download_pretrained", pytest.fail)
    encoder = load_encoder(f"open_clip:{NAME}/made", Access(fetch=False))
    assert encoder.model == f"open_clip:{NAME}/made"
    given = load_encoder(f"open_clip:{NAME}/made@{weights}")
    assert encoder.fingerprint == given.fingerprint
    assert np.array_equal(encoder.encode_text(TEXTS), given.encode_text(TEXTS))


def test_weights_are_offered_before_they_are_fetched(
    weights: Path, pretrained: Path, library: Any, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    offers: list[Offer] = []

    def refuse(offer: Offer) -> bool:
        offers.append(offer)
        return False

    monkeypatch.setattr(library, "download_pretrained", pytest.fail)
    with pytest.raises(ModelError, match=f"open_clip:{NAME}/made were not downloaded") as error:
        load_encoder(f"open_clip:{NAME}/made", Access(ask=refuse))
    assert f"open_clip:{NAME}/made@FILE" in error.value.hint
    (offer,) = offers
    numbers = sum(v.numel() for v in torch.load(weights, weights_only=True).values())
    assert offer.nbytes == 4 * numbers and caplog.records == []  # nothing of random weights
    assert offer.source == f"huggingface.co/{REPOSITORY}" and REPOSITORY in offer.licence
    with pytest.raises(ModelError, match="are not on this machine"):
        load_encoder(f"open_clip:{NAME}/made", Access(fetch=False))
    monkeypatch.setattr(library, "download_pretrained", lambda config: str(weights))
    fetched = load_encoder(f"open_clip:{NAME}/made", Access(ask=lambda _: True))
    assert fetched.fingerprint == load_encoder(f"open_clip:{NAME}/made@{weights}").fingerprint


@pytest.mark.parametrize(
    ("repository", "licence"),
    [
        ("ViT-B-32/laion2b_s34b_b79k", "MIT"),
        ("ViT-B-16-SigLIP/webli", "Apache-2.0"),
        ("ViT-B-32-quickgelu/metaclip_400m", "CC-BY-NC-4.0"),
        ("MobileCLIP2-S0/dfndr2b", "apple-amlr, for research"),
        ("EVA02-B-16/merged2b_s8b_b131k", "see https://huggingface.co/timm/"),
    ],
)
def test_an_offer_names_the_licence(repository: str, licence: str, pretrained: Path) -> None:
    offers: list[Offer] = []
    with pytest.raises(ModelError):
        load_encoder(f"open_clip:{repository}", Access(ask=lambda o: bool(offers.append(o))))
    assert offers[0].licence.startswith(licence) and offers[0].nbytes > 2e8


def test_without_a_network_the_hint_says_what_to_place_where(
    pretrained: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(config: object) -> None:
        raise FileNotFoundError("Failed to download file: [Errno -2] Name or service not known")

    monkeypatch.setattr(library, "download_pretrained", unreachable)
    with pytest.raises(ModelError, match="Name or service not known") as error:
        load_encoder(f"open_clip:{NAME}/made")
    assert "open_clip_model.safetensors from https://huggingface.co/nobody" in error.value.hint
    assert error.value.hint.endswith(f"open_clip:{NAME}/made@FILE")


def test_names_that_open_clip_does_not_have(weights: Path, pretrained: Path) -> None:
    with pytest.raises(ModelError, match=r"open_clip has no model 'ViT-B-23'\.") as error:
        load_encoder("open_clip:ViT-B-23/openai")
    assert "open_clip:ViT-B-32" in error.value.hint
    for name, message in ((f"{NAME}/mad", "no weights 'mad'"), (NAME, "does not say which")):
        with pytest.raises(ModelError, match=message) as error:
            load_encoder(f"open_clip:{name}")
        assert f"{NAME}/made, {NAME}/squashed" in error.value.hint


def test_a_slash_in_a_name_is_that_of_the_paper(weights: Path, pretrained: Path) -> None:
    with pytest.raises(ModelError, match="ViT-B-32/openai are not on this machine"):
        load_encoder("open_clip:ViT-B/32/openai", Access(fetch=False))


def test_wrong_files_are_sentences(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    torch.save({"a": torch.zeros(2)}, tmp_path / "other.pt")
    for name, message in (
        ("nothing.pt", "There is no file"),
        ("text.pt", "does not have the weights of open_clip:tiny-clip"),
        ("other.pt", "does not have the weights of open_clip:tiny-clip"),
    ):
        with pytest.raises(ModelError, match=message) as error:
            load_encoder(f"open_clip:{NAME}@{tmp_path / name}")
        assert error.value.hint and "\n" not in error.value.message


def folder_of(weights: Path, folder: Path, **changes: Any) -> Path:
    """A folder as of a repository of the hub."""
    folder.mkdir()
    own = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize_mode": "longest"}
    config = {"model_cfg": {**CONFIG, **changes}, "preprocess_cfg": {**own, "fill_color": 7}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.save(torch.load(weights, weights_only=True), folder / "open_clip_pytorch_model.bin")
    return folder


def test_a_folder_of_the_hub_brings_its_own_preprocessing(weights: Path, tmp_path: Path) -> None:
    folder = folder_of(weights, tmp_path / "repository")
    encoder = load_encoder(f"open_clip:{NAME}@{folder}")
    own = Preprocessing(32, "bicubic", fit="contain", resize=32, fill=(7, 7, 7))
    assert encoder.preprocessing == own and encoder.model == f"open_clip:{NAME}@{folder}"
    file = load_encoder(f"open_clip:{NAME}@{weights}")
    assert np.array_equal(encoder.encode_text(TEXTS), file.encode_text(TEXTS))
    assert encoder.fingerprint != file.fingerprint
    with pytest.raises(ModelError, match="it has 16 dims, not 512"):
        load_encoder(f"open_clip:ViT-B-32@{folder}")
    with pytest.raises(ModelError, match="is a folder") as error:
        load_encoder(f"open_clip:{NAME}/made@{folder}")
    assert error.value.hint == f"Name it without made: open_clip:{NAME}@{folder}"


def test_open_clip_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    with pytest.raises(ModelError, match="open_clip is not installed") as error:
        load_encoder("open_clip:ViT-B-32/openai")
    assert error.value.hint == 'pip install "mrl-search[models]"'


def test_a_text_model_of_another_library(monkeypatch: pytest.MonkeyPatch, library: Any) -> None:
    """Nothing is downloaded for a model that cannot be opened then."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(library, "download_pretrained", pytest.fail)
    with pytest.raises(ModelError, match="roberta-ViT-B-32/laion2b_s12b_b32k needs the library"):
        load_encoder("open_clip:roberta-ViT-B-32/laion2b_s12b_b32k")


def test_a_size_that_only_the_network_knows(
    weights: Path, pretrained: Path, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise OSError("offline mode is enabled")

    monkeypatch.setattr(library, "create_model", unknown)
    offers: list[Offer] = []
    with pytest.raises(ModelError):
        load_encoder(f"open_clip:{NAME}/made", Access(ask=lambda o: bool(offers.append(o))))
    assert offers[0].nbytes == 0 and "size unknown" in str(offers[0])


def test_a_tokenizer_of_another_library(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = {**CONFIG["text_cfg"], "hf_tokenizer_name": "nobody/words"}
    folder = folder_of(weights, tmp_path / "repository", text_cfg=text)
    encoder = load_encoder(f"open_clip:{NAME}@{folder}", Access(fetch=False))
    assert encoder.encode(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 16)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModelError, match="needs the library transformers") as error:
        encoder.encode_text(TEXTS)
    assert error.value.hint == "pip install transformers"


def test_no_tokenizer_is_fetched_for_a_name_in_an_index(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from huggingface_hub import constants

    offline: list[bool] = []

    def from_pretrained(source: object, **_: object) -> None:
        offline.append(constants.is_offline_mode())
        raise OSError("there is no tokenizer.json")

    stub = SimpleNamespace(AutoTokenizer=SimpleNamespace(from_pretrained=from_pretrained))
    monkeypatch.setitem(sys.modules, "transformers", stub)
    text = {**CONFIG["text_cfg"], "hf_tokenizer_name": "nobody/words"}
    folder = folder_of(weights, tmp_path / "repository", text_cfg=text)
    for fetch in (False, True):
        encoder = load_encoder(f"open_clip:{NAME}@{folder}", Access(fetch=fetch))
        with pytest.raises(ModelError, match="there is no tokenizer") as error:
            encoder.encode_text(TEXTS)
        assert f"--model {encoder.model}" in error.value.hint
    assert offline == [True, False] and not constants.is_offline_mode()
