"""Encoders of `mrl-search train`: a run folder, or the bundled one."""

from pathlib import Path

import xxhash

from mrl_search.encoders.base import Access, LinearHeads, Preprocessing, fingerprint
from mrl_search.encoders.checkpoint import load_model
from mrl_search.encoders.network_encoder import NetworkEncoder

__all__ = ["open_folder"]

# Weights that were bundled before fingerprints covered `mirror`, and that mirror: their
# fingerprint stays as indexes have it.
MIRRORED = {"a67411b6b0faee3c2f828c5a78b2c00a"}


def open_folder(model: str, folder: Path, access: Access) -> NetworkEncoder:
    """The model in `folder`, which `model` opens again.

    Raises:
        ModelError: it is missing, not finished, damaged or newer.
    """
    file = load_model(folder)
    preprocessing = Preprocessing(file.size, mirror=file.model.mirror)
    implied = Preprocessing(file.size, mirror=file.weights in MIRRORED)
    weights = xxhash.xxh3_128_hexdigest(f"{file.weights} {file.size}".encode())
    heads = {
        dims: (weight.numpy().copy(), bias.numpy().copy())
        for dims in file.network.heads.dims
        for weight, bias in [file.network.heads.weights(dims)]
    }
    return NetworkEncoder(
        model,
        file.name,
        fingerprint(weights, preprocessing, implied),
        file.model.dims,
        preprocessing,
        file.network.backbone,
        LinearHeads(file.classes, heads, unit=file.model.heads == "cosine"),
        file.training,
        access.device,
    )
