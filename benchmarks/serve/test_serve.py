"""The scripts measure every contestant, and notice wrong answers."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mrl_search.index import Index

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served") / "index"
    rows = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    Index.from_vectors(rows, folder)
    return folder


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(HERE))
    import serve

    monkeypatch.setattr(serve, "WARM", 10)
    monkeypatch.setattr(serve, "ROUNDS", 2)
    yield serve
    for name in ("serve", "load", "table"):
        sys.modules.pop(name, None)


def run(script: ModuleType, folder: Path, out: Path, *options: str) -> list[dict[str, Any]]:
    out.unlink(missing_ok=True)
    script.main(script.arguments([str(folder), str(out), "--try-out", *options]))
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.slow
def test_every_contestant_is_measured(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    records = run(script, folder, out, "--clients", "1,4", "--seconds", "1", "--plan", "8:50,32")
    assert [(r["what"], r["clients"]) for r in records] == [
        ("library", 1), ("vector", 1), ("vector, base64", 1), ("bare FAISS", 1),
        ("vector", 4), ("vector, base64", 4), ("bare FAISS", 4),
    ]  # fmt: skip
    assert all(0 < r["p50_ms"] <= r["p99_ms"] and r["refused"] == 0 for r in records)
    assert all(0 < r["search_ms"] < r["p50_ms"] for r in records if "search_ms" in r)
    assert not (folder.parent / ".index.serving").exists()


@pytest.mark.slow
def test_wrong_answers_are_noticed(
    script: ModuleType, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--part", "answers", "--checked", "200", "--plan", "8:50,32")
    (record,) = run(script, folder, tmp_path / "out.jsonl", *options)
    assert (record["came"], record["wrong"]) == (200, 0)
    of = script.questions
    monkeypatch.setattr(script, "questions", lambda port, rows, plan: of(port, rows[::-1], plan))
    (record,) = run(script, folder, tmp_path / "out.jsonl", *options)
    assert record["wrong"] > 150


@pytest.mark.slow
def test_the_memory_of_the_server_is_read(script: ModuleType, folder: Path, tmp_path: Path) -> None:
    (record,) = run(script, folder, tmp_path / "out.jsonl", "--part", "memory", "--many", "100")
    assert len(record["resident_mb"]) == 11 and min(record["resident_mb"]) > 10
