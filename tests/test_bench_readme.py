"""The README shows one table and one picture of the committed records, put there by a command."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from test_bench_report import run  # noqa: F401 - a fixture

from mrl_search.measure.records import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "readme", ROOT / "benchmarks" / "reports" / "readme.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_headline_fits_a_readme(command: ModuleType, run: Run) -> None:  # noqa: F811
    table = command.headline_table(run)
    assert table.columns == ("search", "1-NN", "20-NN", "recall@10 of exact", "p50 ms", "speed-up")
    assert table.rows == (
        ("8 dims", "84.5% [78.8%–88.9%]", "91.5% [86.8%–94.6%]", "73.0%", "0.53", "8×"),
        ("64 dims", "93.5% [89.2%–96.2%]", "94.0% [89.8%–96.5%]", "100.0%", "4.24", "1×"),
        ("adaptive 8→64, 8:200,64", "92.5% [88.0%–95.4%]", "–", "99.7%", "1.06", "4×"),
        ("embedding a query picture", "–", "–", "–", "8.25", "–"),
    )
    assert command.headline_table(replace(run, records=run.records[:1])).rows[0][0] == "64 dims"


def test_what_is_between_the_markers_comes_from_records(
    command: ModuleType,
    run: Run,  # noqa: F811
    tmp_path: Path,
) -> None:
    lines = command.part(run, tmp_path, "here/")
    assert "| adaptive 8→64, 8:200,64 | 92.5% \\[88.0%–95.4%\\] | – | 99.7% | 1.06 | 4× |" in lines
    assert '<img src="here/readme-front.png"' in lines
    assert [p.name for p in tmp_path.iterdir()] == ["readme-front.png"]
    once = command.placed(f"before\n{command.BEGIN}\nold\n{command.END}\nafter\n", lines)
    assert once == f"before\n{lines}\nafter\n" and command.placed(once, lines) == once
    with pytest.raises(SystemExit, match="has no lines"):
        command.placed("no markers", lines)
    assert (
        command.BEGIN in (ROOT / "README.md").read_text()
        and command.END in (ROOT / "README.md").read_text()
    )


@pytest.mark.skipif(
    not (ROOT / "benchmarks/reports/photographs.jsonl").exists(),
    reason="no records are committed yet",
)
def test_the_readme_is_up_to_date() -> None:
    subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "reports" / "readme.py", "--check"], check=True
    )
