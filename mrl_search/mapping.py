"""Dataclasses as TOML and JSON values and back, with every key and type checked."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from mrl_search.errors import ConfigError

__all__ = ["from_mapping", "to_mapping", "to_toml"]

T = TypeVar("T")


def from_mapping(kind: type[T], values: Mapping[str, Any], origin: str) -> T:
    """Build the dataclass `kind` from plain values.

    Args:
        kind: a dataclass.
        values: as TOML and JSON give them.
        origin: their place, for errors.

    Raises:
        ConfigError: an unknown key, or a value of another type.
    """
    hints = typing.get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{origin}: unknown key {unknown[0]!r}.", f"Known: {', '.join(hints)}.")
    checked = {key: _coerce(hints[key], v, f"{origin}: {key}") for key, v in values.items()}
    return kind(**checked)


def _coerce(hint: Any, value: Any, origin: str) -> Any:  # noqa: ANN401 - a value of any TOML type
    if typing.get_origin(hint) is types.UnionType:  # of a kind and None
        return None if value is None else _coerce(typing.get_args(hint)[0], value, origin)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if isinstance(value, Mapping):
            return from_mapping(hint, value, origin)
    elif typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if isinstance(value, list | tuple) and (kinds[-1] is ... or len(kinds) == len(value)):
            each = [kinds[0]] * len(value) if kinds[-1] is ... else kinds
            return tuple(_coerce(k, v, origin) for k, v in zip(each, value, strict=True))
    elif isinstance(typing.get_origin(hint), type) and issubclass(typing.get_origin(hint), Mapping):
        if isinstance(value, Mapping):
            return {str(k): _coerce(typing.get_args(hint)[1], v, origin) for k, v in value.items()}
    elif hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    elif isinstance(value, hint) and isinstance(value, bool) == (hint is bool):
        return value
    raise ConfigError(f"{origin} is {value!r}; it must be {getattr(hint, '__name__', hint)}.")


def to_mapping(value: Any) -> Any:  # noqa: ANN401 - any of the values above
    """A dataclass as plain values that `from_mapping` reads back."""
    return json.loads(json.dumps(dataclasses.asdict(value)))


def to_toml(config: Any) -> str:  # noqa: ANN401 - any of the values above
    """A dataclass of sections as the text of a TOML file; keys that are None are left out."""
    values = {k: v for k, v in to_mapping(config).items() if v is not None}
    lines = [f"{k} = {_inline(v)}" for k, v in values.items() if not isinstance(v, dict)]
    for section, table in values.items():
        if isinstance(table, dict):
            lines += ["", f"[{section}]", *(f"{key} = {_inline(v)}" for key, v in table.items())]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:  # noqa: ANN401 - any plain value
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_inline(key)} = {_inline(v)}" for key, v in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    text = json.dumps(value, ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")  # TOML knows no bare DEL
