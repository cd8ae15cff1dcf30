"""Search, classify, duplicates and info for language-model clients (Model Context Protocol)."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ParamSpec

from mcp.server import MCPServer
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import ToolAnnotations
from pydantic import Field, ValidationError

import mrl_search
from mrl_search.errors import BrokenImage, ConfigError, MrlSearchError
from mrl_search.files import expanded
from mrl_search.index import Index
from mrl_search.web.answers import search_one, vote
from mrl_search.web.asked import Asked, AskedVote, Condition, CopyLevel, Label, first_of
from mrl_search.web.roots import read_inside
from mrl_search.web.served import Sent, Served, rows_of
from mrl_search.web.thumbs import thumbnail
from mrl_search.web.told import about, duplicates, without_folders

__all__ = ["make_server"]

SIDE = 192  # pixels of a thumbnail
PICTURES = 12  # thumbnails of an answer
ABOUT = (
    "Finds pictures that look like another picture or like words, in collections on this machine. "
    "Nothing is changed. Begin with info: it names the indexes and their columns. "
    "A file whose record has `thumbnail: 2` is shown by the second image of the answer."
)

P = ParamSpec("P")
Answer = list[str | Image]
Name = Annotated[str, Field(description="Of the index, as info tells; may be empty for the only.")]
Id = Annotated[int | None, Field(ge=0, lt=2**63, description="Of an item.")]
TextQuery = Annotated[str | None, Field(min_length=1, max_length=2_000)]
PathQuery = Annotated[
    str | None, Field(max_length=4_000, description="Of a picture below the folders of the index.")
]
K = Annotated[int, Field(ge=1, le=100, description="Neighbours wanted.")]
Where = Annotated[
    tuple[Condition, ...],
    Field(max_length=20, description="Such as label=cat, width>=200, path=*/old/*"),
]
Plan = Annotated[
    str, Field(max_length=200, description="Coarse to fine, such as 64:200,1024, or auto, exact.")
]
Thumbnails = Annotated[bool, Field(description=f"Also show the first {PICTURES} pictures.")]


def make_server(served: Mapping[str, Served]) -> MCPServer:
    """A server that answers questions about `served`, the indexes by name, and changes none."""
    server = MCPServer(
        "mrl-search", version=mrl_search.__version__, instructions=ABOUT, log_level="WARNING",
        subscriptions=False,
    )  # fmt: skip
    scrub = without_folders([one.index for one in served.values()])

    def tool(answer: Callable[P, Answer]) -> None:
        @functools.wraps(answer)
        def safe(*args: P.args, **options: P.kwargs) -> Answer:
            try:
                return answer(*args, **options)
            except MrlSearchError as error:
                raise ToolError(scrub(f"{error.message} {error.hint}".strip())) from error
            except ValidationError as error:
                raise ToolError(first_of(error.errors())) from error

        hints = ToolAnnotations(read_only_hint=True, open_world_hint=False)
        server.add_tool(safe, annotations=hints, structured_output=False)

    def named(name: str) -> Served:
        if not name and len(served) == 1:
            return next(iter(served.values()))
        if name not in served:
            raise ConfigError(f"There is no index {name!r}.", f"Indexes: {', '.join(served)}.")
        return served[name]

    def searched(
        index: str, text: str | None, id: int | None, path: str | None
    ) -> tuple[Served, Sent | None]:
        """The index, and the picture, that a question with one of these names."""
        if sum(value is not None for value in (text, id, path)) != 1:
            raise ConfigError("One thing can be searched for.", "Name text, id or path.")
        one = named(index)
        return one, None if path is None else _read(one.now(), path)

    @tool
    def info(index: Name = "") -> Answer:
        """The indexes: items, columns to filter by, whether words can be searched for."""
        chosen = {index: named(index)} if index else served
        return [_json([_about(name, one) for name, one in chosen.items()])]

    @tool
    def search(
        index: Name = "", text: TextQuery = None, id: Id = None, path: PathQuery = None,
        k: K = 10, where: Where = (), plan: Plan = "auto", thumbnails: Thumbnails = True,
    ) -> Answer:  # fmt: skip
        """The pictures most like words, an item, or a picture of the index's folders.

        Score is the cosine; expected is how many unrelated items would score as high by chance.
        """
        one, picture = searched(index, text, id, path)
        asked = Asked.model_validate(
            {"text": text, "id": id, "k": k, "where": where, "plan": plan, "expected": True}
        )
        told = search_one(one, asked, picture)
        return _shown(one, told, told["hits"] if thumbnails else [])

    @tool
    def classify(
        index: Name = "", text: TextQuery = None, id: Id = None, path: PathQuery = None,
        k: K = 20, where: Where = (),
        labels: Annotated[
            list[Label] | None,
            Field(min_length=1, max_length=500, description="Words to choose from instead."),
        ] = None,
    ) -> Answer:  # fmt: skip
        """The label that the nearest items vote for; with labels, the words that fit best."""
        one, picture = searched(index, text, id, path)
        asked = AskedVote.model_validate(
            {"text": text, "id": id, "k": k, "where": where, "labels": labels}
        )
        return [_json(vote(one, asked, picture))]

    @tool
    def find_duplicates(
        index: Name = "",
        level: Annotated[
            CopyLevel,
            Field(description="Least alike: same bytes, same pixels, changed copy, similar."),
        ] = "copy",
        most: Annotated[int, Field(ge=1, le=200, description="Groups wanted.")] = 20,
        thumbnails: Thumbnails = True,
    ) -> Answer:
        """Groups of copies of one picture, and which would be kept. Nothing is removed."""
        one = named(index)
        told = duplicates(one.now(), level)
        groups = told["groups"]
        told |= {"found": len(groups), "groups": groups[:most]}
        files = [file for group in groups[:most] for file in (group["keep"], *group["members"])]
        return _shown(one, told, files if thumbnails else [])

    return server


def _about(name: str, one: Served) -> dict[str, Any]:
    embeds, words = one.reads()
    told = about(one.now())
    del told["sample"]
    return {**told, "name": name, "embeds": embeds, "words": words}


def _read(index: Index, path: str) -> Sent:
    """A picture of the index's folders, by its path, or by that below a folder."""
    places = [place for place in index.manifest.places if place]
    tried = [expanded(path)] if expanded(path).is_absolute() else []
    tried += [expanded(place) / path for place in places]
    for file in tried:
        if file.is_file():
            return Sent(read_inside(file, places), file.name)
    raise BrokenImage(f"The folders of the index have no picture {path}.", "search tells paths.")


def _shown(one: Served, told: dict[str, Any], files: list[dict[str, Any]]) -> Answer:
    """An answer with thumbnails of its first files; each of these says which is its own."""
    index, pictures = one.now(), list[str | Image]()
    for file in files:
        if len(pictures) == PICTURES:
            break
        if file["id"] is None:
            continue
        try:
            data = thumbnail(index, int(rows_of(index, [file["id"]])[0]), SIDE)
        except MrlSearchError:  # it is gone: the others are shown
            continue
        pictures.append(Image(data=data, format="jpeg"))
        file["thumbnail"] = len(pictures)
    return [_json(told), *pictures]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
