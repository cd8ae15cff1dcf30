"""What `mrl-search export-model` writes into an ONNX file beside the graph.

Four `metadata_props`: `mrl_search` (JSON, see `Facts`), `mrl_search_training` (JSON),
`mrl_search_heads` (safetensors as base64) and, last in the file, `mrl_search_checksum`, XXH3-128 of
all bytes before it. While the checksum is right, the graph has the fingerprint of the model that it
was made from.
"""

import base64
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from safetensors.numpy import load, save

from mrl_search.encoders.base import Encoder, LinearHeads, Preprocessing
from mrl_search.errors import ModelError
from mrl_search.mapping import from_mapping, parse_json, to_mapping

__all__ = ["Facts", "checksum_entry", "content_hash", "facts_of", "is_intact", "properties"]

KEY = "mrl_search"
TRAINING, HEADS, CHECKSUM = f"{KEY}_training", f"{KEY}_heads", f"{KEY}_checksum"
FORMAT = 1
# The name of a file of weights: a StringStringEntryProto of this key, and the length of its value.
OUTSIDE = re.compile(rb"\x0a\x08location\x12([\x80-\xff]?[\x01-\x7f])")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a graph says about itself.

    Attributes:
        format: of these facts.
        model: the name that the model was opened by.
        name: a short name for people.
        fingerprint: of the model.
        dims: prefix lengths.
        preprocessing: of pictures; the graph itself applies `mean` and `std`.
        classes: of the heads.
        unit: whether the heads take unit prefixes.
        axes: see `Encoder`.
    """

    format: int
    model: str
    name: str
    fingerprint: str
    dims: tuple[int, ...]
    preprocessing: Preprocessing
    classes: tuple[str, ...] = ()
    unit: bool = False
    axes: str = "none"


def properties(encoder: Encoder) -> dict[str, str]:
    """The metadata of an encoder's graph, without the checksum."""
    heads = encoder.heads
    facts = Facts(
        FORMAT, encoder.model, encoder.name, encoder.fingerprint, encoder.dims,
        encoder.preprocessing, heads.classes, heads.unit,
        encoder.axes,
    )  # fmt: skip
    arrays = {
        f"{kind}.{dims}": np.ascontiguousarray(array)
        for dims, pair in heads.weights.items()
        for kind, array in zip(("weight", "bias"), pair, strict=True)
    }
    return {
        KEY: json.dumps(to_mapping(facts)),
        TRAINING: json.dumps(dict(encoder.training)),
        HEADS: base64.b64encode(save(arrays)).decode(),
    }


def facts_of(
    found: Mapping[str, str], file: Path
) -> tuple[Facts, LinearHeads, dict[str, Any]] | None:
    """The facts, the heads and the training in the metadata of `file`; None if it is not of ours.

    Raises:
        ModelError: they are damaged, or newer than this version.
    """
    if KEY not in found:
        return None
    try:
        values = parse_json(found[KEY], str(file))
        if values["format"] > FORMAT:
            message = f"{file} has format {values['format']}; this version reads up to {FORMAT}."
            raise ModelError(message, "Upgrade mrl-search.")
        facts = from_mapping(Facts, values, str(file))
        arrays = load(base64.b64decode(found[HEADS], validate=True))
        weights = {
            dims: (arrays[f"weight.{dims}"], arrays[f"bias.{dims}"])
            for dims in facts.dims
            if f"weight.{dims}" in arrays
        }
        heads = LinearHeads(facts.classes, weights, facts.unit)
        return facts, heads, parse_json(found[TRAINING], str(file))
    except ModelError:
        raise
    except Exception as error:  # safetensors and base64 have their own
        message = f"The metadata of {file} cannot be read: {error}."
        raise ModelError(message, "Export it again: mrl-search export-model MODEL") from error


def checksum_entry(data: bytes | memoryview) -> bytes:
    """The entry of `metadata_props` that, appended to a graph in bytes, is its checksum."""
    key, value = CHECKSUM.encode(), xxhash.xxh3_128_hexdigest(data).encode()
    entry = bytes([0x0A, len(key)]) + key + bytes([0x12, len(value)]) + value
    return bytes([0x72, len(entry)]) + entry  # field 14 of a ModelProto


def is_intact(data: bytes) -> bool:
    """Whether a file ends with its right checksum."""
    end = len(data) - len(checksum_entry(b""))
    return data[end:] == checksum_entry(memoryview(data)[:end])


def content_hash(file: Path, data: bytes) -> str:
    """XXH3-128 of the bytes of a graph and of the files of weights that it names."""
    state = xxhash.xxh3_128(data)
    names = set()
    for match in OUTSIDE.finditer(data):
        length = sum((byte & 127) << 7 * i for i, byte in enumerate(match[1]))
        names.add(data[match.end() : match.end() + length])
    for name in sorted(names):
        weights = file.parent / os.fsdecode(name)
        if weights.is_file():
            with weights.open("rb") as opened:
                while block := opened.read(1 << 20):
                    state.update(block)
    return state.hexdigest()
