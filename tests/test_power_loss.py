"""What is published survives a loss of power: file, then its name, then its folder are flushed.

A trace of the calls to the system stands for the disk: only what was flushed counts as written.
"""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from command_line import write_pictures
from fakes import FakeEncoder
from tiny_runs import train_tiny

from mrl_search import files, living, sync
from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.measure.records import Journal, Run
from mrl_search.report.page import Page, write_page
from mrl_search.report.sheet import Row, save_sheet
from mrl_search.shrink import shrink_index

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def content(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@dataclass
class Disk:
    """What was flushed to the disk, below `root`.

    Attributes:
        flushed: content of each file when it was last flushed, by the path it has now.
        names: the names in each folder when it was last flushed.
        unsafe: files that were renamed before their content was flushed.
    """

    root: Path
    flushed: dict[str, str] = field(default_factory=dict)
    names: dict[str, set[str]] = field(default_factory=dict)
    unsafe: list[str] = field(default_factory=list)

    def sync(self, handle: int) -> None:
        path = str(Path(f"/proc/self/fd/{handle}").readlink())
        if Path(path).is_dir():
            self.names[path] = {entry.name for entry in Path(path).iterdir()}
        else:
            self.flushed[path] = content(path)

    def rename(self, source: str, target: str) -> None:
        if Path(target).is_dir():
            known = (self.flushed, self.names)
            for path in [p for values in known for p in values if f"{p}/".startswith(f"{source}/")]:
                for values in known:
                    if path in values:
                        values[target + path[len(source) :]] = values.pop(path)  # type: ignore
        else:
            known = self.flushed.pop(source, None)
            if known != content(target) and Path(target).is_relative_to(self.root):
                self.unsafe.append(target)
            self.flushed[target] = content(target)

    def lost(self) -> list[str]:
        """Files that a loss of power would lose now, or leave with another content."""
        found = list(self.unsafe)
        for path in map(str, self.root.rglob("*")):
            if not Path(path).is_dir() and self.flushed.get(path) != content(path):
                found.append(f"{path}: content")
            place, name = os.path.split(path)
            if name not in self.names.get(place, ()):
                found.append(f"{path}: name")
        return found


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """A disk below `tmp_path / "out"`, whose flushes and names are traced."""
    (tmp_path / "out").mkdir()
    disk = Disk(tmp_path / "out")
    sync, replace, rename = os.fsync, os.replace, os.rename

    def traced(move: Callable[[str, str], None]) -> Callable[[object, object], None]:
        def call(source: object, target: object) -> None:
            move(os.fspath(source), os.fspath(target))  # type: ignore[call-overload]
            disk.rename(os.fspath(source), os.fspath(target))  # type: ignore[call-overload]

        return call

    monkeypatch.setattr(os, "fsync", lambda handle: (sync(handle), disk.sync(handle)))
    monkeypatch.setattr(os, "replace", traced(replace))
    monkeypatch.setattr(os, "rename", traced(rename))
    yield disk


def test_an_index_of_pictures(tmp_path: Path, disk: Disk) -> None:
    write_pictures(tmp_path / "pictures", 5)
    Index.build(tmp_path / "pictures", disk.root / "new" / "it", model=FakeEncoder())
    assert not disk.lost()


def test_an_index_of_vectors_its_plan_and_a_smaller_one(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.building.CLUSTERED_FROM", 0)  # with a sieve
    rows = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    spec = IndexSpec((8, 16, 32), "Flat")
    index = Index.from_vectors(rows, disk.root / "it", spec=spec, rotate="pca")
    assert not disk.lost() and len(list(index.folder.iterdir())) == 10
    index.tune(queries=50)
    assert not disk.lost()
    shrink_index(index, disk.root / "small", 16)
    assert not disk.lost()


def test_an_index_of_vectors_that_changes(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((300, 32)).astype(np.float32)
    index = Index.from_vectors(rows, disk.root / "it", spec=IndexSpec((8, 32), "Flat"))
    index.add(rng.standard_normal((20, 32)).astype(np.float32))
    assert not disk.lost()
    index.remove(ids=np.arange(5))
    assert not disk.lost()
    monkeypatch.setattr(living, "FEW", 0)
    index.add(rng.standard_normal((20, 32)).astype(np.float32))  # and folds
    assert not disk.lost() and index.manifest.indexed == index.manifest.count
    index.compact()
    assert not disk.lost() and index.manifest.count == len(index) == 335
    index.restore(index.generations[-2])
    assert not disk.lost()


def test_a_sync(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync, "CHUNK", 3)
    write_pictures(tmp_path / "pictures", 5)
    index = Index.build(tmp_path / "pictures", disk.root / "it", model=FakeEncoder())
    write_pictures(tmp_path / "pictures" / "more", 2, seed=1)
    (tmp_path / "pictures" / "cat" / "cat-0000.png").unlink()
    (tmp_path / "pictures" / "cat" / "cat-0001.png").rename(tmp_path / "pictures" / "moved.png")
    (tmp_path / "pictures" / "bad.png").write_bytes(b"not a picture")
    done = Index.open(index.folder, FakeEncoder()).sync()
    assert (len(done.added), len(done.removed), len(done.moved)) == (4, 1, 1)
    assert not disk.lost()


@pytest.mark.usefixtures("fresh_accelerate")
def test_a_training_run(disk: Disk) -> None:
    train_tiny(disk.root / "runs" / "mine")
    assert not disk.lost()


def test_records_pages_and_sheets(disk: Disk) -> None:
    files.append(disk.root / "deep.txt", b"one")
    files.append(disk.root / "deep.txt", b"two")
    page = Page("t", ["x"], [], [], {})
    write_page(disk.root / "pages" / "p.html", page)
    save_sheet([Row("r", [])], disk.root / "sheets" / "s.png")
    Journal(disk.root / "j.jsonl", Run({"id": "a"}, [])).add("done")
    assert not disk.lost()


@pytest.mark.parametrize("fault", ["no flush of files", "no flush of folders"])
def test_the_trace_finds_a_missing_flush(
    disk: Disk, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    if fault == "no flush of files":
        traced = os.fsync
        monkeypatch.setattr(
            os, "fsync",
            lambda h: traced(h) if Path(f"/proc/self/fd/{h}").readlink().is_dir() else None,
        )  # fmt: skip
    else:
        monkeypatch.setattr(files, "flush_folder", lambda folder: None)
    files.write_text(disk.root / "a.txt", "text")
    assert disk.lost()
