"""Places and calls of Milvus: what is no place, what is asked again, what a failure says."""

import time
from pathlib import Path

import numpy as np
import pytest

from mrl_search.engines import milvus_client
from mrl_search.engines.milvus import Remote, milvus_kind
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, EngineError
from mrl_search.index import Index

pymilvus = pytest.importorskip("pymilvus")


@pytest.mark.parametrize(
    "text",
    [
        "./x.db#a",
        "milvus:./x.db",
        "milvus:#a",
        "milvus:./x#a",
        "milvus:./x.db#a b",
        "milvus:./x.db#1",
    ],
)
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(ConfigError):
        Place.parse(text)


def test_places_and_kinds() -> None:
    here = Place.parse("milvus:./x.db#mine")
    assert here.uri == str(Path.cwd() / "x.db")  # wherever a later command runs
    assert not Remote.exists(here) and not Path("x.db").exists()  # looking makes no file
    place = Place.parse("milvus:http://host:19530#mine")
    assert (place.uri, place.name) == ("http://host:19530", "mine")
    assert str(place) == "milvus:http://host:19530#mine"
    sizes = (10, False), (10**6, False), (10**6, True)
    assert [milvus_kind("auto", n, last) for n, last in sizes] == ["FLAT", "HNSW", "FLAT"]
    with pytest.raises(ConfigError, match="no kind of index in Milvus"):
        milvus_kind("PQ8x4fs", 10, False)
    with pytest.raises(ConfigError, match="10 prefixes at most"):
        Index.from_vectors(
            np.eye(16, dtype=np.float32),
            spec=IndexSpec(tuple(range(1, 17)), engine="milvus:x.db#a"),
        )


def test_no_server_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_client, "SECONDS", 0.5)
    monkeypatch.setattr(milvus_client, "WAITS", (0.01,))
    with pytest.raises(EngineError, match=r"Milvus at http://127.0.0.1:9 says") as error:
        Remote(Place.parse("milvus:http://127.0.0.1:9#mine"))
    assert error.value.hint.startswith("Is it running")


def test_an_old_server_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def __init__(self, *args: object, **options: object) -> None:
            pass

        def get_server_version(self, timeout: float) -> str:
            return "v2.2.16"

    monkeypatch.setattr(pymilvus, "MilvusClient", Client)
    with pytest.raises(EngineError, match=r"is version v2\.2\.16") as error:
        milvus_client.connected(Place.parse("milvus:http://old:1#a"))
    assert error.value.hint == "Use 2.3 or later."


def test_a_slow_server_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))

    def slow(timeout: float) -> None:
        given.append(timeout)
        now[0] += 40
        raise RuntimeError("Deadline Exceeded")

    for uri, calls in (("http://host:1", [60, 60]), ("/a/file.db", [600])):  # works on in here
        given.clear()
        with pytest.raises(EngineError, match="Deadline Exceeded") as error:
            milvus_client.ask(Place(uri, "n"), slow)
        assert error.value.hint.startswith("It is slow, or gone")
        assert given == calls


def test_calls_are_made_again_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    place, waited = Place("http://u", "n"), list[float]()
    failures = iter(["rate limit exceeded", "unavailable"])
    monkeypatch.setattr(time, "sleep", waited.append)

    def call(timeout: float) -> int:
        for failure in failures:
            raise RuntimeError(failure)
        return 7

    assert milvus_client.ask(place, call) == 7
    assert waited == list(milvus_client.WAITS[:2])

    def always(text: str) -> None:
        def fails(timeout: float) -> None:
            raise RuntimeError(text)

        milvus_client.ask(place, fails)

    waited.clear()
    for text, hint in (
        ("rate limit exceeded", "Is it running"), ("auth check failure", "Set the environment"),
        ("disk quota exhausted", "Make room"), ("odd", "Milvus 2.3"),
    ):  # fmt: skip
        with pytest.raises(EngineError, match=text) as error:
            always(text)
        assert error.value.hint.startswith(hint)
    assert waited == list(milvus_client.WAITS)  # of the first alone
