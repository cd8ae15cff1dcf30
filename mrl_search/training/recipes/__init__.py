"""Recipes: the TOML files beside this one, and any other, read as a `TrainConfig`."""

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from mrl_search.errors import ConfigError
from mrl_search.mapping import from_mapping
from mrl_search.training.config import TrainConfig

__all__ = ["load_recipe", "recipe_names"]


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(
        f.name.removesuffix(".toml")
        for f in resources.files(__name__).iterdir()
        if f.name.endswith(".toml")
    )


def load_recipe(
    name: str, overrides: Sequence[str] = (), width: int | None = None, size: int | None = None
) -> TrainConfig:
    """Read a recipe by its name or as a TOML file.

    Args:
        name: of a recipe that comes with the package, or of a file.
        overrides: `section.key=value` (TOML syntax), to replace single values.
        width: channels of the network's first stage; the others follow in proportion, to the nearest multiple of 8.
        size: side of the pictures in pixels, in all epochs and of those that the model embeds; `overrides` may say otherwise.

    Raises:
        ConfigError: unknown recipe, file that is not TOML, or a key or value that no recipe has.
    """
    names = recipe_names()
    if name in names:
        text, origin = (
            resources.files(__name__).joinpath(f"{name}.toml").read_bytes(),
            f"recipe {name}",
        )
    elif Path(name).is_file():
        text, origin = Path(name).read_bytes(), name
    else:
        raise ConfigError(
            f"There is no recipe {name!r}.", f"Recipes: {', '.join(names)}; or name a TOML file."
        )
    try:
        values: dict[str, Any] = tomllib.loads(text.decode())
    except ValueError as error:
        raise ConfigError(f"{origin} is not TOML: {error}.") from error
    if size is not None:
        values.setdefault("schedule", {}).update(sizes={"0": size}, embed_size=0)
    for override in overrides:
        key, equals, value = override.partition("=")
        try:
            parsed = tomllib.loads(f"v = {value}")["v"] if equals else None
        except tomllib.TOMLDecodeError:
            parsed = value
        if parsed is None:
            raise ConfigError(
                f"{override!r} is not KEY=VALUE.", "For example --set schedule.epochs=30."
            )
        *sections, last = key.strip().split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{origin}: {section} is a value, it has no {last}.")
        table[last] = parsed
    config = from_mapping(TrainConfig, values, origin)
    if width is None:
        return config
    widths = tuple(8 * round(w * width / config.model.widths[0] / 8) for w in config.model.widths)
    return replace(config, model=replace(config.model, widths=widths))
