"""How files and folders come to be on disk: whole, or not at all.

A file is written under a temporary name and renamed. A folder is built beside its place, as `.NAME.building`, and renamed when it
is complete; until then it is the place where an interrupted build is taken up again.
"""

import contextlib
import errno
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import xxhash

from mrl_search.errors import IndexFolderError, MrlSearchError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "PROGRESS",
    "building_folder",
    "checksum",
    "claim",
    "empty_folder",
    "fresh_folder",
    "publish",
    "refuse_existing",
    "write_atomically",
    "writing",
]

PROGRESS = "progress.json"  # in a building folder: how far a build that can be continued has come
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes `path`: a full disk, or a place that cannot be written, becomes a sentence.

    Raises:
        MrlSearchError: in place of the OSError, or of another library's exception that quotes the system's words for a full disk.
    """
    try:
        yield
    except MrlSearchError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error):
            raise MrlSearchError(
                f"The disk is full: {path} could not be written.",
                "Make room, then run the same command again.",
            ) from error
        if isinstance(error, OSError):
            raise MrlSearchError(
                f"{path} cannot be written: {error.strerror or error}.",
                f"Check the rights on {path.parent}.",
            ) from error
        raise


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file to write; what was written there becomes `path` when the block ends well.

    It is flushed to the disk before it is renamed, and removed when the block fails: `path` is the old file or the new one, whole.

    Raises:
        MrlSearchError: the disk is full, or the place cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.writing")
    with writing(path):
        try:
            yield temporary
            _flush(temporary)
            temporary.replace(path)
            _flush(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def checksum(path: Path) -> str:
    """XXH3-128 of a file's bytes, as 32 hex digits. It finds damage; it is no proof against malice."""
    state = xxhash.xxh3_128()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            state.update(buffer[:size])
    return state.hexdigest()


def building_folder(out: Path) -> Path:
    """The folder in which `out` is built, made if it is not there: `.NAME.building` beside it.

    Raises:
        IndexFolderError: `out` exists already, or its place cannot be written.
    """
    out = out.expanduser().resolve()
    refuse_existing(out)
    building = out.with_name(f".{out.name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IndexFolderError(
            f"{building} cannot be made: {error.strerror}.", "Choose another place with --out."
        ) from error
    return building


@contextlib.contextmanager
def claim(building: Path) -> Iterator[None]:
    """Hold a folder for this process, so that two never write into one; a killed process lets go by itself.

    Raises:
        IndexFolderError: another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(building, os.O_RDONLY)
    except FileNotFoundError as error:
        raise IndexFolderError(
            f"Another process has just finished {building}.",
            "Look at what it made, or choose another --out.",
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise IndexFolderError(
                f"Another process is at work in {building}.",
                "Wait for it, or choose another --out.",
            ) from error
        yield
    finally:
        os.close(handle)


def publish(building: Path, out: Path) -> None:
    """Move a complete building folder to its place.

    Raises:
        IndexFolderError: `out` exists already.
    """
    out = out.expanduser().resolve()
    refuse_existing(out)
    try:
        if out.exists():
            out.rmdir()
        building.rename(out)
        _flush(out.parent)
    except OSError as error:
        raise IndexFolderError(
            f"{building} cannot be moved to {out}: {error.strerror}.",
            "It is complete: move it by hand.",
        ) from error


@contextlib.contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """Give an empty building folder; when the block ends well it becomes `out`, when it fails the folder is removed.

    For builds that begin anew after a kill; what such a kill left behind is removed first.

    Raises:
        IndexFolderError: `out` exists, is being built by another process, or has an unfinished build that can be continued.
    """
    building = building_folder(out)
    with claim(building):
        if (building / PROGRESS).exists():
            raise IndexFolderError(
                f"{building} holds an unfinished build of images.",
                f"Finish it, remove {building}, or choose another place with --out.",
            )
        try:
            empty_folder(building)
            yield building
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        publish(building, out)


def empty_folder(folder: Path) -> None:
    """Remove the files of a folder: what a build that was killed left behind would count as part of the next."""
    for left in folder.iterdir():
        left.unlink()


def refuse_existing(out: Path) -> None:
    """Raise IndexFolderError if `out` exists already; an empty folder may be replaced, unless a volume is mounted there."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise IndexFolderError(
            f"{out} exists already.", "Choose another place with --out, or remove it first."
        )
    if out.is_mount():
        raise IndexFolderError(
            f"{out} is where a volume is mounted, which no index can replace.",
            f"Choose a folder in it: --out {out / 'index'}",
        )


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
