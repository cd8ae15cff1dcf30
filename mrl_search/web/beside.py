"""The file beside an index that tells programs of the same user which server answers for it.

The server keeps a lock on it, which ends with the server: a file without a lock is left over.
"""

import contextlib
import json
import os
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

if sys.platform != "win32":
    import fcntl

__all__ = ["Server", "announced", "server_of"]

LONGEST = 10_000  # bytes
PRIVATE = 0o600
TRIES, PAUSE = 20, 0.01  # seconds between them


class Server(NamedTuple):
    """A server of an index."""

    url: str  # its address, without a path
    name: str = ""  # how it calls the index
    token: str = ""  # what requests must show; "": nothing
    pid: int = 0  # its process; 0 where unknown


@contextlib.contextmanager
def announced(folder: Path, server: Server) -> Iterator[bool]:
    """Tell that `server` answers for the index in `folder`; whether it could be told.

    The first server of an index is told, and nothing where nothing can be written.
    """
    path = _beside(folder)
    try:
        handle = _locked(path)
    except OSError:  # another server has it, or the folder is read-only
        yield False
        return
    try:
        os.write(handle, json.dumps(server._asdict()).encode())
        yield True
    finally:
        with contextlib.suppress(OSError):
            path.unlink()
        os.close(handle)


def server_of(folder: Path) -> Server | None:
    """The server that answers for the index in `folder`, if one of this user runs."""
    try:
        handle = os.open(_beside(folder), os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except OSError:
        return None
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or not _ours(about) or not _is_locked(handle):
            return None
        told = json.loads(os.read(handle, LONGEST))
        texts = (str(told["url"]), str(told["name"]), str(told["token"]))
        return Server(*texts, int(told["pid"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    finally:
        os.close(handle)


def _beside(folder: Path) -> Path:
    real = folder.resolve()
    return real.parent / f".{real.name}.serving"


def _locked(path: Path) -> int:
    """A descriptor of an empty file at `path` that nobody else may read, locked."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    for _ in range(TRIES):
        handle = os.open(path, flags, PRIVATE)
        try:
            if sys.platform != "win32":
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.fchmod(handle, PRIVATE)
            os.ftruncate(handle, 0)
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        except (FileNotFoundError, BlockingIOError):
            time.sleep(PAUSE)  # the server before it has just ended, or somebody only looks
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    raise BlockingIOError(path)


def _ours(about: os.stat_result) -> bool:
    """Whether a file belongs to this user, and nobody else may write or read it."""
    return sys.platform == "win32" or (
        about.st_uid == os.geteuid() and not stat.S_IMODE(about.st_mode) & 0o077
    )


def _is_locked(handle: int) -> bool:
    """Whether another process has a lock."""
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
