"""What a camera wrote into a picture: when it was taken, with what, and where.

No pixel is decoded, and nothing raises: EXIF is written by anybody and may be in any state.
"""

import io
import re
import unicodedata
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from mrl_search.images.decode import PNG, formats, quiet

__all__ = ["exif_columns"]

Tags: TypeAlias = Mapping[int, Any]

EXIF = b"Exif\0\0"
DETAILS, GPS = 0x8769, 0x8825  # directories
ORIGINAL, DIGITIZED = 0x9003, 0x9004  # times; 0x0132 is when a picture was edited last
MAKE, MODEL = 0x010F, 0x0110
LATITUDE, LONGITUDE = (1, "NS", 90), (3, "EW", 180)  # tag before the value, directions, limit
TIME = re.compile(r"(\d{4})[:/.-](\d\d?)[:/.-](\d\d?)(?:[T ]+(\d\d?):(\d\d?)(?::(\d\d?))?|$)")
EARLIEST = 1826  # the year of the oldest photograph
COMPANY = frozenset({  # at the end of the name of a maker
    "ag", "camera", "co", "company", "corp", "corporation", "electronics", "gmbh", "imaging", "inc",
    "ltd", "optical",
})  # fmt: skip
LONGEST = 80  # characters of a text


def exif_columns(data: bytes) -> dict[str, object]:
    """What the EXIF of an image file tells about the picture; without what it does not tell.

    Returns:
        `taken`: milliseconds from 1970 to the time that the camera showed, whatever its zone;
        `camera`: maker and model; `latitude` and `longitude`: degrees, negative in the south and
        in the west, both or neither.
    """
    with quiet(), suppress(Exception):  # on bad data the parser can raise anything
        tags, details, place = _directories(_block(data))
        found = {"taken": _time(details), "camera": _camera(tags), **_place(place)}
        return {name: value for name, value in found.items() if value is not None}
    return {}


def _block(data: bytes) -> bytes:
    """The EXIF of a file, in the form of a TIFF file; empty where there is none."""
    if data.startswith(b"\xff\xd8"):
        return next(_segments(data), b"")
    if data.startswith(PNG):
        return next(_chunks(data, b"eXIf"), b"")
    if data.startswith(b"RIFF"):
        return next(_chunks(data, b"EXIF"), b"")
    if data[4:8] == b"ftyp":  # AVIF and HEIC
        return bytes(Image.open(io.BytesIO(data), formats=formats()).info.get("exif", b""))
    return data if data[:2] in (b"II", b"MM") else b""


def _directories(block: bytes) -> tuple[Tags, Tags, Tags]:
    """The first directory of EXIF, that of details and that of GPS: a tag is decoded when asked."""
    file = io.BytesIO(block.removeprefix(EXIF))
    head = file.read(8)
    first: Tags = {}

    def directory(at: object) -> Tags:
        found = ImageFileDirectory_v2(head)
        with suppress(Exception):
            file.seek(at if isinstance(at, int) else len(block))
            found.load(file)
        return found

    if not head:
        return first, first, first
    first = directory(ImageFileDirectory_v2(head).next)
    return first, directory(_value(first, DETAILS)), directory(_value(first, GPS))


def _segments(jpeg: bytes) -> Iterator[bytes]:
    """The EXIF blocks of a JPEG file: before the pixels, each after its marker and size."""
    at = 2
    while jpeg[at : at + 1] == b"\xff" and jpeg[at + 1] not in (0xD9, 0xDA):
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xE1 and jpeg.startswith(EXIF, at + 4):
            yield jpeg[at + 10 : at + 2 + size]
        at += 2 + size


def _chunks(data: bytes, wanted: bytes) -> Iterator[bytes]:
    """The chunks of a kind of a PNG file (size, kind, content, checksum) or of a WebP file."""
    png = data.startswith(PNG)
    at = len(PNG) if png else len(b"RIFF....WEBP")
    while at + 8 <= len(data):
        first, second = data[at : at + 4], data[at + 4 : at + 8]
        kind, size = (
            (second, int.from_bytes(first, "big")) if png
            else (first, int.from_bytes(second, "little"))
        )  # fmt: skip
        if kind == b"IEND" or b"\0" in kind:  # what follows is no part of the picture
            return
        if kind == wanted:
            yield data[at + 8 : at + 8 + size]
        at += 12 + size if png else 8 + size + size % 2


def _value(tags: Tags, tag: int) -> Any:  # noqa: ANN401 - a tag has any type
    """The value of a tag; None where it lacks, or where it cannot be decoded."""
    with suppress(Exception):
        return tags.get(tag)
    return None


def _time(details: Tags) -> int | None:
    """When a picture was taken; a time that no calendar has is none."""
    for tag in (ORIGINAL, DIGITIZED):
        match = TIME.match(_text(_value(details, tag)))
        with suppress(ValueError):  # "0000:00:00 00:00:00" where the clock was not set
            if match and int(match[1]) >= EARLIEST:
                parts = [int(part or 0) for part in match.groups()]
                return 1000 * int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type, misc]
    return None


def _camera(tags: Tags) -> str | None:
    """Maker and model; the model alone where it begins with a name of the maker."""
    maker, model = _text(_value(tags, MAKE)).replace(",", " ").split(), _text(_value(tags, MODEL))
    while len(maker) > 1 and maker[-1].strip(".").casefold() in COMPANY:
        maker.pop()
    begin = re.match(r"\w*", model)
    if begin and begin[0].casefold() in (word.casefold() for word in maker):
        return model
    return " ".join([*maker, model]).strip() or None


def _place(place: Tags) -> dict[str, float]:
    found = (_degrees(place, *LATITUDE), _degrees(place, *LONGITUDE))
    if None in found or found == (0, 0):  # what a receiver writes before it knows
        return {}
    return dict(zip(("latitude", "longitude"), found, strict=True))  # type: ignore[arg-type]


def _degrees(place: Tags, tag: int, directions: str, limit: int) -> float | None:
    """Degrees, minutes and seconds as signed degrees; None if they are out of range."""
    direction, parts = _text(_value(place, tag))[:1].upper(), _value(place, tag + 1)
    with suppress(TypeError, ValueError, ZeroDivisionError, OverflowError):
        parts = parts if isinstance(parts, tuple) else (parts,)
        degrees: float = sum(float(part) / 60**i for i, part in enumerate(parts[:3]))
        if direction and direction in directions and 0 <= degrees <= limit:
            return round(-degrees if direction == directions[1] else degrees, 7)  # a centimetre
    return None


def _text(value: object) -> str:
    """A text of EXIF in one line: up to its null character, in UTF-8 if it is that."""
    raw = value.encode("latin-1", "replace") if isinstance(value, str) else value
    if not isinstance(raw, bytes):
        return ""
    raw = raw.partition(b"\0")[0]
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    seen = "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text))
    return " ".join(seen.split())[:LONGEST]
