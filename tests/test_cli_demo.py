"""The demo: a small one, from drawing to the page."""

from pathlib import Path

import pytest
from command_line import ok, run

from mrl_search.cli import demo
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fresh_accelerate")


@pytest.mark.slow
def test_the_demo_leaves_a_model_an_index_a_sheet_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "demo"
    args = ("demo", "--out", out, "--individuals", "2", "--epochs", "1")
    result = ok(*args)
    assert "What each prefix tells" in result.stdout and "Coarse to fine" in result.stdout
    assert "n = 24 queries, one of each individual, and 192 changed copies" in result.stdout
    assert "in the last of 1 epochs" in result.stderr
    assert "mrl-search build-index PICTURES" in result.stderr
    for folder, count in (("train", 12 * 6 * 4), ("corpus", 12 * 2 * 8), ("queries", 12 * 2)):
        assert len(list((out / "pictures-2" / folder).rglob("*.jpg"))) == count
    assert (out / "run-2-1" / "model.json").exists()
    (folder,) = out.glob("index-*")
    index = Index.open(folder)
    assert (len(index), index.dims) == (192, (8, 16, 32, 64, 128, 256, 1024))
    assert (out / "hits.png").stat().st_size > 1000
    page = (out / "summary.html").read_text()
    assert "<html" in page and "Matryoshka search, coarse to fine" in page
    trained = (out / "run-2-1" / "model.json").stat().st_mtime_ns
    assert result.stderr.splitlines()[-1] == f"  mrl-search serve {folder}"
    served = list[Path]()
    monkeypatch.setattr(demo, "serve", served.extend)
    again = ok(*args, "--serve")  # nothing is trained or embedded a second time
    assert served == [folder]
    assert "in the last of" not in again.stderr
    assert (out / "run-2-1" / "model.json").stat().st_mtime_ns == trained


def test_the_demo_needs_two_individuals_of_a_breed(tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path, "--individuals", "1")
    assert result.exit_code == 2 and "individuals" in result.stderr
