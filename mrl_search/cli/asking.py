"""A query or a vote, answered by a server that runs: index and model are loaded there.

What the first answer does not need is not imported, not even dataclasses: it takes longer than
the answer.
"""

import base64
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mrl_search.errors import DataError, MrlSearchError
from mrl_search.web.beside import Server, server_of

if TYPE_CHECKING:
    from mrl_search.encoders.base import Access
    from mrl_search.encoders.words import Words

__all__ = ["NONE", "Answers", "Question", "Row", "answered", "asked_of_server", "with_words"]

NONE = "none"  # in place of the address of a server
MOST = 256  # vectors of a file that a server is asked for, one after another
LARGEST = 23_000_000  # bytes of a picture: a request may have 32 MB, and base64 adds a third


class Row(NamedTuple):
    """A vector of a file: its name in answers, and float32, little endian."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


class Question(NamedTuple):
    """What `query` or `classify` asks. No server is asked where one of the last five is given."""

    asked: "Sequence[str | Words]"  # pictures and words
    how: Mapping[str, Any] = {}  # the options of the search, as the API calls them
    index: Path | None = None  # type: ignore[assignment]  # tuples have a method of this name
    server: str | None = None  # its address; None: the one that runs on the index; `none`: none
    as_json: bool = False
    vector: str | None = None  # a file of vectors to search with
    model: str | None = None  # the model that built the index, if it has moved
    access: "Access | None" = None  # what opening the model may do
    ids: Path | None = None  # a file of the rows that may be answers
    sheet: Path | None = None  # where the pictures of the hits are saved
    not_itself: bool = False  # leave out items with the content of the picture


Answers = tuple[str, Sequence["str | Words | Row"], Sequence[Mapping[str, Any]]]
"""The address of a server, what was asked, and each answer."""


def with_words(
    images: Sequence[str] | None, text: Sequence[str] | None, minus: Sequence[str] | None
) -> "list[str | Words]":
    """The queries that the options describe: pictures, each with the words, or the words alone."""
    if not text and not minus:
        return list(images or [])
    from mrl_search.encoders.words import Words

    return [Words(text or (), minus or (), image) for image in images or (None,)]


def answered(question: Question) -> int | None:
    """Ask the server, and show its answers as those of this process are shown.

    Returns:
        The exit code. None if no server runs on the index, or it cannot answer as this process
        would: then this process does, and says what is wrong in its own words.

    Raises:
        MrlSearchError: with an address, what is wrong.
    """
    found = asked_of_server(question)
    return None if found is None else _show(question, *found)


def asked_of_server(question: Question, what: str = "search") -> Answers | None:
    """The answers of a server, as for `answered`; `what` is a path of its API: or classify."""
    if question.server == NONE or not (question.asked or question.vector):
        return None
    if question.server is not None:
        from mrl_search.web.client import server_at  # slow, as all of http is

        name = question.index.name if question.index else None
        return _ask(server_at(question.server, name), question, what)
    with contextlib.suppress(MrlSearchError):
        server = _server_on(question.index)
        return None if server is None else _ask(server, question, what)
    return None


def _server_on(index: Path | None) -> Server | None:
    """The server of an index, or of the newest one."""
    if index is None:
        if not any(Path("indexes").glob(".*.serving")):
            return None
        from mrl_search.store.manifest import newest_index

        index = newest_index()
    return server_of(index)


def _ask(server: Server, question: Question, what: str) -> Answers:
    from mrl_search.web.client import find

    how = {name: value for name, value in question.how.items() if value is not None}
    how |= {"not_itself": False} if what == "search" else {}
    asked = question.asked if question.vector is None else _rows(question.vector)
    return server.url, asked, [find(server, what, {**_query(one), **how}) for one in asked]


def _rows(file: str) -> list[Row]:
    """The vectors of a file."""
    from mrl_search.store.vector_files import open_queries, read_queries

    source = open_queries(file)
    if source.count > MOST:
        message = f"{file} has {source.count:,} vectors; a server is asked for {MOST} at most."
        raise DataError(message, "Leave --server out.")
    names = [file] if source.count == 1 else [f"{file}[{i}]" for i in range(source.count)]
    rows = read_queries(source).astype("<f4")
    return [Row(name, row.tobytes()) for name, row in zip(names, rows, strict=True)]


def _query(one: "str | Words | Row") -> dict[str, Any]:
    """A query as the API takes it."""
    if isinstance(one, str):
        return {"image": _picture(one)}
    if isinstance(one, Row):
        return {"vector": base64.b64encode(one.content).decode()}
    plus = [{"text": phrase} for phrase in one.text]
    if one.picture is not None:
        plus.append({"image": _picture(one.picture)})
    return {"plus": plus, "minus": [{"text": phrase} for phrase in one.minus]}


def _picture(path: str) -> str:
    try:
        with Path(path).expanduser().open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the name.") from error
    if len(data) > LARGEST:
        raise DataError(f"{path} is too large for a server.", "Leave --server out.")
    return base64.b64encode(data).decode()


def _show(
    question: Question, url: str, asked: Sequence["str | Words | Row"],
    answers: Sequence[Mapping[str, Any]],
) -> int:  # fmt: skip
    """Show answers of a server; the exit code."""
    from mrl_search.cli.hits import conclude, show_answer
    from mrl_search.cli.render import note

    for one, answer in zip(asked, answers, strict=True):
        show_answer(str(one) if isinstance(one, Row) else one, answer, question.as_json)
    if not question.as_json:
        n = len(answers)
        embedding, ms = (sum(a.get(name, 0) for a in answers) for name in ("embed_ms", "ms"))
        note(f"{url}: embedding {embedding / n:.0f} ms, search {ms / n:.1f} ms")
    how = question.how
    return conclude([answer["found"] for answer in answers], how["k"], how.get("cutoff"))
