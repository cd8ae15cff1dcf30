"""EXIF: when, with what and where a picture was taken; garbage never stops a picture."""

import io
import struct
import time
import warnings
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fakes import FakeEncoder, ListSource, png
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from mrl_search.errors import ConfigError
from mrl_search.images import exif as module
from mrl_search.images.exif import exif_columns
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.index import Index

MUNICH = {1: "N", 2: (48.0, 8.0, 15.0), 3: "E", 4: (11.0, 34.0, 30.0)}
NOON = "2024:05:01 12:30:45"
KINDS = ("JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF")


def exif_of(
    first: Mapping[int, Any], details: Mapping[int, Any] = {}, gps: Mapping[int, Any] = {}
) -> Image.Exif:
    exif = Image.Exif()
    exif.update(first)
    exif.get_ifd(0x8769).update(details)
    exif.get_ifd(0x8825).update(gps)
    return exif


def picture(exif: Image.Exif | bytes | None, kind: str = "JPEG") -> bytes:
    file = io.BytesIO()
    data = exif.tobytes() if isinstance(exif, Image.Exif) else exif
    Image.new("RGB", (32, 32), "red").save(file, kind, **({"exif": data} if data else {}))
    return file.getvalue()


def moment(*time: int) -> int:
    return int(datetime(*time, tzinfo=UTC).timestamp()) * 1000


FULL = exif_of({0x010F: "Canon", 0x0110: "Canon EOS 5D"}, {0x9003: NOON}, MUNICH)


@pytest.fixture
def _heif(request: pytest.FixtureRequest) -> None:
    if "HEIF" in request.node.name:
        pytest.importorskip("pillow_heif").register_heif_opener()


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_read_from_every_format_that_has_it(kind: str, _heif: None) -> None:
    assert exif_columns(picture(FULL, kind)) == {
        "taken": moment(2024, 5, 1, 12, 30, 45),
        "camera": "Canon EOS 5D",
        "latitude": 48.1375,  # 48 + 8 / 60 + 15 / 3600
        "longitude": 11.575,
    }


@pytest.mark.parametrize("kind", [*KINDS, "GIF", "BMP", "PPM", "JPEG2000"])
def test_without_it_there_is_nothing(kind: str, _heif: None) -> None:
    assert exif_columns(picture(None, kind)) == {}


def test_a_png_may_name_it_at_its_end() -> None:
    plain, block = picture(None, "PNG"), FULL.tobytes().removeprefix(b"Exif\0\0")
    chunk = b"eXIf" + block
    chunk = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    assert exif_columns(plain[:-12] + chunk + plain[-12:])["camera"] == "Canon EOS 5D"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_follows_a_picture_is_not_searched(kind: str) -> None:
    start = time.thread_time()
    assert exif_columns(picture(None, kind) + bytes(100_000_000)) == {}
    assert time.thread_time() - start < 1  # of this thread; it was 3 to 5


def test_no_pixel_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [picture(FULL, kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF")]

    def decoded(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decoded)
    assert all(exif_columns(data)["camera"] == "Canon EOS 5D" for data in files)


@pytest.mark.parametrize(
    ("details", "seen"),
    [
        ({0x9003: NOON}, moment(2024, 5, 1, 12, 30, 45)),
        ({0x9003: NOON, 0x9011: "+02:00"}, moment(2024, 5, 1, 12, 30, 45)),  # as on the clock
        ({0x9003: NOON, 0x9004: "2025:01:01 00:00:00"}, moment(2024, 5, 1, 12, 30, 45)),
        ({0x9004: "2025:01:01 00:00:00"}, moment(2025, 1, 1)),
        ({0x9003: "0000:00:00 00:00:00", 0x9004: NOON}, moment(2024, 5, 1, 12, 30, 45)),
        ({0x9003: "2024-05-01T12:30"}, moment(2024, 5, 1, 12, 30)),
        ({0x9003: "2024:05:01"}, moment(2024, 5, 1)),
        ({0x9003: "1908:06:30 07:14:00"}, moment(1908, 6, 30, 7, 14)),
        ({0x9003: "2024:05:01 12:30:45.678 "}, moment(2024, 5, 1, 12, 30, 45)),
        ({0x9003: "    :  :     :  :  "}, None),
        ({0x9003: "2024:02:30 12:00:00"}, None),
        ({0x9003: "2024:05:01 in the morning"}, None),
        ({0x9003: "0024:05:01 12:00:00"}, None),
        ({}, None),
    ],
)
def test_times(details: dict[int, str], seen: int | None) -> None:
    edited = {0x0132: "2026:01:01 00:00:00"}
    assert exif_columns(picture(exif_of(edited, details))).get("taken") == seen


@pytest.mark.parametrize(
    ("maker", "model", "seen"),
    [
        ("Canon", "Canon EOS 5D", "Canon EOS 5D"),
        ("NIKON CORPORATION", "NIKON D90", "NIKON D90"),
        ("OLYMPUS IMAGING CORP.  ", "E-M10", "OLYMPUS E-M10"),
        ("EASTMAN KODAK COMPANY", "KODAK EASYSHARE C813", "KODAK EASYSHARE C813"),
        ("SANYO Electric Co.,Ltd.", "S6", "SANYO Electric S6"),
        ("LG Electronics", "LG-H870", "LG-H870"),
        ("Apple", "iPhone 13", "Apple iPhone 13"),
        ("samsung", "SM-G991B\0rest", "samsung SM-G991B"),
        ("", "Holga", "Holga"),
        ("Zeiss", "", "Zeiss"),
        ("Camera", "Obscura", "Camera Obscura"),
        ("\u5c0f\u7c73", "12", "\u5c0f\u7c73 12"),
        ("a\x07b", "c\n d", "a b c d"),
        (" ", "", None),
    ],
)
def test_cameras(maker: str, model: str, seen: str | None) -> None:
    data = picture(exif_of({0x010F: maker.encode(), 0x0110: model.encode()}))
    assert exif_columns(data).get("camera") == seen


@pytest.mark.parametrize(
    ("place", "seen"),
    [
        (MUNICH, (48.1375, 11.575)),
        ({1: "S", 2: (33.5, 0.0, 0.0), 3: "W", 4: (70.0, 30.0, 0.0)}, (-33.5, -70.5)),
        ({**MUNICH, 1: "north", 3: "w"}, (48.1375, -11.575)),
        ({**MUNICH, 4: (180.0, 0.0, 0.0)}, (48.1375, 180.0)),
        ({**MUNICH, 2: (90.0, 0.0, 1.0)}, None),
        ({**MUNICH, 4: (180.0, 30.0, 0.0)}, None),
        ({**MUNICH, 1: "E"}, None),
        ({2: MUNICH[2], 4: MUNICH[4]}, None),
        ({1: "N", 2: MUNICH[2]}, None),
        ({1: "N", 2: (0.0, 0.0, 0.0), 3: "E", 4: (0.0, 0.0, 0.0)}, None),
        ({**MUNICH, 2: (IFDRational(0, 0), 0.0, 0.0)}, None),
    ],
)
def test_places(place: dict[int, Any], seen: tuple[float, float] | None) -> None:
    found = exif_columns(picture(exif_of({}, gps=place)))
    expected = dict(zip(("latitude", "longitude"), seen, strict=True)) if seen else {}
    assert found == pytest.approx(expected)


def read(data: bytes) -> Picture:
    (entry,) = read_pictures(ListSource([data]), FakeEncoder().preprocessing.decode)
    assert isinstance(entry, Picture)
    return entry


def check(columns: Mapping[str, Any]) -> None:
    """Whatever is told is of its type and in its range."""
    assert set(columns) <= {"taken", "camera", "latitude", "longitude"}
    assert moment(1826, 1, 1) <= columns.get("taken", 0) < moment(9999, 12, 31) + 86_400_000
    assert columns.get("camera", "x").isprintable() and columns.get("camera", "x").strip()
    assert -90 <= columns.get("latitude", 0) <= 90 and -180 <= columns.get("longitude", 0) <= 180
    assert ("latitude" in columns) == ("longitude" in columns)


def test_a_damaged_directory_costs_no_other() -> None:
    block = bytearray(FULL.tobytes())
    at = block.index(struct.pack("<HHI" if block[6:8] == b"II" else ">HHI", 0x8825, 4, 1))
    block[at + 8 : at + 12] = b"\xff\xff\xff\xff"
    assert set(exif_columns(picture(bytes(block)))) == {"taken", "camera"}


@given(st.binary(max_size=200))
def test_random_bytes_never_stop_a_picture(garbage: bytes) -> None:
    for head in (b"Exif\0\0", b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0MM\0*\0\0\0\x08"):
        check(read(picture(head + garbage)).columns)


@given(st.lists(st.tuples(st.integers(6, 400), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_exif_never_stops_a_picture(changes: list[tuple[int, int]]) -> None:
    block = bytearray(FULL.tobytes())
    for at, value in changes:
        block[at % len(block)] = value
    block[:6] = b"Exif\0\0"
    with warnings.catch_warnings(action="error"):
        check(read(picture(bytes(block))).columns)


@given(st.binary(max_size=100), st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF", "AVIF"]))
def test_damaged_files_never_raise(garbage: bytes, kind: str) -> None:
    data = picture(FULL, kind)
    for cut in (0, 3, 12, 30, len(data) // 2, len(data) - 9):
        check(exif_columns(data[:cut] + garbage))


WILD = st.one_of(
    st.none(), st.binary(max_size=9), st.text("N\u00e9\0:0 ", max_size=9), st.integers(),
    st.floats(),
    st.tuples(st.floats(), st.integers()), st.just(IFDRational(1, 0)), st.just(()),
    st.sampled_from([NOON, "N", "W", b"S", (1.0, 2.0, 3.0), ("1", 2, None)]),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from([1, 2, 3, 4, 0x010F, 0x0110, 0x9003, 0x9004]), WILD))
def test_values_of_any_type_are_taken_or_left(tags: dict[int, Any]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_directories", lambda _: (tags, tags, tags))
        check(exif_columns(b""))


def test_columns_of_an_index(tmp_path: Path) -> None:
    files = [picture(FULL), png(3), picture(exif_of({0x0110: "Holga"}))]
    index = Index.build(ListSource(files), tmp_path / "index", model=FakeEncoder())
    assert index.items.own_columns == ["taken", "camera", "latitude", "longitude"]
    rows = index.items.table().select(["taken", "camera"]).to_pylist()
    assert rows == [
        {"taken": datetime(2024, 5, 1, 12, 30, 45), "camera": "Canon EOS 5D"},
        {"taken": None, "camera": None},
        {"taken": None, "camera": "Holga"},
    ]
    assert index.items["latitude"].null_count == 2
    for where, found in (("taken=2024-05", 1), ("taken>=2024-05-01", 1), ("camera=Holga", 1)):
        assert len(index.search(files[0], k=3, where=where)) == found
    plain = Index.build(ListSource([png(1)]), tmp_path / "plain", model=FakeEncoder())
    assert plain.items.own_columns == []


def test_folders_are_a_column_and_metadata_comes_first(tmp_path: Path) -> None:
    for i, name in enumerate(("top.jpg", "trip/2024/a.jpg", "cafe\u0301/b.jpg")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(picture(exif_of({0x0110: f"Holga {i}"})))
    index = Index.build(tmp_path / "in", tmp_path / "a", model=FakeEncoder())
    assert index.items["folder"].to_pylist() == ["caf\u00e9", "", "trip/2024"]
    query = tmp_path / "in" / "top.jpg"
    (hit,) = index.search(query, where="folder=cafe\u0301", k=3)
    assert Path(str(hit.path)).name == "b.jpg"
    assert [h["folder"] for h in index.search(query, where="folder=", k=3)] == [""]
    (tmp_path / "in" / "metadata.csv").write_text("file_name,camera,folder\ntop.jpg,mine,x\n")
    index = Index.build(tmp_path / "in", tmp_path / "b", model=FakeEncoder())
    assert index.items["camera"].to_pylist() == [None, "mine", None]
    assert index.items["folder"].to_pylist() == [None, "x", None]
    one = Index.build(query, tmp_path / "c", model=FakeEncoder())
    assert one.items["folder"].to_pylist() == [""]


@pytest.fixture
def mixed(tmp_path: Path, fake_model: object) -> Path:
    """Folders `own`, whose metadata names columns as EXIF does, and `taken`, with EXIF."""
    for name, data in (("own/1.png", png(3)), ("taken/2.jpg", picture(FULL))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(data)
    (tmp_path / "own/metadata.csv").write_text("file_name,taken,camera\n1.png,long ago,5\n")
    return tmp_path


def test_exif_takes_the_types_of_a_users_columns(mixed: Path) -> None:
    Index.build(mixed / "own", mixed / "index", model=FakeEncoder())
    index = Index.open(mixed / "index")
    index.add(mixed / "taken")
    again = Index.open(mixed / "index")
    assert again.items.table().select(["taken", "camera", "latitude"]).to_pylist() == [
        {"taken": "long ago", "camera": 5, "latitude": None},
        {"taken": "2024-05-01 12:30:45.000", "camera": None, "latitude": 48.1375},
    ]


def test_exif_comes_back_when_a_table_goes(tmp_path: Path, fake_model: object) -> None:
    """A table's `camera` and `note` stand in place of EXIF until the table is gone."""
    for name in ("in/a.jpg", "in/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(picture(FULL) + name.encode())
    plain = Index.build(tmp_path / "in", tmp_path / "plain", model=FakeEncoder())
    table = tmp_path / "in/metadata.csv"
    table.write_text("file_name,camera,note\na.jpg,mine,x\nb.jpg,,\n")
    Index.build(tmp_path / "in", tmp_path / "index", model=FakeEncoder())
    index = Index.open(tmp_path / "index")
    assert set(index.items["camera"].to_pylist()) == {"mine", ""}
    table.unlink()
    assert len(index.sync().described) == 2
    told, wanted = Index.open(tmp_path / "index").items.table(), plain.items.table()
    for name in ("camera", "taken", "latitude", "label"):
        assert told[name].to_pylist() == wanted[name].to_pylist(), name
    assert told["note"].null_count == 2


def test_columns_that_do_not_fit_are_refused_and_the_index_stays_whole(mixed: Path) -> None:
    Index.build(mixed / "taken", mixed / "index", model=FakeEncoder())
    index = Index.open(mixed / "index")
    with pytest.raises(ConfigError, match=r"columns of other types: .*taken") as error:
        index.add(mixed / "own")
    assert error.value.hint == "Give a column one type."
    assert len(Index.open(mixed / "index")) == 1
    (mixed / "own/metadata.csv").unlink()
    assert len(index.add(mixed / "own").added) == 1
    (mixed / "own/metadata.csv").write_text("file_name,taken\n4.png,long ago\n")
    (mixed / "own/1.png").rename(mixed / "own/4.png")
    with pytest.raises(ConfigError, match="Column 'taken' is timestamp"):
        index.sync()
    assert len(Index.open(mixed / "index")) == 2
