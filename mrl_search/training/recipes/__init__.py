"""Recipes: the TOML files in this folder, and any other, read as a `Recipe`."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from mrl_search.encoders.config import WIDTHS, is_pretrained
from mrl_search.errors import ConfigError, require
from mrl_search.mapping import from_mapping, parse_toml, read_toml
from mrl_search.training.config import Recipe, TrainConfig

__all__ = ["load_recipe", "recipe_names"]

STEP_NAME = re.compile(r"[a-z0-9-]+")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    files = resources.files(__name__).iterdir()
    return sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml"))


def load_recipe(
    name: str, overrides: Sequence[str] = (), width: int | None = None, size: int | None = None,
    init: str = "",
) -> Recipe:  # fmt: skip
    """Read a recipe.

    Args:
        name: a recipe of the package, or a TOML file. `NAME:STEP` is one step of it alone.
        overrides: `section.key=value`, in TOML syntax, for all steps. For one step,
            `steps.STEP.section.key=value`, where STEP is its name or its number from 1.
        width: channels of the network's first stage; the other stages follow in proportion.
        size: side of the pictures in pixels, in all epochs and when the model embeds.
        init: what the first step starts from, in place of `init` of the recipe. With `general` or
            `timm:NAME`, all steps get its network.

    Raises:
        ConfigError: unknown recipe or step, a file that is not TOML, or an invalid key or value.
    """
    base, origin, step = _read(name)
    steps: dict[str, dict[str, Any]] = {}
    for number, values in enumerate(base.pop("steps", [{"name": ""}]), 1):
        step_name = values.pop("name", "")
        if (step_name in steps or not STEP_NAME.fullmatch(step_name)) and (step_name or number > 1):
            raise ConfigError(
                f"{origin}: step {number} is named {step_name!r}; each step needs its own name of"
                " lower-case letters, digits and hyphens."
            )
        steps[step_name] = _merged(base, values)
    title = base.get("name", "default")
    if step:
        if step not in steps:
            hint = f"Its steps: {', '.join(filter(None, steps))}."
            raise ConfigError(f"{origin} has no step {step!r}.", hint)
        first = step == next(iter(steps))
        steps = {"": steps[step] | {"name": f"{title}-{step}"}}
        named = init or any(o.partition("=")[0].strip() == "init" for o in overrides)
        if not first and not named:
            hint = "Name its run folder: --set init=RUN."
            raise ConfigError(f"{name} starts from the result of the step before it.", hint)
    given = []
    if size is not None:
        given = [f'schedule.sizes={{ "0" = {size} }}', "schedule.embed_size=0"]
    if init:
        next(iter(steps.values()))["init"] = init
    if is_pretrained(init):
        given += [f"model.backbone={init.partition('@')[0]}", f"model.widths={list(WIDTHS)}"]
    for override in (*given, *overrides):
        _apply(override, steps, origin)
    configs: list[TrainConfig] = []
    for step_name, values in steps.items():
        if step_name:
            title = values.get("name", title)
            values = values | {"name": f"{title}-{step_name}"}
            if configs:
                values["init"] = f"steps/{configs[-1].name}"
        configs.append(from_mapping(TrainConfig, values, origin))
    if width is not None:
        configs = [_widened(config, width) for config in configs]
    return Recipe(title if steps.keys() - {""} else configs[0].name, tuple(configs))


def _read(name: str) -> tuple[dict[str, Any], str, str]:
    """The values of a recipe, its name for messages, and the step that `name` selects or ""."""
    names, step = recipe_names(), ""
    if ":" in name and not Path(name).is_file():
        name, _, step = name.rpartition(":")
    if name in names:
        data = resources.files(__name__).joinpath(f"{name}.toml").read_bytes()
        return parse_toml(data, f"recipe {name}"), f"recipe {name}", step
    if Path(name).is_file():
        return read_toml(Path(name)), name, step
    hint = f"Use a TOML file, or one of {', '.join(names)}."
    raise ConfigError(f"There is no recipe {name!r}.", hint)


def _merged(base: Mapping[str, Any], step: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `base`, with those of a step in their place; sections are merged by key."""
    merged = copy.deepcopy(dict(base))
    for key, value in step.items():
        section = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merged[key] | value if section else value
    return merged


def _apply(override: str, steps: dict[str, dict[str, Any]], origin: str) -> None:
    """Set the value of `KEY=VALUE` in all steps, or in the one that the key names."""
    key, equals, text = override.partition("=")
    if not equals:
        hint = "For example --set schedule.epochs=30."
        raise ConfigError(f"{override!r} is not KEY=VALUE.", hint)
    try:
        value = parse_toml(f"v = {text}".encode(), override)["v"]
    except ConfigError:
        value = text  # a bare word
    *sections, last = key.strip().split(".")
    tables = list(steps.values())
    if sections and sections[0] == "steps":
        names = list(steps)
        step = sections[1] if len(sections) > 1 else last
        if step.isdecimal() and 0 < int(step) <= len(names):
            step = names[int(step) - 1]
        if step not in names or len(sections) < 2:
            hint = f"For example --set steps.{names[-1] or 1}.schedule.epochs=3."
            raise ConfigError(f"{origin} has no step {step!r}.", hint)
        tables, sections = [steps[step]], sections[2:]
    for table in tables:
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{origin}: {section} is a value, not a section with {last!r}.")
        table[last] = value


def _widened(config: TrainConfig, width: int) -> TrainConfig:
    """`config` with a first stage of `width` channels, and the other stages in proportion."""
    backbone = config.model.backbone
    require(not is_pretrained(backbone), f"{backbone} has widths of its own.", "Leave out --width.")
    widths = tuple(8 * round(w * width / config.model.widths[0] / 8) for w in config.model.widths)
    return replace(config, model=replace(config.model, widths=widths))
