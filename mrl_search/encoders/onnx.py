"""Encoders that onnxruntime runs: a graph of the user's, or of `mrl-search export-model`.

Imports no torch. A graph has one input, (n, 3, size, size) floats that are normalised here, or
(n, size, size, 3) uint8 pixels; and an output (n, dim). A pair, IMAGE.onnx+TEXT.onnx, also embeds
words (`onnx_words`).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.encoders.base import Access, LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.graph_file import content_hash, facts_of, is_intact
from mrl_search.encoders.onnx_session import Session, output_of, settings_of
from mrl_search.encoders.onnx_words import WordGraph, open_words
from mrl_search.errors import ConfigError, ModelError, MrlSearchError, first_line
from mrl_search.files import expanded, open_regular
from mrl_search.vectors import default_dims

__all__ = ["OnnxEncoder", "OnnxPair", "Settings", "cached_encoder", "cached_graph", "open_encoder"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
BATCHES = {"cpu": 8, "cuda": 64}  # on the CPU, the maps of a larger batch leave its cache
PAIR = ".onnx+"  # between the graphs of pictures and of words
RAW, FLOATS = "tensor(uint8)", {"tensor(float)": np.float32, "tensor(float16)": np.float16}
EXPORT = "Export it with one input, (n, 3, size, size) normalised float pixels, for any n."


@dataclass(frozen=True, slots=True)
class Settings:
    """FILE.json beside a graph FILE.onnx of the user's. See `Preprocessing`.

    Attributes:
        size: needed where the graph takes any size.
        resize: default: `size`.
        output: the name of the embedding, where the graph has several outputs.
    """

    size: int = 0
    fit: str = "squash"
    resize: int = 0
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    output: str = ""

    def preprocessing(self, size: int) -> Preprocessing:
        """The preprocessing for a graph that takes pictures of `size` pixels."""
        resize = self.resize or (0 if self.fit == "squash" else size)
        return Preprocessing(
            size, self.interpolation, self.mean, self.std, fit=self.fit, resize=resize
        )


@dataclass(eq=False)
class OnnxEncoder:
    """An `Encoder` around a graph.

    Attributes:
        output: the name of the output that is the vector.
    """

    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    session: Session
    output: str
    heads: LinearHeads = field(default_factory=LinearHeads)
    training: Mapping[str, Any] = field(default_factory=dict)
    axes: str = "pca"
    device: Any = field(init=False)

    def __post_init__(self) -> None:
        self.device = self.session.devices[0]

    def encode(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        (given,) = self.session.inputs
        fixed = _known(given.shape[0]) if given.shape else None
        step = fixed or BATCHES[self.device]
        parts = []
        for start in range(0, len(pictures), step):
            x: NDArray[Any] = pictures[start : start + step]
            if fixed and len(x) < fixed:  # the graph takes no smaller batch
                x = np.concatenate([x, np.zeros((fixed - len(x), *x.shape[1:]), np.uint8)])
            if given.type != RAW:
                mean, std = np.array([self.preprocessing.mean, self.preprocessing.std], np.float32)
                x = ((x / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
                x = np.ascontiguousarray(x, FLOATS[given.type])
            parts.append(self.session.run({given.name: x}, self.output))
        rows: NDArray[np.float32] = np.concatenate(parts)[: len(pictures)].astype(np.float32)
        return rows


@dataclass(eq=False)
class OnnxPair(OnnxEncoder):
    """An `OnnxEncoder` with a graph of words, so that it is a `TextEncoder`."""

    words: WordGraph = field(kw_only=True)

    def encode_text(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self.words.encode(texts)

    @property
    def logit_scale(self) -> float:
        """What a cosine of picture and text is multiplied by, for a softmax over texts."""
        return self.words.settings.scale


def open_encoder(text: str, access: Access) -> OnnxEncoder:
    """The graph in a file, or the graphs `IMAGE.onnx+TEXT.onnx` of a joint model.

    Raises:
        ModelError: onnxruntime is not installed; there is no such file; it is not an ONNX file; its
            input or output is not as above; or a pair has vectors of different dims.
        ConfigError: a device that onnxruntime does not have here.
    """
    image, plus, words = text.partition(PAIR)
    if not plus or expanded(text).is_file():
        return _open_image(expanded(text).absolute(), access)
    encoder = _open_image(expanded(f"{image}.onnx").absolute(), access)
    graph = open_words(expanded(words).absolute(), access.device)
    if graph.dim != encoder.dims[-1]:
        message = f"{graph.file} gives {graph.dim} dims, {encoder.model} gives {encoder.dims[-1]}."
        raise ModelError(message, "Export both parts of one model.")
    own = {each.name: getattr(encoder, each.name) for each in fields(encoder) if each.init}
    both = xxhash.xxh3_128_hexdigest(f"{encoder.fingerprint} {graph.mark}".encode())
    own |= {"model": f"{encoder.model}+{graph.file}", "fingerprint": both}
    return OnnxPair(**own, words=graph)


def _open_image(file: Path, access: Access) -> OnnxEncoder:
    """The graph of pictures in a file."""
    if not file.is_file():
        raise ModelError(f"There is no file {file}.", "Name an ONNX file: onnx:FILE.onnx")
    session = Session(file, access.device)
    with open_regular(file) as opened:
        data = opened.read()
    found = facts_of(session.metadata, file)
    if found is None:
        return _users(file, content_hash(file, data), session)
    facts, heads, training = found
    mark = facts.fingerprint if is_intact(data) else content_hash(file, data)
    (output,) = session.outputs
    return OnnxEncoder(
        f"onnx:{file}", facts.name, mark, facts.dims, facts.preprocessing, session, output,
        heads, training, facts.axes,
    )  # fmt: skip


def cached_graph(fingerprint: str) -> Path:
    """Where `export-model` puts the graph of a model, and `Index.encoder` looks for it."""
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    cache = named if named.is_absolute() else expanded("~/.cache")
    return cache / "mrl-search" / f"{fingerprint}.onnx"


def cached_encoder(fingerprint: str, access: Access) -> OnnxEncoder | None:
    """The exported graph of the model with this fingerprint, on the CPU.

    None if there is none, it is damaged, onnxruntime is missing, or another device is wanted.
    """
    file = cached_graph(fingerprint)
    if access.device not in ("auto", "cpu") or not file.is_file():
        return None
    try:
        encoder = open_encoder(str(file), replace(access, device="cpu"))
    except MrlSearchError:
        return None
    return encoder if encoder.fingerprint == fingerprint else None


def _users(file: Path, content: str, session: Session) -> OnnxEncoder:
    """A graph of the user's, with the settings in the JSON file beside it."""
    beside = file.with_suffix(".json")
    settings = settings_of(Settings, file)
    size = _input_size(file, session, settings, beside)
    try:
        preprocessing = settings.preprocessing(size)
    except ConfigError as error:
        raise ModelError(
            f"{beside} cannot be used: {error.message}", f"Correct {beside}."
        ) from error
    output = output_of(file, session, settings.output)
    if settings.output:
        content = xxhash.xxh3_128_hexdigest(f"{content} {output}".encode())
    mark = fingerprint(content, preprocessing, Preprocessing(size, mean=MEAN, std=STD))
    encoder = OnnxEncoder(f"onnx:{file}", file.stem, mark, (), preprocessing, session, output)
    try:
        rows = encoder.encode(np.zeros((2, size, size, 3), np.uint8))
    except Exception as error:  # of onnxruntime
        message = (
            f"{file} cannot run on two pictures of {size} x {size} pixels: {first_line(error)}"
        )
        raise ModelError(message, EXPORT) from error
    if rows.ndim != 2 or len(rows) != 2 or not rows.size:
        shape = ", ".join(map(str, rows.shape))
        message = f"The output {output} of {file} is ({shape}) for 2 pictures; it must be (2, dim)."
        raise ModelError(message, "Export the graph with the embedding as its output.")
    encoder.dims = default_dims(rows.shape[1])
    return encoder


def _known(side: object) -> int | None:
    """A side of a shape; None where the graph takes any, which exporters write in several ways."""
    return side if isinstance(side, int) and side > 0 else None


def _input_size(file: Path, session: Session, settings: Settings, beside: Path) -> int:
    """The side of the pictures that the graph takes."""
    inputs = session.inputs
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelError(f"{file} has {len(inputs)} inputs: {names}; it must have one.", EXPORT)
    (given,) = inputs
    shape = tuple(map(_known, given.shape)) or (None,) * 4  # of any number of sides
    channels, sides = (shape[3:], shape[1:3]) if given.type == RAW else (shape[1:2], shape[2:])
    if given.type not in (RAW, *FLOATS) or len(shape) != 4 or channels[0] not in (3, None):
        shown = ", ".join(map(str, given.shape))
        message = f"The input {given.name} of {file} is a {given.type} of shape ({shown})."
        raise ModelError(message, EXPORT)
    known = {side for side in sides if side}
    if len(known) > 1:
        raise ModelError(f"{file} takes {sides[1]} x {sides[0]} pixels; not a square.", EXPORT)
    if not known and not settings.size:
        hint = f'Write the size to use into {beside}: {{"size": 224}}'
        raise ModelError(f"{file} takes pictures of any size.", hint)
    if settings.size and known - {settings.size}:
        message = f"{beside} has size {settings.size}; the graph takes {min(known)}."
        raise ModelError(message, f"Correct {beside}.")
    return settings.size or min(known)
