"""Text in pictures: DejaVu Sans, and fonts of the system for characters that it does not have."""

import importlib.util
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

from mrl_search.text import plain

__all__ = ["Lettering", "drawable", "families"]

PREFERRED = ("cjk", "noto", "unicode", "wqy", "ipa", "han", "gothic", "droid")  # parts of names
FONTS = {".ttf", ".otf", ".ttc"}

Font = ImageFont.FreeTypeFont


def drawable(text: str) -> str:
    r"""`text` with characters that no font here has escaped, as `\u65e5`: never an empty box."""
    text = plain(text)
    missing = {c for c in text if not _face(c)}
    return "".join(c.encode("unicode_escape").decode() if c in missing else c for c in text)


def families(texts: Iterable[str]) -> list[str]:
    """Names of the fonts that draw all of `texts`, for matplotlib; DejaVu Sans comes first."""
    from matplotlib.font_manager import FontProperties, fontManager

    names = ["DejaVu Sans"]
    faces = {_face(c) or _dejavu() for text in texts for c in text}
    for path in sorted(faces - {_dejavu()}):
        fontManager.addfont(path)
        names.append(FontProperties(fname=path).get_name())
    return names


class Lettering:
    """Draws and measures text of one size in pixels; give it text from `drawable`."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._ascent = _font(_dejavu(), size).getmetrics()[0]

    def length(self, text: str) -> float:
        """Width in pixels."""
        return sum(font.getlength(part) for part, font in self._parts(text))

    def draw(
        self, draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str,
        colour: tuple[int, int, int],
    ) -> None:  # fmt: skip
        """Draw a line of text whose top left corner is at `place`."""
        x, y = place
        for part, font in self._parts(text):
            draw.text((x, y + self._ascent), part, colour, font, anchor="ls")
            x += font.getlength(part)

    def _parts(self, text: str) -> list[tuple[str, Font]]:
        """`text` in parts, each with a font that has all of its characters."""
        parts = groupby(text, lambda c: _face(c) or _dejavu())
        return [("".join(part), _font(path, self._size)) for path, part in parts]


@cache
def _dejavu() -> Path:
    """DejaVu Sans, which comes with matplotlib; nothing is imported."""
    found = importlib.util.find_spec("matplotlib")
    assert found is not None and found.origin is not None, "matplotlib is installed"
    return Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def _font(path: Path, size: int) -> Font:
    return ImageFont.truetype(path, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def _face(character: str) -> Path | None:
    """The first font that has a character; None if there is none."""
    if ord(character) in _characters(_dejavu()):
        return _dejavu()
    return next((path for path in _others() if ord(character) in _characters(path)), None)


@cache
def _others() -> Sequence[Path]:
    """The fonts of the system, those with many characters first."""
    from matplotlib.font_manager import findSystemFonts

    def place(path: Path) -> tuple[bool, str]:
        return not any(part in path.name.lower() for part in PREFERRED), str(path)

    paths = map(Path, findSystemFonts())
    return sorted((p for p in paths if p.suffix.lower() in FONTS), key=place)


@cache
def _characters(path: Path) -> frozenset[int]:
    """The characters of a font that Pillow can draw; none of a damaged font, or of bitmaps."""
    from fontTools.ttLib import TTFont

    try:
        _font(path, 16)
        with TTFont(path, lazy=True, fontNumber=0) as font:
            outlines = "glyf" in font or "CFF " in font
            return frozenset(font.getBestCmap() or () if outlines else ())
    except Exception:  # fonts of the system can be damaged in any way
        return frozenset()
