"""One HTML page that tells what was done and measured: text, tables and pictures in a single file that needs no network.

It knows texts and image files; it does not measure anything. The look is in `templates/summary.html`.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.storage import write_atomically

__all__ = ["Figure", "Table", "render_page", "write_page"]

SCREEN_DPI = 96  # an image that says it has 192 is shown at half its pixels, and is sharp on a fine screen
NARROW = 720  # two figures of at most this width stand side by side
NUMBER = re.compile(r"[-+−±<>≤≥~≈]?\s*\d[^:]*|[-–—]?")  # `0.957 ± 0.004`, `12 ms`, nothing; but not the plan 8:200,1024


@dataclass(frozen=True, slots=True)
class Figure:
    """An image file (PNG, JPEG, WebP or GIF) that goes into the page, with what it is called and what it shows."""

    title: str
    image: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of ready-made texts under `columns`; the first column names the row. Columns of numbers are aligned right.

    Raises:
        ConfigError: a row has more or fewer cells than there are columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ConfigError(f"Table {self.title!r} has {len(self.columns)} columns, and a row of {len(row)} cells.")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether all its cells are numbers or empty."""
        return tuple(all(NUMBER.fullmatch(row[i].strip()) for row in self.rows) for i in range(len(self.columns)))


@dataclass(frozen=True, slots=True)
class _Picture:
    """A figure as the template shows it: the image as a data URI, with its size on the page."""

    title: str
    caption: str
    uri: str
    width: int
    height: int
    wide: bool


def render_page(
    title: str,
    intro: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[Figure],
    commands: Sequence[tuple[str, str]],
    facts: Mapping[str, str],
) -> str:
    """The page as HTML: light or dark as the reader's system is, for screen, phone and paper; all text is escaped.

    Args:
        title: of the page.
        intro: paragraphs; the first one is set larger.
        tables: shown in their order, after the first figure.
        figures: the first one opens the page, the others follow the tables.
        commands: (command, what it does).
        facts: the environment behind the numbers: versions, hardware, threads, seed, date.

    Raises:
        DataError: an image of `figures` cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("mrl_search.bench"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("summary.html").render(
        title=title, intro=intro, tables=tables, figures=[_picture(figure) for figure in figures], commands=commands, facts=facts
    )


def write_page(
    out: Path,
    title: str,
    intro: Sequence[str],
    tables: Sequence[Table],
    figures: Sequence[Figure],
    commands: Sequence[tuple[str, str]],
    facts: Mapping[str, str],
) -> None:
    """Write `render_page` to `out`; the folder is made, and the file comes whole or not at all.

    Raises:
        DataError: an image of `figures` cannot be read.
        MrlSearchError: the place cannot be written.
    """
    page = render_page(title, intro, tables, figures, commands, facts)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MrlSearchError(f"{out.parent} cannot be made: {error.strerror}.", "Choose another place for the page.") from error
    with write_atomically(out) as draft:
        draft.write_text(page, encoding="utf-8", errors="replace")


def _picture(figure: Figure) -> _Picture:
    try:
        data = figure.image.read_bytes()
        with Image.open(figure.image) as image:
            kind, (width, height), dpi = image.format, image.size, round(image.info.get("dpi", (SCREEN_DPI,))[0])
    except OSError as error:
        raise DataError(f"The figure {figure.image} cannot be read: {error}.", "Draw it before the page is written.") from error
    if kind not in ("PNG", "JPEG", "WEBP", "GIF"):
        raise DataError(f"The figure {figure.image} is {kind}, which browsers do not show.", "Write it as PNG.")
    scale = SCREEN_DPI / dpi if dpi > SCREEN_DPI else 1.0
    uri = f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"
    return _Picture(figure.title, figure.caption, uri, round(width * scale), round(height * scale), width * scale > NARROW)
