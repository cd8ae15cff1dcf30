"""Atomic writes of files and folders.

A file is written under a temporary name and renamed. A folder is built beside its place as
`.NAME.building` and renamed when it is complete. Each is flushed to the disk before its name is,
so that a loss of power leaves the old content or the new.
"""

import contextlib
import io
import os
import re
import secrets
import shutil
import stat
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote_to_bytes

import xxhash

from mrl_search.errors import DataError, FileError, IndexFolderError, MrlSearchError, errno_of

if sys.platform != "win32":
    import fcntl

__all__ = [
    "BLOCK", "LEFT", "NO_LINK", "NO_WAIT", "PROGRESS", "URI", "OpenFile", "TemporaryFolder",
    "append", "building_folder", "checksum", "claim", "expanded", "flush_folder", "is_claimed",
    "make_folder", "open_in_place", "open_regular", "publish", "read_bytes", "reading",
    "recordable", "refuse_existing", "write_atomically", "write_text", "writing",
]  # fmt: skip

BLOCK = 1 << 18  # bytes of a file that have a checksum of their own
URI = "file://"
PROGRESS = "progress.json"  # in a building folder: how far a build that can be continued has come
LEFT = re.compile(r"\..*\.writing|\.tmp[A-Za-z0-9]{6}")  # temporary files, ours and safetensors'
MOVE_AWAY = "Move it away, or choose another place with --out."
BINARY = getattr(os, "O_BINARY", 0)
NO_LINK, NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


@contextlib.contextmanager
def reading(path: Path | str, done: str = "read", hint: str = "") -> Iterator[None]:
    """Turn an error of the system into a FileError about `path`; errors of format pass.

    The one place where "too many open files" and its like become sentences (see `FileError.of`).
    """
    try:
        yield
    except MrlSearchError:
        raise
    except Exception as error:
        number = errno_of(error)
        if number is None:
            raise
        raise FileError.of(number, path, done, hint) from error


def writing(path: Path) -> contextlib.AbstractContextManager[None]:
    """As `reading`, about writing."""
    return reading(path, "written")


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file to read; a pipe or a device is refused without waiting for it.

    Raises:
        FileError: the system does not read it.
        DataError: not a regular file.
    """
    with reading(path), os.fdopen(_handle(path, os.O_RDONLY | NO_WAIT), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise DataError(f"{path} cannot be read: it is not a regular file.")
        yield file


def read_bytes(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes.

    Raises:
        FileError: the system does not read it.
        DataError: not a regular file, or a larger one.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise DataError(f"{path} cannot be read: it has more than {most:,} bytes.")
    return data


def recordable(path: Path | str) -> str:
    """A path as text that every file format can hold: a `file://` URI if it is not UTF-8."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return URI + quote(os.fsencode(text))
    return text


def expanded(path: Path | str) -> Path:
    """A path with `~` or `~user` as the home folder, unless a file has that name.

    A URI from `recordable` is the path that it stands for.
    """
    if isinstance(path, str) and path.startswith(URI):
        return Path(os.fsdecode(unquote_to_bytes(path.removeprefix(URI))))
    with contextlib.suppress(RuntimeError):  # there is no such user
        return Path(path) if os.path.lexists(path) else Path(path).expanduser()
    return Path(path)


def _handle(path: Path, flags: int) -> int:
    """A descriptor of `path`, opened as bytes; child processes do not inherit it."""
    return os.open(path, flags | BINARY, 0o666)


def checksum(path: Path, blocks: list[int] | None = None) -> str:
    """XXH3-128 of a file's bytes, 32 hex digits: it finds damage, not malice.

    With a list `blocks`, the XXH3-64 of every `BLOCK` bytes is appended to it.
    """
    state = xxhash.xxh3_128()
    buffer = memoryview(bytearray(BLOCK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            state.update(buffer[:size])
            if blocks is not None:
                blocks.append(xxhash.xxh3_64_intdigest(buffer[:size]))
    return state.hexdigest()


class OpenFile:
    """A file that stays open, to be read, as long as this object lives.

    Attributes:
        handle: its descriptor.
    """

    def __init__(self, path: Path) -> None:
        self.handle = _handle(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)

    @property
    def size(self) -> int:
        """Its size in bytes, now."""
        return os.fstat(self.handle).st_size


class _OwnFile(io.FileIO):
    """A file that hides its descriptor, so that NumPy, Pillow and others write through it.

    Where they write by themselves, the reason of a failure is lost, or the failure itself.
    """

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")


@contextlib.contextmanager
def write_atomically(path: Path, *, flushed: bool = True) -> Iterator[BinaryIO]:
    """Yield a new file with a temporary name; it becomes `path` when the block succeeds.

    It is flushed to the disk before it is renamed, unless `flushed` is false, and removed if the
    block fails.

    Raises:
        FileError: it cannot be written.
    """
    temporary = path.with_name(f".{secrets.token_hex(8)}.writing")
    with writing(path):
        handle = _handle(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINK)
        try:
            with io.BufferedWriter(_OwnFile(handle, "wb")) as file:
                yield file
                file.flush()
                if flushed:
                    os.fsync(handle)
            temporary.replace(path)
            if flushed:
                flush_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str, errors: str = "strict") -> None:
    """Write a text file atomically, as UTF-8."""
    with write_atomically(path) as file:
        file.write(text.encode(errors=errors))


def append(path: Path, data: bytes) -> None:
    """Append to a file, and flush it to the disk."""
    with writing(path):
        new = not path.exists()
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if new:
            flush_folder(path.parent)


def open_in_place(path: Path, size: int) -> BinaryIO:
    """Open for writing after the first `size` bytes; what follows them is cut off.

    Raises:
        FileError: it cannot be written, or is a link.
    """
    with writing(path):
        file = os.fdopen(_handle(path, os.O_RDWR | os.O_CREAT | NO_LINK), "r+b")
        file.truncate(size)
        file.seek(size)
        return file


def make_folder(folder: Path) -> None:
    """Create a folder, and those above it, and flush their names to the disk.

    Raises:
        FileError: it cannot be made.
    """
    new = []
    with reading(folder, "made"):
        above = folder
        while not above.exists():
            new.append(above)
            above = above.parent
        folder.mkdir(parents=True, exist_ok=True)
        for place in new:
            flush_folder(place.parent)


def building_folder(out: Path) -> Path:
    """The folder in which `out` is built, `.NAME.building` beside it; created if missing.

    Raises:
        IndexFolderError: `out` exists.
        FileError: its place cannot be written.
    """
    out = expanded(out).resolve()
    refuse_existing(out)
    building = out.with_name(f".{out.name}.building")
    if building.is_symlink():
        raise IndexFolderError(f"{building} is a link.", MOVE_AWAY)
    make_folder(building)
    return building


def is_claimed(place: Path) -> bool:
    """Whether a process has claimed a folder or file at this moment."""
    if sys.platform == "win32":
        return False
    with reading(place, "locked"):
        handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@contextlib.contextmanager
def claim(
    place: Path, ours: Callable[[str], bool] | None = None, wait: float = 0
) -> Iterator[None]:
    """Lock a folder or file for this process; the lock of a killed process ends by itself.

    Temporary files that a killed process left in a folder are removed.

    Args:
        place: the folder or file.
        ours: which names the files of a building folder may have. A folder that is a link, belongs
            to somebody else, or holds anything else, is refused.
        wait: seconds to wait for another process.

    Raises:
        IndexFolderError: another process has the lock, or the folder is refused.
        FileError: it cannot be locked.
    """
    if sys.platform == "win32":
        yield
        return
    with contextlib.ExitStack() as stack:
        with reading(place, "locked"):
            try:
                handle = _handle(place, os.O_RDONLY | (NO_LINK if ours else 0))
                stack.callback(os.close, handle)
                _lock(handle, wait)
                there = os.path.samestat(os.fstat(handle), place.stat())
            except FileNotFoundError:
                there = False
            except BlockingIOError as error:
                message = f"Another process works in {place}."
                changes = ours is None and place.is_dir()  # an index
                hint = "Wait for it." if changes else "Wait for it, or choose another --out."
                raise IndexFolderError(message, hint) from error
            if not there:
                message = f"Another process has just finished {place}."
                raise IndexFolderError(message, "Use its result, or choose another --out.")
            if place.is_dir():
                _clean(place, ours)
        yield


def _lock(handle: int, wait: float) -> None:
    """Lock an open file or folder; BlockingIOError if another process keeps it for `wait` s."""
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= end:
                raise
        time.sleep(0.02)


def _clean(folder: Path, ours: Callable[[str], bool] | None) -> None:
    """Remove the temporary files of a killed process, after the checks of `claim`."""
    owners = (os.geteuid(), folder.parent.stat().st_uid)  # a network may map all to another user
    if ours and folder.stat().st_uid not in owners:
        raise IndexFolderError(f"{folder} belongs to another user.", MOVE_AWAY)
    left = []
    for path in folder.iterdir():
        info = path.lstat()
        regular = stat.S_ISREG(info.st_mode) and info.st_nlink == 1
        if regular and LEFT.fullmatch(path.name):
            left.append(path)
        elif ours and not (regular and ours(path.name)):
            message = f"{folder} holds {path.name!r}, which no build of an index writes there."
            raise IndexFolderError(message, MOVE_AWAY)
    for path in left:
        path.unlink()


def publish(building: Path, out: Path, notes: tuple[str, ...] = ()) -> None:
    """Move a complete building folder to its place, without the files `notes`."""
    out = expanded(out).resolve()
    refuse_existing(out)
    with reading(building, f"moved to {out}", "It is complete: move it by hand."):
        for name in notes:
            (building / name).unlink(missing_ok=True)
        flush_folder(building)
        if out.exists():
            out.rmdir()
        building.rename(out)
        flush_folder(out.parent)


def refuse_existing(out: Path) -> None:
    """Raise IndexFolderError if `out` exists; an empty folder that is no mount point may."""
    with reading(out, "used"):
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            hint = "Choose another place with --out, or remove it first."
            raise IndexFolderError(f"{out} exists already.", hint)
        if out.is_mount():
            hint = f"Choose a folder in it: --out {out / 'index'}"
            raise IndexFolderError(f"{out} is a mount point and cannot be replaced.", hint)


def flush_folder(folder: Path) -> None:
    """Have the system write the names in a folder to the disk."""
    if sys.platform == "win32":
        return
    handle = _handle(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class TemporaryFolder:
    """A folder that is removed with this object; a forked child never removes it."""

    def __init__(self, folder: str) -> None:
        process = os.getpid()

        def remove() -> None:
            if os.getpid() == process:
                shutil.rmtree(folder, ignore_errors=True)

        weakref.finalize(self, remove)
