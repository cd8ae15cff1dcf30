"""What the records of a benchmark hold: the type and the range of every value.

A file of records may be damaged or come from anybody, so everything that a report reads from it is
checked first. Keys that are not listed here are passed over.
"""

import base64
import binascii
import math
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError

__all__ = ["ALTERED", "KINDS", "check_record", "check_run", "pack", "unpack"]

ALTERED = "The file was altered; measure again."
MOST = 10_000_000  # queries of a benchmark
LARGE = 10**15  # more than any count or number of bytes here
BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
OTHER_LENGTH = "has another number of queries than the run"

Record: TypeAlias = Mapping[str, Any]


def pack(values: NDArray[np.integer] | NDArray[np.bool_]) -> str:
    """One number from 0 to 255 for each query, (n,), as text: zlib in base64."""
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> NDArray[np.uint8]:
    """The (n,) uint8 that `pack` wrote, of at most 10 million queries.

    Raises:
        DataError: the text was altered.
    """
    try:
        stream = zlib.decompressobj()
        data = stream.decompress(base64.b64decode(text, validate=True), MOST + 1)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DataError(f"The outcomes of a record cannot be read: {error}.", ALTERED) from error
    if not stream.eof or len(data) > MOST:
        reason = f"there are more than {MOST:,}" if len(data) > MOST else "they are cut short"
        raise DataError(f"The outcomes of a record cannot be read: {reason}.", ALTERED)
    return np.frombuffer(data, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class Rule:
    """A test of one value, and the words that say what it must be."""

    words: str
    test: Callable[[Any], bool]


Spec: TypeAlias = "Rule | list[Spec] | dict[str, Spec] | tuple[Spec, None]"
"""A rule; a list of one spec; an object by its keys, `*` for any; or a spec and None."""


def _whole(least: int = 0, most: int = LARGE) -> Rule:
    def test(v: object) -> bool:
        return isinstance(v, int) and not isinstance(v, bool) and least <= v <= most

    return Rule(f"a whole number from {least} to {most:,}", test)


def _number(least: float = -LARGE, most: float = LARGE) -> Rule:
    def test(v: object) -> bool:
        if not isinstance(v, int | float) or isinstance(v, bool):
            return False
        return math.isfinite(v) and least <= v <= most

    return Rule(f"a number from {least:g} to {most:g}", test)


def _outcomes(most: int) -> Rule:
    def test(v: object) -> bool:
        try:
            return isinstance(v, str) and int(unpack(v).max(initial=0)) <= most
        except DataError:
            return False

    return Rule(f"packed outcomes up to {most}", test)


TEXT = Rule("text", lambda v: isinstance(v, str))
TRUTH = Rule("true or false", lambda v: isinstance(v, bool))
DIMS, SHARE, MS = _whole(1, 10**6), _number(0, 1), _number(1e-9, 1e12)
RIGHT, FOUND = _outcomes(1), _outcomes(255)
IMAGE = Rule("base64", lambda v: isinstance(v, str) and BASE64.fullmatch(v) is not None)
MARK = Rule("a mark", lambda v: v in ("", "query", "right", "wrong"))
TIMES = Rule("a list of times", lambda v: isinstance(v, list) and bool(v) and all(map(MS.test, v)))
ROWS: Spec = [{"title": TEXT, "tiles": [{"path": TEXT, "caption": TEXT, "mark": MARK}]}]
THUMBNAILS: Spec = {"*": IMAGE}

KINDS: dict[str, dict[str, Spec]] = {
    "run": {
        "id": TEXT, "name": TEXT, "when": TEXT,
        "corpus": {
            "n": _whole(1), "dim": DIMS, "source": TEXT, "encoder": TEXT, "fingerprint": TEXT,
            "factory": {"*": TEXT}, "vectors": _whole(), "classes": _whole(),
            "files": {"*": _whole()},
        },
        "queries": {
            "source": TEXT, "n": _whole(1, MOST), "labelled": _whole(0, MOST), "own": TRUTH,
            "fingerprint": TEXT,
        },
        "settings": {
            "k": _whole(1, 255), "neighbours": _whole(1), "threads": _whole(1), "batch": _whole(1),
        },
        "environment": {
            "machine": TEXT, "cpu": TEXT, "cores": (_whole(1), None), "os": TEXT, "python": TEXT,
            "versions": {"*": TEXT}, "commit": (TEXT, None),
        },
    },
    "trained": {"run": TEXT, "count": _whole(0, MOST), "labelled": RIGHT},
    "prefix": {
        "run": TEXT, "dims": DIMS, "linear": (RIGHT, None), "vote": (RIGHT, None),
        "confidence": (FOUND, None),
    },
    "plan": {
        "run": TEXT, "name": TEXT, "plan": TEXT, "dims": (DIMS, None), "exact": TRUTH,
        "multiply_adds": (_number(0), None), "ram": _number(0), "nearest": (RIGHT, None),
        "vote": (RIGHT, None), "found": FOUND,
        "precision": ({"mean": SHARE, "sd": SHARE, "n": _whole(1, MOST)}, None),
    },
    "control": {"run": TEXT, "name": TEXT, "dims": DIMS, "vote": (RIGHT, None), "found": FOUND},
    "instance": {"run": TEXT, "dims": DIMS, "right": RIGHT},
    "cascade": {
        "run": TEXT, "give": SHARE, "accuracy": SHARE, "expected_dims": _number(0, 10**6),
        "n": _whole(1, MOST), "fixed": {"*": SHARE},
    },
    "latency": {"run": TEXT, "plan": TEXT, "round": _whole(1), "warm_up": _whole(), "ms": TIMES},
    "batch": {
        "run": TEXT, "plan": TEXT, "round": _whole(1), "queries": _whole(1),
        "seconds": _number(1e-12),
    },
    "embedding": {"run": TEXT, "ms": TIMES},
    "scatter": {
        "run": TEXT, "dims": DIMS, "x": [_number()], "y": [_number()], "labels": [_whole(0, 1000)],
        "names": [TEXT], "variance": [_number()],
    },
    "ladder": {
        "run": TEXT, "number": _whole(), "title": TEXT, "why": TEXT, "rows": ROWS,
        "thumbnails": THUMBNAILS,
    },
    "mislabels": {
        "run": TEXT, "count": _whole(), "rows": ROWS, "thumbnails": THUMBNAILS,
        "shown": [{
            "id": _whole(), "path": (TEXT, None), "label": TEXT, "says": TEXT, "against": SHARE,
        }],
    },
    "done": {"run": TEXT},
}  # fmt: skip
"""What a report reads from each kind of record."""


def check_record(record: Record, where: str) -> None:
    """Raise DataError, which names the value, unless a record holds what its kind must hold."""
    kind = record.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        return  # of a later version
    for name in KINDS[kind]:
        if name not in record and name != "confidence":  # version 0.1 did not write it
            raise DataError(f"{where}: the {kind} record has no {name!r}.", ALTERED)
    _check({name: KINDS[kind][name] for name in KINDS[kind] if name in record}, record, where, "")
    if kind == "cascade" and not all(d.isascii() and d.isdecimal() for d in record["fixed"]):
        raise DataError(f"{where}: a key of fixed is not a number of dims.", ALTERED)
    if kind == "scatter":
        x, y, labels = (len(record[name]) for name in ("x", "y", "labels"))
        few = max(record["labels"], default=-1) >= len(record["names"])
        if not x == y == labels or len(record["variance"]) != 2 or few:
            raise DataError(f"{where}: the values of a scatter do not fit one another.", ALTERED)


def check_run(about: Record, records: Sequence[Record], where: str) -> None:
    """Raise DataError unless the records of a benchmark have the same queries."""
    queries, k = about["queries"], about["settings"]["k"]
    for record in records:
        if record["kind"] == "trained" and (
            len(unpack(record["labelled"])) != queries["labelled"] or record["count"] > queries["n"]
        ):
            raise DataError(f"{where}: the trained record {OTHER_LENGTH}.", ALTERED)
    wanted = {"linear": "labelled", "vote": "labelled", "confidence": "labelled",
              "nearest": "labelled", "found": "n"}  # fmt: skip
    for record in records:
        for name, count in wanted.items():
            if record["kind"] in ("prefix", "plan", "control") and record.get(name) is not None:
                outcomes = unpack(record[name])
                if len(outcomes) != queries[count]:
                    what = f"{name} of a {record['kind']} record"
                    raise DataError(f"{where}: the {what} {OTHER_LENGTH}.", ALTERED)
                if name == "found" and int(outcomes.max(initial=0)) > k:
                    raise DataError(f"{where}: a plan finds more than {k} neighbours.", ALTERED)
    for kind, value in (("instance", "right"), ("latency", "ms")):
        some = [r for r in records if r["kind"] == kind]
        same = [r for r in some if kind != "latency"] or sorted(some, key=lambda r: str(r["plan"]))
        for a, b in pairwise(same):
            if a.get("plan") == b.get("plan") and _length(a[value]) != _length(b[value]):
                raise DataError(f"{where}: {kind} records have different lengths.", ALTERED)


def _length(values: str | list[float]) -> int:
    return len(unpack(values)) if isinstance(values, str) else len(values)


def _check(spec: Spec, value: Any, where: str, name: str) -> None:  # noqa: ANN401 - JSON
    if isinstance(spec, tuple):
        if value is not None:
            _check(spec[0], value, where, name)
    elif isinstance(spec, Rule):
        if not spec.test(value):
            shown = repr(value)
            shown = shown if len(shown) <= 40 else f"{shown[:40]}…"
            raise DataError(f"{where}: {name} is {shown}; it must be {spec.words}.", ALTERED)
    elif isinstance(spec, list):
        if not isinstance(value, list):
            raise DataError(f"{where}: {name} is no list.", ALTERED)
        for item in value:
            _check(spec[0], item, where, f"an item of {name}")
    else:
        if not isinstance(value, Mapping):
            raise DataError(f"{where}: {name} is no object.", ALTERED)
        for key, part in spec.items():
            if key != "*" and key not in value:
                raise DataError(f"{where}: {name} has no {key!r}.", ALTERED)
            for found in value if key == "*" else (key,):
                _check(part, value[found], where, f"{name}.{found}" if name else found)
