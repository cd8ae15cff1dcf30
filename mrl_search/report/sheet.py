"""Contact sheets: rows of pictures with captions and marks, as one image."""

import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from mrl_search.errors import BrokenImage, ConfigError
from mrl_search.files import make_folder, write_atomically
from mrl_search.images.decode import decode
from mrl_search.images.sources import read_path
from mrl_search.report.lettering import Lettering, drawable

__all__ = ["COLUMNS", "MARKS", "Row", "Tile", "contact_sheet", "save_sheet"]

MARKS = {  # Okabe and Ito
    "query": (0, 114, 178), "right": (0, 158, 115), "kept": (0, 158, 115), "wrong": (213, 94, 0),
}  # fmt: skip
COLUMNS = 12  # tiles on one line: a query and its ten hits fit
MAX_PIXELS = 150_000_000
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
LIMITS = {"PNG": MAX_PIXELS, "JPEG": 65_500, "WEBP": 16_383}  # pixels a side
SIGNS = {
    "query": [[(58, 56), (80, 80)]],
    "right": [[(22, 50), (42, 70), (76, 28)]],
    "kept": [[(22, 42), (42, 62), (76, 20)], [(22, 82), (76, 82)]],
    "wrong": [[(28, 28), (72, 72)], [(28, 72), (72, 28)]],
}  # lines through points, in %
INK, GREY, CELL, LINE = (28, 32, 38), (98, 106, 116), (243, 244, 246), (222, 225, 229)


@dataclass(frozen=True, slots=True)
class Tile:
    """One picture: its path, a caption such as `1  0.93  dog`, and a mark that colours the frame.

    Raises:
        ConfigError: a mark that is neither empty nor one of `MARKS`.
    """

    path: str
    caption: str = ""
    mark: str = ""

    def __post_init__(self) -> None:
        if self.mark and self.mark not in MARKS:
            raise ConfigError(f"There is no mark {self.mark!r}.", f"Marks: {', '.join(MARKS)}.")


@dataclass(frozen=True, slots=True)
class Row:
    """Some pictures, best first, under a title such as `64 dims`."""

    title: str
    tiles: Sequence[Tile]


class _Measures:
    """Measures of a sheet in pixels."""

    def __init__(self, thumb: int) -> None:
        self.thumb = thumb
        self.frame = max(3, thumb // 36)
        self.text = max(11, thumb // 11)
        self.line = round(self.text * 1.35)
        self.gap = max(10, thumb // 8)
        self.side = thumb + 2 * self.frame  # of a picture with its frame
        self.step = self.side + self.gap  # from one picture to the next


def contact_sheet(
    rows: Sequence[Row], title: str = "", thumb: int = 144, read: Callable[[str], bytes] = read_path
) -> Image.Image:
    """Lay out the pictures of `rows` on white, each with its caption and file name below.

    A picture keeps its aspect ratio; one that cannot be read becomes a grey tile with the reason.
    A row with more than `COLUMNS` tiles continues on the next line.

    Args:
        rows: at least one.
        title: of the sheet.
        thumb: side of the square of a picture, in pixels.
        read: returns the content of the picture at a path.

    Raises:
        ConfigError: no row, a `thumb` outside 48 to 1024, or a sheet too large for memory.
    """
    if not rows or not 48 <= thumb <= 1024:
        raise ConfigError(
            f"A contact sheet cannot have {len(rows)} rows with pictures of {thumb} pixels.",
            "It takes one row or more, and 48 to 1024 pixels.",
        )
    at = _Measures(thumb)
    margin = 2 * at.gap
    font, heading, large = (Lettering(round(at.text * scale)) for scale in (1, 1.25, 1.7))
    tiles = [tile for row in rows for tile in row.tiles]
    marks = [mark for mark in MARKS if any(tile.mark == mark for tile in tiles)]
    captions = [[_wrap(tile.caption, font, at.side, 2) for tile in row.tiles] for row in rows]
    steps, heights = [], []  # from one line of pictures to the next, and of a row
    for row, lines in zip(rows, captions, strict=True):
        text = at.line * (1 + max(map(len, lines), default=0))
        steps.append(at.side + at.gap + text if lines else 2 * at.line)
        heights.append(2 * at.line + steps[-1] * max(1, -(-len(row.tiles) // COLUMNS)) + at.gap)
    top = margin + (3 * at.line if title else 0)
    columns = min(COLUMNS, max(4, *(len(row.tiles) for row in rows)))
    width = 2 * margin - at.gap + at.step * columns
    height = top + sum(heights) + (2 * at.line if marks else 0)
    if width * height > MAX_PIXELS:
        message = f"A contact sheet of {width} x {height} pixels is too large."
        raise ConfigError(message, "Show fewer queries, or smaller pictures.")

    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    cells = {path: _cell(path, at, read) for path in {tile.path for tile in tiles}}
    inner = width - 2 * margin
    large.draw(draw, (margin, margin - at.text // 3), _fit(title, large, inner), INK)
    y = top
    for row, lines, step, below in zip(rows, captions, steps, heights, strict=True):
        rule, first = y + round(1.5 * at.line), y + 2 * at.line
        heading.draw(draw, (margin, y), _fit(row.title, heading, inner), INK)
        draw.line((margin, rule, margin + inner - 1, rule), LINE)
        if not row.tiles:
            font.draw(draw, (margin, first), "no answer", GREY)
        for i, (tile, caption) in enumerate(zip(row.tiles, lines, strict=True)):
            corner = margin + i % COLUMNS * at.step, first + i // COLUMNS * step
            _draw_tile(sheet, at, corner, tile, caption, cells[tile.path])
        y += below
    for i, mark in enumerate(marks):
        x = margin + i * (at.line + 6 * at.text)
        _draw_badge(draw, mark, x, y, at.line)
        font.draw(draw, (x + 1.4 * at.line, y + 0.1 * at.line), mark, GREY)
    return sheet


def format_of(out: Path) -> str:
    """The format of a sheet by its suffix: PNG, JPEG or WEBP; ConfigError for any other."""
    if kind := FORMATS.get(out.suffix.lower()):
        return kind
    hint = f"End it with {', '.join(FORMATS)}."
    raise ConfigError(f"{out} is not the name of a contact sheet.", hint)


def save_sheet(
    rows: Sequence[Row],
    out: Path,
    title: str = "",
    thumb: int = 144,
    read: Callable[[str], bytes] = read_path,
) -> None:
    """Write the contact sheet of `rows` to `out`: PNG, JPEG or WebP by its suffix.

    Raises:
        ConfigError: another suffix, a sheet too large for its format, or as `contact_sheet`.
        MrlSearchError: `out` cannot be written.
    """
    kind = format_of(out)
    sheet = contact_sheet(rows, title, thumb, read)
    if max(sheet.size) > LIMITS[kind]:
        size = f"{sheet.width} x {sheet.height} pixels"
        raise ConfigError(f"A sheet of {size} is too large for {kind}.", "Write a .png.")
    make_folder(out.parent)
    with write_atomically(out) as file:
        sheet.save(file, kind, **({} if kind == "PNG" else {"quality": 92}))


def _cell(path: str, at: _Measures, read: Callable[[str], bytes]) -> Image.Image:
    """The picture on a light square, or the reason why it cannot be read."""
    cell = Image.new("RGB", (at.thumb, at.thumb), CELL)
    try:
        picture, _ = decode(read(path), at.thumb)
    except BrokenImage as error:
        return _with_reason(cell, at, error.message)
    except (OSError, ValueError):  # a name that no file can have
        return _with_reason(cell, at, "cannot be read")
    width, height = (max(1, round(side * at.thumb / max(picture.size))) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    cell.paste(picture, ((at.thumb - picture.width) // 2, (at.thumb - picture.height) // 2))
    return cell


def _with_reason(cell: Image.Image, at: _Measures, reason: str) -> Image.Image:
    font, draw = Lettering(at.text), ImageDraw.Draw(cell)
    lines = _wrap(reason, font, at.thumb - at.gap, max(1, at.thumb // at.line - 1))
    y = (at.thumb - at.line * len(lines)) / 2
    for line in lines:
        font.draw(draw, ((at.thumb - font.length(line)) / 2, y), line, GREY)
        y += at.line
    return cell


def _draw_tile(
    sheet: Image.Image, at: _Measures, corner: tuple[int, int], tile: Tile, caption: Sequence[str],
    cell: Image.Image,
) -> None:  # fmt: skip
    (x, y), draw, font = corner, ImageDraw.Draw(sheet), Lettering(at.text)
    draw.rectangle((x, y, x + at.side - 1, y + at.side - 1), MARKS.get(tile.mark, CELL))
    sheet.paste(cell, (x + at.frame, y + at.frame))
    if tile.mark:
        _draw_badge(draw, tile.mark, x + at.side - at.line, y, at.line)
    in_data_set = re.search(r"#([^/#]+/\d+)$", tile.path)
    name = in_data_set.group(1) if in_data_set else Path(tile.path).name
    y += at.side + at.line // 3
    for line in caption:
        font.draw(draw, (x, y), line, INK)
        y += at.line
    font.draw(draw, (x, y), _fit(name, font, at.side, middle=True), GREY)


def _draw_badge(draw: ImageDraw.ImageDraw, mark: str, x: int, y: int, size: int) -> None:
    """The mark as a sign: a lens, a tick or a cross, which reads in grey too."""
    draw.rectangle((x, y, x + size - 1, y + size - 1), MARKS[mark])
    for sign in SIGNS[mark]:
        points = [(x + across * size / 100, y + down * size / 100) for across, down in sign]
        draw.line(points, "white", max(2, size // 7))
    if mark == "query":
        lens = (x + 0.22 * size, y + 0.2 * size, x + 0.62 * size, y + 0.6 * size)
        draw.ellipse(lens, outline="white", width=max(2, size // 9))


def _fit(text: str, font: Lettering, width: float, middle: bool = False) -> str:
    """`text` on one line of `width` pixels, cut with an ellipsis at the end or in the middle."""
    text = drawable(text)

    def cut(keep: int) -> str:
        tail = keep // 2 if middle else 0
        return text[: keep - tail].rstrip() + "…" + text[len(text) - tail :]

    if font.length(text) <= width:
        return text
    too_long = bisect_right(range(len(text)), width, key=lambda keep: font.length(cut(keep)))
    return cut(max(0, too_long - 1))


def _wrap(text: str, font: Lettering, width: float, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels; an ellipsis stands for the rest."""
    words, done = re.findall(r"\s*\S+", drawable(text)), list[str]()
    while words and len(done) < lines - 1:
        line = words.pop(0).lstrip()
        while words and font.length(line + words[0]) <= width:
            line += words.pop(0)
        done.append(_fit(line, font, width))
    return [*done, _fit("".join(words).lstrip(), font, width)] if words else done
