"""Open an encoder by its name: bundled, trained by `mrl-search train`, or of a library."""

from importlib import import_module, resources
from pathlib import Path

import xxhash

from mrl_search.encoders import general
from mrl_search.encoders.base import Access, Encoder, LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.errors import ModelError
from mrl_search.files import expanded

__all__ = ["default_model", "load_encoder"]

# `NAME:MODEL` calls `open_encoder(MODEL, access)` of the module NAME.
LIBRARIES = ("torchvision", "timm", "open_clip")
# Weights that were bundled before fingerprints covered `mirror`, and that mirror: their
# fingerprint stays as indexes have it.
MIRRORED = {"a67411b6b0faee3c2f828c5a78b2c00a"}


def default_model() -> str:
    """The model that embeds pictures where none is named: `general` where it is installed."""
    return "general" if general.installed() else "bundled"


def load_encoder(model: str = "bundled", access: Access | None = None) -> Encoder:
    """Open an encoder: `bundled`, `general`, a run folder, or the model of a library.

    Those are `timm:NAME`, `torchvision:NAME` and `open_clip:NAME/PRETRAINED`. Their names may end
    in `@FILE`, a file of weights.

    Args:
        model: its name.
        access: what opening it may do: download weights, and on which device it runs.

    Raises:
        ModelError: there is no such model, or it cannot be opened.
    """
    access = access or Access()
    if model == "general":
        return general.open_encoder(access)
    if model == "bundled":
        return _run_encoder(
            model, access, Path(str(resources.files("mrl_search.encoders"))) / model
        )
    library, colon, name = model.partition(":")
    if colon and library in LIBRARIES:
        module = import_module(f"mrl_search.encoders.{library}")
        encoder: Encoder = module.open_encoder(name, access)
        return encoder
    folder = expanded(model)
    if not folder.exists():
        names = ", ".join(f"{name}:MODEL" for name in LIBRARIES)
        hint = f"Use bundled, general, a run folder of mrl-search train, or {names}."
        raise ModelError(f"There is no model {model!r}.", hint)
    return _run_encoder(str(folder.resolve()), access, folder)


def _run_encoder(model: str, access: Access, folder: Path) -> NetworkEncoder:
    """The model in `folder`, which `model` opens again."""
    file = load_model(folder)
    preprocessing = Preprocessing(file.size, mirror=file.config.mirror)
    implied = Preprocessing(file.size, mirror=file.fingerprint in MIRRORED)
    weights = xxhash.xxh3_128_hexdigest(f"{file.fingerprint} {file.size}".encode())
    heads = {
        dims: (weight.numpy().copy(), bias.numpy().copy())
        for dims in file.network.heads.dims
        for weight, bias in [file.network.heads.weights(dims)]
    }
    return NetworkEncoder(
        model,
        file.name,
        fingerprint(weights, preprocessing, implied),
        file.config.dims,
        preprocessing,
        file.network.backbone,
        LinearHeads(file.classes, heads, unit=file.config.heads == "cosine"),
        file.training,
        access.device,
    )
