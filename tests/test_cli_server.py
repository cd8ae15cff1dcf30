"""`query` asks a server that runs on the index, and answers as it would itself."""

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_error, lines, ok, run
from fakes import FakeJointEncoder
from served import build, running

from mrl_search.cli import asking, start
from mrl_search.errors import ConfigError
from mrl_search.index import Index
from mrl_search.web.beside import Server, announced, server_of
from mrl_search.web.client import NoAnswer, ask, server_at
from mrl_search.web.guard import Rules

TOKEN, OWN = "a-token-of-some-length", "what-own-programs-show"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("asked"), 6)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> None:
    """What opens the model in this process."""
    monkeypatch.setattr(
        "mrl_search.encoders.registry.load_encoder", lambda *_, **__: FakeJointEncoder()
    )


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    """A server that is announced beside the index."""
    with (
        running(folder, rules=Rules(token=TOKEN, own=OWN)) as url,
        announced(folder, Server(url.rstrip("/"), "mine", OWN, os.getpid())) as told,
    ):
        assert told
        yield url


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate")
def test_a_server_is_asked_through_tls_if_its_certificate_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, own = tmp_path / "key.pem", tmp_path / "own.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    name = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *name, "-keyout", key, "-out", own], check=True, capture_output=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["authorization"] == f"Bearer {TOKEN}"
            self.wfile.write(b'HTTP/1.0 200 OK\r\n\r\n[{"name": "mine"}]')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("localhost", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}"
    try:
        with pytest.raises(NoAnswer):
            server_at(f"{url}/?token={TOKEN}", None)
        monkeypatch.setenv("SSL_CERT_FILE", str(own))
        assert server_at(f"{url}/?token={TOKEN}", None) == Server(url, "mine", TOKEN)
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def picture(folder: Path) -> Path:
    return folder.parent / "pictures/cat/cat-0002.jpg"


def query(folder: Path, *args: object) -> list[dict[str, Any]]:
    found = lines(ok("query", "--index", folder, "--json", *args))
    for one in found:
        assert one.pop("ms") >= 0
    return found


@pytest.mark.parametrize(
    "options",
    [
        ["IMAGE"], ["IMAGE", "IMAGE", "-k", 3], ["--text", "red"], ["--text", "red", "--dims", 8],
        ["IMAGE", "--text", "blue^0.5", "--minus", "red"], ["IMAGE", "--plan", "8:9,64", "-k", 4],
        ["IMAGE", "--where", "label=dog"], ["IMAGE", "--cutoff", ".9999"], ["IMAGE", "--explain"],
        ["IMAGE", "--exact", "--expected"],
    ],
    ids=str,
)  # fmt: skip
def test_the_answer_of_a_server_is_that_of_this_process(
    folder: Path, url: str, picture: Path, model: None, options: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    args = [picture if option == "IMAGE" else option for option in options]
    here = query(folder, *args, "--server", "none")
    shown = ok("query", "--index", folder, *args, "--server", "none")
    monkeypatch.setattr("mrl_search.cli.here.open_index", None)  # it is not opened any more
    assert query(folder, *args) == here
    asked = ok("query", "--index", folder, *args)
    assert asked.stdout == shown.stdout and f"{url.rstrip('/')}: embedding" in asked.stderr


@pytest.mark.parametrize("command", ["query", "classify"])
@pytest.mark.parametrize("rows", [1, 3])
def test_vectors_are_sent_to_a_server(
    folder: Path, url: str, command: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).standard_normal((rows, 64))
    np.save(tmp_path / "v.npy", vectors)
    args = (command, "--index", folder, "--vector", tmp_path / "v.npy", "-k", 3)
    shown = ok(*args, "--server", "none")
    told = lines(ok(*args, "--server", "none", "--json"))
    monkeypatch.setattr(Index, "open", None)
    asked = lines(ok(*args, "--json"))
    for one in (*told, *asked):
        one.pop("ms", None)
    assert asked == told and len(told) == rows
    assert ok(*args).stdout == shown.stdout


@pytest.mark.parametrize("options", [[], ["--dims", 8], ["--where", "label=dog", "-k", 2]], ids=str)
def test_a_server_votes_as_this_process(
    folder: Path, url: str, picture: Path, model: None, options: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    args = ("classify", picture, "--index", folder, *options)
    here = [ok(*args, "--server", "none", *more).stdout for more in ((), ("--json",))]
    monkeypatch.setattr(Index, "open", None)
    assert [ok(*args, *more).stdout for more in ((), ("--json",))] == here
    assert url.rstrip("/") in ok(*args).stderr
    refused = run(*args, "--majority", "--server", url)
    assert_error(refused, "--majority is not for a --server")


def test_a_server_is_asked_by_its_address(folder: Path, url: str, picture: Path) -> None:
    found = lines(ok("query", picture, "--server", f"{url}?token={TOKEN}", "--json"))
    assert found[0]["hits"][0]["path"] == "cat/cat-0002.jpg"  # below its root: no path of there
    assert_error(run("query", picture, "--server", url), "wants its token")
    wrong = run("query", picture, "--server", f"{url}?token={TOKEN}", "--index", "other")
    assert_error(wrong, "has no index other")
    assert_error(run("query", "nowhere.jpg", "--server", f"{url}?token={TOKEN}"), "nowhere.jpg")
    bad = run("query", picture, "--server", f"{url}?token={TOKEN}", "--dims", 9)
    assert_error(bad, "there is no 9")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9", "127.0.0.1:8765", "ftp://a", "http://a:b"]
)
def test_an_address_where_nothing_answers(address: str, picture: Path) -> None:
    said = run("query", picture, "--server", address)
    assert said.exit_code == 1 and "server" in said.stderr and "Traceback" not in said.output


@pytest.mark.parametrize("option", [["--ids", "x.npy"], ["--sheet", "x.png"], ["--not-itself"]])
def test_what_a_server_cannot_do_is_refused(url: str, picture: Path, option: list[str]) -> None:
    assert_error(run("query", picture, "--server", url, *option), f"{option[0]} is not for")


def test_what_a_server_cannot_do_is_done_here(
    folder: Path, url: str, picture: Path, model: None, tmp_path: Path
) -> None:
    others = query(folder, picture, "--not-itself", "-k", 1)
    assert "cat-0002" not in others[0]["hits"][0]["path"]
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    both = ok("query", "--index", folder, "--json", picture, broken)
    assert len(lines(both)) == 1 and "broken.jpg" in both.stderr
    assert_error(run("query", "--index", folder, picture, "--dims", 9), "there is no 9")


def test_left_over_and_foreign_notices_are_not_believed(
    folder: Path, picture: Path, model: None
) -> None:
    path = folder.parent / ".index.serving"
    told = json.dumps({"url": "http://127.0.0.1:9", "name": "mine", "token": "", "pid": 1})
    for mode in (0o600, 0o644):
        path.write_text(told)
        path.chmod(mode)
        assert server_of(folder) is None  # nobody has it locked
    with announced(folder, Server("http://127.0.0.1:9", "mine", OWN)):
        assert path.stat().st_mode & 0o777 == 0o600
        assert server_of(folder) == Server("http://127.0.0.1:9", "mine", OWN)
        with announced(folder, Server("http://127.0.0.1:8", "mine")) as second:
            assert not second
        assert server_of(folder) is not None
        assert query(folder, picture, "-k", 1)[0]["hits"]  # nothing answers there: done here
        path.chmod(0o666)
        assert server_of(folder) is None
    assert not path.exists()
    path.symlink_to(folder / "manifest.json")
    with announced(folder, Server("http://127.0.0.1:9")) as told_:
        assert not told_
    path.unlink(missing_ok=True)


def test_the_command_serves_announces_itself_and_cleans_up(folder: Path) -> None:
    command = [sys.executable, "-m", "mrl_search", "serve", str(folder), "--port", "0"]
    path = folder.parent / ".index.serving"
    for end in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stderr is not None
                told = process.stderr.readline()
                server = server_of(folder)
                assert server is not None and server.url in told and server.pid == process.pid
                (index,) = ask(server, "GET", "/api/indexes")
                assert index["name"] == server.name
            finally:
                process.send_signal(end)
                process.wait(60)
        assert path.exists() is (end == signal.SIGKILL) and server_of(folder) is None
    path.unlink()


@pytest.mark.parametrize(
    "args",
    [
        ["a.jpg"], ["a.jpg", "b.jpg", "--json", "--index", "indexes/a"],
        ["--text", "red", "-k", "3"],
        ["a.jpg", "--text", "a^0.5", "--minus", "b", "--where", "label=x", "--where", "width>3"],
        ["a.jpg", "--dims", "64", "--explain"], ["a.jpg", "--plan", "8:20,64", "--expected"],
        ["a.jpg", "--exact", "--cutoff", "auto"], ["a.jpg", "--cutoff", "-.5"],
        ["a.jpg", "--server", "http://127.0.0.1:1"], ["a.jpg", "--server", "none"],
        ["--vector", "a.npy", "--plan", "8:20,64", "-k", "3"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_plain_query_is_read_the_same_before_the_command_line_is_loaded(
    args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[asking.Question] = []
    monkeypatch.setattr("mrl_search.cli.query.answered", lambda one: None)
    monkeypatch.setattr("mrl_search.cli.here.answer_here", lambda one: bool(read.append(one)))
    assert run("query", *args).exit_code == 0
    (question,), quick = read, start.question_of(args)
    assert list(map(str, quick.asked)) == list(map(str, question.asked))
    for name in ("how", "index", "server", "as_json", "vector"):
        assert getattr(quick, name) == getattr(question, name), name


@pytest.mark.parametrize(
    "args",
    [["--help"], ["a", "--sheet", "x"], ["a", "-k5"], ["a", "-k", "x"], ["a", "--ids=x"],
     ["a", "--"], ["a", "--plan", "64", "--dims", "8"], ["a", "--dims"], ["--minus", "a"],
     ["a", "-k", "0"], ["a", "--cutoff", "2"], ["a", "--text"], ["a", "--vector", "x.npy"], []],
    ids=" ".join,
)  # fmt: skip
def test_other_queries_are_left_to_the_command_line(args: list[str]) -> None:
    with pytest.raises(ConfigError):
        start.question_of(args)
    assert start._at_once(["query", *args]) is None
    assert start._at_once(["info", "--help"]) is None


def test_a_busy_port_is_said(folder: Path, url: str) -> None:
    port = url.rstrip("/").rpartition(":")[2]
    assert_error(run("serve", folder, "--port", port), f"port {port}")


def test_asking_imports_nothing_heavy(folder: Path, url: str, picture: Path) -> None:
    code = (
        "import sys; from mrl_search.cli.start import main\n"
        "try: main()\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'numpy', 'pyarrow', 'torch', 'faiss', 'PIL', 'typer', 'rich', 'pydantic',"
        " 'asyncio', 'dataclasses', 'email', 'http', 'inspect', 'logging', 'ssl', 'subprocess'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    args = ["query", str(picture), "--index", str(folder), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *args], capture_output=True, text=True, check=True
    )
    answer, loaded = done.stdout.splitlines()
    assert json.loads(answer)["found"] == 10 and loaded == "[]"
