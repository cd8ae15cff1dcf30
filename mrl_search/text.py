"""Text from anywhere, made safe to show: names of files and labels may hold any character."""

import codecs
import json
import unicodedata
from datetime import date, time

__all__ = ["json_text", "json_value", "plain", "plain_json"]

JOINERS = "\u200c\u200d"  # of letters and emoji; they change nothing else


def plain(text: str) -> str:
    r"""`text` with control, format and direction characters escaped, as `\x1b` and `\u202e`.

    They must steer no terminal and disguise no name.
    """
    if text.isprintable():
        return text
    return "".join(c if _harmless(c) else repr(c)[1:-1] for c in text)


def plain_json(text: str) -> str:
    """JSON text with the same characters escaped; it stands for the same value."""
    if text.isprintable():
        return text
    return "".join(c if _harmless(c) else json.dumps(c)[1:-1] for c in text)


def json_text(value: object, encoding: str | None) -> str:
    """JSON of a value as a line of text that is safe to show in a stream of this encoding."""
    unicode = codecs.lookup(encoding or "ascii").name == "utf-8"
    return plain_json(json.dumps(value, ensure_ascii=not unicode, default=json_value))


def _harmless(c: str) -> bool:
    return c.isprintable() or c in JOINERS or unicodedata.category(c) == "Zs"


def json_value(value: object) -> str:
    """A value that JSON has no form for: a time as ISO 8601 writes it, anything else as text."""
    return value.isoformat() if isinstance(value, date | time) else str(value)
