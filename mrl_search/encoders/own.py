"""Encoders of this project: the bundled model, and run folders of `mrl-search train`."""

from importlib import resources
from pathlib import Path

import xxhash

from mrl_search.encoders.base import LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.network_encoder import NetworkEncoder

__all__ = ["bundled_encoder", "run_encoder"]

# Weights that were bundled before fingerprints covered `mirror`, and that mirror: their
# fingerprint stays as indexes have it.
MIRRORED = {"a67411b6b0faee3c2f828c5a78b2c00a"}


def bundled_encoder() -> NetworkEncoder:
    """The model that comes with the package."""
    return run_encoder("bundled", Path(str(resources.files("mrl_search.encoders"))) / "bundled")


def run_encoder(model: str, folder: Path) -> NetworkEncoder:
    """The model in `folder`, which `model` opens again.

    Raises:
        ModelError: its files are missing, damaged, or newer than this software.
    """
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
