"""The script measures the slider and the map of a page."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


@pytest.mark.slow
@pytest.mark.skipif(
    not (os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")),
    reason="no chromium",
)
def test_frames_are_measured(
    load: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = load("page")
    monkeypatch.setattr(script, "TICKS", 8)
    monkeypatch.setattr(script, "FRAMES", 6)
    folder, out = tmp_path / "index", tmp_path / "page.jsonl"
    script.main(script.arguments([str(folder), str(out), "--points", "500", "--try-out"]))
    slider, far, near = map(json.loads, out.read_text().splitlines())
    assert slider["what"] == "slider" and slider["items"] == 500 and slider["frame_n"] == 48
    assert 1 <= slider["search_n"] <= 8 and slider["work_ms"] > 0
    assert far["frame_n"] == near["frame_n"] == 6 and far["whole_ms"] > 0
    script.main(script.arguments([str(folder), str(out), "--no-webgl", "--try-out"]))
    assert [json.loads(x)["webgl"] for x in out.read_text().splitlines()] == [True] * 3 + [
        False
    ] * 2
