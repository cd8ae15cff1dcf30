"""Atomic writes of files and folders."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mrl_search.errors import DataError, FileError, IndexFolderError, errno_of
from mrl_search.files import (
    building_folder,
    claim,
    make_folder,
    open_in_place,
    publish,
    read_bytes,
    reading,
    write_atomically,
)


def test_a_place_that_cannot_hold_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match=r"cannot be made: a part of its path is a file"):
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
        temporary.write(b"half")
        _ = 1 / 0
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with write_atomically(path) as temporary:
        temporary.write(b"new")
        assert path.read_text() == "old"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])


def test_a_file_is_flushed_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: there.append((tmp_path / "it").exists()))
    with write_atomically(tmp_path / "it") as temporary:
        temporary.write(b"new")
    assert there == [False, True]


# Errors of the system


SENTENCES = {
    errno.ENOSPC: ("the disk is full", "Make room"),
    errno.EDQUOT: ("your disk quota is used up", "Make room"),
    errno.EACCES: ("permission denied", "rights"),
    errno.EROFS: ("the file system is read-only", "another place"),
    errno.EIO: ("the disk reports an error", "Check the disk"),
    errno.EMFILE: ("this process has too many open files", "ulimit -n"),
    errno.ENFILE: ("the system has too many open files", "Close other programs"),
    errno.ENOMEM: ("there is too little memory", "Close other programs"),
    errno.ENAMETOOLONG: ("its name is too long", "shorter name"),
    errno.ESTALE: ("its network file system does not answer", "Check the connection"),
    errno.EXDEV: (os.strerror(errno.EXDEV), "Check the place"),
}


@pytest.mark.parametrize("number", SENTENCES)
def test_an_error_of_the_system_is_a_sentence(number: int, tmp_path: Path) -> None:
    reason, advice = SENTENCES[number]
    with pytest.raises(FileError) as raised, reading(tmp_path / "it"):
        raise OSError(number, os.strerror(number))
    assert raised.value.message.startswith(f"{tmp_path / 'it'} cannot be read: {reason}")
    assert advice in raised.value.hint
    assert ("rights" in raised.value.hint) == (number == errno.EACCES)
    assert "emove" not in raised.value.hint  # nothing was read


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (RuntimeError("Error in FileIOWriter: write error: 0 != 5 (No space left on device)"), 28),
        (Exception("I/O error: Permission denied (os error 13)"), errno.EACCES),
        (ImportError("libfaiss.so: cannot open shared object file: Too many open files"), 24),
        (MemoryError(), errno.ENOMEM),
        (OSError("Couldn't deserialize thrift: no protocol version"), None),  # as pyarrow says
        (ValueError("mmap length is greater than file size"), None),
    ],
)
def test_other_libraries_tell_errors_of_the_system(error: Exception, number: int | None) -> None:
    assert errno_of(error) == number


def test_errors_of_format_pass(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no header"), reading(tmp_path):
        raise ValueError("no header")
    with pytest.raises(IndexFolderError, match="Permission denied"), reading(tmp_path):
        raise IndexFolderError("holds a file 'Permission denied'")


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(FileError, match=r"it cannot be written: the disk is full."),
        write_atomically(tmp_path / "it") as file,
    ):
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not list(tmp_path.iterdir())
    with (
        pytest.raises(FileError, match=r"it cannot be written: there is no such file or folder."),
        write_atomically(tmp_path / "no" / "it"),
    ):
        pass


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "it").write_bytes(b"12345")
    assert read_bytes(tmp_path / "it", 5) == b"12345"
    with pytest.raises(DataError, match=r"it has more than 4 bytes"):
        read_bytes(tmp_path / "it", 4)
    with pytest.raises(DataError, match="not a regular file"):
        read_bytes(Path("/dev/zero"), 4)
    with pytest.raises(FileError, match="it is a folder"):
        read_bytes(tmp_path, 4)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        read_bytes(tmp_path / "pipe", 4)


# What others put in the way


def known(name: str) -> bool:
    return name in {"vectors.npy", "log"}


def victim(folder: Path) -> Path:
    """A file of the user, elsewhere."""
    (folder / "mine").mkdir()
    (folder / "mine" / "letter").write_text("dear")
    return folder / "mine" / "letter"


def test_temporary_names_cannot_be_guessed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for _ in range(2):
        with write_atomically(tmp_path / "it"):
            names += [p.name for p in tmp_path.iterdir() if p.name != "it"]
    assert len(set(names)) == 2
    letter = victim(tmp_path)
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    (tmp_path / ".guessed.writing").symlink_to(letter)
    with pytest.raises(FileError), write_atomically(tmp_path / "it") as file:
        file.write(b"new")
    assert letter.read_text() == "dear"


def test_a_linked_building_folder_is_refused(tmp_path: Path) -> None:
    letter = victim(tmp_path)
    (tmp_path / ".pets.building").symlink_to(letter.parent)
    with pytest.raises(IndexFolderError, match="is a link"):
        building_folder(tmp_path / "pets")
    with pytest.raises(FileError, match="it is a link"), claim(tmp_path / ".pets.building", known):
        pass
    assert letter.read_text() == "dear"


@pytest.mark.parametrize("kind", ["link", "hard link", "folder", "pipe", "other name"])
def test_a_building_folder_with_files_of_others_is_refused(kind: str, tmp_path: Path) -> None:
    letter = victim(tmp_path)
    building = building_folder(tmp_path / "pets")
    path = building / "vectors.npy"
    if kind == "link":
        path.symlink_to(letter)
    elif kind == "hard link":
        path.hardlink_to(letter)
    elif kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        (building / "letter").write_text("dear")
    before = sorted(building.iterdir())
    with (
        pytest.raises(IndexFolderError, match="which no build of an index writes there") as raised,
        claim(building, known),
    ):
        pass
    assert "Move it away" in raised.value.hint
    assert sorted(building.iterdir()) == before and letter.read_text() == "dear"
    with pytest.raises(FileError, match="it is a link"):
        (tmp_path / "log").symlink_to(letter)
        open_in_place(tmp_path / "log", 0)
    assert letter.read_text() == "dear"


def test_a_building_folder_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = building_folder(tmp_path / "pets")
    uid = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: uid + 1)
    with claim(building, known):  # its parent has the same owner
        pass
    if uid == 0:
        os.chown(building, 12345, -1)
        with pytest.raises(IndexFolderError, match="another user"), claim(building, known):
            pass


def test_a_claim_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    for name in (".0f0f.writing", ".prefix-0016.faiss.77.writing", ".tmpDZJXqR"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "notes.writing").touch()
    with claim(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == ["notes.writing"]


def test_the_claim_of_a_folder_that_was_moved_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building = building_folder(tmp_path / "pets")
    lock = fcntl.flock

    def late(handle: int, how: int) -> None:  # the other process publishes, then unlocks
        publish(building, tmp_path / "pets")
        building.mkdir()
        lock(handle, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(IndexFolderError, match="has just finished"), claim(building):
        pass


def test_publishing_leaves_the_notes_of_the_build_out(tmp_path: Path) -> None:
    building = building_folder(tmp_path / "pets")
    for name in ("vectors.npy", "log"):
        (building / name).touch()
    publish(building, tmp_path / "pets", notes=("log", "other"))
    assert [p.name for p in (tmp_path / "pets").iterdir()] == ["vectors.npy"]


def test_a_new_folder_is_flushed_with_those_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.append(os.fstat(fd)[1:3]))
    make_folder(tmp_path / "a" / "b")
    assert flushed == [p.stat()[1:3] for p in (tmp_path / "a", tmp_path)]
    make_folder(tmp_path / "a" / "b")
    assert len(flushed) == 2
