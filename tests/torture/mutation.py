"""Seeded changes of valid files: of bytes, of text, and of values in JSON."""

import copy
import random
from collections.abc import Sequence
from typing import Any

__all__ = ["altered_bytes", "altered_json", "altered_text", "odd_value"]

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
SIZES = (0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
ODD = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, -0.5, 1e308, float("nan"),
    float("inf"), "", "0", "a", "/", "..", "\0", "\ud800", "é" * 300, "8" * 5000, [], {}, [[]],
    [None], {"a": 1}, [1, 2, 3], "2026-01-01T00:00:00+00:00", "eNoDAAAAAAE=",
)  # fmt: skip


def altered_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """One of `seeds` with one to some dozen changes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8, 32))):
        at, size = rng.randrange(len(data) + 1), rng.choice((1, 2, 4, 4, 8, 64))
        if rng.random() < 0.5:
            at = min(at, rng.randrange(200))  # headers are where it matters
        change = rng.randrange(8)
        if change == 0:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif change == 1:
            data[at : at + 1] = bytes([rng.choice(EDGES)])
        elif change == 2:
            order = rng.choice(("big", "little"))
            data[at : at + 4] = rng.choice(SIZES).to_bytes(4, order)  # type: ignore[arg-type]
        elif change == 3 and at < len(data):
            data[at] ^= 1 << rng.randrange(8)
        elif change == 4:
            del data[at : at + size]
        elif change == 5:
            data[at:at] = rng.randbytes(size)
        elif change == 6:
            data[at:at] = data[at : at + size] * rng.choice((1, 2, 100))
        elif rng.random() < 0.3:
            del data[at:]
        else:
            other = rng.choice(seeds)
            begin = rng.randrange(len(other) + 1)
            data[at : at + size] = other[begin : begin + size]
    return bytes(data)


def altered_text(rng: random.Random, seeds: Sequence[str], words: Sequence[str]) -> str:
    """One of `seeds` with characters, numbers and `words` put in, doubled, or left out."""
    text = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        at, stop = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        stop = min(stop, at + 4)
        new = rng.choice((
            "", rng.choice(words), rng.choice(words), text[at:stop] * 2, str(rng.choice(SIZES)),
            str(rng.randrange(70)), chr(rng.randrange(32, 0x2FFF)),
        ))  # fmt: skip
        text = text[:at] + new + text[stop:]
    return text


def odd_value(rng: random.Random) -> Any:
    """A value that few readers expect."""
    return copy.deepcopy(rng.choice(ODD))


def altered_json(rng: random.Random, value: Any) -> Any:
    """A copy of `value` with some of its parts replaced, left out, or doubled."""
    root = [copy.deepcopy(value)]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at: Any = root
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at))
            key = rng.choice(keys)
            inner = at[key]
            if not (isinstance(inner, dict | list) and inner) or (rng.random() < 0.2):
                break
            at = inner
        change = rng.randrange(6)
        if change == 0 and at is not root:
            del at[key]
        elif change == 1 and isinstance(at, dict):
            at[rng.choice(("", "a", "8", "08", "-1", "kind", "\ud800"))] = odd_value(rng)
        elif change == 2 and isinstance(inner, int | float) and not isinstance(inner, bool):
            at[key] = rng.choice((-inner, inner + 1, inner * 1000, inner // 3, repr(inner)))
        elif change == 3 and isinstance(inner, str):
            at[key] = altered_text(rng, [inner], ["/", "0", " ", "\n", "é"])
        else:
            at[key] = odd_value(rng)
    return root[0]
