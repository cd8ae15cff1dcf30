"""A query, and its answer by a server that runs: the index is open and the model loaded there.

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

__all__ = ["NONE", "Question", "answered", "with_words"]

NONE = "none"  # in place of the address of a server
LARGEST = 23_000_000  # bytes of a picture: a request may have 32 MB, and base64 adds a third


class Question(NamedTuple):
    """What `mrl-search query` asks. No server is asked where one of the last six is given."""

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
    if question.server == NONE or not question.asked:
        return None
    if question.server is not None:
        from mrl_search.web.client import server_at  # slow, as all of http is

        name = question.index.name if question.index else None
        return _show(question, *_ask(server_at(question.server, name), question))
    found = None
    with contextlib.suppress(MrlSearchError):
        server = _server_on(question.index)
        found = None if server is None else _ask(server, question)
    return None if found is None else _show(question, *found)


def _server_on(index: Path | None) -> Server | None:
    """The server of an index, or of the newest one."""
    if index is None:
        if not any(Path("indexes").glob(".*.serving")):
            return None
        from mrl_search.store.manifest import newest_index

        index = newest_index()
    return server_of(index)


def _ask(server: Server, question: Question) -> tuple[str, list[dict[str, Any]]]:
    from mrl_search.web.client import search

    how = {name: value for name, value in question.how.items() if value is not None}
    return server.url, [search(server, {**_query(one), **how}) for one in question.asked]


def _query(one: "str | Words") -> dict[str, Any]:
    """A query as the API takes it."""
    if isinstance(one, str):
        return {"image": _picture(one), "not_itself": False}
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


def _show(question: Question, url: str, answers: Sequence[Mapping[str, Any]]) -> int:
    """Show answers of a server; the exit code."""
    from mrl_search.cli.hits import conclude, show_answer
    from mrl_search.cli.render import note

    for one, told in zip(question.asked, answers, strict=True):
        show_answer(one, told, question.as_json)
    if not question.as_json:
        n = len(answers)
        embedding, ms = (sum(told.get(name, 0) for told in answers) for name in ("embed_ms", "ms"))
        note(f"{url}: embedding {embedding / n:.0f} ms, search {ms / n:.1f} ms")
    how = question.how
    return conclude([told["found"] for told in answers], how["k"], how.get("cutoff"))
