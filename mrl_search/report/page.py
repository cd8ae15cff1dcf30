"""A page of text, tables and pictures, as one HTML file that needs no network, or as Markdown.

It knows text and image files, and measures nothing. The look is in `templates/summary.html`.
"""

import base64
import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import make_folder, reading, write_text
from mrl_search.text import plain

__all__ = [
    "Block", "Figure", "Figures", "Heading", "Page", "Table", "markdown_image", "markdown_table",
    "render_markdown", "render_page", "write_page",
]  # fmt: skip

SCREEN_DPI = 96  # an image of 192 dpi is shown at half its pixels, and is sharp on a fine screen
NARROW = 720  # two figures of at most this width stand side by side
SHOWN = ("PNG", "JPEG", "WEBP", "GIF")  # formats that browsers show
# `0.957 ± 0.004`, `12 ms`, nothing; but not the plan 8:200,1024
NUMBER = re.compile(r"[-+−±<>≤≥~≈]?\s*\d[^:]*|[-–—]?")
MARKUP = re.compile(r"[\\`*_|<>\[\]#]")  # characters with a meaning in Markdown


@dataclass(frozen=True, slots=True)
class Figure:
    """An image file (PNG, JPEG, WebP or GIF) with its title and caption."""

    title: str
    image: Path
    caption: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under `columns`; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                columns = f"{len(self.columns)} columns; a row has {len(row)} cells"
                raise ConfigError(f"Table {self.title!r} has {columns}.")

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether all its cells are numbers or empty; they are aligned right."""
        columns = range(len(self.columns))
        return tuple(all(NUMBER.fullmatch(row[i].strip()) for row in self.rows) for i in columns)


@dataclass(frozen=True, slots=True)
class Heading:
    """The title of a part of a page, and paragraphs."""

    title: str
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that stand together, two side by side where they are narrow."""

    figures: tuple[Figure, ...]


Block = Heading | Table | Figures


@dataclass(frozen=True, slots=True)
class Page:
    """A page: a title, text, what it shows, and how it came about."""

    title: str
    intro: Sequence[str] = ()  # paragraphs; the first one is larger
    blocks: Sequence[Block] = ()
    commands: Sequence[tuple[str, str]] = ()  # (command, what it does)
    facts: Mapping[str, str] = field(default_factory=dict)  # versions, hardware, seed, date


def render_page(page: Page) -> str:
    """The page as HTML for screen, phone and paper, light or dark; all text is escaped."""
    environment = Environment(
        loader=PackageLoader("mrl_search.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_shown,
    )  # fmt: skip
    blocks = [
        (type(b).__name__, list(map(_picture, b.figures)) if isinstance(b, Figures) else b)
        for b in page.blocks
    ]
    return environment.get_template("summary.html").render(page=page, blocks=blocks)


def _shown(value: object) -> object:
    """A value of the template as it may be shown."""
    return plain(value) if type(value) is str else value


def write_page(out: Path, page: Page) -> None:
    """Write `render_page` to `out`; its folder is created."""
    text = render_page(page)
    make_folder(out.parent)
    write_text(out, text, errors="replace")


def render_markdown(page: Page, where: str = "") -> str:
    """The page as GitHub's Markdown; images are linked by their file names after `where`."""
    parts = [f"# {_escaped(page.title)}" if page.title else "", *map(_escaped, page.intro)]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts += [f"## {_escaped(block.title)}", *map(_escaped, block.text)]
        elif isinstance(block, Table):
            parts += [_title(block.title), markdown_table(block), _escaped(block.note)]
        else:
            for f in block.figures:
                parts += [_title(f.title), markdown_image(f, where), _escaped(f.caption)]
    parts += [f"{_code(command)}: {_escaped(what)}" for command, what in page.commands]
    facts = (f"- {_escaped(name)}: {_escaped(value)}" for name, value in page.facts.items())
    parts.append("\n".join(facts))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: Table) -> str:
    """The rows of a table as Markdown."""
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    head, *rows = [[_escaped(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def markdown_image(figure: Figure, where: str = "") -> str:
    """The image of a figure as HTML that GitHub shows."""
    name = html.escape(figure.title or figure.image.stem)
    return f'<img src="{html.escape(where + figure.image.name)}" alt="{name}">'


def _title(text: str) -> str:
    return f"### {_escaped(text)}" if text else ""


def _escaped(text: str) -> str:
    """`text` on one line, with no meaning in Markdown."""
    return MARKUP.sub(r"\\\g<0>", plain(" ".join(text.split())))


def _code(text: str) -> str:
    """`text` on one line as code in Markdown, between more backticks than it has."""
    text = plain(" ".join(text.split()))
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _picture(figure: Figure) -> dict[str, object]:
    """A figure as the template shows it: a data URI, with its size on the page."""
    path = figure.image
    try:
        with reading(path):
            data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            kind, size = image.format, image.size
            dpi = round(image.info.get("dpi", (SCREEN_DPI,))[0])
    except OSError as error:
        hint = "Draw it before the page is written."
        raise DataError(f"The figure {path} cannot be read: {error}.", hint) from error
    if kind not in SHOWN:
        hint = "Write it as PNG."
        raise DataError(f"The figure {path} is {kind}, which browsers do not show.", hint)
    scale = SCREEN_DPI / max(dpi, SCREEN_DPI)
    width, height = (round(side * scale) for side in size)
    return {
        "title": figure.title, "caption": figure.caption, "width": width, "height": height,
        "wide": size[0] * scale > NARROW,
        "uri": f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}",
    }  # fmt: skip
