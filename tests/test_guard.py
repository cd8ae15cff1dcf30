"""The server lets nobody in where they do not belong: a test for each promise."""

import io
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from served import HERE, build, client
from starlette.testclient import TestClient
from typer.testing import CliRunner

from mrl_search.cli.app import app as commands
from mrl_search.errors import BrokenImage
from mrl_search.web import guard
from mrl_search.web.guard import Rules
from mrl_search.web.roots import read_inside

MINE = "/api/indexes/mine"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("guarded"), 4)


@pytest.fixture(scope="module")
def api(folder: Path) -> TestClient:
    return client(folder)


@pytest.fixture(scope="module")
def locked(folder: Path) -> TestClient:
    return client(folder, Rules(token=TOKEN))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.",
        "",
        "[::2]",
        "a b",
        "0.0.0.0",
        "me@127.0.0.1",
        "127.0.0.1/evil",
        "127.0.0.1?a",
        "127.0.0.1#a",
        "local\thost",
        "localhost:",
        "localhost:x",
        "localhost:123456",
        "//localhost",
        "[::1",
        "::1",
        "127.0.0.1, evil.example",
    ],
)
def test_a_server_called_by_another_name_does_not_answer(api: TestClient, host: str) -> None:
    for path in ("/", MINE, "/healthz"):
        assert api.get(path, headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8765", "localhost", "[::1]:8765", "LOCALHOST:1"])
def test_its_own_names_are_known(api: TestClient, host: str) -> None:
    assert api.get(MINE, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1.evil.example"}, {"origin": "http://["},
    ],
)  # fmt: skip
def test_pages_of_other_sites_may_not_ask(api: TestClient, headers: dict[str, str]) -> None:
    simple = {"content-type": "text/plain", **headers}  # needs no preflight
    assert api.post(f"{MINE}/search", content=b'{"id": 1}', headers=simple).status_code == 403
    assert api.get(f"{MINE}/thumbs/1", headers=headers).status_code == 403
    assert api.options(f"{MINE}/search", headers=headers).status_code == 403


def test_a_form_of_another_site_without_an_origin_is_no_request(api: TestClient) -> None:
    plain = {"content-type": "text/plain"}
    assert api.post(f"{MINE}/search", content=b'{"id": 1}', headers=plain).status_code == 415


def test_a_link_on_another_site_opens_the_page_alone(api: TestClient) -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert api.get("/", headers=link).status_code == 200
    assert api.get(f"{MINE}/pictures/1", headers=link).status_code == 403


@pytest.mark.parametrize(
    "given",
    ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "ä", "*", "%FF", "%7F", "\u20ac", "%ED%B2%80"],
)
def test_without_the_token_nothing_is_told(locked: TestClient, given: str) -> None:
    bearer = {"authorization": f"Bearer {given}".encode()}
    for path in ("/", MINE, "/main.js", "/openapi.json", "/metrics", f"{MINE}/thumbs/1"):
        assert locked.get(path, headers=bearer).status_code == 401
    assert locked.get(f"/?token={given}").status_code == 401
    cookie = {"cookie": f"{guard.COOKIE}={given}".encode()}
    assert locked.get(MINE, headers=cookie).status_code == 401
    assert locked.get("/healthz").status_code == 200


def test_a_server_called_by_two_names_does_not_answer(api: TestClient) -> None:
    for names in (("127.0.0.1", "evil.example"), ("evil.example", "127.0.0.1")):
        headers = [("host", name) for name in names]
        assert api.get("/healthz", headers=headers).status_code == 421


def test_a_token_without_its_scheme_is_none(folder: Path) -> None:
    locked = client(folder, Rules(token=TOKEN, own="what-own-programs-show"))
    for given in (TOKEN, f"Basic {TOKEN}", f"Bearer{TOKEN}", f"Bearer  x {TOKEN}", "Bearer", ""):
        assert locked.get(MINE, headers={"authorization": given}).status_code == 401, given
    for given in (f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN}"):
        assert locked.get(MINE, headers={"authorization": given}).status_code == 200, given


def test_head_answers_as_get_without_a_body(folder: Path, api: TestClient) -> None:
    for path in ("/", MINE, "/main.js", "/healthz", f"{MINE}/thumbs/1?size=64", "/nothing"):
        got, head = api.get(path), api.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert {**head.headers} == {**got.headers}, path
    assert api.head(f"{MINE}/search").status_code == 405  # it is asked by POST
    locked = client(folder, Rules(token=TOKEN))
    assert locked.head(MINE).status_code == 401


@pytest.mark.parametrize("given", [b"\xff", b"\xed\xb2\x80", b'"\\xff"', TOKEN.encode() + b"\xe9"])
def test_bytes_that_are_no_text_are_no_token(folder: Path, given: bytes) -> None:
    locked = client(folder, Rules(token=TOKEN, own="what-own-programs-show"))
    cookie = guard.COOKIE.encode() + b"=" + given
    for headers in ({"authorization": b"Bearer " + given}, {"cookie": cookie}):
        assert locked.get(MINE, headers=headers).status_code == 401


def test_with_the_token_all_is_open(folder: Path) -> None:
    locked = client(folder, Rules(token=TOKEN))
    assert locked.get(MINE, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
    opened = locked.get(f"/?token={TOKEN}", follow_redirects=False)
    assert (opened.status_code, opened.headers["location"]) == (303, "/")
    cookie = opened.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    assert locked.get(f"{MINE}/thumbs/1").status_code == 200  # the client keeps the cookie


def test_the_token_is_compared_in_constant_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bytes, bytes]] = []
    monkeypatch.setattr(guard.hmac, "compare_digest", lambda *two: bool(seen.append(two)))
    client(folder, Rules(token=TOKEN)).get(MINE, headers={"authorization": "Bearer x"})
    assert seen == [(b"x", TOKEN.encode())]


def test_another_host_gets_a_token(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: list[Any] = []
    monkeypatch.setattr(
        "uvicorn.Server.run",
        lambda server, sockets: run.append((server.config.app.rules, sockets[0].getsockname()[0])),
    )
    told = CliRunner().invoke(commands, ["serve", str(folder), "--port", "0", "--host", "0.0.0.0"])
    ((rules, address),) = run
    assert address == "0.0.0.0" and rules.hosts == ("*",)
    assert len(rules.token) >= 20 and f"?token={rules.token}" in told.stderr
    CliRunner().invoke(commands, ["serve", str(folder), "--port", "0"])
    rules, address = run[1]
    assert address == "127.0.0.1" and (rules.hosts, rules.token) == (Rules().hosts, "")
    short = CliRunner().invoke(commands, ["serve", str(folder), "--token", "short"])
    assert short.exit_code == 1 and "at least 12 letters" in short.stderr
    for token in ("a-tökén-of-some-length", "a token of some length", "a;token,of=some-length"):
        assert CliRunner().invoke(commands, ["serve", str(folder), "--token", token]).exit_code == 1


def test_bodies_are_bounded_also_without_a_length(
    api: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LARGEST", 1000)
    assert api.post(f"{MINE}/search", content=b"x" * 1001).status_code == 413
    chunks = (b"x" * 100 for _ in range(20))
    json = {"content-type": "application/json"}
    assert api.post(f"{MINE}/search", content=chunks, headers=json).status_code == 413
    lying = {"content-length": "-5", **json}
    assert api.post(f"{MINE}/search", content=b"x", headers=lying).status_code == 413


def test_pictures_are_bounded(api: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (10_000, 5_001)).save(file, "PNG")
    refused = api.post(f"{MINE}/search", files={"image": file.getvalue()})
    assert refused.status_code == 400 and "50 megapixels" in refused.json()["hint"]


def test_pictures_are_only_those_of_the_roots(tmp_path: Path) -> None:
    folder = build(tmp_path, 3)
    secret = tmp_path / "secret.jpg"
    Image.new("RGB", (50, 50), "red").save(secret)
    inside = tmp_path / "pictures/cat/cat-0001.jpg"
    inside.unlink()
    inside.symlink_to(secret)
    shown = tmp_path / "pictures/cat"
    api = client(folder)
    assert api.get(f"{MINE}/pictures/0").status_code == 200
    for kind in ("pictures", "thumbs"):
        assert api.get(f"{MINE}/{kind}/1").status_code == 404
    shown.rename(tmp_path / "moved")
    shown.symlink_to(tmp_path / "moved", target_is_directory=True)
    for kind in ("pictures", "thumbs"):
        assert api.get(f"{MINE}/{kind}/0").status_code == 404
    for path in ("..%2f..%2fsecret.jpg", "%2e%2e/secret.jpg", "secret.jpg", "0/../../secret.jpg"):
        assert api.get(f"{MINE}/pictures/{path}").status_code in (404, 422)
        assert api.get(f"/{path}").status_code == 404


def test_a_link_made_while_a_file_is_opened_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "in", outside):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(folder.name.encode())
    assert read_inside(root / "in/a.jpg", [str(root)]) == b"in"
    resolve = Path.resolve

    def swapped(path: Path, strict: bool = False) -> Path:
        found = resolve(path, strict=strict)
        if path.name == "a.jpg":
            (root / "in").rename(tmp_path / "away")
            (root / "in").symlink_to(outside)
        return found

    monkeypatch.setattr(Path, "resolve", swapped)
    with pytest.raises(BrokenImage, match="cannot be read"):
        read_inside(root / "in/a.jpg", [str(root)])


@pytest.mark.parametrize("name", ["plain", "some one's home, really: here"])
def test_answers_name_no_path_of_the_machine(tmp_path: Path, name: str) -> None:
    tmp_path = tmp_path / name
    folder = build(tmp_path, 3)
    api, open_ = client(folder, write=True), client(folder, write=True, show_paths=True)
    (tmp_path / "pictures/cat/cat-0000.jpg").unlink()
    asked = [
        api.get("/api/indexes"), api.get(MINE), api.get(f"{MINE}/items/1"),
        api.post(f"{MINE}/search", json={"id": 1, "explain": True}), api.get(f"{MINE}/pictures/0"),
        api.get(f"{MINE}/duplicates"), api.post(f"{MINE}/search", json={"id": 1, "dims": 63}),
        api.post(f"{MINE}/search", json={"vector": [1.0]}),
        api.post(f"{MINE}/search/stream", json={"vector": [1.0]}), api.get("/metrics"),
        api.post(f"{MINE}/sync"), api.get("/openapi.json"), api.get(f"{MINE}/map"),
    ]  # fmt: skip
    for response in asked:
        assert str(tmp_path) not in response.text, response.request.url
        assert "some one" not in response.text and "really" not in response.text, response.text
        assert not any(str(tmp_path) in value for value in response.headers.values())
    assert str(tmp_path) in open_.post(f"{MINE}/search", json={"vector": [1.0]}).text


@pytest.mark.parametrize("path", ["/", MINE, "/nothing", f"{MINE}/thumbs/0"])
def test_every_answer_keeps_browsers_careful(api: TestClient, path: str) -> None:
    for headers in ({}, {"host": "evil"}):
        told = api.get(path, headers=headers).headers
        policy = told["content-security-policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert told["x-content-type-options"] == "nosniff"
        assert told["referrer-policy"] == "no-referrer"
        assert told["cross-origin-resource-policy"] == "same-origin"
        assert not any(name.startswith("access-control-") for name in told)


def test_the_page_has_no_inline_script(api: TestClient) -> None:
    for path in ("/", "/docs"):
        text = api.get(path).text
        assert "<script>" not in text and not re.search(r"\son\w+=", text)
        assert "style=" not in text and "http:" not in text and "https:" not in text
    assert api.base_url == HERE
