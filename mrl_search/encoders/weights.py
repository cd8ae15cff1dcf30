"""Weights of the libraries: their names, files on this machine, and fingerprints."""

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

import xxhash
from torch import nn

from mrl_search.encoders.torchvision_import import import_torchvision
from mrl_search.errors import ModelError
from mrl_search.files import expanded

__all__ = ["cached_file", "import_library", "name_and_file", "unknown_model", "weights_hash"]


def import_library(name: str, extra: str) -> ModuleType:
    """Import a library that needs torchvision.

    Raises:
        ModelError: it is not installed; names the extra that installs it.
    """
    import_torchvision()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        hint = f'pip install "mrl-search[{extra}]"'
        raise ModelError(f"{name} is not installed.", hint) from error


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
        raise ModelError(f"There is no file {file}.", hint)
    return name, file


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
