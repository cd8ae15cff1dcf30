"""Which encoders there are: on this machine, and in the libraries."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mrl_search.encoders.base import Access, Encoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.encoders.weights import import_library, unknown_model
from mrl_search.errors import ModelError

__all__ = ["DESCRIBED", "Entry", "Library", "libraries", "library_models", "local_models"]

EXTRAS = {  # by library: the module that it is, and the extra that installs it
    "torchvision": ("torchvision", ""), "timm": ("timm", "models"),
    "open_clip": ("open_clip", "models"), "onnx": ("onnxruntime", "onnx"),
}  # fmt: skip
DESCRIBED = 50  # models of a library that are described at once, at about .3 seconds each
BATCH, BATCHES = 16, 3  # pictures that a speed is measured with


@dataclass(frozen=True, slots=True)
class Entry:
    """An encoder.

    Attributes:
        model: its name for `--model`.
        state: `ready`, or what it needs; empty for a model of a library.
        dims: of its vectors; 0 where unknown.
        megabytes: of its weights, in millions of bytes; 0 where unknown.
        licence: of its weights; empty where unknown.
        speed: pictures a second on this machine; None where it was not measured.
    """

    model: str
    state: str
    dims: int = 0
    megabytes: float = 0.0
    licence: str = ""
    speed: float | None = None


@dataclass(frozen=True, slots=True)
class Library:
    """A library of encoders; `extra` installs it, and `installed` tells whether it is there."""

    name: str
    installed: bool
    extra: str


def local_models(
    runs: Path = Path("runs"), measure: bool = False, device: str = "auto"
) -> Iterator[Entry]:
    """The encoders that need no download: `bundled`, `general` and the run folders in `runs`."""
    folders = sorted(str(path.parent) for path in runs.glob("*/model.json"))
    for model in ("bundled", "general", *folders):
        try:
            encoder = load_encoder(model, Access(fetch=False, device=device))
        except ModelError as error:
            yield Entry(model, error.hint if model == "general" else error.message)
            continue
        network: Any = getattr(encoder, "network", None)
        size = sum(p.nbytes for p in network.state_dict().values()) / 1e6 if network else 0.0
        licence = {"bundled": "MIT", "general": "Apache-2.0"}.get(model, "yours")
        speed = _speed(encoder) if measure else None
        yield Entry(model, "ready", encoder.dims[-1], size, licence, speed)


def _speed(encoder: Encoder) -> float:
    size = encoder.preprocessing.size
    pictures = np.zeros((BATCH, size, size, 3), np.uint8)
    encoder.encode(pictures)
    start = time.perf_counter()
    for _ in range(BATCHES):
        encoder.encode(pictures)
    return BATCH * BATCHES / (time.perf_counter() - start)


def libraries() -> list[Library]:
    """The libraries whose models `load_encoder` opens."""
    return [
        Library(name, find_spec(module) is not None, extra)
        for name, (module, extra) in EXTRAS.items()
    ]


def library_models(library: str, pattern: str = "*") -> list[Entry]:
    """The models of a library that have weights, as `--model` takes them, by a glob pattern.

    Up to `DESCRIBED` models have their dims, size and licence, where the library tells them without
    weights.

    Raises:
        ModelError: there is no such library, it is not installed, it has no list, or nothing fits.
    """
    if library not in EXTRAS or library == "onnx":
        known = ", ".join(name for name in EXTRAS if name != "onnx")
        raise ModelError(f"There is no list of models of {library!r}.", f"There are {known}.")
    module = import_library(*EXTRAS[library])
    names: list[str]
    if library == "open_clip":
        names = ["/".join(pair) for pair in module.list_pretrained()]
    elif library == "timm":
        names = module.list_pretrained()
    else:
        names = module.models.list_models(module=module.models)
    found = [name for name in names if fnmatch(name, pattern) or fnmatch(_base(name), pattern)]
    if not found:
        raise unknown_model(library, pattern.strip("*"), names, names[0])
    if len(found) > DESCRIBED:
        return [Entry(f"{library}:{name}", "") for name in found]
    described = import_module(f"mrl_search.encoders.{library}").described
    entries = []
    for name in found:
        dims, nbytes, licence = described(name)
        entries.append(Entry(f"{library}:{name}", "", dims, nbytes / 1e6, licence))
    return entries


def _base(name: str) -> str:
    """A name without the part that says how its weights were trained."""
    return name.partition(".")[0].partition("/")[0]
