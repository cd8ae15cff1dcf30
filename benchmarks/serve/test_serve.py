"""The script measures every contestant, and notices wrong answers."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from mrl_search.index import Index


@pytest.fixture
def script(load: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    found = load("serve")
    monkeypatch.setattr(found, "WARM", 10)
    return found


@pytest.mark.slow
def test_every_contestant_is_measured(tmp_path: Path, script: ModuleType) -> None:
    rows = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    Index.from_vectors(rows, tmp_path / "index")

    def run(*options: str) -> list[dict[str, Any]]:
        out = tmp_path / f"{len(options)}-{options[1]}.jsonl"
        places = [str(tmp_path / "index"), str(out), "--plan", "8:50,32", "--try-out"]
        script.main(script.arguments([*places, *options]))
        return [json.loads(line) for line in out.read_text().splitlines()]

    times = run("--part", "times", "--clients", "1,4", "--seconds", "0.2")
    single = [record["what"] for record in times if record["clients"] == 1]
    assert single == ["library", "vector", "vector, base64", "library", "bare FAISS"]
    crowd = [record["what"] for record in times if record["clients"] == 4]
    assert crowd == ["vector", "vector, base64", "bare FAISS"]
    assert all(record["p50_ms"] > 0 and record["n"] and not record["refused"] for record in times)
    (checked,) = run("--part", "answers", "--checked", "200")
    assert (checked["came"], checked["wrong"], checked["refused"]) == (200, 0, 0)
    (memory,) = run("--part", "memory", "--many", "20")
    assert len(memory["resident_mb"]) == 11 and min(memory["resident_mb"]) > 10
    assert not (tmp_path / ".index.serving").exists()
