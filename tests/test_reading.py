"""Reading a source: in its order, every picture either decoded or skipped with a reason."""

import io
from pathlib import Path

import numpy as np
import pytest
from fakes import ListSource, png
from PIL import Image

from mrl_search.encoders.base import Preprocessing
from mrl_search.errors import BrokenImage, DataError, Skipped
from mrl_search.images.decode import content_hash
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import open_source, subset
from mrl_search.training.pixels import load_pixels


def test_pictures_come_in_order_with_all_that_is_known() -> None:
    files = [png(grey) for grey in range(256)] * 2  # more than are decoded ahead on two threads
    pictures = list(read_pictures(ListSource(files), Preprocessing(4).decode))
    assert [p.row for p in pictures] == list(range(512))
    assert [int(p.pixels[0, 0, 0]) for p in pictures] == [*range(256)] * 2
    assert [p.path for p in pictures[:2]] == ["image 0", "image 1"]
    assert [p.label for p in pictures[:3]] == ["label 0", "label 1", "label 0"]
    assert (pictures[7].width, pictures[7].height, pictures[7].hash) == (
        20,
        10,
        content_hash(files[7]),
    )
    assert (pictures[7].pixels.shape, pictures[7].pixels.dtype) == ((4, 4, 3), np.uint8)


def test_broken_images_are_skipped_in_their_place() -> None:
    source = ListSource(
        [
            png(1),
            b"",
            b"nonsense",
            BrokenImage("cannot be read: Permission denied"),
            png(2)[:45],
            png(3),
        ]
    )
    pictures = list(read_pictures(source, Preprocessing(8).decode))
    assert [type(p) for p in pictures] == [Picture, Skipped, Skipped, Skipped, Skipped, Picture]
    assert pictures[1:4] == [
        Skipped("image 1", "empty file"),
        Skipped("image 2", "not an image that can be read"),
        Skipped("image 3", "cannot be read: Permission denied"),
    ]
    assert pictures[4].path == "image 4"
    assert pictures[4].reason.startswith("cannot be decoded: ")


def test_a_file_that_vanished_is_skipped(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(png(5))
    source = open_source(str(tmp_path))
    (tmp_path / "a.png").unlink()
    gone, kept = read_pictures(source, Preprocessing(8).decode)
    reason = "cannot be read: there is no such file or folder"
    assert gone == Skipped(str(tmp_path / "a.png"), reason)
    assert isinstance(kept, Picture)


def test_both_sides_must_be_over_min_side() -> None:
    sizes = [(101, 101), (100, 101), (101, 100), (100, 100), (300, 99), (500, 101)]
    source = ListSource([png(9, *size) for size in sizes])
    pictures = list(read_pictures(source, Preprocessing(8).decode, min_side=100))
    assert [isinstance(p, Picture) for p in pictures] == [True, False, False, False, False, True]
    assert pictures[1] == Skipped(
        "image 1", "100 x 101 pixels; both sides must be above 100 pixels"
    )
    assert all(isinstance(p, Picture) for p in read_pictures(source, Preprocessing(8).decode))


def test_rows_choose_and_order() -> None:
    source = ListSource([png(grey) for grey in (10, 20, 30, 40)])
    pictures = list(read_pictures(source, Preprocessing(8).decode, rows=[3, 0, 3]))
    assert [(p.row, int(p.pixels[0, 0, 0])) for p in pictures] == [(3, 40), (0, 10), (3, 40)]
    assert list(read_pictures(source, Preprocessing(8).decode, rows=[])) == []


def test_a_reader_may_stop_early() -> None:
    pictures = read_pictures(
        ListSource([png(grey) for grey in range(200)]), Preprocessing(8).decode
    )
    assert next(pictures).row == 0
    pictures.close()


def test_load_pixels_keeps_what_can_be_decoded_aligned() -> None:
    files = [png(10), b"", png(30), png(40)]
    calls: list[tuple[int, int]] = []
    pixels = load_pixels(
        ListSource(files), 6, progress=lambda done, total: calls.append((done, total))
    )
    assert pixels.images.shape == (3, 3, 6, 6)
    assert pixels.images[:, :, 0, 0].tolist() == [[10] * 3, [30] * 3, [40] * 3]
    assert pixels.labels == ["label 0", "label 0", "label 1"]
    assert pixels.hashes == [content_hash(files[i]) for i in (0, 2, 3)]
    assert pixels.skipped == [Skipped("image 1", "empty file")]
    assert calls == [(4, 4)]


def test_load_pixels_filters_by_side_and_takes_a_part_of_a_source() -> None:
    source = ListSource([png(10), png(20, 30, 30), png(30, 40, 40), png(40, 50, 50)])
    part = subset(source, [3, 0, 1], "three of them")
    assert part.name == "a list (three of them)"
    pixels = load_pixels(part, 4, min_side=20)
    assert pixels.images[:, 0, 0, 0].tolist() == [40, 20]
    assert pixels.labels == ["label 1", "label 1"]
    assert [s.path for s in pixels.skipped] == ["image 0"]


@pytest.mark.parametrize(("files", "min_side"), [([b"", b"x"], 0), ([png(1)], 100)])
def test_load_pixels_needs_one_image(files: list, min_side: int) -> None:
    with pytest.raises(DataError) as error:
        load_pixels(ListSource(files), 6, min_side)
    reason = "20 x 10 pixels; both sides must be above 100 pixels" if min_side else "empty file"
    assert error.value.message == f"No image of a list can be used; the first: image 0: {reason}."
    assert error.value.hint


def test_colours_come_channel_first() -> None:
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(file, "PNG")
    assert load_pixels(ListSource([file.getvalue()]), 9).images[0, :, 4, 4].tolist() == [1, 2, 3]
