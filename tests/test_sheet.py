"""Contact sheets: frames, pictures and sizes at known pixels; broken pictures end no sheet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrl_search.errors import ConfigError, FileError
from mrl_search.report.sheet import CELL, COLUMNS, MARKS, Row, Tile, contact_sheet, save_sheet

FRAME, LINE, GAP, MARGIN, STEP = 4, 18, 18, 36, 170  # of a sheet with pictures of 144 pixels
TOP = MARGIN + 2 * LINE  # where the first tile begins, when there is no title
RED, BLUE, WHITE = (200, 30, 30), (20, 40, 160), (255, 255, 255)


@pytest.fixture
def red(tmp_path: Path) -> str:
    return _picture(tmp_path / "red.png", RED, (60, 60))


@pytest.fixture
def blue(tmp_path: Path) -> str:
    return _picture(tmp_path / "blue.png", BLUE, (300, 300))


def _picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int]) -> str:
    Image.new("RGB", size, colour).save(path)
    return str(path)


def _cell(sheet: Image.Image, column: int, row_top: int = TOP) -> np.ndarray:
    """The pixels of a tile's picture, without its frame."""
    x, y = MARGIN + column * STEP + FRAME, row_top + FRAME
    return np.asarray(sheet)[y : y + 144, x : x + 144]


def _below(sheet: Image.Image, column: int) -> np.ndarray:
    """The pixels of a tile's caption and file name."""
    x, y = MARGIN + column * STEP, TOP + 144 + 2 * FRAME
    return np.asarray(sheet)[y : y + 3 * LINE, x : x + 144 + 2 * FRAME]


def test_frames_and_pictures_have_their_colours(red: str, blue: str) -> None:
    marks = ["query", "right", "wrong", ""]
    sheet = contact_sheet(
        [
            Row(
                "8 dims",
                [Tile(path, "", mark) for path, mark in zip([red, blue] * 2, marks, strict=True)],
            )
        ]
    )
    for column, mark in enumerate(marks):
        x = MARGIN + column * STEP
        assert (
            sheet.getpixel((x, TOP))
            == sheet.getpixel((x + 151, TOP + 151))
            == MARKS.get(mark, CELL)
        )
        assert sheet.getpixel((x - 1, TOP)) == sheet.getpixel((x + 152, TOP)) == WHITE
        assert (
            sheet.getpixel((x + FRAME, TOP + FRAME + 20))
            == sheet.getpixel((x + 76, TOP + 76))
            == (RED, BLUE)[column % 2]
        )


def test_marks_can_be_told_apart_without_colour(red: str) -> None:
    signs = []
    for mark in MARKS:
        sheet = contact_sheet([Row("", [Tile(red, "", mark)])])
        badge = np.asarray(sheet)[TOP : TOP + LINE, MARGIN + 152 - LINE : MARGIN + 152]
        signs.append((badge == 255).all(axis=2))  # white on the colour of the mark
    assert all(sign.any() for sign in signs)
    assert not any((a == b).all() for i, a in enumerate(signs) for b in signs[:i])


def test_the_aspect_ratio_is_kept(tmp_path: Path) -> None:
    wide, thin = (
        _picture(tmp_path / "wide.png", RED, (400, 200)),
        _picture(tmp_path / "thin.png", RED, (2, 900)),
    )
    sheet = contact_sheet([Row("", [Tile(wide), Tile(thin)])])
    assert (_cell(sheet, 0)[36:108] == RED).all()
    assert (_cell(sheet, 0)[:36] == CELL).all() and (_cell(sheet, 0)[108:] == CELL).all()
    assert (_cell(sheet, 1) == RED).all(axis=2).sum() == 144  # one column wide


@pytest.mark.parametrize(
    "name", ["broken.png", "empty.png", "gone.png", "set#train/7", "nul\0.png", "long" * 200 + "#x"]
)
def test_a_picture_that_cannot_be_read_becomes_a_tile_that_says_why(
    name: str, tmp_path: Path, red: str
) -> None:
    (tmp_path / "broken.png").write_bytes(Path(red).read_bytes()[:60])
    (tmp_path / "empty.png").touch()
    sheet = contact_sheet([Row("", [Tile(str(tmp_path / name), "1  0.93", "wrong"), Tile(red)])])
    cell = _cell(sheet, 0)[LINE:]  # under the badge
    assert (cell == CELL).all(axis=2).mean() > 0.7
    assert (cell.max(axis=2) < 160).sum() > 100  # the words
    assert sheet.getpixel((MARGIN, TOP)) == MARKS["wrong"]
    assert (_cell(sheet, 1) == RED).all()


def test_the_reason_is_the_one_of_the_picture(tmp_path: Path) -> None:
    empty, garbage = tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"
    for path, data in ((empty, b""), (garbage, b"no image")):
        path.parent.mkdir()
        path.write_bytes(data)
    cells = [
        _cell(contact_sheet([Row("", [Tile(str(path))])]), 0) for path in (empty, garbage, empty)
    ]
    assert (cells[0] != cells[1]).any() and (cells[0] == cells[2]).all()


@pytest.mark.parametrize(
    ("counts", "columns", "lines"),
    [
        ((1,), 4, 1),
        ((6,), 6, 1),
        ((3, 7, 5), 7, 3),
        ((12,), 12, 1),
        ((13,), 12, 2),
        ((25, 1), 12, 4),
    ],
)
def test_the_size_follows_from_rows_and_columns(
    counts: tuple[int, ...], columns: int, lines: int, red: str
) -> None:
    assert COLUMNS == 12
    sheet = contact_sheet([Row("row", [Tile(red)] * count) for count in counts])
    assert sheet.size == (
        2 * MARGIN - GAP + columns * STEP,
        MARGIN + len(counts) * (2 * LINE + GAP) + lines * (STEP + LINE),
    )
    titled = contact_sheet(
        [Row("row", [Tile(red, "one line", "right")] * count) for count in counts], title="Title"
    )
    assert (
        titled.height == sheet.height + 3 * LINE + lines * LINE + 2 * LINE
    )  # title, captions, what the marks mean


def test_a_long_row_goes_on_in_the_next_line(red: str, blue: str) -> None:
    sheet = contact_sheet([Row("", [Tile(red)] * 12 + [Tile(blue)])])
    assert (_cell(sheet, 11) == RED).all()
    assert (_cell(sheet, 0, TOP + STEP + LINE) == BLUE).all()


def test_a_row_without_answers_is_there_and_short(red: str) -> None:
    with_none, without = (
        contact_sheet([Row("none", []), Row("", [Tile(red)])]),
        contact_sheet([Row("", [Tile(red)])]),
    )
    assert with_none.height - without.height == 4 * LINE + GAP
    assert (np.asarray(with_none)[TOP : TOP + LINE] != 255).any()


def test_texts_are_drawn(red: str, tmp_path: Path) -> None:
    other = _picture(tmp_path / "other.png", RED, (60, 60))
    tiles = [Tile(red, "1  0.93  dog"), Tile(red, "1  0.92  dog"), Tile(red), Tile(other)]
    sheet = contact_sheet([Row("64 dims", tiles)])
    texts = [_below(sheet, i) for i in range(4)]
    assert all((text < 160).any() for text in texts)
    assert not any((a == b).all() for i, a in enumerate(texts) for b in texts[:i])
    titles = [
        np.asarray(contact_sheet([Row(title, tiles)]))[MARGIN : MARGIN + LINE]
        for title in ("64 dims", "8:200,1024:10")
    ]
    assert (titles[0] != titles[1]).any()


@pytest.mark.parametrize(
    "caption",
    [
        "a" * 200,
        "a norwegian forest cat with very long hair " * 5,
        "line\nbreak\tand \udcff bytes",
        "Größe",
    ],
)
def test_long_and_strange_texts_stay_under_their_picture(
    caption: str, red: str, tmp_path: Path
) -> None:
    path = _picture(tmp_path / f"{'long-name-' * 12}.png", BLUE, (9, 9))
    pixels = np.asarray(
        contact_sheet([Row("row " * 200, [Tile(path, caption), Tile(red)])], title="title " * 100)
    )
    top = 3 * LINE + TOP
    assert (pixels[top:, MARGIN + 152 : MARGIN + STEP] == 255).all()
    assert (pixels[:, :MARGIN] == 255).all() and (pixels[:, -MARGIN:] == 255).all()


def test_a_picture_in_many_rows_is_read_once(red: str) -> None:
    paths: list[str] = []

    def read(path: str) -> bytes:
        paths.append(path)
        return Path(path).read_bytes()

    contact_sheet([Row("a", [Tile(red)]), Row("b", [Tile(red), Tile(red)])], read=read)
    assert paths == [red]


@pytest.mark.parametrize(
    ("suffix", "kind"), [(".png", "PNG"), (".JPG", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")]
)
def test_the_suffix_decides_the_format(suffix: str, kind: str, red: str, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / f"sheet{suffix}"
    rows = [Row("8 dims", [Tile(red, "1", "right")])]
    save_sheet(rows, out, "Title", thumb=96)
    with Image.open(out) as image:
        assert image.format == kind
        assert image.size == contact_sheet(rows, "Title", 96).size
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_sheet_is_written_as_it_was_drawn(red: str, tmp_path: Path) -> None:
    rows = [Row("8 dims", [Tile(red, "1", "right")])]
    save_sheet(rows, tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").tobytes() == contact_sheet(rows).tobytes()


def test_what_makes_no_sense_is_refused(red: str, tmp_path: Path) -> None:
    row = Row("", [Tile(red)])
    with pytest.raises(ConfigError, match="'good'") as error:
        Tile(red, "", "good")
    assert "query, right, kept, wrong" in error.value.hint
    with pytest.raises(ConfigError, match="0 rows"):
        contact_sheet([])
    with pytest.raises(ConfigError, match="3 pixels"):
        contact_sheet([row], thumb=3)
    with pytest.raises(ConfigError, match="too large"):
        contact_sheet([row] * 40, thumb=1024)
    for name in ("sheet.svg", "sheet"):
        with pytest.raises(ConfigError, match="not the name of a contact sheet") as error:
            save_sheet([row], tmp_path / name)
        assert ".png" in error.value.hint
    with pytest.raises(ConfigError, match="too large for WEBP"):
        save_sheet([row] * 150, tmp_path / "sheet.webp", thumb=48)
    with pytest.raises(FileError, match="cannot be made: there is a file of this name"):
        save_sheet([row], Path(red) / "sheet.png")
    assert [path.name for path in tmp_path.iterdir()] == ["red.png"]
