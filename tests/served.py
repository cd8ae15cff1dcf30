"""An index of drawn pictures, served: by a client without a network, or on a port."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from fakes import FakeJointEncoder, write_corpus
from starlette.testclient import TestClient

from mrl_search.encoders.base import Access
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.store.manifest import read_manifest
from mrl_search.web.app import make_app
from mrl_search.web.guard import Rules
from mrl_search.web.served import Served
from mrl_search.web.server import make_server

HERE = "http://127.0.0.1"


def build(folder: Path, per_species: int = 12) -> Path:
    """An index of drawn cats and dogs, in `folder/index`, by a model of pictures and words."""
    write_corpus(folder / "pictures", per_species, size=96)
    source = open_source(str(folder / "pictures"))
    Index.build(source, folder / "index", model=FakeJointEncoder(), axes="none", access=Access())
    return folder / "index"


def client(folder: Path, rules: Rules | None = None, **options: Any) -> TestClient:
    """A client of a server of the index in `folder`, called `mine`."""
    one = options.pop("served", None) or Served(folder, "mine", FakeJointEncoder())
    app = make_app({"mine": one}, rules, **options)
    return TestClient(app, base_url=HERE, raise_server_exceptions=False)


@contextlib.contextmanager
def running(folder: Path, **options: Any) -> Iterator[str]:
    """Serve the index in `folder` on a free port; gives the address."""
    model = None if read_manifest(folder).own_vectors else FakeJointEncoder()
    app = make_app({"mine": Served(folder, "mine", model)}, **options)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = make_server(app, port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"{HERE}:{port}/"
    finally:
        server.should_exit = True
        thread.join(10)


def events_of(response: httpx.Response) -> list[tuple[str, Any]]:
    """The server-sent events of an answer: kind and data."""
    found = []
    for event in response.text.strip().split("\n\n"):
        kind, data = event.split("\n")
        found.append((kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found
