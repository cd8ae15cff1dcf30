"""Atomic writes of files and folders."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrl_search.errors import IndexFolderError, MrlSearchError
from mrl_search.files import building_folder, claim, publish, write_atomically


def test_a_place_that_cannot_hold_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexFolderError, match=r"cannot be made"):
        building_folder(tmp_path / "file" / "pets")
    with pytest.raises(IndexFolderError, match=r"file exists already."):
        building_folder(tmp_path / "file")


def test_a_built_folder_is_kept_where_its_place_is_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = building_folder(tmp_path / "pets")
    (building / "vectors.npy").touch()
    (tmp_path / "pets").touch()
    with pytest.raises(IndexFolderError, match="exists already"):
        publish(building, tmp_path / "pets")
    assert (building / "vectors.npy").exists()
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with pytest.raises(IndexFolderError, match="is a mount point"):
        building_folder(tmp_path / "volume")


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_two_builds_at_once(tmp_path: Path) -> None:
    building = building_folder(tmp_path / "pets")
    program = (
        "import sys; from pathlib import Path; from mrl_search.files import claim\n"
        "with claim(Path(sys.argv[1])): print('held')"
    )
    with claim(building):
        other = subprocess.run(
            [sys.executable, "-c", program, str(building)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Another process works in" in other.stderr
    assert (
        subprocess.run(
            [sys.executable, "-c", program, str(building)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        == "held\n"
    )


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])


def test_a_file_is_flushed_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: there.append((tmp_path / "it").exists()))
    with write_atomically(tmp_path / "it") as temporary:
        temporary.write_text("new")
    assert there == [False, True]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write error (No space left on device)"),
    ],
)
def test_a_full_disk(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(
            MrlSearchError, match=r"The disk is full: .*it could not be written."
        ) as raised,
        write_atomically(tmp_path / "it") as path,
    ):
        path.write_text("half")
        raise error
    assert raised.value.hint
    assert not list(tmp_path.iterdir())


def test_a_place_without_rights(tmp_path: Path) -> None:
    with (
        pytest.raises(MrlSearchError, match=r"it cannot be written: No such file or directory."),
        write_atomically(tmp_path / "no" / "it") as path,
    ):
        path.write_text("new")
