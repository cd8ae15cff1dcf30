"""ONNX pairs of pictures and words."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import assert_error, lines, ok, run, write_pictures
from onnx import TensorProto, helper, numpy_helper
from tiny_clip import NAME, weights

from mrl_search.encoders.base import TextEncoder
from mrl_search.encoders.export import export_encoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.weights import import_library
from mrl_search.encoders.zero_shot import zero_shot
from mrl_search.errors import ModelError
from mrl_search.index import Index
from mrl_search.vectors import l2_normalize

__all__ = ["weights"]  # a fixture
TEXTS = ["a red dog", "Ein Straßenfest, 2024!", "", "word " * 200]


def save(file: Path, nodes: list, inputs: list, output: tuple[str, list], constants: dict) -> Path:
    """A graph of these nodes."""
    made = helper.make_graph(
        nodes, "words",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    file.write_bytes(model.SerializeToString())
    return file


def words_graph(
    file: Path, length: object = 16, kind: int = TensorProto.INT64, mask: bool = False, dim: int = 3
) -> Path:
    """The embedding of a text is the sum of the rows of a table at its tokens."""
    table = np.random.default_rng(0).standard_normal((49408, dim)).astype(np.float32)
    inputs = [("input_ids", kind, ["n", length])]
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["rows"])]
    if mask:
        inputs.append(("attention_mask", kind, ["n", length]))
        nodes += [
            helper.make_node("Cast", ["attention_mask"], ["m"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["m", "last"], ["m3"]),
            helper.make_node("Mul", ["rows", "m3"], ["used"]),
        ]
    used = "used" if mask else "rows"
    nodes.append(helper.make_node("ReduceSum", [used, "axis"], ["vector"], keepdims=0))
    constants = {"table": table, "axis": np.array([1]), "last": np.array([-1])}
    return save(file, nodes, inputs, ("vector", ["n", dim]), constants)


def means_graph(file: Path, shape: tuple = ("n", 3, 8, 8)) -> Path:
    """The embedding of a picture is the mean of its channels."""
    nodes = [helper.make_node("ReduceMean", ["x", "axes"], ["m"], keepdims=0)]
    inputs = [("x", TensorProto.FLOAT, shape)]
    return save(file, nodes, inputs, ("m", ["n", 3]), {"axes": np.array([2, 3])})


@pytest.fixture(scope="module")
def pair(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, Path]:
    """A tiny model of open_clip, and its two parts as a user would export them."""
    import torch

    folder = tmp_path_factory.mktemp("pair")
    clip: Any = load_encoder(f"open_clip:{NAME}@{weights}")
    export_encoder(clip, folder / "image.onnx")

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.joint = clip.network.joint

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.joint.encode_text(tokens)

    tokens = torch.zeros(2, 16, dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter
        program = torch.onnx.export(
            Words().eval(), (tokens,), dynamo=True, verbose=False,
            dynamic_shapes={"tokens": {0: torch.export.Dim("n")}},
        )  # fmt: skip
    onnx.save(program.model_proto, folder / "text.onnx")
    return clip, folder / "image.onnx", folder / "text.onnx"


def test_a_pair_gives_the_vectors_of_its_model(pair: tuple[Any, Path, Path]) -> None:
    clip, image, text = pair
    encoder: Any = load_encoder(f"onnx:{image}+{text}")
    assert encoder.model == f"onnx:{image}+{text}" and isinstance(encoder, TextEncoder)
    assert not isinstance(load_encoder(f"onnx:{image}"), TextEncoder)
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    np.testing.assert_allclose(encoder.encode(pictures), clip.encode(pictures), atol=1e-4)
    np.testing.assert_allclose(encoder.encode_text(TEXTS), clip.encode_text(TEXTS), atol=1e-4)
    assert encoder.dims == clip.dims and encoder.preprocessing == clip.preprocessing


def test_a_pair_from_end_to_end(pair: tuple[Any, Path, Path], tmp_path: Path) -> None:
    clip, image, text = pair
    write_pictures(tmp_path / "pictures", 4)
    picture, index = tmp_path / "pictures" / "cat" / "cat-0001.png", tmp_path / "index"
    model = f"onnx:{image}+{text}"
    ok("build-index", tmp_path / "pictures", "--out", index, "--model", model, "--axes", "none")
    (line,) = lines(ok("query", "--text", "a red dog", "--index", index, "--json", "-k", "8"))
    opened = Index.open(index)
    corpus = opened.corpus.vectors.rows(np.arange(8), opened.dims[-1]).astype(np.float32)
    scores = np.sort(l2_normalize(corpus) @ l2_normalize(clip.encode_text(["a red dog"]))[0])
    assert [h["score"] for h in line["hits"]] == pytest.approx(scores[::-1], abs=2e-3)
    (line,) = lines(ok("classify", picture, "--labels", "cat,dog", "--index", index, "--json"))
    assert set(line["probabilities"]) == {"cat", "dog"}


def test_the_fingerprint_covers_both_graphs_and_the_tokens(tmp_path: Path) -> None:
    image, text = means_graph(tmp_path / "image.onnx"), words_graph(tmp_path / "text.onnx")
    name = f"onnx:{image}+{text}"
    marks = {load_encoder(f"onnx:{image}").fingerprint, load_encoder(name).fingerprint}
    assert load_encoder(name).fingerprint in marks
    words_graph(tmp_path / "text.onnx", length="length")
    marks.add(load_encoder(name).fingerprint)
    (tmp_path / "text.json").write_text('{"length": 20}')
    marks.add(load_encoder(name).fingerprint)
    assert len(marks) == 4


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
@pytest.mark.parametrize(("length", "tokens"), [(16, 16), ("length", 77)])
def test_tokens_are_those_of_clip(tmp_path: Path, kind: int, length: object, tokens: int) -> None:
    image = means_graph(tmp_path / "image.onnx")
    rows = [
        load_encoder(f"onnx:{image}+{words_graph(tmp_path / f'{m}.onnx', length, kind, m)}")
        .encode_text(TEXTS)  # type: ignore[attr-defined]
        for m in (False, True)
    ]  # fmt: skip
    library: Any = import_library("open_clip", "models")
    ids = library.SimpleTokenizer(context_length=tokens)(TEXTS).numpy()
    table = np.random.default_rng(0).standard_normal((49408, 3)).astype(np.float32)
    np.testing.assert_allclose(rows[0], table[ids].sum(1), atol=1e-3)
    np.testing.assert_allclose(rows[1], (table[ids] * (ids != 0)[:, :, None]).sum(1), atol=1e-3)


def test_a_tokenizer_beside_the_graph_comes_first(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {"[UNK]": 0, "[PAD]": 1, "red": 5, "dog": 7}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.enable_padding(pad_id=1, pad_token="[PAD]")
    made.save(str(tmp_path / "tokenizer.json"))
    image = means_graph(tmp_path / "image.onnx")
    table = np.random.default_rng(0).standard_normal((49408, 3)).astype(np.float32)
    for mask, ids in ((False, [5, 7, 1, 1]), (True, [5, 7])):
        text = words_graph(tmp_path / "text.onnx", 4, mask=mask)
        encoder: Any = load_encoder(f"onnx:{image}+{text}")
        rows = encoder.encode_text(["red dog", "red dog 1 2 3 4"])
        np.testing.assert_allclose(rows[0], table[ids].sum(0), atol=1e-4)
        np.testing.assert_allclose(rows[1], table[[5, 7, 0, 0]].sum(0), atol=1e-4)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"tokenizer.json cannot be opened as a tokenizer"):
        load_encoder(f"onnx:{image}+{text}")


def test_without_the_library_a_tokenizer_is_not_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, text = means_graph(tmp_path / "image.onnx"), words_graph(tmp_path / "text.onnx")
    (tmp_path / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ModelError, match="the library tokenizers is needed") as error:
        load_encoder(f"onnx:{image}+{text}")
    assert error.value.hint == "pip install tokenizers"


def test_a_graph_may_take_texts_themselves(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "LabelEncoder", ["texts"], ["value"], domain="ai.onnx.ml",
            keys_strings=["red", "blue"], values_floats=[1.0, 3.0], default_float=0.0,
        ),
        helper.make_node("Unsqueeze", ["value", "last"], ["column"]),
        helper.make_node("Mul", ["column", "row"], ["vector"]),
    ]  # fmt: skip
    made = helper.make_graph(
        nodes, "texts",
        [helper.make_tensor_value_info("texts", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.array([-1]), "last"),
         numpy_helper.from_array(np.array([[1, 2, 3]], np.float32), "row")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 4)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=10)
    (tmp_path / "text.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "text.json").write_text('{"scale": 2}')
    image = means_graph(tmp_path / "image.onnx")
    encoder: Any = load_encoder(f"onnx:{image}+{tmp_path / 'text.onnx'}")
    assert encoder.encode_text(["red", "blue", "-"]).tolist() == [[1, 2, 3], [3, 6, 9], [0, 0, 0]]
    shares = zero_shot(np.ones((1, 3), np.float32), ["red", "blue"], encoder, "{}")
    assert encoder.logit_scale == 2 and shares[0] == pytest.approx([0.5, 0.5])


def _other_dim(folder: Path) -> None:
    words_graph(folder / "text.onnx", dim=4)


def _pictures_twice(folder: Path) -> None:
    means_graph(folder / "text.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "text.onnx").unlink(), "There is no file {text}"),
        (lambda f: (f / "text.onnx").write_bytes(b"x"), "{text} cannot be opened as an ONNX"),
        (_other_dim, "{text} gives 4 dims"),
        (_pictures_twice, "{text} is no graph of words: its inputs are x tensor(float)"),
        (lambda f: (f / "text.json").write_text('{"size": 3}'), "unknown key 'size'"),
        (lambda f: (f / "text.json").write_text('{"output": "y"}'), "names the output y"),
        (lambda f: (f / "text.json").write_text('{"length": 9}'), "{text} cannot run on these"),
    ],
)
def test_a_pair_that_does_not_fit_says_why(
    change: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    image, text = means_graph(tmp_path / "image.onnx"), words_graph(tmp_path / "text.onnx")
    change(tmp_path)
    with pytest.raises(ModelError) as error:
        load_encoder(f"onnx:{image}+{text}")
    assert message.format(text=text) in error.value.message and error.value.hint


def test_a_name_with_a_plus_is_a_name(tmp_path: Path) -> None:
    file = means_graph(tmp_path / "a.onnx+b.onnx")
    assert load_encoder(f"onnx:{file}").dims == (3,)


def test_a_pair_is_named_where_words_are_not_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 4)
    model = f"onnx:{means_graph(tmp_path / 'image.onnx')}"
    ok("build-index", tmp_path / "pictures", "--out", tmp_path / "i", "--model", model)
    told = run("query", "--text", "red", "--index", tmp_path / "i")
    assert_error(told, "embeds pictures alone")
    assert "onnx:IMAGE.onnx+TEXT.onnx" in told.stderr
    assert json.loads((tmp_path / "i" / "manifest.json").read_text())["model"] == model
