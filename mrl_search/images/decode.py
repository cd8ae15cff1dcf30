"""Decode an image file: an upright RGB image, or `BrokenImage` with the reason."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mrl_search.errors import BrokenImage

__all__ = ["SUFFIXES", "content_hash", "decode", "square", "to_rgb"]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 120_000_000  # fits a 12000 x 10000 scan; beyond is a decompression bomb or a mistake
ORIENTATION = 0x0112  # the EXIF tag
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_lock, _decoding, _filters = threading.Lock(), 0, warnings.catch_warnings()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings of Pillow, such as its own size limit.

    `catch_warnings` is not thread-safe: the first thread enters it, the last one leaves it.
    """
    global _decoding, _filters
    with _lock:
        if not _decoding:
            _filters = warnings.catch_warnings(action="ignore")
            _filters.__enter__()
        _decoding += 1
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if not _decoding:
                _filters.__exit__(None, None, None)


def content_hash(data: bytes) -> str:
    """XXH3-128 of a file's bytes, in hex: equal files have equal hashes."""
    return xxhash.xxh3_128_hexdigest(data)


def decode(data: bytes, side: int | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image file, or the first frame of an animation, to RGB, upright by its EXIF.

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
        with _quiet():
            return _decode(Image.open(io.BytesIO(data)), side)
    except BrokenImage:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImage("not an image that can be read") from error
    except Exception as error:  # on bad data a decoder can raise anything
        raise BrokenImage(f"cannot be decoded: {error}") from error


def _decode(image: Image.Image, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BrokenImage(
            f"{width} x {height} pixels is over the limit of {MAX_PIXELS // 1_000_000} million"
        )
    reduced = side is not None and image.draft("RGB", (side, side)) is not None
    image.load()
    orientation = _orientation(image)
    if orientation in TURNS:
        image = image.transpose(TURNS[orientation])
    if not reduced:  # Pillow rotates a TIFF when it opens it
        width, height = image.size
    elif orientation >= 5:
        width, height = height, width
    return to_rgb(image), (width, height)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB: 16 bits become 8, transparency becomes white."""
    if image.mode.startswith("I;16"):  # Pillow would clip 16 bits to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = _stretched(image)
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 (upright) where there is none, or it is damaged."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except Exception:  # on bad data the parser can raise anything
        return 1
    return orientation if orientation in TURNS else 1


def _stretched(image: Image.Image) -> Image.Image:
    """A 32-bit image as grey: its smallest value is black, its largest white."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    low, high = values.min(), values.max()
    scaled = (values - low) * (255 / (high - low if high > low else 1))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def square(
    image: Image.Image,
    side: int,
    resampling: Image.Resampling = Image.Resampling.BILINEAR,
    box: tuple[float, float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Resize to (side, side, 3) uint8: the whole picture, squashed, or its part in `box`."""
    if box is not None or image.size != (side, side):
        image = image.resize((side, side), resampling, box, reducing_gap=2.0)
    return np.asarray(image)
