"""Atomic writes of files and folders.

A file is written under a temporary name and renamed. A folder is built beside its place as
`.NAME.building` and renamed when it is complete.
"""

import contextlib
import errno
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import xxhash

from mrl_search.errors import IndexFolderError, MrlSearchError

if sys.platform != "win32":
    import fcntl

__all__ = [
    "PROGRESS", "building_folder", "checksum", "claim", "publish", "refuse_existing",
    "remove_with", "write_atomically", "writing",
]  # fmt: skip

PROGRESS = "progress.json"  # in a building folder: how far a build that can be continued has come
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full disk, or missing rights, into a sentence about `path`.

    Raises:
        MrlSearchError: in place of an OSError, or of another library's "no space left".
    """
    try:
        yield
    except MrlSearchError:
        raise
    except Exception as error:
        if getattr(error, "errno", None) in FULL or os.strerror(errno.ENOSPC) in str(error):
            message = f"The disk is full: {path} could not be written."
            raise MrlSearchError(message, "Make room, then run the command again.") from error
        if isinstance(error, OSError):
            message = f"{path} cannot be written: {error.strerror or error}."
            raise MrlSearchError(message, f"Check the rights on {path.parent}.") from error
        raise


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary file name; the file becomes `path` when the block succeeds.

    The file is flushed before it is renamed, and removed if the block fails.
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
    """XXH3-128 of a file's bytes, 32 hex digits: it finds damage, not malice."""
    state = xxhash.xxh3_128()
    buffer = memoryview(bytearray(1 << 20))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            state.update(buffer[:size])
    return state.hexdigest()


def building_folder(out: Path) -> Path:
    """The folder in which `out` is built, `.NAME.building` beside it; created if missing.

    Raises:
        IndexFolderError: `out` exists, or its place cannot be written.
    """
    out = out.expanduser().resolve()
    refuse_existing(out)
    building = out.with_name(f".{out.name}.building")
    try:
        building.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{building} cannot be made: {error.strerror}."
        raise IndexFolderError(message, "Choose another place with --out.") from error
    return building


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Lock a folder for this process; the lock of a killed process ends by itself."""
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except FileNotFoundError as error:
        message = f"Another process has just finished {folder}."
        raise IndexFolderError(message, "Use its result, or choose another --out.") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"Another process works in {folder}."
            raise IndexFolderError(message, "Wait for it, or choose another --out.") from error
        yield
    finally:
        os.close(handle)


def publish(building: Path, out: Path) -> None:
    """Move a complete building folder to its place."""
    out = out.expanduser().resolve()
    refuse_existing(out)
    try:
        if out.exists():
            out.rmdir()
        building.rename(out)
        _flush(out.parent)
    except OSError as error:
        message = f"{building} cannot be moved to {out}: {error.strerror}."
        raise IndexFolderError(message, "It is complete: move it by hand.") from error


def refuse_existing(out: Path) -> None:
    """Raise IndexFolderError if `out` exists; an empty folder that is no mount point may."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        hint = "Choose another place with --out, or remove it first."
        raise IndexFolderError(f"{out} exists already.", hint)
    if out.is_mount():
        hint = f"Choose a folder in it: --out {out / 'index'}"
        raise IndexFolderError(f"{out} is a mount point and cannot be replaced.", hint)


def _flush(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    if sys.platform == "win32" and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_with(owner: object, folder: str) -> None:
    """Remove a temporary folder when its owner is gone; a forked child never removes it."""
    process = os.getpid()

    def remove() -> None:
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)

    weakref.finalize(owner, remove)
