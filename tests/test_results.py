"""Results: nouns outside, arrays inside; and how they reach terminals, files and pipes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import FakeEncoder
from PIL import Image
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.cli.render import note, show_table
from mrl_search.index import Index
from mrl_search.search.results import BatchHits, Hit, Hits


def batch() -> BatchHits:
    return BatchHits(
        np.array([[7, 3], [1, -1]]), np.array([[0.5, 0.25], [0.75, -np.inf]], dtype=np.float32)
    )


def test_a_batch_is_a_sequence_of_hits() -> None:
    assert len(batch()) == 2
    assert next(list(hits) for hits in batch()) == [Hit(1, 7, 0.5), Hit(2, 3, 0.25)]
    assert isinstance(batch()[1], Hits)


def test_the_type_does_not_change_with_the_size_of_the_batch() -> None:
    one = BatchHits(batch().ids[:1], batch().scores[:1])
    assert len(one) == 1
    assert [hit.id for hit in one[0]] == [7, 3]


def test_ranks_count_from_one_and_from_the_end() -> None:
    hits = batch()[0]
    assert hits[1] == Hit(2, 3, 0.25)
    assert hits[-1] == Hit(2, 3, 0.25)
    with pytest.raises(IndexError):
        hits[2]
    for some in (hits, batch()):
        with pytest.raises(TypeError):
            some[:1]  # type: ignore[index]


def test_a_hit_is_made_of_plain_numbers() -> None:
    hit = batch()[0][0]
    assert (type(hit.rank), type(hit.id), type(hit.score)) == (int, int, float)


def test_only_real_hits_are_counted() -> None:
    assert [len(hits) for hits in batch()] == [2, 1]
    assert [[hit.id for hit in hits] for hits in batch()] == [[7, 3], [1]]
    with pytest.raises(IndexError):
        batch()[1][1]
    none = BatchHits(np.array([[-1, -1]]), np.full((1, 2), -np.inf, dtype=np.float32))
    assert list(none[0]) == []


def test_the_first_answers_of_every_query() -> None:
    whole = replace(batch(), dims=np.array([8, 64]))
    best = whole.first(1)
    assert best.ids.tolist() == [[7], [1]] and best.scores.tolist() == [[0.5], [0.75]]
    assert best.dims is not None and best.dims.tolist() == [8, 64]


def test_a_hit_without_items_has_no_columns() -> None:
    hit = batch()[0][0]
    assert (hit.path, hit.label) == (None, None)
    with pytest.raises(KeyError):
        hit["width"]


@pytest.fixture
def asked(small_index: Index, queries: np.ndarray, tmp_path: Path) -> list[str]:
    """The command that asks `small_index` for the neighbours of one query."""
    np.save(tmp_path / "jäger.npy", queries[:1])
    return ["query", "--vector", str(tmp_path / "jäger.npy"), "--index", str(small_index.folder)]


def written_to(out: Any, args: list[str], encoding: str = "utf-8") -> subprocess.CompletedProcess:
    code = "from mrl_search.cli.app import app; app()"
    env = {**os.environ, "PYTHONIOENCODING": encoding}
    return subprocess.run(
        [sys.executable, "-c", code, *args], stdout=out, stderr=subprocess.PIPE, env=env
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_a_full_disk_is_a_sentence(asked: list[str], extra: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = written_to(full, asked + extra)
    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: The output cannot be written: the disk is full.",
        "hint: Make room, then run the command again.",
    ]  # fmt: skip


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_who_reads_no_further_ends_nothing_badly(asked: list[str], extra: list[str]) -> None:
    read, write = os.pipe()
    os.close(read)
    done = written_to(write, asked + extra)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_file_that_cannot_be_used_is_named(
    monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    def refuse(folder: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Index, "open", refuse)
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: {asked[-1]} cannot be used: permission denied.\nhint: "
    )


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "ascii"])
def test_json_is_json_in_every_encoding(asked: list[str], encoding: str) -> None:
    told = written_to(subprocess.PIPE, [*asked, "--json"], encoding).stdout.decode(encoding)
    assert json.loads(told)["image"] == asked[2]
    assert ("jäger" in told) == (encoding == "utf-8")


def test_a_table_breaks_no_line_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    path, title = "p" * 500, "a title that is longer than what stands below it"
    show_table(("rank", "path"), [("1", path), ("2", "evil\x1b[2J\n.jpg")], title)
    first, header, one, two = capsys.readouterr().out.splitlines()
    assert (first, header.split(), one.split(), two.split()) == (
        title,
        ["rank", "path"],
        ["1", path],
        ["2", r"evil\x1b[2J\n.jpg"],
    )
    note("skipped:\n  evil\x1b[2J.jpg")
    assert capsys.readouterr().err == "skipped:\n  evil\\x1b[2J.jpg\n"


@pytest.mark.parametrize("command", ["query", "classify"])
def test_a_model_that_moved_is_named(
    small_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    opened: list[str] = []
    encoder = FakeEncoder()
    monkeypatch.setattr(
        "mrl_search.encoders.registry.load_encoder",
        lambda model, *_: opened.append(model) or encoder,
    )
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    asked = [command, str(tmp_path / "red.png"), "--index", str(small_index.folder)]
    for extra in ([], ["--model", "runs/moved"]):
        assert CliRunner().invoke(app, asked + extra).exit_code == 0
    assert opened == ["bundled", "runs/moved"]
    encoder.fingerprint = "beef" * 8
    refused = CliRunner().invoke(app, [*asked, "--model", "runs/moved"])
    assert refused.exit_code == 1 and "was built with the model counting" in refused.stderr
    np.save(tmp_path / "x.npy", np.ones(64))
    both = CliRunner().invoke(
        app, [command, "--vector", str(tmp_path / "x.npy"), *asked[2:], "--model", "runs/moved"]
    )
    assert both.exit_code == 1 and "--model is for pictures" in both.stderr
