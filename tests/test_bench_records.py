"""Records are written line by line, continued, and refused where they are damaged."""

import base64
import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from mrl_search.errors import DataError, FileError
from mrl_search.measure.environment import environment, same_machine
from mrl_search.measure.records import FORMAT, Journal, identity, read_runs
from mrl_search.measure.schema import pack, unpack

ABOUT = {  # fmt: skip
    "id": "a1",
    "name": "made",
    "corpus": {
        "n": 3,
        "dim": 8,
        "source": "s",
        "encoder": "e",
        "fingerprint": "f",
        "factory": {},
        "vectors": 48,
        "classes": 0,
        "files": {},
    },
    "queries": {"source": "s", "n": 2, "labelled": 2, "own": True, "fingerprint": "f"},
    "settings": {"k": 1, "neighbours": 1, "threads": 1, "batch": 1},
    "environment": {
        "machine": "m",
        "cpu": "x",
        "cores": 2,
        "os": "o",
        "python": "3",
        "versions": {},
        "commit": None,
    },
    "when": "now",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a run and two records."""
    journal = Journal.open(tmp_path / "new" / "records.jsonl", ABOUT)
    journal.add("scatter", dims=8, x=[1.0], y=[2.0], labels=[0], names=["ä"], variance=[1.0, 0.0])
    journal.add("embedding", ms=[1.5, 2.5])
    return journal.path


def test_outcomes_survive_packing() -> None:
    for values in (
        np.array([True, False, True]),
        np.array([0, 10, 255]),
        np.array([], dtype=np.uint8),
    ):
        assert unpack(pack(values)).tolist() == values.astype(int).tolist()
    assert len(pack(np.ones(20_000, dtype=bool))) < 100
    for bad in ("no base64!", "AAAA"):
        with pytest.raises(DataError, match="cannot be read"):
            unpack(bad)


def test_a_record_is_a_line_with_format_and_kind(file: Path) -> None:
    first, second, third = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert first == {"format": FORMAT, "kind": "run", **ABOUT}
    assert (second["format"], second["kind"], second["run"], second["names"]) == (
        1,
        "scatter",
        "a1",
        ["ä"],
    )
    assert third == {"format": 1, "kind": "embedding", "run": "a1", "ms": [1.5, 2.5]}
    (run,) = read_runs([file])
    assert run.name == "made" and not run.done and run.about["corpus"] == ABOUT["corpus"]
    assert [r["kind"] for r in run.records] == ["scatter", "embedding"]
    assert run.one("scatter", dims=8) == second and run.one("scatter", dims=16) is None


def test_a_journal_goes_on_after_half_a_line(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"format":1,"kind":"lat')
    assert len(read_runs([file])[0].records) == 2
    journal = Journal.open(file, {**ABOUT, "when": "later"})
    assert file.read_bytes() == whole
    assert journal.has("embedding") and not journal.has("done")
    journal.add("done")
    (run,) = read_runs([file])
    assert run.done and run.about["when"] == "now" and len(run.records) == 3


@pytest.mark.parametrize("begun", [b"", b'{"format":1,"kind":"run","id"'])
def test_an_empty_file_is_begun(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "empty.jsonl").write_bytes(begun)
    assert Journal.open(tmp_path / "empty.jsonl", ABOUT).run.about["id"] == "a1"
    assert read_runs([tmp_path / "empty.jsonl"])[0].about["when"] == "now"


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_two_benches_never_write_one_file(file: Path) -> None:
    code = (
        "import json, sys; from pathlib import Path\n"
        "from mrl_search.measure.records import Journal\n"
        "journal = Journal.open(Path(sys.argv[1]), json.loads(sys.argv[2]))\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, file, json.dumps(ABOUT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "open\n"
        with pytest.raises(DataError, match=r"Another process writes .*records.jsonl\.") as error:
            Journal.open(file, ABOUT)
        assert "--out" in error.value.hint
        other.communicate()
    Journal.open(file, ABOUT).add("done")
    assert Journal.open(file, ABOUT).run.done


def test_another_bench_is_never_mixed_in(file: Path) -> None:
    before = file.read_bytes()
    for change, said in (
        ({"environment": {"cpu": "y"}}, "another machine"),
        ({"corpus": {"n": 4}}, "another index"),
        ({"queries": {"n": 3}}, "other queries"),
        (
            {"settings": {"k": 2}, "contestants": {"8 dims": "8:2"}},
            "holds another benchmark: other settings.",
        ),
        (
            {"contestants": {"tuned for query": "8:50,64:1"}},
            "holds another benchmark: another tuned plan.",
        ),
    ):
        with pytest.raises(DataError, match=said) as error:
            Journal.open(file, {**ABOUT, "id": "b2", **change})
        assert "--out" in error.value.hint
    assert file.read_bytes() == before


def test_files_are_read_together_and_a_bench_only_once(file: Path, tmp_path: Path) -> None:
    other = Journal.open(tmp_path / "other.jsonl", {**ABOUT, "id": "b2", "name": "other"})
    other.add("done")
    runs = read_runs([file, other.path, file])
    assert [(run.name, len(run.records)) for run in runs] == [("made", 2), ("other", 1)]


def test_benches_of_one_name_are_called_as_their_files(file: Path, tmp_path: Path) -> None:
    other = Journal.open(tmp_path / "others.jsonl", {**ABOUT, "id": "b2"}).path
    runs = read_runs([file, other])
    assert [(run.name, run.about["name"], run.file) for run in runs] == [
        ("records", "made", file),
        ("others", "made", other),
    ]
    (tmp_path / "more").mkdir()
    again = Journal.open(tmp_path / "more" / "others.jsonl", {**ABOUT, "id": "c3"}).path
    assert [run.name for run in read_runs([other, again])] == [str(other), str(again)]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda line: b"", "holds no record"),
        (lambda line: b"half", "holds no record"),
        (lambda line: b"\x89PNG\n\x1a\n", "line 1 cannot be read as JSON"),
        (lambda line: b"[1]\n", "not a record of mrl-search"),
        (lambda line: b'{"dims": 8}\n', "not a record of mrl-search"),
        (lambda line: line.replace(b'"format":1', b'"format":2'), "has format 2"),
        (lambda line: line.replace(b'"when"', b'"then"'), "the run record has no 'when'"),
        (
            lambda line: line + b'{"format":1,"kind":"done","run":"zz"}\n',
            "does not hold the records of one benchmark",
        ),
        (
            lambda line: line + b'{"format":1,"kind":"done"}\n',
            "line 2: the done record has no 'run'",
        ),
    ],
)
def test_what_is_no_record_is_refused(damage, said: str, tmp_path: Path) -> None:
    path = Journal.open(tmp_path / "x.jsonl", ABOUT).path
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=said) as error:
        read_runs([path])
    assert error.value.hint


def test_a_file_that_is_not_there_and_a_place_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot be read: there is no such file"):
        read_runs([tmp_path / "none.jsonl"])
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot be made: there is a file of this name"):
        Journal.open(tmp_path / "file" / "x.jsonl", ABOUT)


def test_the_environment_names_the_machine() -> None:
    here = environment()
    assert here["cores"] >= 1 and here["cpu"] and here["versions"]["numpy"] == np.__version__
    assert same_machine(here, {**here, "versions": {}, "commit": None})
    assert not same_machine(here, {**here, "cores": here["cores"] + 1})
    assert identity({"a": 1, "b": 2}) == identity({"b": 2, "a": 1}) != identity({"a": 2, "b": 2})


@pytest.mark.parametrize(
    ("kind", "values", "said"),
    [
        ("prefix", {"dims": "8"}, "dims is '8'; it must be a whole number from 1"),
        ("prefix", {"dims": True}, "dims is True; it must be a whole number"),
        ("prefix", {"dims": 0}, "dims is 0; it must be a whole number from 1"),
        ("prefix", {"vote": "AAAA"}, "vote is 'AAAA'; it must be packed outcomes up to 1"),
        ("prefix", {"vote": pack(np.array([1, 2]))}, "it must be packed outcomes up to 1"),
        ("prefix", {"vote": pack(np.array([1, 0, 1]))}, "the vote of a prefix record has another"),
        ("prefix", {"linear": 5}, "linear is 5; it must be packed outcomes"),
        ("embedding", {"ms": [1.0, float("nan")]}, "ms is .*; it must be a list of times"),
        ("embedding", {"ms": [-1.0]}, "it must be a list of times"),
        ("embedding", {"ms": []}, "it must be a list of times"),
        ("scatter", {"labels": [0, 5]}, "the values of a scatter do not fit one another"),
        ("scatter", {"x": [1.0]}, "the values of a scatter do not fit one another"),
        ("scatter", {"x": [1.0, None]}, "an item of x is None; it must be a number"),
        ("ladder", {"rows": [{"title": "x"}]}, "an item of rows has no 'tiles'"),
        ("ladder", {"rows": 5}, "rows is no list"),
        ("ladder", {"thumbnails": {"a": "<script>"}}, "thumbnails.a is '<script>'; it must be"),
        ("ladder", {"thumbnails": []}, "thumbnails is no object"),
    ],
)
def test_altered_values_are_named(file: Path, kind: str, values: dict, said: str) -> None:
    good = {
        "prefix": {"dims": 8, "linear": None, "vote": pack(np.array([1, 0])), "confidence": None},
        "embedding": {"ms": [1.0]},
        "scatter": {
            "dims": 8, "x": [1.0, 2.0], "y": [1.0, 2.0], "labels": [0, 1], "names": ["a", "b"],
            "variance": [0.5, 0.1],
        },
        "ladder": {"number": 1, "title": "t", "why": "", "rows": [], "thumbnails": {"a": "AAAA"}},
    }[kind]  # fmt: skip
    before = file.read_text()
    record = {"format": FORMAT, "kind": kind, "run": "a1", **good}
    file.write_text(before + json.dumps(record) + "\n")
    assert len(read_runs([file])[0].records) == 3
    file.write_text(before + json.dumps({**record, **values}) + "\n")
    with pytest.raises(DataError, match=said) as error:
        read_runs([file])
    assert error.value.message.startswith(str(file)) and "measure again" in error.value.hint


def test_a_short_text_does_not_unpack_to_gigabytes() -> None:
    bomb = base64.b64encode(zlib.compress(bytes(50_000_000), 9)).decode()
    assert len(bomb) < 100_000
    with pytest.raises(DataError, match="there are more than 10,000,000"):
        unpack(bomb)
    whole = pack(np.ones(100))
    with pytest.raises(DataError, match="cannot be read"):
        unpack(whole[:-8])
