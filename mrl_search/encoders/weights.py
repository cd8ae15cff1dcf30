"""Weights of the libraries: their names, files on this machine, and fingerprints."""

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import getproxies

import xxhash
from torch import nn

from mrl_search.encoders.base import Access, Offer
from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ModelError, first_line, installed
from mrl_search.files import expanded

__all__ = [
    "cached_file", "downloading", "import_library", "name_and_file", "unknown_model",
    "weights_hash", "wrong_weights",
]  # fmt: skip

SECONDS = 5  # that a host has to answer
LAYER = re.compile(r'"([\w.]+)"|size mismatch for ([\w.]+)')


def import_library(name: str, extra: str) -> ModuleType:
    """Import a library that needs torchvision; see `installed`."""
    import_torchvision()
    return installed(name, extra)


def name_and_file(text: str, library: str) -> tuple[str, Path | None]:
    """`NAME` or `NAME@FILE` as a name and the file of its weights.

    Raises:
        ModelError: there is no such file.
    """
    name, at, place = text.partition("@")
    if not at:
        return name, None
    file = expanded(place).absolute()
    if not file.is_file():
        hint = f"Name a file of weights: {library}:{name}@FILE"
        found = f"{file} is no file." if file.exists() else f"There is no file {file}."
        raise ModelError(found, hint)
    return name, file


def wrong_weights(file: Path, model: str, error: Exception) -> ModelError:
    """The error for a file without the weights of a model, in one sentence."""
    text = str(error)
    layers = [a or b for a, b in LAYER.findall(text)] if "state_dict" in text else []
    if layers:
        reason = f"{len(layers)} of its layers do not fit, such as {layers[0]}"
    elif "weights_only" in text or "ickle" in text:
        reason = "it is no file of weights alone"
    else:
        reason = first_line(error).rstrip(".")
    message = f"{file} does not have the weights of {model}: {reason}."
    return ModelError(message, "Choose the file of this model.")


@contextmanager
def downloading(offer: Offer, access: Access, by_hand: str, there: bool = False) -> Iterator[None]:
    """A block that downloads weights, if it may and their host answers.

    Args:
        offer: the weights; their source is an address, or a repository of the hub.
        access: what is permitted.
        by_hand: what a user can do instead.
        there: they are on this machine already; the block only opens them.

    Raises:
        ModelError: it may not, or it fails.
    """
    hint = f"Connect to the network once, or {by_hand}"
    if not there:
        access.permit(offer)
        _check_reachable(offer, hint)
    try:
        yield
    except Exception as error:  # every layer below has its own
        reason = first_line(error).rstrip(".")
        message = f"The weights of {offer.model} could not be downloaded from {offer.source}"
        raise ModelError(f"{message}: {reason}.", hint) from error


def _check_reachable(offer: Offer, hint: str) -> None:
    """Raise ModelError quickly where a host does not answer: libraries try for a minute."""
    from huggingface_hub import constants  # the hub, or the mirror that the user has

    if getproxies():
        return  # it is asked, not the host
    host = urlsplit(offer.source).netloc or urlsplit(constants.ENDPOINT).netloc
    try:
        socket.create_connection((host, 443), SECONDS).close()
    except OSError as error:
        message = f"The weights of {offer.model} cannot be downloaded: {host} does not answer."
        raise ModelError(message, hint) from error


def unknown_model(library: str, name: str, names: Iterable[str], example: str) -> ModelError:
    """The error for a model that a library does not have, with the nearest names."""
    near = get_close_matches(name, list(names), n=3, cutoff=0.5) or [example]
    hint = "For example " + " or ".join(f"{library}:{each}" for each in near) + "."
    return ModelError(f"{library} has no model {name!r}.", hint)


def cached_file(repo: str, names: Iterable[str]) -> Path | None:
    """A file of a repository in the cache of the hub, by the first of these names that is there."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(repo, name)
        if isinstance(found, str):
            return Path(found)
    return None


def weights_hash(network: nn.Module) -> str:
    """XXH3-128 of the names and values of all weights, in hex."""
    state = xxhash.xxh3_128()
    for key, value in network.state_dict().items():
        state.update(key.encode())
        state.update(value.detach().cpu().contiguous().numpy().tobytes())
    return state.hexdigest()
