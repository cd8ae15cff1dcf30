"""Values as TOML and JSON and back: text with bounds, dataclasses with every key and type checked.

Text may come from anybody: its size, its depth and its numbers are bounded.
"""

import dataclasses
import functools
import json
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.files import read_bytes

__all__ = [
    "from_mapping", "parse_json", "parse_toml", "read_json", "read_toml",
    "to_mapping", "to_toml",
]  # fmt: skip

T = TypeVar("T")
LARGEST, LARGEST_TOML = 64 << 20, 1 << 20  # bytes of a file
DEEPEST = 32  # lists and objects in one another
BITS = 64  # of a signed whole number
_hints_of = functools.cache(typing.get_type_hints)


def read_json(path: Path, kind: type[MrlSearchError] = DataError, hint: str = "") -> Any:  # noqa: ANN401 - any JSON value
    """Read a JSON file of at most 64 MB.

    Raises:
        FileError: the system does not read it.
        MrlSearchError: of this `kind`, with this `hint`, for content that `parse_json` refuses.
    """
    try:
        return parse_json(read_bytes(path, LARGEST), str(path))
    except DataError as error:
        raise kind(error.message, hint) from error


def parse_json(text: str | bytes, origin: str) -> Any:  # noqa: ANN401 - any JSON value
    """The value of a JSON text; `origin` is its place, for errors.

    Raises:
        DataError: it is not JSON, is nested too deep, or has whole numbers beyond 64 bits.
    """
    return _parsed(json.loads, text, f"{origin} cannot be read as JSON", DataError)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most 1 MB; errors as `read_json` and `parse_toml`."""
    try:
        return parse_toml(read_bytes(path, LARGEST_TOML), str(path))
    except DataError as error:
        raise ConfigError(error.message) from error


def parse_toml(text: bytes, origin: str) -> dict[str, Any]:
    """The values of a TOML text, with the bounds of `parse_json`.

    Raises:
        ConfigError: it is not TOML, or beyond these bounds.
    """
    message = f"{origin} cannot be read as TOML"
    parsed: dict[str, Any] = _parsed(
        lambda t: tomllib.loads(t.decode()), text, message, ConfigError
    )
    return parsed


def _parsed(
    parse: Callable[[Any], Any], text: str | bytes, message: str, kind: type[MrlSearchError]
) -> Any:  # noqa: ANN401 - any plain value
    try:
        value = parse(text)
        level, depth = [value], 0
        while level:
            if (depth := depth + 1) > DEEPEST:
                raise RecursionError
            if any(isinstance(v, int) and v.bit_length() >= BITS for v in level):
                raise ValueError(f"a whole number has more than {BITS} bits")
            lists = [v for v in level if isinstance(v, list)]
            lists += [list(v.values()) for v in level if isinstance(v, dict)]
            level = [child for values in lists for child in values]
        return value
    except RecursionError as error:
        reason = f"its values are nested more than {DEEPEST} deep"
        raise kind(f"{message}: {reason}.") from error
    except ValueError as error:
        reason = str(error)
        if reason.startswith("Exceeds the limit"):  # of Python itself: thousands of digits
            reason = f"a whole number has more than {BITS} bits"
        raise kind(f"{message}: {reason}.") from error


def from_mapping(kind: type[T], values: Mapping[str, Any], origin: str) -> T:
    """Build the dataclass `kind` from values as TOML and JSON give them at `origin`.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of another type.
    """
    hints = _hints_of(kind)  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{origin}: unknown key {unknown[0]!r}.", f"Known: {', '.join(hints)}.")
    checked = {key: _coerce(hints[key], v, f"{origin}: {key}") for key, v in values.items()}
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if (
            field.default is field.default_factory is dataclasses.MISSING
            and field.name not in values
        ):
            raise ConfigError(f"{origin}: key {field.name!r} is missing.")
    return kind(**checked)


def _coerce(hint: Any, value: Any, origin: str) -> Any:  # noqa: ANN401 - a value of any TOML type
    if hint is Any:
        return value
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
