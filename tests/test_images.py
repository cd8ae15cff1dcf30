"""Decoding: every format becomes upright RGB; a bad file is a `BrokenImage` with its reason."""

import io
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mrl_search.errors import BrokenImage
from mrl_search.images.decode import (
    HEAD,
    ORIENTATION,
    PLUGINS,
    SUFFIXES,
    content_hash,
    decode,
    is_picture,
    square,
    to_rgb,
)  # fmt: skip

RED, GREEN, BLUE, YELLOW = (250, 10, 10), (10, 250, 10), (10, 10, 250), (250, 250, 10)
CORNERS = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right
FORMATS = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
    ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF", ".gif": "GIF", ".bmp": "BMP",
    ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip


def _quarters(width: int = 48, height: int = 32) -> Image.Image:
    """Four fields of one colour each, of multiples of 16 pixels, which JPEG keeps apart."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(YELLOW, (width // 2, height // 2, width, height))
    return image


def _bytes(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    if kind == "WEBP":
        options.setdefault("lossless", True)
    if kind in ("AVIF", "HEIF"):
        options.setdefault("quality", 95)
    image.save(file, kind, **options)
    return file.getvalue()


def _corners(image: Image.Image) -> list[tuple[int, ...]]:
    width, height = image.size
    return [image.getpixel((x, y)) for y in (3, height - 4) for x in (3, width - 4)]


def _near(
    seen: list[tuple[int, ...]], wanted: tuple[tuple[int, ...], ...], tolerance: int = 12
) -> bool:
    return len(seen) == len(wanted) and all(
        abs(a - b) <= tolerance
        for p, q in zip(seen, wanted, strict=True)
        for a, b in zip(p, q, strict=True)
    )


def _png(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def test_no_other_plugin_of_pillow_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    Image.init()
    assert not is_picture(script)
    asked = []

    def noted(name: str, accept: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
        return lambda head: asked.append(name) or accept(head)

    for name, (make, accept) in list(Image.OPEN.items()):
        if accept:
            monkeypatch.setitem(Image.OPEN, name, (make, noted(name, accept)))
    with pytest.raises(BrokenImage, match="not an image that can be read"):
        decode(script)
    assert "EPS" not in asked and set(asked) <= {*PLUGINS, "HEIF"}


def test_without_its_extra_heic_is_refused_with_its_name(without_heif: None) -> None:
    data = b"\0\0\0\x18ftypheic" + bytes(64)
    assert not is_picture(data)
    with pytest.raises(BrokenImage, match="HEIC is read with the extra heic: pip install"):
        decode(data)


def test_the_first_bytes_tell_what_can_be_read() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"):
        data = _bytes(_quarters(), kind)
        assert is_picture(data[:HEAD]), kind
        assert decode(data)[1] == (48, 32)
    for head in (b"", b"P", b"\0\5\x16\7" + b"\0" * 28, b"a,b\n1,2\n", b"\0\0\0\x18ftypisom"):
        assert not is_picture(head)


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
def test_a_sensor_of_fewer_bits_is_scaled_by_them(bits: int) -> None:
    grey = np.linspace(0, 255, 64 * 64).astype(np.uint16).reshape(64, 64)
    for kind in ("PNG", "TIFF"):
        data = _bytes(Image.fromarray(grey << (bits - 8)), kind)
        assert (np.asarray(decode(data)[0])[..., 0] == grey).all()


def test_a_large_picture_is_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pictures = [
        Image.fromarray(rng.integers(0, 256, (9, 7, 4), dtype=np.uint8), "RGBA"),
        Image.fromarray(rng.integers(0, 5000, (9, 7)).astype(np.uint16)),
        Image.fromarray(rng.standard_normal((9, 7)).astype(np.float32)),
        Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)).quantize(9),
    ]
    whole = [to_rgb(picture).tobytes() for picture in pictures]
    monkeypatch.setattr("mrl_search.images.decode.STRIP", 14)
    assert [to_rgb(picture).tobytes() for picture in pictures] == whole


def test_long_texts_and_profiles_of_a_png_cost_no_picture() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "node " * 300_000, zip=True)
    for more in ({"pnginfo": text}, {"icc_profile": b"\0" * 1_500_000}):
        assert decode(_bytes(_quarters(), "PNG", **more))[0].tobytes() == _quarters().tobytes()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_blank_first_frames_are_passed_over(kind: str) -> None:
    blank = Image.new("RGB", (48, 32), "black")
    data = _bytes(blank, kind, save_all=True, append_images=[blank, _quarters()], duration=90)
    assert _near(_corners(decode(data)[0]), CORNERS)
    still = _bytes(blank, kind, save_all=True, append_images=[blank], duration=90)
    assert decode(still)[0].getpixel((1, 1)) == (0, 0, 0)


def test_threads_share_the_memory_for_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    data, running, most = _bytes(_quarters(), "PNG"), [], []
    monkeypatch.setattr("mrl_search.images.decode.MEMORY", 2 * 48 * 32 * 4)

    def slow(image: Image.Image) -> Image.Image:
        running.append(1)
        most.append(len(running))
        time.sleep(0.01)
        running.pop()
        return image

    monkeypatch.setattr("mrl_search.images.decode.to_rgb", slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(decode, [data] * 16))
    assert max(most) == 2


def test_every_suffix_has_a_format_here() -> None:
    assert set(FORMATS) == SUFFIXES


@pytest.mark.parametrize("kind", sorted(set(FORMATS.values())))
@pytest.mark.parametrize("side", [None, 16])
def test_every_format_decodes(kind: str, side: int | None) -> None:
    image, size = decode(_bytes(_quarters(), kind), side)
    assert (image.mode, size) == ("RGB", (48, 32))
    assert _near(_corners(image), CORNERS, 40 if kind in LOSSY else 12)


LOSSY = ("AVIF", "HEIF")  # of half the colours

# The stored top left, top right, bottom left, bottom right, in the order of the upright image
# (EXIF 2.32, tag Orientation).
ORIENTATIONS = {
    1: (RED, GREEN, BLUE, YELLOW), 2: (GREEN, RED, YELLOW, BLUE),
    3: (YELLOW, BLUE, GREEN, RED), 4: (BLUE, YELLOW, RED, GREEN),
    5: (RED, BLUE, GREEN, YELLOW), 6: (BLUE, RED, YELLOW, GREEN),
    7: (YELLOW, GREEN, BLUE, RED), 8: (GREEN, YELLOW, RED, BLUE),
}  # fmt: skip


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
@pytest.mark.parametrize("side", [None, 16])
def test_orientation_is_honoured(kind: str, orientation: int, side: int | None) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"exif": exif}
    if kind == "MPO":  # as phones write: a second picture in the same file
        options |= {"save_all": True, "append_images": [Image.new("RGB", (96, 64))]}
    if kind == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
        options["exif"] = exif.tobytes()
    image, size = decode(_bytes(_quarters(96, 64), kind, **options), side)
    assert size == ((96, 64) if orientation < 5 else (64, 96))
    assert (image.width > image.height) == (orientation < 5)
    assert _near(_corners(image), ORIENTATIONS[orientation], 40 if kind in LOSSY else 12)


def test_a_large_jpeg_is_decoded_at_a_fraction_of_its_size() -> None:
    data = _bytes(_quarters(640, 480), "JPEG")
    image, size = decode(data, side=100)
    assert size == (640, 480)
    assert image.size == (160, 120)  # the smallest fraction above `side`
    assert _near(_corners(image), CORNERS)
    assert decode(data)[0].size == (640, 480)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_is_laid_over_white(kind: str) -> None:
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((200, 0, 0, 255), (0, 0, 10, 10))
    image.paste((0, 0, 0, 128), (15, 0, 20, 10))
    decoded, _ = decode(_bytes(image, kind))
    assert [decoded.getpixel((x, 5)) for x in (2, 12, 18)] == [
        (200, 0, 0),
        (255, 255, 255),
        (127, 127, 127),
    ]


@pytest.mark.parametrize(
    ("mode", "clear", "ink"),
    [("P", 0, 1), ("L", 30, 200), ("RGB", (1, 2, 3), (200, 200, 200)), ("1", 0, 1)],
)
def test_a_transparent_colour_is_laid_over_white(mode: str, clear, ink) -> None:
    image = Image.new(mode, (20, 10), clear)
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 200, 200] + [0] * 762)
    image.paste(ink, (10, 0, 20, 10))
    decoded, _ = decode(_bytes(image, "PNG", transparency=clear))
    assert decoded.getpixel((2, 5)) == (255, 255, 255)
    assert decoded.getpixel((15, 5)) == ((255, 255, 255) if mode == "1" else (200, 200, 200))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (16, 16), RED), Image.new("RGB", (16, 16), BLUE)
    decoded, size = decode(_bytes(first, kind, save_all=True, append_images=[second]))
    assert size == (16, 16)
    assert _near([decoded.getpixel((8, 8))], (RED,), 5)


@pytest.mark.parametrize(
    ("mode", "colour", "kind", "seen"),
    [
        ("L", 90, "JPEG", (90, 90, 90)),
        ("L", 90, "PNG", (90, 90, 90)),
        ("1", 1, "PNG", (255, 255, 255)),
        ("LA", (90, 255), "PNG", (90, 90, 90)),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0)),
        ("CMYK", (0, 255, 255, 0), "TIFF", (255, 0, 0)),
        ("YCbCr", (90, 128, 128), "TIFF", (90, 90, 90)),
    ],
)
def test_other_colour_spaces_become_rgb(
    mode: str, colour, kind: str, seen: tuple[int, int, int]
) -> None:
    decoded, _ = decode(_bytes(Image.new(mode, (16, 16), colour), kind))
    assert decoded.mode == "RGB"
    assert _near([decoded.getpixel((8, 8))], (seen,), 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_of_grey_are_scaled_not_clipped(kind: str) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(8, 0)
    decoded, size = decode(_bytes(Image.fromarray(ramp), kind))
    assert size == (256, 8)
    assert np.array_equal(
        np.asarray(decoded)[4], np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    )


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_thirty_two_bits_of_grey_are_stretched(kind: type) -> None:
    ramp = (
        np.linspace(0, 1, 256)[None].repeat(8, 0) * (1 if kind is np.float32 else 60000)
    ).astype(kind)
    decoded, _ = decode(_bytes(Image.fromarray(ramp), "TIFF"))
    assert np.abs(np.asarray(decoded)[4, :, 0].astype(int) - np.arange(256)).max() <= 1
    flat, _ = decode(_bytes(Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)), "TIFF"))
    assert not np.asarray(flat).any()


def test_damaged_exif_costs_no_picture() -> None:
    plain = _bytes(_quarters(), "PNG")
    chunk = b"eXIf" + b"garbage"
    data = (
        plain[:33]
        + struct.pack(">I", 7)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + plain[33:]
    )
    assert _near(_corners(decode(data)[0]), CORNERS)
    tags = struct.pack(">HHIHH", ORIENTATION, 3, 1, 6, 0) + struct.pack(
        ">HHI4s", 0x0100, 2, 4, b"abc\0"
    )  # its width as a text
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 2) + tags + struct.pack(">I", 0)
    assert _near(_corners(decode(_bytes(_quarters(), "JPEG", exif=exif))[0]), ORIENTATIONS[6])


def test_sixteen_bits_of_colour_are_scaled() -> None:
    rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32768, 256) * 4 for _ in range(4))
    data = _png(
        (b"IHDR", struct.pack(">2I5B", 4, 4, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    assert decode(data)[0].getpixel((1, 1)) == (255, 128, 1)


BOMB = _png(
    (b"IHDR", struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0)),
    (b"IDAT", zlib.compress(b"\0" * 100)),
    (b"IEND", b""),
)
LARGE = _png(
    (b"IHDR", struct.pack(">2I5B", 20001, 10000, 8, 0, 0, 0, 0)),
    (b"IDAT", zlib.compress(b"\0" * 100)),
    (b"IEND", b""),
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"this is a letter, not a picture", "not an image that can be read"),
        (b"\xff\xd8\xff", "not an image that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image that can be read"),
        (BOMB, "60000 x 60000 pixels take 14.4 GB to decode, over the limit of 1.0 GB"),
        (LARGE, "20001 x 10000 pixels take 1.0 GB to decode, over the limit of 1.0 GB"),
    ],
    ids=["empty", "text", "three-bytes", "svg", "bomb", "large"],
)
def test_what_is_not_a_picture_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(BrokenImage) as error:
        decode(data, 128)
    assert reason in error.value.message


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_file_cut_short_is_broken(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = _bytes(noise, kind)
    for share in (0.3, 0.6):
        with pytest.raises(BrokenImage) as error:
            decode(data[: int(share * len(data))], 32)
        assert error.value.message.startswith(("cannot be decoded: ", "not an image"))
    assert decode(data)[1] == (64, 64)


def test_garbage_in_the_middle_never_raises_anything_else() -> None:
    rng = np.random.default_rng(1)
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"):
        for _ in range(20):
            data = bytearray(_bytes(_quarters(), kind))
            for at in rng.integers(4, len(data), 6):
                data[at] = rng.integers(256)
            try:
                image, _ = decode(bytes(data), 16)
            except BrokenImage as error:
                assert error.message
            else:
                assert image.mode == "RGB"


def test_decoding_on_threads_leaves_the_warning_filters_alone() -> None:
    data, before = _bytes(_quarters(), "JPEG"), list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            list(pool.map(decode, [data] * 50))
    assert list(warnings.filters) == before


def test_square_squashes_the_whole_picture() -> None:
    image = _quarters(96, 32)
    small = square(image, 16)
    assert (small.shape, small.dtype) == ((16, 16, 3), np.uint8)
    assert _near([tuple(small[y, x].tolist()) for y in (1, -2) for x in (1, -2)], CORNERS, 2)
    assert np.allclose(
        small.mean((0, 1)), np.asarray(image).mean((0, 1)), atol=1
    )  # all of it, in equal parts
    assert np.array_equal(square(image.resize((16, 16)), 16), np.asarray(image.resize((16, 16))))


def test_square_enlarges_too() -> None:
    large = square(_quarters(8, 4), 64)
    assert large.shape == (64, 64, 3)
    assert _near([tuple(large[y, x].tolist()) for y in (1, -2) for x in (1, -2)], CORNERS, 2)


def test_the_content_hash_is_of_the_bytes() -> None:
    assert (
        content_hash(b"") == "99aa06d3014798d86001c324468d497f"
    )  # XXH3-128 of nothing, from the xxHash specification
    assert content_hash(b"a") == content_hash(b"a") != content_hash(b"b")


def test_a_frame_far_outside_of_a_gif_is_refused() -> None:
    file = io.BytesIO()
    frames = [Image.new("L", (2, 2), 9), Image.new("L", (2, 2), 7)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    data = bytearray(file.getvalue())
    second = data.rindex(b",\0\0\0\0")
    data[second + 1 : second + 5] = b"\xff\xff\xff\xff"  # its left and top edge
    with pytest.raises(BrokenImage, match=r"65\d{3} x 65\d{3} pixels take .* over the limit"):
        decode(bytes(data))


def test_a_png_that_is_too_large_is_refused_before_it_is_decoded() -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_of = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", sum_of)

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    start = time.process_time()
    with pytest.raises(BrokenImage, match="GB to decode, over the limit"):
        decode(data)
    assert time.process_time() - start < 0.5  # making room for it takes a second
