"""Leases: readers share a lock on a file, so that a writer keeps what they may still read."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from mrl_search.errors import FileError
from mrl_search.files import OpenFile, reading

if sys.platform != "win32":
    import fcntl

__all__ = ["lease", "unused"]


def lease(path: Path) -> OpenFile | None:
    """Share a lock on a file for as long as the result lives; None if the file is gone."""
    try:
        with reading(path):
            file = OpenFile(path)
    except FileError as error:
        if not error.missing:
            raise
        return None
    with contextlib.suppress(OSError):  # a network file system may have no locks
        if sys.platform != "win32":
            fcntl.flock(file.handle, fcntl.LOCK_SH)
    return file if path.exists() else None  # else `unused` removed it meanwhile


@contextlib.contextmanager
def unused(path: Path) -> Iterator[bool]:
    """Whether nobody has a lease of `path`; nobody gets one before the block ends."""
    if sys.platform == "win32":  # open files cannot be removed there: the system tells
        yield True
        return
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield not path.exists()
        else:
            yield True
