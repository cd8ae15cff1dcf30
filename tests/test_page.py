"""The page and its plots: every number is on it, nothing is fetched, nothing is taken for HTML."""

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from mrl_search.errors import ConfigError, DataError, FileError
from mrl_search.metrics import Share
from mrl_search.report import plots as module
from mrl_search.report.page import (
    Figure,
    Figures,
    Heading,
    Page,
    Table,
    render_markdown,
    render_page,
    write_page,
)
from mrl_search.report.plots import PlanPoint, accuracy_plot, front_plot, latency_plot

SHARES = {d: Share(v, v - 0.02, v + 0.02, 100) for d, v in ((8, 0.9), (64, 0.93), (1024, 0.96))}
ACCURACY = {"linear head": SHARES, "20-NN": SHARES}
LATENCY = {"8 dims": (0.04, 0.07), "8:200,1024:10": (0.2, 0.5), "exact": (3.0, 120.0)}
TABLE = Table(
    "Accuracy",
    ("dims", "20-NN", "plan"),
    (("8", "0.913 ± 0.004", "8:200,1024"), ("64", "—", "64:10")),
    note="n = 2300, ninety-five per cent",
)
VOID = {"meta", "link", "img", "input", "br", "source"}


class _Reader(HTMLParser):
    """Reads the elements and words of a page; a tag that is not closed is an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"] and data.strip():
            self.words.append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "sheet.png"
    Image.new("RGB", (1500, 300), "red").save(path)
    return path


def _page(figures: list[Figure]) -> Page:
    commands = [("mrl-search query photo.jpg --plan 8:200,1024", "Finds what looks like it.")]
    blocks = [
        Figures(tuple(figures[:1])),
        Heading("A part", ("Its text.",)),
        TABLE,
        Figures(tuple(figures[1:])),
    ]
    return Page(
        "A page", ["First.", "Second."], blocks, commands, {"torch": "2.13.0", "seed": "17"}
    )


def _render(figures: list[Figure]) -> str:
    return render_page(_page(figures))


def test_everything_is_on_the_page_in_order(picture: Path) -> None:
    page = _Reader(
        _render([Figure("Answers", picture, "What was found."), Figure("Again", picture, "More.")])
    )
    body = page.words[1:]  # without <title>
    expected = ["A page", "First.", "Second.", "Answers", "Show at full size", "What was found."]
    expected += ["A part", "Its text.", "Accuracy", *TABLE.columns]
    expected += [cell for row in TABLE.rows for cell in row] + [
        TABLE.note,
        "Again",
        "Show at full size",
        "More.",
        "Try it yourself",
    ]
    expected += ["mrl-search query photo.jpg --plan 8:200,1024", "Finds what looks like it."]
    assert body == [*expected, "How this was made", "torch", "2.13.0", "seed", "17"]


def test_what_is_not_given_is_not_there() -> None:
    page = _Reader(render_page(Page("Empty")))
    assert page.words == ["Empty", "Empty"]
    assert not page.all("section") and not page.all("img")


def test_columns_of_numbers_are_aligned_right() -> None:
    assert TABLE.numeric == (True, True, False)  # a plan is no number
    cells = ("12 ms", "-0.5", "+3%", "<0.1", "1 200", "", "2025-11-24 10:00", "cat", "v2")
    assert Table("", cells, (cells,)).numeric == (True,) * 6 + (False,) * 3
    page = _Reader(_render([]))
    assert [cell.get("class") for cell in page.all("td")] == ["number", None] * 2
    assert [cell["scope"] for cell in page.all("th")] == ["col"] * 3 + ["row"] * 2


def test_text_is_never_html(picture: Path) -> None:
    bad = '<script>alert("1")</script> & \'"><img src=x onerror=y>'
    blocks = [
        Table(bad, (bad,), ((bad,),), bad),
        Figures((Figure(bad, picture, bad),)),
        Heading(bad, (bad,)),
    ]
    page = render_page(Page(bad, [bad], blocks, [(bad, bad)], {bad: bad}))
    reader = _Reader(page)
    assert "<script" not in page and len(reader.all("img")) == 1
    assert reader.words.count(bad) == 15  # the title counts twice
    assert reader.all("img")[0]["alt"] == bad and "onerror" not in reader.all("img")[0]


def test_nothing_is_fetched(picture: Path) -> None:
    page = _render([Figure("Answers", picture, "")])
    assert "//" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page)  # no other host
    assert "url(" not in page and "@import" not in page and "<script" not in page
    reader = _Reader(page)
    assert [link["href"] for link in reader.all("link")] == ["data:,"]
    policy = next(
        meta["content"]
        for meta in reader.all("meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_images_are_inside_with_their_size(picture: Path, tmp_path: Path) -> None:
    photo, plot = tmp_path / "photo.jpg", tmp_path / "plot.png"
    Image.new("RGB", (200, 100), "blue").save(photo)
    accuracy_plot(ACCURACY, plot)
    page = _render([Figure(path.name, path, "") for path in (picture, photo, plot)])
    images = _Reader(page).all("img")
    for image, path, kind in zip(
        images, (picture, photo, plot), ("png", "jpeg", "png"), strict=True
    ):
        head, _, data = str(image["src"]).partition(",")
        assert head == f"data:image/{kind};base64"
        assert base64.b64decode(data) == path.read_bytes()
    with Image.open(plot) as drawn:
        half = (str(round(drawn.width / 2)), str(round(drawn.height / 2)))
    assert [(image["width"], image["height"]) for image in images] == [
        ("1500", "300"),
        ("200", "100"),
        half,
    ]
    assert [figure.get("class") for figure in _Reader(page).all("figure")] == ["wide", None, None]
    assert page.count("Show at full size") == 1  # only what is shown smaller than it is


def test_a_page_is_written_whole(picture: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    page = Page(
        "Ä page",
        ["Text."],
        [TABLE, Figures((Figure("Answers", picture, ""),))],
        [("x", "y")],
        {"seed": "17"},
    )
    write_page(out, page)
    assert out.read_text(encoding="utf-8") == render_page(page)
    assert list(out.parent.iterdir()) == [out]
    with pytest.raises(FileError, match="cannot be made: there is a file of this name"):
        write_page(picture / "page.html", page)


def test_markdown_says_the_same_and_nothing_in_it_is_markup(picture: Path) -> None:
    text = render_markdown(
        _page([Figure("Answers", picture, "What was found."), Figure("Again", picture, "More.")])
    )
    parts = [
        "# A page",
        "First.",
        "### Answers",
        "What was found.",
        "## A part",
        "Its text.",
        "### Accuracy",
        "More.",
        "- torch: 2.13.0",
    ]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)
    assert (
        "| dims | 20-NN | plan |\n| ---: | ---: | --- |\n| 8 | 0.913 ± 0.004 | 8:200,1024 |" in text
    )
    bad = render_markdown(Page("", blocks=[Table("", ("a|b", "c"), (("<b>", "*x*\ny"),))]))
    assert "| a\\|b | c |\n| --- | --- |\n| \\<b\\> | \\*x\\* y |" in bad


def test_a_figure_that_cannot_be_shown_is_named(picture: Path, tmp_path: Path) -> None:
    out, gone, text, scan = (
        tmp_path / name for name in ("page.html", "gone.png", "text.png", "scan.tiff")
    )
    text.write_text("no image")
    Image.open(picture).save(scan)
    with pytest.raises(FileError, match=r"gone\.png cannot be read: there is no such file"):
        write_page(out, Page("A page", blocks=[Figures((Figure("", gone, ""),))]))
    for path, why in ((text, "cannot be read"), (scan, "TIFF")):
        with pytest.raises(DataError, match=f"{re.escape(str(path))}.*{why}"):
            write_page(out, Page("A page", blocks=[Figures((Figure("", path, ""),))]))
    assert not out.exists()
    with pytest.raises(ConfigError, match="2 columns; a row has 1 cells"):
        Table("Short", ("a", "b"), (("1",),))


@pytest.fixture(scope="module")
def plots(tmp_path_factory: pytest.TempPathFactory) -> dict[Callable[..., None], np.ndarray]:
    """The pixels of both plots, drawn once."""
    out = tmp_path_factory.mktemp("plots") / "plot.png"
    return {
        draw: _pixels(draw, points, out)
        for draw, points in ((accuracy_plot, ACCURACY), (latency_plot, LATENCY))
    }


def _pixels(draw: Callable[..., None], points: dict, out: Path) -> np.ndarray:
    draw(points, out)
    with Image.open(out) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
        assert round(image.info["dpi"][0]) == 192
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize(
    ("draw", "change"),
    [
        (accuracy_plot, {"20-NN": SHARES | {8: replace(SHARES[8], value=0.8)}}),
        (accuracy_plot, {"20-NN": SHARES | {8: replace(SHARES[8], low=0.5)}}),
        (accuracy_plot, {"20-NN": SHARES | {8: replace(SHARES[8], high=0.99)}}),
        (accuracy_plot, {"20-NN": {16: SHARES[8], 64: SHARES[64], 1024: SHARES[1024]}}),
        (accuracy_plot, {"instance recall@1": SHARES}),
        (latency_plot, {"8 dims": (0.05, 0.07)}),
        (latency_plot, {"8 dims": (0.04, 0.08)}),
        (latency_plot, {"16 dims": (0.04, 0.07)}),
    ],
)
def test_a_plot_shows_every_value(
    draw: Callable[..., None],
    change: dict[str, Any],
    plots: dict[Callable[..., None], np.ndarray],
    tmp_path: Path,
) -> None:
    points = ACCURACY if draw is accuracy_plot else LATENCY
    after = _pixels(draw, {**points, **change}, tmp_path / "changed.png")
    assert plots[draw].shape != after.shape or (plots[draw] != after).any()


def test_series_have_colours_of_their_own_and_a_plot_repeats(
    plots: dict[Callable[..., None], np.ndarray], tmp_path: Path
) -> None:
    pixels = plots[accuracy_plot]
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=2).sum() > 200
    assert not (pixels == (0x00, 0x9E, 0x73)).all(axis=2).any()  # no third series
    assert (pixels == _pixels(accuracy_plot, ACCURACY, tmp_path / "again.png")).all()


def test_plots_of_little_and_of_odd_values(tmp_path: Path) -> None:
    past = {"20-NN": {8: Share(1.0, 1.0, 0.99, 9)}}  # an interval rounded past its value
    accuracy_plot(past, tmp_path / "new" / "a.png")
    latency_plot({"8 dims": (0.0, 0.0)}, tmp_path / "new" / "b.png")
    assert len(list((tmp_path / "new").iterdir())) == 2
    for draw, points in ((accuracy_plot, ACCURACY), (latency_plot, LATENCY)):
        with pytest.raises(ConfigError, match="nothing to plot"):
            draw({}, tmp_path / "a.png")
        with pytest.raises(ConfigError, match="not the name of a plot"):
            draw(points, tmp_path / "a.svg")
        with pytest.raises(FileError, match="cannot be made: there is a file of this name"):
            draw(points, tmp_path / "new" / "a.png" / "b.png")


def test_plans_stand_where_their_time_and_value_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Axes] = []
    monkeypatch.setattr(module, "_save", lambda figure, axes, out: drawn.append(axes))
    points = [
        PlanPoint("slow", 2.0, 0.99, chosen=True),
        PlanPoint("beaten", 1.0, 0.5),
        PlanPoint("quick", 0.5, 0.9),
    ]
    front_plot(points, tmp_path / "plans.png", "recall")
    (axes,) = drawn
    best, beaten, chosen = axes.collections
    assert best.get_offsets().tolist() == [[0.5, 0.9], [2.0, 0.99]]
    assert beaten.get_offsets().tolist() == [[1.0, 0.5]] and beaten.get_label() == "other plans"
    assert chosen.get_offsets().tolist() == [[2.0, 0.99]] and chosen.get_label() == "chosen"
    shown = [text.get_text() for text in axes.texts]
    assert shown[-1].splitlines()[2] == "3  slow  (99.0%, 2 ms)"
    many = [PlanPoint(f"{i}", 1 + i, 0.5) for i in range(40)]
    front_plot([*points, *many], tmp_path / "plans.png", "recall")
    assert drawn[-1].texts[-1].get_text() == "1  quick  (90.0%, 0.5 ms)\n2  slow  (99.0%, 2 ms)"
    assert axes.lines[0].get_xydata().tolist() == [[0.5, 0.9], [2.0, 0.99]]
    assert "milliseconds" in axes.get_xlabel() and axes.get_ylabel().startswith("recall")


def test_plots_leave_the_state_of_pyplot_alone() -> None:
    code = (
        "import sys, mrl_search.report.plots, mrl_search.report.page; "
        "print([m for m in sys.argv[1:] if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "matplotlib.pyplot", "torch", "faiss"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
