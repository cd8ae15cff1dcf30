"""Text in pictures: letters of all scripts that some font has, and never an empty box."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from mrl_search.report import lettering
from mrl_search.report.lettering import Lettering, drawable, families
from mrl_search.report.plots import Cloud, figure_of, scatter_plot, write_figure
from mrl_search.report.sheet import Row, Tile, save_sheet


@pytest.fixture(autouse=True)
def fresh_caches() -> Iterator[None]:
    yield
    lettering._face.cache_clear()


@pytest.fixture
def only_dejavu(monkeypatch: pytest.MonkeyPatch) -> None:
    lettering._face.cache_clear()
    monkeypatch.setattr(lettering, "_others", lambda: ())


@pytest.fixture
def with_cjk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A font whose only character is 日, a solid square, beside a damaged one."""
    pen = TTGlyphPen(None)
    for i, place in enumerate([(0, 0), (0, 800), (800, 800), (800, 0)]):
        (pen.lineTo if i else pen.moveTo)(place)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "sun"])
    builder.setupCharacterMap({ord("日"): "sun"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "sun": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (1000, 0), "sun": (1000, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Sun CJK", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "sun.ttf")
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    lettering._face.cache_clear()
    monkeypatch.setattr(
        lettering, "_others", lambda: (tmp_path / "broken.ttf", tmp_path / "sun.ttf")
    )
    return tmp_path / "sun.ttf"


def test_what_no_font_has_is_escaped(only_dejavu: None) -> None:
    assert drawable("Żółć, Straße, é – 1×") == "Żółć, Straße, é – 1×"
    assert drawable("日x\u202e\n\udce9") == r"\u65e5x\u202e\n\udce9"
    assert families(["ü", "日"]) == ["DejaVu Sans"]


def test_fonts_of_the_system_draw_what_dejavu_lacks(with_cjk: Path) -> None:
    assert drawable("日本 ü") == r"日\u672c ü"
    assert families(["a", "日"]) == ["DejaVu Sans", "Sun CJK"]
    letters, picture = Lettering(20), Image.new("L", (60, 30), 255)
    letters.draw(ImageDraw.Draw(picture), (0, 0), "日", 0)  # type: ignore[arg-type]
    dark = sum(value < 128 for value in picture.tobytes())
    assert 200 <= dark <= 300  # 16 x 16 pixels
    assert letters.length("日") == 20 and letters.length("a日") == 20 + letters.length("a")


def test_a_line_break_looks_for_no_other_font(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lettering._face.cache_clear()
    monkeypatch.setattr(lettering, "_others", lambda: pytest.fail("reads all fonts"))
    figure, (axes,) = figure_of((2, 2))
    axes.set_title("two\nlines")
    write_figure(figure, tmp_path / "plot.png")


def test_sheets_and_plots_take_any_label(with_cjk: Path, tmp_path: Path) -> None:
    names = ["_hidden", "a$b$\\frac", "日本\n", "other"]
    scatter_plot([Cloud("8 dims", [0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 2, 3], names)],
                 tmp_path / "plot.png")  # fmt: skip
    rows = [Row(name, [Tile(f"{name}.png", name)]) for name in names]
    save_sheet(rows, tmp_path / "sheet.png", "日")
    for name in ("plot.png", "sheet.png"):
        with Image.open(tmp_path / name) as image:
            assert image.width > 300
