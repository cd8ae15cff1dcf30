"""Open an encoder by its name: bundled, trained by `mrl-search train`, or of a library."""

from importlib import resources
from pathlib import Path

import xxhash

from mrl_search.encoders.base import Encoder, LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.network_encoder import NetworkEncoder
from mrl_search.encoders.torchvision import torchvision_encoder
from mrl_search.errors import ModelError
from mrl_search.files import expanded

__all__ = ["load_encoder"]

LIBRARIES = {"torchvision": torchvision_encoder}  # `NAME:MODEL` calls it with MODEL
# Weights that were bundled before fingerprints covered `mirror`, and that mirror: their
# fingerprint stays as indexes have it.
MIRRORED = {"a67411b6b0faee3c2f828c5a78b2c00a"}


def load_encoder(model: str = "bundled", *, fetch: bool = True) -> Encoder:
    """Open an encoder: `bundled`, a run folder, or `torchvision:NAME`.

    Args:
        model: its name.
        fetch: whether weights may be downloaded. A name that only stands in an index is data, so
            it starts no download.

    Raises:
        ModelError: there is no such model, or it cannot be opened.
    """
    if model == "bundled":
        return _run_encoder(model, Path(str(resources.files("mrl_search.encoders"))) / model)
    library, colon, name = model.partition(":")
    if colon and library in LIBRARIES:
        return LIBRARIES[library](name, fetch)
    folder = expanded(model)
    if not folder.exists():
        names = ", ".join(f"{name}:MODEL" for name in LIBRARIES)
        hint = f"Use bundled, a run folder of mrl-search train, or {names}."
        raise ModelError(f"There is no model {model!r}.", hint)
    return _run_encoder(str(folder.resolve()), folder)


def _run_encoder(model: str, folder: Path) -> NetworkEncoder:
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
    )
