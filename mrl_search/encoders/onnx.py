"""Encoders that onnxruntime runs: a graph of the user's, or of `mrl-search export-model`.

Imports no torch. A graph has one input, (n, 3, size, size) floats that are normalised here, or
(n, size, size, 3) uint8 pixels; and an output (n, dim).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.encoders.base import Access, LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.graph_file import content_hash, facts_of, is_intact
from mrl_search.encoders.onnx_session import Session, first_line
from mrl_search.errors import ConfigError, DataError, ModelError, MrlSearchError
from mrl_search.files import expanded, open_regular
from mrl_search.mapping import from_mapping, read_json
from mrl_search.vectors import default_dims

__all__ = ["OnnxEncoder", "Settings", "cached_encoder", "cached_graph", "open_encoder"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
BATCHES = {"cpu": 8, "cuda": 64}  # on the CPU, the maps of a larger batch leave its cache
RAW, FLOATS = "tensor(uint8)", {"tensor(float)": np.float32, "tensor(float16)": np.float16}
EXPORT = "Export the graph with one input: (n, 3, size, size) normalised float pixels."


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
        fixed = given.shape[0] if isinstance(given.shape[0], int) else None
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
            parts.append(self.session.run(x, self.output))
        rows: NDArray[np.float32] = np.concatenate(parts)[: len(pictures)].astype(np.float32)
        return rows


def open_encoder(text: str, access: Access) -> OnnxEncoder:
    """The graph in a file.

    Raises:
        ModelError: onnxruntime is not installed; there is no such file; it is not an ONNX file; or
            its input or output is not as above.
        ConfigError: a device that onnxruntime does not have here.
    """
    file = expanded(text).absolute()
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
    settings = Settings()
    try:
        if beside.is_file():
            settings = from_mapping(Settings, dict(read_json(beside)), str(beside))
        size = _input_size(file, session, settings, beside)
        preprocessing = settings.preprocessing(size)
    except (ConfigError, DataError, TypeError, ValueError) as error:
        keys = "size, fit, resize, interpolation, mean, std and output"
        raise ModelError(f"{beside} cannot be used: {error}", f"It may have {keys}.") from error
    output = _output(file, session, settings, beside)
    if settings.output:
        content = xxhash.xxh3_128_hexdigest(f"{content} {output}".encode())
    mark = fingerprint(content, preprocessing, Preprocessing(size, mean=MEAN, std=STD))
    encoder = OnnxEncoder(f"onnx:{file}", file.stem, mark, (), preprocessing, session, output)
    try:
        row = encoder.encode(np.zeros((1, size, size, 3), np.uint8))
    except Exception as error:  # of onnxruntime
        message = f"{file} cannot run on {size} x {size} pixels: {first_line(error)}"
        raise ModelError(message, EXPORT) from error
    if row.ndim != 2:
        shape = ", ".join(map(str, row.shape[1:]))
        message = f"The output {output} of {file} is (n, {shape}); it must be (n, dim)."
        raise ModelError(message, "Export the graph with the embedding as its output.")
    encoder.dims = default_dims(row.shape[1])
    return encoder


def _input_size(file: Path, session: Session, settings: Settings, beside: Path) -> int:
    """The side of the pictures that the graph takes."""
    inputs = session.inputs
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise ModelError(f"{file} has {len(inputs)} inputs: {names}; it must have one.", EXPORT)
    (given,) = inputs
    shape = tuple(given.shape)
    channels, sides = (shape[3:], shape[1:3]) if given.type == RAW else (shape[1:2], shape[2:])
    if given.type not in (RAW, *FLOATS) or len(shape) != 4 or channels != (3,):
        shown = ", ".join(map(str, shape))
        message = f"The input {given.name} of {file} is a {given.type} of shape ({shown})."
        raise ModelError(message, EXPORT)
    known = {side for side in sides if isinstance(side, int)}
    if len(known) > 1:
        raise ModelError(f"{file} takes {sides[1]} x {sides[0]} pixels; not a square.", EXPORT)
    if not known and not settings.size:
        hint = f'Write the size to use into {beside}: {{"size": 224}}'
        raise ModelError(f"{file} takes pictures of any size.", hint)
    if settings.size and known - {settings.size}:
        message = f"{beside} has size {settings.size}; the graph takes {min(known)}."
        raise ModelError(message, f"Correct {beside}.")
    return settings.size or min(known)


def _output(file: Path, session: Session, settings: Settings, beside: Path) -> str:
    """The name of the output that is the embedding."""
    names = session.outputs
    if settings.output and settings.output not in names:
        message = f"{beside} names the output {settings.output}; {file} has {', '.join(names)}."
        raise ModelError(message, f"Correct {beside}.")
    if len(names) > 1 and not settings.output:
        message = f"{file} has {len(names)} outputs: {', '.join(names)}."
        hint = f'Name the embedding in {beside}: {{"output": "{names[0]}"}}'
        raise ModelError(message, hint)
    return settings.output or names[0]
