"""Pixels of formats that Pillow does not write: TIFF, BMP and PNG files made byte by byte; HEIC."""

import io
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mrl_search.errors import BrokenImage
from mrl_search.images import decode as decoding
from mrl_search.images.decode import HEAD, HEIC_SUFFIXES, decode, is_picture, suffixes
from mrl_search.images.sources import open_source

GREY = np.array([[0, 20_000], [40_000, 65_535]], dtype=np.uint16)
EIGHT = (GREY >> 8).astype(np.uint8)
NONE = EIGHT * 0
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def tiff(values: NDArray, photometric: int, extra: tuple[int, ...] = (), order: str = "<") -> bytes:
    """An uncompressed TIFF file of (h, w) or (h, w, samples) values in one strip."""
    values = values.reshape(*values.shape[:2], -1)
    height, width, samples = values.shape
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    bits = [values.dtype.itemsize * 8] * samples
    tags = {
        256: [width], 257: [height], 258: bits, 259: [1], 262: [photometric], 273: [0],
        277: [samples], 278: [height], 279: [len(data)], 284: [1],
        339: [3 if values.dtype.kind == "f" else 1] * samples,
    }  # fmt: skip
    if extra:
        tags = dict(sorted({**tags, 338: list(extra)}.items()))
    at = 8 + 2 + 12 * len(tags) + 4
    more = sum(2 * len(v) for v in tags.values() if len(v) > 2)
    tags[273] = [at + more]
    entries, blob = b"", b""
    for tag, value in tags.items():
        packed = struct.pack(f"{order}{len(value)}H", *value)
        place = packed.ljust(4, b"\0")
        if len(packed) > 4:
            place = struct.pack(f"{order}I", at + len(blob))
            blob += packed
        entries += struct.pack(f"{order}HHI", tag, 3, len(value)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    return head + entries + struct.pack(f"{order}I", 0) + blob + data


def bmp(size: tuple[int, int], bits: int, data: bytes, coding: int = 0, more: bytes = b"") -> bytes:
    """A BMP file; `more` are its masks or its palette."""
    colours = len(more) // 4 if coding in (0, 1) else 0
    head = struct.pack("<IiiHHIIiiII", 40, *size, 1, bits, coding, len(data), 0, 0, colours, 0)
    at = 14 + len(head) + len(more)
    return b"BM" + struct.pack("<IHHI", at + len(data), 0, 0, at) + head + more + data


def png(colour: int, samples: tuple[int, ...], key: tuple[int, ...] = ()) -> bytes:
    """A PNG file of 2 x 2 pixels of 16 bits a sample, with a transparent colour `key`."""
    rows = b"".join(b"\0" + struct.pack(f">{len(samples)}H", *samples) * 2 for _ in range(2))
    chunks = [(b"IHDR", struct.pack(">2I5B", 2, 2, 16, colour, 0, 0, 0))]
    chunks += [(b"tRNS", struct.pack(f">{len(key)}H", *key))] if key else []
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def ends(data: bytes) -> list[tuple[int, ...]]:
    """The first and the last pixel."""
    image, _ = decode(data)
    width, height = image.size
    return [image.getpixel((0, 0)), image.getpixel((width - 1, height - 1))]


def layers(*samples: NDArray) -> NDArray:
    return np.dstack(samples)


CLEAR = np.array([[0, 255], [255, 255]], dtype=np.uint8)  # only the first pixel


@pytest.mark.parametrize(
    ("values", "photometric", "extra", "seen"),
    [
        (GREY, 1, (), [BLACK, WHITE]),
        (EIGHT, 0, (), [WHITE, BLACK]),  # white is zero
        (layers(GREY, GREY // 2, GREY // 4), 2, (), [BLACK, (255, 127, 63)]),
        (layers(EIGHT, EIGHT // 2, EIGHT // 4), 2, (), [BLACK, (255, 127, 63)]),
        (layers(EIGHT, EIGHT, EIGHT, NONE), 2, (0,), [BLACK, WHITE]),  # a fourth of no meaning
        (layers(NONE, NONE, NONE, CLEAR), 2, (2,), [WHITE, BLACK]),
        (layers(EIGHT // 2, NONE, NONE, NONE + 128), 2, (1,), [(127,) * 3, (253, 127, 127)]),
        (layers(GREY, GREY, GREY, CLEAR.astype(np.uint16) * 257), 2, (2,), [WHITE, WHITE]),
        (layers(NONE, EIGHT, EIGHT, NONE), 5, (), [WHITE, (255, 0, 0)]),
        (layers(GREY * 0, GREY, GREY, GREY * 0), 5, (), [WHITE, (255, 0, 0)]),
        (layers(EIGHT, CLEAR), 1, (2,), [WHITE, WHITE]),
        (GREY.astype(np.float32) / 1000, 1, (), [BLACK, WHITE]),
    ],
    ids=[
        "grey16", "white-is-zero", "rgb16", "rgb8", "rgbx", "rgba", "premultiplied", "rgba16",
        "cmyk", "cmyk16", "grey-alpha", "float",
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", ["<", ">"])
def test_kinds_of_tiff(
    values: NDArray, photometric: int, extra: tuple[int, ...], seen: list, order: str
) -> None:
    found = ends(tiff(values, photometric, extra, order))
    assert np.abs(np.subtract(found, seen)).max() <= 1


def test_sixteen_bits_with_white_at_zero() -> None:
    assert ends(tiff(GREY, 0)) == [WHITE, BLACK]


def test_sixteen_bits_in_planes_are_refused_rather_than_mixed_up() -> None:
    data = bytearray(tiff(layers(GREY, GREY, GREY), 2))
    at = data.index(struct.pack("<HHIH", 284, 3, 1, 1))
    data[at + 8] = 2
    with pytest.raises(BrokenImage, match="more than 8 bits in separate planes"):
        decode(bytes(data))


BLUE_RED = bytes([250, 2, 1, 0, 1, 2, 250, 0])
PALETTE = bytes([9, 9, 9, 0, 200, 0, 0, 0])


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (bmp((2, 1), 16, struct.pack("<HH", 0x7C00, 0x001F)), [(255, 0, 0), (0, 0, 255)]),
        (
            bmp((2, 1), 16, struct.pack("<HH", 0xF800, 0x07E0), 3,
                struct.pack("<III", 0xF800, 0x7E0, 0x1F)),
            [(255, 0, 0), (0, 255, 0)],
        ),
        (bmp((2, 1), 32, BLUE_RED), [(1, 2, 250), (250, 2, 1)]),
        (bmp((1, -2), 24, BLUE_RED), [(1, 2, 250), (250, 2, 1)]),  # the top row first
        (bmp((1, 2), 24, BLUE_RED), [(250, 2, 1), (1, 2, 250)]),
        (bmp((8, 1), 1, b"\x80\0\0\0", more=PALETTE), [(0, 0, 200), (9, 9, 9)]),
        (bmp((2, 2), 8, bytes([2, 1, 0, 0, 2, 0, 0, 1]), 1, PALETTE), [(9, 9, 9), (0, 0, 200)]),
    ],
    ids=["555", "565", "32", "top-down", "24", "1", "run-length"],
)  # fmt: skip
def test_kinds_of_bmp(data: bytes, seen: list) -> None:
    assert ends(data) == seen


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (png(0, (32_768,)), (128,) * 3),
        (png(0, (60_000,), (60_000,)), WHITE),
        (png(0, (60_000,), (60_001,)), (234,) * 3),  # nearly the transparent grey
        (png(2, (65_535, 32_768, 256)), (255, 128, 1)),
        (png(2, (60_000, 300, 2), (60_000, 300, 2)), WHITE),
        (png(4, (32_768, 65_535)), (128,) * 3),
        (png(4, (32_768, 0)), WHITE),
        (png(6, (65_535, 32_768, 256, 65_535)), (255, 128, 1)),
        (png(6, (0, 0, 0, 32_768)), (127,) * 3),
    ],
)
def test_kinds_of_png_of_sixteen_bits(data: bytes, seen: tuple[int, ...]) -> None:
    assert ends(data) == [seen, seen]


def test_a_palette_may_be_transparent_by_entry() -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 40, 50, 60, 0, 0, 0])
    image.putdata([0, 1, 2])
    file = io.BytesIO()
    image.save(file, "PNG", transparency=bytes([255, 0, 128]))
    decoded, _ = decode(file.getvalue())
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [(10, 20, 30), WHITE, (127,) * 3]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(params=["AVIF", "HEIF"])
def kind(request: pytest.FixtureRequest) -> str:
    if request.param == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return request.param


def test_avif_and_heic_of_every_mode(kind: str) -> None:
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((200, 0, 0, 255), (0, 0, 32, 64))
    decoded, size = decode(saved(clear, kind, quality=100))
    assert size == (64, 64)
    seen = [*decoded.getpixel((8, 8)), *decoded.getpixel((50, 50))]
    assert np.abs(np.subtract(seen, [200, 0, 0, *WHITE])).max() <= 3
    grey = decode(saved(Image.new("L", (64, 64), 90), kind, quality=95))[0]
    assert np.abs(np.subtract(grey.getpixel((8, 8)), 90)).max() <= 2


def test_of_several_pictures_the_first_is_taken(kind: str) -> None:
    ramp = Image.linear_gradient("L").convert("RGB").resize((64, 64))
    data = saved(ramp, kind, save_all=True, append_images=[Image.new("RGB", (64, 64), "red")])
    decoded, size = decode(data)
    assert size == (64, 64)
    assert abs(decoded.getpixel((32, 60))[0] - 240) < 12 and decoded.getpixel((32, 2))[0] < 20


@pytest.mark.parametrize("bits", [10, 12])
def test_heic_of_more_bits_is_scaled(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    monkeypatch.setattr(heif.options, "SAVE_HDR_TO_12_BIT", bits == 12)
    values = np.full((64, 64, 3), (65_535, 32_768, 0), dtype=np.uint16)
    file = io.BytesIO()
    heif.from_bytes("RGB;16", (64, 64), values.tobytes()).save(file, quality=95)
    assert np.abs(np.subtract(decode(file.getvalue())[0].getpixel((9, 9)), (255, 128, 0))).max() < 3


HEIC_HEAD = b"\0\0\0\x18ftypheic" + bytes(HEAD)


def test_pillow_heif_is_asked_once_it_is_installed(
    without_heif: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a stand-in for it, which finds a red picture in anything called `heic`."""
    (tmp_path / "a.HEIC").write_bytes(HEIC_HEAD)
    assert not HEIC_SUFFIXES & suffixes() and not is_picture(HEIC_HEAD)

    def register() -> None:
        def opened(*_: object) -> Image.Image:
            return Image.new("RGB", (4, 2), "red")

        def accepts(head: bytes) -> bool:
            return head[4:12] == b"ftypheic"

        monkeypatch.setitem(Image.OPEN, "HEIF", (opened, accepts))

    monkeypatch.setitem(
        decoding.importlib.sys.modules,
        "pillow_heif",
        SimpleNamespace(register_heif_opener=register),
    )
    decoding.formats.cache_clear()
    suffixes.cache_clear()
    assert suffixes() >= HEIC_SUFFIXES and is_picture(HEIC_HEAD)
    assert decode(HEIC_HEAD)[1] == (4, 2) and ends(HEIC_HEAD) == [(255, 0, 0)] * 2
    assert list(open_source(str(tmp_path)).notes) == []


@pytest.mark.parametrize("brand", [b"heic", b"heim", b"hevs", b"mif1"])
def test_every_brand_of_heic_is_told_how_to_be_read(without_heif: None, brand: bytes) -> None:
    with pytest.raises(BrokenImage, match="HEIC is read with the extra heic"):
        decode(b"\0\0\0\x18ftyp" + brand + bytes(64))
