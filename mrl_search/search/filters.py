"""Filters: which rows may be answers, by conditions on columns or by a list of ids."""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.engines.base import Mask
from mrl_search.errors import ConfigError, DataError, require
from mrl_search.files import reading
from mrl_search.store.items import Items, numbers, scalar
from mrl_search.store.rows import Ids

__all__ = ["mask_of", "read_ids"]

CONDITION = re.compile(r"([^=!<>]+)(==|!=|<=|>=|=|<|>)(.*)", re.DOTALL)
SIGN = re.compile("==|!=|<=|>=|=|<|>")
COMPOSED = ("label", "folder")  # in Unicode's composed form
INT64 = np.iinfo(np.int64)
ZONE = re.compile(r":.*(Z|[+-]\d\d:?(\d\d)?)$")  # after a time of day
COMPARE = {  # functions of pyarrow.compute
    "=": "equal", "==": "equal", "!=": "not_equal", "<": "less", "<=": "less_equal",
    ">": "greater", ">=": "greater_equal",
}  # fmt: skip
PERIOD = re.compile(r"\d{4}(-\d\d){0,2}")  # a year, a month or a day
TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # of a second
KINDS = (
    "Compare text, numbers, true or false, dates (2024, 2024-01 or 2024-01-31), times "
    "(2024-01-31T12:00:00)."
)


def mask_of(
    items: Items, where: Sequence[str] = (), ids: Ids | Sequence[int] | None = None,
    alive: Mask | None = None,
) -> Mask | None:  # fmt: skip
    """The rows of `items` that meet every condition and are among `ids`; `alive` without either.

    Args:
        items: the items of a corpus.
        where: conditions COLUMN=VALUE, with =, !=, <, <=, > or >=. A null meets none. A time is
            compared with a whole year, month or day: `taken>2024-05` from June on. In text, `*`
            stands for any text: `path=*/old/*`.
        ids: of items, in any order.
        alive: the rows that are not deleted; default: all.

    Raises:
        ConfigError: not a condition, an unknown column, or a value of another type.
        DataError: ids that the corpus does not have, or no row is left.
    """
    if not where and ids is None:
        return alive
    if ids is not None:
        ids = np.asarray(ids)
        whole = ids.ndim == 1 and (ids.dtype.kind in "iu" or not len(ids))
        require(whole, "Ids must be a list of whole numbers.")
    allowed = np.ones(items.num_rows, dtype=bool) if alive is None else alive.allowed.copy()
    for condition in where:
        allowed &= _meets(items, condition)
    if ids is not None:
        known = items.all_ids
        present = known if alive is None else known[alive.allowed]
        outside = ids[~np.isin(ids, present)]
        if len(outside):
            hint = f"Ids go from {present.min():,} to {present.max():,}." if len(present) else ""
            raise DataError(f"There is no item {outside[0]}.", hint)
        allowed &= np.isin(known, ids)
    if not allowed.any():
        conditions = [*where, *(["the listed ids"] if ids is not None else [])]
        hint = "mrl-search info shows labels and columns."
        raise DataError(f"No item of this index meets {' and '.join(conditions)}.", hint)
    return Mask(allowed, tuple(where) if ids is None else None)


def _meets(items: Items, condition: str) -> NDArray[np.bool_]:
    import pyarrow.compute as pc  # slow, and a query without conditions does not need it

    match = CONDITION.fullmatch(condition)
    if match is None:
        hint = "For example label=cat, width>=200, or label!=dog."
        raise ConfigError(f"{condition!r} is not a condition.", hint)
    name, sign, text = _split(condition, match, items.column_names)
    if name not in items.column_names:
        hint = f"They have: {', '.join(items.column_names)}."
        raise ConfigError(f"Items have no column {name!r}.", hint)
    column = items[name]
    moment = pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)
    try:
        if moment and PERIOD.fullmatch(text.strip()):
            met = _in_period(column, sign, text.strip())
        elif _is_text(column.type) and "*" in text and sign in ("=", "==", "!="):
            pattern = ".*".join(map(re.escape, text.split("*")))
            met = pc.match_substring_regex(column, rf"(?s)\A{pattern}\z")
            met = pc.invert(met) if sign == "!=" else met
        else:
            column, value = _comparable(column, text)
            met = getattr(pc, COMPARE[sign])(column, value)
        if pa.types.is_floating(column.type):
            met = pc.and_(met, pc.invert(pc.is_nan(column)))
    except (ValueError, pa.ArrowNotImplementedError) as error:  # that of Arrow is one, too
        message = f"{condition!r}: column {name!r} is {items[name].type}; {text!r} is not."
        raise ConfigError(message, KINDS) from error
    return numbers(pc.and_kleene(met, met.is_valid()).cast(pa.uint8())).astype(bool)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _in_period(column: pa.ChunkedArray, sign: str, text: str) -> pa.ChunkedArray:
    """Which times are before, in or after a year, month or day, in the zone of the column.

    Raises:
        ValueError: there is no such month or day.
    """
    import pyarrow.compute as pc

    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    elif column.type.tz:
        column = pc.local_timestamp(column)
    ticks, second = column.cast(pa.int64()), TICKS[column.type.unit]

    def reached(end: np.datetime64) -> pa.ChunkedArray:
        tick = int(end.astype("datetime64[s]").astype(int)) * second  # of any year
        least = np.array([max(min(tick, INT64.max), INT64.min)])
        return pc.greater_equal(ticks, scalar(pa.int64(), least))

    period = np.datetime64(text)
    begun, over = reached(period), reached(period + 1)
    if sign in ("<", ">="):
        return begun if sign == ">=" else pc.invert(begun)
    if sign in ("<=", ">"):
        return over if sign == ">" else pc.invert(over)
    inside = pc.and_not(begun, over)
    return pc.invert(inside) if sign == "!=" else inside


def _split(condition: str, match: re.Match[str], columns: Sequence[str]) -> tuple[str, str, str]:
    """Column, sign and value; a column may have a sign in its name.

    `label=cat ` compares with the text as it stands; `label = cat` without the spaces.
    """
    for name in sorted(columns, key=len, reverse=True):
        sign = SIGN.match(condition, len(name))
        if sign and condition.startswith(name):
            text = condition[sign.end() :]
            return name, sign[0], unicodedata.normalize("NFC", text) if name in COMPOSED else text
    name, sign_text, text = (part.strip() for part in match.groups())
    return name, sign_text, unicodedata.normalize("NFC", text) if name in COMPOSED else text


def _comparable(column: pa.ChunkedArray, text: str) -> tuple[pa.ChunkedArray, pa.Scalar]:
    """A column and the value of `text`, in a type that Arrow compares."""
    kind = column.type
    data = (text if _is_text(kind) else text.strip()).encode()
    value = scalar(pa.string(), np.array([0, len(data)], np.int32), data)
    if pa.types.is_integer(kind):  # the number may be beyond the column's type
        return column.cast(pa.decimal128(20)), value.cast(pa.decimal128(38))
    if pa.types.is_float16(kind):
        return column.cast(pa.float32()), value.cast(kind).cast(pa.float32())
    if pa.types.is_timestamp(kind) and kind.tz and not ZONE.search(text):
        import pyarrow.compute as pc

        return column, pc.assume_timezone(value.cast(pa.timestamp(kind.unit)), kind.tz)
    return column, value.cast(kind)


def read_ids(path: Path) -> NDArray[np.int64]:
    """Read ids (n,) int64: a text file with one a line, or a .npy file of integers."""
    hint = "Give one id a line, or a .npy file of integers."
    try:
        with reading(path):
            if path.suffix == ".npy":
                ids = open_array(path)
            else:
                ids = np.array([int(line) for line in path.read_text().split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path} is not a list of ids: {error}.", hint) from error
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise DataError(f"{path} holds {ids.dtype} of shape {ids.shape}, not a list of ids.", hint)
    return ids.astype(np.int64)
