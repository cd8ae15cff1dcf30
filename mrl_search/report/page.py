"""One HTML page that tells what was done and measured: text, tables and pictures in a single file that needs no network.

It is to be had as Markdown, too. It knows texts and image files; it does not measure anything. The look is in `templates/summary.html`.
"""

import base64
import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import write_atomically, writing

__all__ = [
    "Block", "Figure", "Figures", "Heading", "Page", "Table", "markdown_image", "markdown_table", "render_markdown", "render_page",
    "write_page",
]  # fmt: skip

SCREEN_DPI = (
    96  # an image that says it has 192 is shown at half its pixels, and is sharp on a fine screen
)
NARROW = 720  # two figures of at most this width stand side by side
NUMBER = re.compile(
    r"[-+−±<>≤≥~≈]?\s*\d[^:]*|[-–—]?"
)  # `0.957 ± 0.004`, `12 ms`, nothing; but not the plan 8:200,1024
MARKED = re.compile(r"[\\`*_|<>\[\]#]")  # what Markdown reads as more than text


@dataclass(frozen=True, slots=True)
class Figure:
    """An image file (PNG, JPEG, WebP or GIF) with its title and caption."""

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
                raise ConfigError(
                    f"Table {self.title!r} has {len(self.columns)} columns, and a row of {len(row)} cells."
                )

    @property
    def numeric(self) -> tuple[bool, ...]:
        """For each column, whether all its cells are numbers or empty."""
        return tuple(
            all(NUMBER.fullmatch(row[i].strip()) for row in self.rows)
            for i in range(len(self.columns))
        )


@dataclass(frozen=True, slots=True)
class _Picture:
    """A figure as the template shows it: the image as a data URI, with its size on the page."""

    title: str
    caption: str
    uri: str
    width: int
    height: int
    wide: bool


@dataclass(frozen=True, slots=True)
class Heading:
    """A part of a page begins: its title, and paragraphs."""

    title: str
    text: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures that stand together, two beside each other where they are narrow."""

    figures: tuple[Figure, ...]


Block = Heading | Table | Figures


@dataclass(frozen=True, slots=True)
class Page:
    """A page: what stands on it, from the top.

    Attributes:
        title: of the page.
        intro: paragraphs; the first one is set larger.
        blocks: tables and figures in their order, under headings where there are any.
        commands: (command, what it does).
        facts: the environment behind the numbers: versions, hardware, threads, seed, date.
    """

    title: str
    intro: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    commands: Sequence[tuple[str, str]] = ()
    facts: Mapping[str, str] = field(default_factory=dict)


def render_page(page: Page) -> str:
    """The page as HTML: light or dark as the reader's system is, for screen, phone and paper; all text is escaped.

    Raises:
        DataError: an image of the page cannot be read.
    """
    environment = Environment(
        loader=PackageLoader("mrl_search.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    blocks = [
        (type(b).__name__, [_picture(figure) for figure in b.figures] if isinstance(b, Figures) else b) for b in page.blocks
    ]  # fmt: skip
    return environment.get_template("summary.html").render(page=page, blocks=blocks)


def write_page(out: Path, page: Page) -> None:
    """Write `render_page` to `out`; the folder is made, and the file comes whole or not at all.

    Raises:
        DataError: an image of the page cannot be read.
        MrlSearchError: the place cannot be written.
    """
    text = render_page(page)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(out) as draft:
        draft.write_text(text, encoding="utf-8", errors="replace")


def render_markdown(page: Page, where: str = "") -> str:
    """The page as Markdown (GitHub's), with images beside it: by their file names, after `where`."""
    parts = [f"# {_inline(page.title)}" if page.title else "", *map(_inline, page.intro)]
    for block in page.blocks:
        if isinstance(block, Heading):
            parts += [f"## {_inline(block.title)}", *map(_inline, block.text)]
        elif isinstance(block, Table):
            parts += [
                f"### {_inline(block.title)}" if block.title else "",
                markdown_table(block),
                _inline(block.note),
            ]
        else:
            for figure in block.figures:
                parts += [
                    f"### {_inline(figure.title)}" if figure.title else "",
                    markdown_image(figure, where),
                    _inline(figure.caption),
                ]
    parts += [f"`{command}`: {_inline(what)}" for command, what in page.commands]
    parts += [
        "\n".join(f"- {_inline(name)}: {_inline(value)}" for name, value in page.facts.items())
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table: Table) -> str:
    """The rows of a table as Markdown; columns of numbers are aligned right."""
    rule = ["---:" if numeric else "---" for numeric in table.numeric]
    lines = [[_inline(cell) for cell in row] for row in (table.columns, *table.rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (lines[0], rule, *lines[1:]))


def markdown_image(figure: Figure, where: str = "") -> str:
    """The image of a figure as HTML that GitHub shows."""
    name = html.escape(figure.title or figure.image.stem)
    return f'<img src="{html.escape(where + figure.image.name)}" alt="{name}">'


def _inline(text: str) -> str:
    """`text` in Markdown, as it is: nothing in it begins a cell, a line, a tag or an emphasis."""
    return MARKED.sub(r"\\\g<0>", " ".join(text.split()))


def _picture(figure: Figure) -> _Picture:
    uri, kind_size = _data_uri(figure.image)
    width, height, dpi = kind_size
    scale = SCREEN_DPI / dpi if dpi > SCREEN_DPI else 1.0
    return _Picture(
        figure.title,
        figure.caption,
        uri,
        round(width * scale),
        round(height * scale),
        width * scale > NARROW,
    )


def _data_uri(path: Path) -> tuple[str, tuple[int, int, int]]:
    """An image file as a data URI, with its width, height and dots per inch."""
    try:
        data = path.read_bytes()
        with Image.open(path) as image:
            kind, (width, height), dpi = (
                image.format,
                image.size,
                round(image.info.get("dpi", (SCREEN_DPI,))[0]),
            )
    except OSError as error:
        raise DataError(
            f"The figure {path} cannot be read: {error}.", "Draw it before the page is written."
        ) from error
    if kind not in ("PNG", "JPEG", "WEBP", "GIF"):
        raise DataError(
            f"The figure {path} is {kind}, which browsers do not show.", "Write it as PNG."
        )
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}", (
        width,
        height,
        dpi,
    )
