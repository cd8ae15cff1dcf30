"""The tools for language models, asked by the package's own client."""

import base64
import io
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from fakes import FakeJointEncoder
from mcp import Client, StdioServerParameters
from mcp.types import CallToolResult, ImageContent, TextContent
from PIL import Image
from served import build
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.index import Index
from mrl_search.web.mcp import make_server
from mrl_search.web.served import Served


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("a model's"), 8)


def asking(server: Any, ask: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        async with Client(server) as client:
            return await ask(client)

    return anyio.run(run)


def call(folder: Path, tool: str, **arguments: Any) -> CallToolResult:
    server = make_server({"mine": Served(folder, "mine", FakeJointEncoder())})
    return asking(server, lambda client: client.call_tool(tool, arguments))


def told(result: CallToolResult) -> Any:
    assert not result.is_error, result.content
    assert isinstance(result.content[0], TextContent)
    return json.loads(result.content[0].text)


def refusal(result: CallToolResult) -> str:
    assert result.is_error and isinstance(result.content[0], TextContent)
    return result.content[0].text


def test_its_tools_only_read(folder: Path) -> None:
    server = make_server({"mine": Served(folder, "mine", FakeJointEncoder())})
    tools = asking(server, lambda client: client.list_tools()).tools
    assert [t.name for t in tools] == ["info", "search", "classify", "find_duplicates"]
    assert all(t.annotations.read_only_hint and t.description for t in tools)


def test_info_names_the_indexes_and_their_columns(folder: Path) -> None:
    (info,) = told(call(folder, "info"))
    assert (info["name"], info["items"], info["words"]) == ("mine", 16, True)
    assert {"name": "label", "kind": "text", "values": ["cat", "dog"]} in info["columns"]


def test_an_answer_is_that_of_the_library_with_its_pictures(folder: Path) -> None:
    index = Index.open(folder, FakeJointEncoder())
    path = index.items["path"][3].as_py()
    expected = index.search(path, k=4).ids.tolist()
    for query in (path, "cat/cat-0003.jpg"):
        result = call(folder, "search", path=query, k=4)
        hits = told(result)["hits"]
        assert [hit["id"] for hit in hits] == expected
        assert [hit["thumbnail"] for hit in hits] == [1, 2, 3, 4]
        assert all(isinstance(one, ImageContent) for one in result.content[1:])
    assert len(result.content) == 5
    by_words = told(call(folder, "search", text="red", k=2, where=["label=dog"]))
    assert {hit["label"] for hit in by_words["hits"]} == {"dog"}
    by_item = call(folder, "search", id=3, k=3, plan="8:8,64", thumbnails=False)
    assert 3 not in [hit["id"] for hit in told(by_item)["hits"]] and len(by_item.content) == 1


def test_a_thumbnail_belongs_to_its_hit(folder: Path, tmp_path: Path) -> None:
    own = build(tmp_path, 3)
    index = Index.open(own, FakeJointEncoder())
    first, second = index.search(index.items["path"][0].as_py(), k=2).ids.tolist()
    assert first == 0
    Path(index.items["path"][0].as_py()).unlink()  # the best hit has no picture any more
    result = call(own, "search", text="red", k=6)
    hits = told(result)["hits"]
    gone = next(hit for hit in hits if hit["id"] == 0)
    assert "thumbnail" not in gone and len(result.content) == 6
    shown = next(hit for hit in hits if hit["id"] == second)
    content = result.content[shown["thumbnail"]]
    small = Image.open(io.BytesIO(base64.b64decode(content.data))).convert("RGB")
    whole = Image.open(index.items["path"][second].as_py()).convert("RGB").resize(small.size)
    assert abs(_mean(small) - _mean(whole)) < 4


def _mean(image: Image.Image) -> float:
    return float(np.asarray(image, float).mean())


def test_classes_and_duplicates(folder: Path, tmp_path: Path) -> None:
    index = Index.open(folder, FakeJointEncoder())
    path = index.items["path"][3].as_py()
    assert told(call(folder, "classify", id=3, k=5))["label"] == index.classify(path, k=5).label
    words = told(call(folder, "classify", path=path, labels=["red", "blue"]))
    assert sum(words["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    own = build(tmp_path, 3)
    copy = tmp_path / "pictures/cat/copy.jpg"
    copy.write_bytes((tmp_path / "pictures/cat/cat-0000.jpg").read_bytes())
    Index.open(own, FakeJointEncoder()).sync()
    result = call(own, "find_duplicates", level="exact")
    (group,) = told(result)["groups"]
    names = {group["keep"]["name"], group["members"][0]["name"]}
    assert names == {"cat-0000.jpg", "copy.jpg"} and len(result.content) == 3


def test_pictures_outside_are_not_read_and_no_path_is_told(tmp_path: Path) -> None:
    folder = build(tmp_path / "some one's home, here", 3)
    pictures = folder.parent / "pictures"
    secret = tmp_path / "secret.jpg"
    Image.new("RGB", (50, 50), "red").save(secret)
    link = pictures / "link.jpg"
    link.symlink_to(secret)
    for path in (secret, link, "link.jpg", "../../secret.jpg", "/etc/passwd", "cat", "a\0b"):
        said = refusal(call(folder, "search", path=str(path)))
        assert "outside" in said or "no picture" in said, said
    for result in (
        call(folder, "info"), call(folder, "search", id=0), call(folder, "search", id=0, plan="9"),
        call(folder, "search", path=str(link)), call(folder, "find_duplicates"),
    ):  # fmt: skip
        for one in result.content:
            assert "home" not in getattr(one, "text", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "Name text, id or path"), ({"id": 1, "text": "red"}, "Name text, id or path"),
        ({"id": 99}, "no item 99"), ({"id": 1, "plan": "9"}, "Nearest"),
        ({"id": 1, "where": ["colour=red"]}, "colour"), ({"id": 1, "index": "x"}, "Indexes: mine"),
        ({"id": 1, "k": 1000}, "k"),
    ],
)  # fmt: skip
def test_errors_say_what_to_do(folder: Path, arguments: dict[str, Any], said: str) -> None:
    assert said in refusal(call(folder, "search", **arguments))


def test_the_command_speaks_on_stdio(folder: Path) -> None:
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "mrl_search", "mcp", str(folder)]
    )

    async def ask(client: Client) -> Any:
        return await client.call_tool("search", {"id": 3, "k": 2})

    result = asking(command, ask)
    assert len(told(result)["hits"]) == 2 and len(result.content) == 3


def test_it_says_which_package_is_missing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    monkeypatch.delitem(sys.modules, "mrl_search.web.mcp")
    result = CliRunner().invoke(app, ["mcp", str(folder)])
    assert result.exit_code == 1 and 'pip install "mrl-search[mcp]"' in result.stderr
