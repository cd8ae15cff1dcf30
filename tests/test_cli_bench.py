"""`bench` and `report` from the command line; worse results exit with 1."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_error, lines, ok, run, write_pictures

from mrl_search.measure.records import read_runs
from mrl_search.measure.schema import pack, unpack
from mrl_search.report.values import share_of

pytestmark = pytest.mark.slow

QUICK = ("--rounds", "1", "-k", "5")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, an index of the bundled model, and a benchmark of it."""
    folder = tmp_path_factory.mktemp("bench")
    write_pictures(folder / "pictures", 20, shift=2)
    ok(
        "build-index",
        folder / "pictures",
        "--out",
        folder / "index",
        "--dims",
        "8,64,1024",
        "--model",
        "bundled",
    )
    ok("bench", folder / "index", "--out", folder / "base.jsonl", *QUICK)
    return folder


def altered(source: Path, out: Path, kind: str, **values: object) -> Path:
    """The records with other values in all of one kind."""
    records = [json.loads(line) for line in source.read_text().splitlines()]
    out.write_text(
        "".join(json.dumps({**r, **values} if r["kind"] == kind else r) + "\n" for r in records)
    )
    return out


def test_bench_measures_and_goes_on(place: Path, tmp_path: Path) -> None:
    (base,) = read_runs([place / "base.jsonl"])
    assert base.done and base.about["queries"]["n"] == 40 and base.about["settings"]["k"] == 5
    assert len(base.of("ladder")) == 3 and all(
        r["rows"] and r["thumbnails"] for r in base.of("ladder")
    )
    lines = (place / "base.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_text("".join(lines[:9]) + lines[9][:20])
    shown = ok("bench", place / "index", "--out", tmp_path / "half.jsonl", *QUICK)
    assert (tmp_path / "half.jsonl").read_text().startswith("".join(lines[:9])) and read_runs(
        [tmp_path / "half.jsonl"]
    )[0].done
    assert "Accuracy of each prefix" in shown.stdout and "next: mrl-search report" in shown.stderr


def test_options_change_the_result(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ok("bench", place / "index", "--rounds", "2", "-k", "3", "--sample", "12", "--threads", "2")
    (told,) = read_runs([tmp_path / "bench-index.jsonl"])
    assert told.about["queries"]["n"] == 12 and told.about["settings"]["threads"] == 2
    assert (
        len(told.of("latency", plan="8 dims")) == 2
        and told.one("plan", name="8 dims")["plan"] == "8"
    )
    assert not told.of("instance") and not told.of("embedding")


def test_pictures_from_elsewhere_and_changed_copies(place: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "fresh", 6, seed=9)
    shown = ok(
        "bench",
        place / "index",
        "--queries",
        tmp_path / "fresh",
        "--out",
        tmp_path / "fresh.jsonl",
        *QUICK,
    ).stdout
    (told,) = read_runs([tmp_path / "fresh.jsonl"])
    assert (
        told.about["queries"]["n"] == 12
        and not told.about["queries"]["own"]
        and "left out of its own hits" not in shown
    )
    assert len(told.one("embedding")["ms"]) == 11 and "Embedding a query picture takes" in shown
    assert told.one("prefix", dims=8)["linear"] is not None
    ok("bench", place / "index", "--instance", "--out", tmp_path / "instance.jsonl", *QUICK)
    (told,) = read_runs([tmp_path / "instance.jsonl"])
    by_dims = {r["dims"]: share_of(r["right"]) for r in told.of("instance")}
    assert {s.n for s in by_dims.values()} == {40}
    evaluated = lines(
        ok("evaluate", place / "pictures", "--index", place / "index", "--instance", "--json")
    )
    assert {e["dims"]: e["instance_recall_at_1"] for e in evaluated} == {
        d: s.value for d, s in by_dims.items()
    }
    none = (
        "bench",
        place / "index",
        "--queries",
        tmp_path / "fresh",
        "--instance",
        "--out",
        tmp_path / "none.jsonl",
        *QUICK,
    )
    assert_error(run(*none), "no copy can find its original")


def test_compare_ends_with_1_where_something_became_worse(place: Path, tmp_path: Path) -> None:
    args = ("bench", place / "index", "--out", place / "base.jsonl", *QUICK, "--compare")
    assert "0 shares are significantly worse, 0 times" in ok(*args, place / "base.jsonl").stderr
    n = len(unpack(read_runs([place / "base.jsonl"])[0].one("prefix", dims=8)["vote"]))
    better = altered(
        place / "base.jsonl", tmp_path / "better.jsonl", "prefix", vote=pack(np.ones(n, dtype=bool))
    )
    worse = altered(
        place / "base.jsonl", tmp_path / "worse.jsonl", "prefix", vote=pack(np.zeros(n, dtype=bool))
    )
    dropped = run(*args, better)
    assert (
        dropped.exit_code == 1 and "worse" in dropped.stdout and "Traceback" not in dropped.output
    )
    assert "0 shares are significantly worse, 0 times" in ok(*args, worse).stderr
    fast = altered(place / "base.jsonl", tmp_path / "fast.jsonl", "latency", ms=[1e-4] * 40)
    assert run(*args, fast).exit_code == 1
    assert ok(*args, fast, "--tolerance", "1e9").exit_code == 0
    here = json.loads((place / "base.jsonl").read_text().splitlines()[0])["environment"]
    elsewhere = altered(
        fast, tmp_path / "elsewhere.jsonl", "run", environment={**here, "cpu": "Another"}
    )
    assert "another machine" in ok(*args, elsewhere).stderr


def test_report_writes_a_page_from_records_alone(place: Path, tmp_path: Path) -> None:
    (tmp_path / "base.jsonl").write_bytes((place / "base.jsonl").read_bytes())
    shown = ok("report", tmp_path / "base.jsonl")
    assert (
        "Hits of each plan" in shown.stdout
        and str(tmp_path / "base" / "report.html") in shown.stderr
    )
    ok("report", place / "base.jsonl", "--out", tmp_path / "again")
    for name in ("report.html", "report.md", "ladder-1.webp"):
        assert (tmp_path / "base" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bad_input_is_a_sentence_and_a_hint(place: Path, tmp_path: Path) -> None:
    (tmp_path / "text.jsonl").write_text("no record\n")
    (tmp_path / "other.jsonl").write_text('{"format":99,"kind":"run"}\n')
    for args, said in (
        (("report", tmp_path / "none.jsonl"), "cannot be read"),
        (("report", tmp_path / "text.jsonl"), "line 1 cannot be read as JSON"),
        (("report", tmp_path / "other.jsonl"), "has format 99"),
        (("bench", tmp_path / "none"), "There is no"),
        (
            ("bench", place / "index", "--out", place / "base.jsonl", "-k", "6", "--rounds", "1"),
            "holds another benchmark: other settings",
        ),
        (
            ("bench", place / "index", "--sample", "3", "--out", tmp_path / "x.jsonl"),
            "3 queries are too few",
        ),
        (
            ("bench", place / "index", "--compare", tmp_path / "text.jsonl"),
            "line 1 cannot be read as JSON",
        ),
        (
            (
                "bench",
                place / "index",
                "--sample",
                "20",
                "--out",
                tmp_path / "y.jsonl",
                "--compare",
                place / "base.jsonl",
            ),
            "other queries",
        ),
        (
            ("bench", place / "index", "-k", "50", "--out", tmp_path / "x.jsonl"),
            "too few to find 50 others",
        ),
    ):
        assert_error(run(*args), said)
    assert not (tmp_path / "x.jsonl").exists()
    assert len((tmp_path / "y.jsonl").read_text().splitlines()) == 1  # nothing was measured


def test_neither_needs_torch_and_report_no_faiss(place: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mrl_search.cli.app import app; app(sys.argv[2:], standalone_mode=False); "
        "print('loaded', [m for m in sys.argv[1].split(',') if m in sys.modules])"
    )
    for modules, args in (
        ("torch", ["bench", place / "index", "--out", tmp_path / "x.jsonl", *QUICK]),
        ("torch,faiss", ["report", place / "base.jsonl", "--out", tmp_path / "report"]),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, modules, *map(str, args)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "loaded []"
