"""Decode an image file: an upright RGB image, or `BrokenImage` with the reason."""

import contextlib
import importlib
import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import TypeVar

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mrl_search.errors import BrokenImage

__all__ = [
    "HEAD", "HEIC_SUFFIXES", "content_hash", "decode", "is_picture", "opened", "square", "suffixes",
    "to_rgb",
]  # fmt: skip

T = TypeVar("T")
SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".tif",
    ".tiff",
})  # fmt: skip
HEIC_SUFFIXES = frozenset({".heic", ".heif", ".hif"})
PLUGINS = {  # what Pillow reads without another program; no other plugin is ever asked
    "JPEG": "Jpeg", "PNG": "Png", "WEBP": "WebP", "AVIF": "Avif", "GIF": "Gif",
    "BMP": "Bmp", "TIFF": "Tiff", "JPEG2000": "Jpeg2K", "PPM": "Ppm",
}  # fmt: skip
ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
HEAD = 32  # bytes that tell the format of a file
MEMORY = 1_000_000_000  # bytes that all pictures in decoding may take together
RGB = 4  # bytes of a pixel in Pillow
BYTES = {"1": 1, "L": 1, "P": 1, "LA": 4, "PA": 4, "I;16": 2, "I;16B": 2, "I;16L": 2}  # else 4
COEFFICIENTS = 6  # bytes a pixel that a progressive JPEG keeps, at any scale
STRIP = 1 << 20  # pixels that are converted at once
FRAMES = 100  # of an animation that are looked at
DEPTHS = (8, 10, 12, 14, 16)  # bits of a sensor, stored in 16
ORIENTATION = 0x0112  # tag of EXIF
BITS_PER_SAMPLE, PHOTOMETRIC, PLANAR = 258, 262, 284  # tags of TIFF
PNG = b"\x89PNG\r\n\x1a\n"
HEIC = frozenset(b"ftyp" + brand.encode() for brand in (
    "heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs", "mif1", "msf1",
))  # fmt: skip
DECODERS = {"WEBP": 12, "GIF": 4, "TIFF": 4, "AVIF": 8, "HEIF": 8, "JPEG2000": 16}  # bytes a pixel
KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf", b"acTL", b"fcTL", b"fdAT")
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_lock, _decoding = threading.Lock(), 0
_before: "tuple[warnings.catch_warnings[None], int | None] | None" = None
_room, _taken = threading.Condition(), 0


@cache
def formats() -> tuple[str, ...]:
    """The formats that are read: those of `PLUGINS`, and HEIF where `pillow-heif` is installed."""
    for name in PLUGINS.values():
        importlib.import_module(f"PIL.{name}ImagePlugin")
    try:
        heif = importlib.import_module("pillow_heif")
    except ImportError:
        return tuple(PLUGINS)
    heif.register_heif_opener()
    return (*PLUGINS, "HEIF")


@cache
def suffixes() -> frozenset[str]:
    """Endings of the formats that are read; a file that has one is not opened to be known."""
    return SUFFIXES | HEIC_SUFFIXES if "HEIF" in formats() else SUFFIXES


def is_picture(head: bytes) -> bool:
    """Whether a file that begins with these bytes (`HEAD` or more) is in a format that is read."""
    accepts = [Image.OPEN[name][1] for name in formats()]
    return any(accept and accept(head.ljust(HEAD, b"\0")) is True for accept in accepts)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the warnings of Pillow, and its own size limit: `_decode` has one in bytes.

    Both are global: the first thread enters, the last one leaves.
    """
    global _decoding, _before
    with _lock:
        if _before is None:
            _before = warnings.catch_warnings(action="ignore"), Image.MAX_IMAGE_PIXELS
            _before[0].__enter__()
            Image.MAX_IMAGE_PIXELS = None
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if not _decoding and _before is not None:
                _before[0].__exit__(None, None, None)
                Image.MAX_IMAGE_PIXELS, _before = _before[1], None


@contextlib.contextmanager
def _memory(needed: int) -> Iterator[None]:
    """Wait until all pictures in decoding take at most `MEMORY` bytes, this one included."""
    global _taken
    with _room:
        _room.wait_for(lambda: _taken + needed <= MEMORY)
        _taken += needed
    try:
        yield
    finally:
        with _room:
            _taken -= needed
            _room.notify_all()


def content_hash(data: bytes) -> str:
    """XXH3-128 of a file's bytes, in hex: equal files have equal hashes."""
    return xxhash.xxh3_128_hexdigest(data)


def opened(data: bytes) -> Image.Image:
    """An image file, of which only the head is read. Anything may be raised on bad data.

    Texts of a PNG file that Pillow refuses, such as small ones that unpack to gigabytes, are left
    out.
    """
    return _also_without_text(lambda d: Image.open(io.BytesIO(d), formats=formats()), data)


def decode(data: bytes, side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image file to RGB, upright by its EXIF.

    Of an animation, the first frame that has more than one colour. All threads together take at
    most 1 GB besides the file and the result.

    Args:
        data: the bytes of the file.
        side: decode a large JPEG at a fraction of its size, of at least this many pixels a side.

    Returns:
        The image, and the (width, height) of the original, upright, in pixels.

    Raises:
        BrokenImage: empty, truncated, not an image, or too large; the message is the reason.
    """
    if not data:
        raise BrokenImage("empty file")
    try:
        with quiet():
            return _also_without_text(lambda d: _decode(d, side), data)
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        if data[4:12] in HEIC:
            raise BrokenImage(
                "HEIC is read with the extra heic: pip install pillow-heif"
            ) from error
        raise BrokenImage("not an image that can be read") from error
    except Exception as error:  # on bad data a decoder can raise anything
        reason = str(error) or type(error).__name__
        raise BrokenImage(f"cannot be decoded: {reason}") from error


def _decode(data: bytes, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    image: Image.Image = Image.open(io.BytesIO(data), formats=formats())
    tags = getattr(image, "tag_v2", {})
    if tags.get(PLANAR) == 2 and max(tags.get(BITS_PER_SAMPLE, (8,))) > 8:
        raise BrokenImage("a TIFF of more than 8 bits in separate planes")  # Pillow mixes bytes up
    width, height = _extent(image, data)
    reduced = side is not None and image.draft("RGB", (side, side)) is not None
    needed = _needed(image, (width, height))
    if needed > MEMORY:
        raise BrokenImage(
            f"{width} x {height} pixels take {needed / 1e9:.1f} GB to decode, "
            f"over the limit of {MEMORY / 1e9:.1f} GB"
        )
    with _memory(needed):
        if image.format in ANIMATED and getattr(image, "is_animated", False):
            _seek_content(image)
        image.load()
        orientation = _orientation(image)  # a TIFF is turned by now, a PNG may name it at its end
        if orientation in TURNS:
            image = image.transpose(TURNS[orientation])
        if not reduced:
            width, height = image.size
        elif orientation >= 5:
            width, height = height, width
        return to_rgb(image), (width, height)


def _needed(image: Image.Image, full: tuple[int, int]) -> int:
    """Bytes that decoding takes at most: pixels as stored, turned, as RGB, and the decoder's."""
    stored = BYTES.get(image.mode, RGB)
    other = RGB if image.mode != "RGB" or "transparency" in image.info else 0
    other += DECODERS.get(image.format or "", 0)
    if image.format == "PNG" and image.width * image.height * (stored + other) > MEMORY:
        return image.width * image.height * (stored + other)  # to ask how it is turned decodes it
    copies = 2 if _orientation(image) in TURNS else 1
    each = stored * copies + other
    whole = COEFFICIENTS if image.info.get("progressive") else 0
    if image.format == "GIF":
        return full[0] * full[1] * each
    return image.size[0] * image.size[1] * each + full[0] * full[1] * whole


def _extent(image: Image.Image, data: bytes) -> tuple[int, int]:
    """The size of an image; of a GIF, with all frames: Pillow makes room for those outside."""
    width, height = image.size
    if image.format != "GIF":
        return width, height

    def skip(at: int, flags: int) -> int:
        return at + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    at = skip(13, data[10])
    while at < len(data) and data[at] != ord(";"):
        kind, at = data[at], at + 1
        if kind == ord(",") and at + 9 < len(data):
            left, top, wide, high = struct.unpack_from("<4H", data, at)
            width, height = max(width, left + wide), max(height, top + high)
            at = skip(at + 9, data[at + 8])
        elif kind not in b"!,":
            continue
        at += 1
        while at < len(data) and data[at]:
            at += data[at] + 1
        at += 1
    return width, height


def _seek_content(image: Image.Image) -> None:
    """Go to the first frame of an animation that has more than one colour, if there is one."""
    for frame in range(min(FRAMES, getattr(image, "n_frames", 1))):
        image.seek(frame)
        if any(low != high for low, high in to_rgb(image).getextrema()):  # type: ignore[misc]
            return
    image.seek(0)


def _also_without_text(read: Callable[[bytes], T], data: bytes) -> T:
    """What `read` gives for a file, or for a PNG file without texts and profiles it refuses."""
    try:
        return read(data)
    except ValueError:
        if not data.startswith(PNG):
            raise
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(data):
        stop = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if data[at + 4 : at + 8] in KEPT:
            parts.append(data[at:stop])
        at = stop
    return read(b"".join(parts))


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: more bits become 8, transparency becomes white.

    16 bits that hold fewer, as from a sensor of 12, are scaled by the bits that they hold; 32-bit
    values by their range.
    """
    clear = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    if image.mode == "RGB" and not clear:
        return image
    change, key = _to_grey(image), image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:  # of a PNG of 16 bits a colour
        image.info["transparency"] = tuple(value >> 8 for value in key)

    def converted(part: Image.Image) -> Image.Image:
        part = change(part)
        if clear:
            white = Image.new("RGBA", part.size, "white")
            part = Image.alpha_composite(white, part.convert("RGBA"))
        return part.convert("RGB")

    strips = list(_strips(image))
    if len(strips) < 2:
        return converted(image)
    result = Image.new("RGB", image.size)
    for box in strips:
        result.paste(converted(image.crop(box)), box)
    return result


def _to_grey(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """A function that turns parts of an image of 16 or 32 bits to 8 bits, and leaves others."""
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to white
        tags, key = getattr(image, "tag_v2", {}), image.info.get("transparency")
        told = tags.get(BITS_PER_SAMPLE, (16,))[0]
        largest = max(int(part.max(initial=0)) for part in _parts(image))
        held = next(bits for bits in DEPTHS if largest < 1 << bits)
        shift = (told if 8 < told < 16 else held) - 8
        flip = 255 if tags.get(PHOTOMETRIC) == 0 else 0  # white is zero

        def shifted(part: Image.Image) -> Image.Image:
            values = np.asarray(part)
            grey = Image.fromarray((values >> shift).astype(np.uint8) ^ np.uint8(flip))
            if isinstance(key, int):
                grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
            return grey

        return shifted
    if image.mode not in ("I", "F"):
        return lambda part: part
    ranges = [(part.min(), part.max()) for part in map(_finite, _parts(image))]
    low, high = min(r[0] for r in ranges), max(r[1] for r in ranges)
    scale = 255 / (high - low if high > low else 1)
    return lambda part: Image.fromarray(
        np.rint((_finite(np.asarray(part)) - low) * scale).astype(np.uint8)
    )


def _parts(image: Image.Image) -> Iterator[NDArray[np.generic]]:
    """The values of an image, some rows at a time."""
    return (np.asarray(image.crop(box)) for box in _strips(image))


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of some rows each, from top to bottom."""
    width, height = image.size
    rows = max(1, STRIP // max(1, width))
    return ((0, top, width, min(top + rows, height)) for top in range(0, height, rows))


def _finite(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none, or it is damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # on bad data the parser can raise anything
        return 1
    return orientation if orientation in TURNS else 1


def square(
    image: Image.Image, side: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
) -> NDArray[np.uint8]:
    """The whole picture squashed to (side, side, 3) uint8."""
    if image.size != (side, side):
        image = image.resize((side, side), resampling, reducing_gap=2.0)
    return np.asarray(image)
