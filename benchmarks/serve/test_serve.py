"""The script measures every contestant, and notices wrong answers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from mrl_search.index import Index

PATH = Path(__file__).with_name("serve.py")


@pytest.mark.slow
def test_every_contestant_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("serve_benchmark", PATH)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "CHECKED", 200)
    monkeypatch.setattr(script, "WARM", 10)
    rows = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    Index.from_vectors(rows, tmp_path / "index")
    out = tmp_path / "out.jsonl"
    script.main(tmp_path / "index", out, [1, 4], 12, 20, "8:50,32")
    records = [json.loads(line) for line in out.read_text().splitlines()]
    measured = [(r["what"], r["clients"]) for r in records if "p50_ms" in r]
    assert measured == [
        ("library", 1), ("vector", 1), ("bare FAISS", 1), ("vector", 4), ("bare FAISS", 4),
    ]  # fmt: skip
    (checked,) = (r for r in records if r["what"] == "answers")
    assert (checked["came"], checked["wrong"]) == (200, 0)
    (memory,) = (r for r in records if r["what"] == "memory")
    assert len(memory["resident_mb"]) == 11 and min(memory["resident_mb"]) > 10
    assert not (tmp_path / ".index.serving").exists()
