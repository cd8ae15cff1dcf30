"""`mrl-search build-index` and `mrl-search info`."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_error, lines, ok, run
from fakes import FakeEncoder

from mrl_search.files import building_folder, claim
from mrl_search.images.sources import read_recorded
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")


def test_the_broken_picture_is_listed_and_info_counts_it(gallery: Path, tmp_path: Path) -> None:
    result = ok("build-index", gallery / "pictures", "--out", tmp_path / "index")
    assert "41 images of" in result.stderr and "broken.jpg" in result.stderr
    assert f"next: mrl-search query IMAGE --index {tmp_path / 'index'}" in result.stderr
    (line,) = lines(ok("info", tmp_path / "index", "--json"))
    assert (line["count"], line["skipped"], line["dims"], line["dim"]) == (40, 1, [8, 16, 64], 64)
    (skipped,) = json.loads((tmp_path / "index" / "skipped.json").read_text())
    assert Path(skipped["path"]).name == "broken.jpg" and "not an image" in skipped["reason"]
    shown = ok("info", tmp_path / "index", "--verify")
    assert "cat 20, dog 20" in shown.stdout and "40, skipped 1" in shown.stdout
    assert "every file is as it was written" in shown.stderr
    assert not list(tmp_path.glob(".*building"))


def test_options_matter(gallery: Path, tmp_path: Path) -> None:
    kinds = ["--factory", "SQ8", "--factory", "8=Flat", "--dtype", "float32", "--dims", "8,16"]
    ok("build-index", gallery / "fresh", "--out", tmp_path / "index", *kinds)
    (line,) = lines(ok("info", tmp_path / "index", "--json"))
    assert line["factory"] == {"8": "Flat", "16": "SQ8", "64": "SQ8"}
    assert (line["dtype"], line["dims"], line["count"]) == ("float32", [8, 16, 64], 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--factory", "32=Flat"], "--factory names 32 dims, which get no index"),
        (["--factory", "8=Flat", "--factory", "8=SQ8"], "for 8 dims: Flat and SQ8"),
        (["--factory", "Flat", "--factory", "SQ8"], "for all prefixes: Flat and SQ8"),
        (["--factory", "64=Flatt"], "FAISS has no index 'Flatt' for 64 dims"),
        (["--dims", "8,128"], "no prefix of 128"),
        (["--dims", "many"], "--dims is 'many'; it must be numbers"),
        (["--dtype", "int8"], "dtype is 'int8'"),
        (["--split", "middle"], "--split is 'middle'"),
        (["--rotate", "pca"], "--rotate is for vectors"),
    ],
)
def test_options_that_make_no_sense(
    gallery: Path, tmp_path: Path, fake_model: FakeEncoder, options: list[str], message: str
) -> None:
    place = ("build-index", gallery / "fresh", "--out", tmp_path / "index")
    assert_error(run(*place, *options), message)
    assert not list(tmp_path.glob(".index.building/*")) and fake_model.batches == []


@pytest.mark.parametrize("engine", ["faiss", "milvus:x.db", "milvus:x.db#a-b", "milvus:x#a"])
def test_a_bad_engine_is_told_before_pictures_are_listed(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setattr("mrl_search.images.sources.open_source", lambda *_, **__: pytest.fail())
    built = ("build-index", gallery / "fresh", "--out", tmp_path / "index")
    assert_error(run(*built, "--engine", engine), "milvus:./pictures.db#mine")


def test_sources_that_cannot_be_used(gallery: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "x.png").write_bytes(b"")
    for source, out, message in (
        (tmp_path / "nowhere", tmp_path / "i", "There is nothing at"),
        (tmp_path / "empty", tmp_path / "i", "There is no image in"),
        (tmp_path / "broken", tmp_path / "i", "can be read"),
        (gallery / "fresh", gallery / "index", "exists already"),
    ):
        assert_error(run("build-index", source, "--out", out), message)
    assert not (tmp_path / "i").exists() and not (tmp_path / ".i.building").exists()


def test_a_missing_model(gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    out = ("--out", tmp_path / "i", "--model", tmp_path / "none")
    assert_error(run("build-index", gallery / "fresh", *out), "There is no model")


def test_a_stopped_build_continues(
    gallery: Path, tmp_path: Path, fake_model: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.encoders.embed.BATCH", 8)
    monkeypatch.setattr("mrl_search.store.writer.COMMIT", 1)
    args = ("build-index", gallery / "pictures", "--out", tmp_path / "index")
    encode = FakeEncoder.encode

    def stopping(self: FakeEncoder, pictures: np.ndarray) -> np.ndarray:
        if len(self.batches) == 3:
            raise KeyboardInterrupt
        return encode(self, pictures)

    with monkeypatch.context() as patch:
        patch.setattr(FakeEncoder, "encode", stopping)
        stopped = run(*args)
    assert stopped.exit_code == 130 and not (tmp_path / "index").exists()
    image = gallery / "fresh" / "cat" / "cat-0000.png"
    assert_error(run("query", image, "--index", tmp_path / "index"), "not finished yet")
    for other in (("build-index", gallery / "fresh", *args[2:]), (*args, "--dtype", "float32")):
        assert_error(run(*other), "unfinished build of other images")
    ok(*args)
    assert sum(fake_model.batches) == 40
    assert not (tmp_path / "index" / "progress.json").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_two_builds_never_share_a_folder(gallery: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.eye(8, dtype=np.float32))
    with claim(building_folder(tmp_path / "index")):
        for source in (gallery / "fresh", tmp_path / "x.npy"):
            result = run("build-index", source, "--out", tmp_path / "index")
            assert_error(result, "Another process works in")


NAMES = [
    b"caf\xe9", b"a\nb\tc", b"\x1b[31mred", b"#1 50%", b"[x]*?", b" space ", b"-dash", b"'quote\"",
    "\u202egnp".encode(), "\u65e5\u672c".encode(), b"hub:a", b"~home", b"x" * 200,
]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes")
@pytest.mark.parametrize("name", NAMES)
def test_any_name_works_everywhere(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    odd = os.fsdecode(name)
    pictures = tmp_path / odd / odd
    pictures.mkdir(parents=True)
    for path in (gallery / "fresh" / "cat").iterdir():
        shutil.copy(path, pictures / f"{odd}{path.name}")
    index = tmp_path / "out" / odd
    ok("build-index", f"./{odd}", "--out", index, "--dims", "8", "--model", "bundled")
    found = Index.open(index)
    assert len(found) == len(list(pictures.iterdir())) and not found.corpus.collection.skipped
    label = found.corpus.collection.labels[0]
    assert label and (b"\xe9" not in name or label == "caf\\xe9")
    for path in found.corpus.collection.paths:
        assert read_recorded(path, found.manifest.source)
    picture = next(pictures.iterdir())
    (answer,) = lines(ok("query", f"./{picture.relative_to(tmp_path)}", "--index", index, "--json",
                         "-k", "1", "--sheet", f"{odd}.png"))  # fmt: skip
    assert answer["hits"][0]["score"] > 0.999 and (tmp_path / f"{odd}.png").exists()
    shown = ok("query", f"./{picture.relative_to(tmp_path)}", "--index", index)
    assert "\x1b" not in shown.output and "\u202e" not in shown.output
    np.save(tmp_path / "own.npy", np.eye(16, dtype=np.float32))
    (tmp_path / "own.npy").rename(tmp_path / f"{odd}.npy")
    ok("build-index", f"./{odd}.npy", "--out", tmp_path / "own" / odd)
    assert ok("info", tmp_path / "own" / odd).exit_code == 0
    asked = ok("query", "--vector", f"./{odd}.npy", "--index", tmp_path / "own" / odd, "--json")
    assert [line["hits"][0]["id"] for line in lines(asked)] == list(range(16))


def test_places_are_named_as_a_shell_would(
    gallery: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    ok("build-index", gallery / "fresh", "--out", "~/index")
    left = [p.name for p in (tmp_path / "index").iterdir()]
    assert not [name for name in left if "progress" in name or "jsonl" in name]
    ok("shrink", tmp_path / "index", "--dims", "8", "--yes", "--out", "~/small")
    rows = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", rows)
    ok("build-index", tmp_path / "vectors.npy", "--out", "~/own")
    assert len(Index.open("~/own")) == 40
    for name in ("2024.05", "2024.06", ".hidden"):
        shutil.copytree(gallery / "fresh", tmp_path / name)
        ok("build-index", name, "--dims", "8")
    made = sorted(p.name for p in (tmp_path / "indexes").iterdir())
    assert made == ["2024.05", "2024.06", "hidden"]
