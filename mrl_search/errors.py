"""The exceptions of this library: a sentence for the user, and a hint that names the way out.

MrlSearchError
├─ ConfigError       a setting, a plan or an option that cannot work
├─ DataError         pictures, vectors or records that cannot be used
│   └─ BrokenImage   one picture that cannot be decoded
├─ FileError         a file that the system does not open, read or write; it may be in order
├─ EngineError       a search engine on another machine that does not answer, or refuses
├─ ModelError        a model that is missing, damaged or of another kind
└─ IndexFolderError  an index that is missing, damaged, newer, or of another model
"""

import errno
import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import NamedTuple, Self

__all__ = [
    "BrokenImage", "ConfigError", "DataError", "EngineError", "FileError", "IndexFolderError",
    "ModelError", "MrlSearchError", "Skipped", "errno_of", "first_line", "installed", "require",
]  # fmt: skip

AGAIN = "then run the command again."
MAKE_ROOM = f"Make room, {AGAIN}"
RIGHTS = "Check the rights on it and on the folders above it."
NO_ANSWER = ("its network file system does not answer", f"Check the connection, {AGAIN}")
REASONS = {
    errno.ENOSPC: ("the disk is full", MAKE_ROOM),
    errno.EDQUOT: ("your disk quota is used up", MAKE_ROOM),
    errno.EFBIG: ("the file system or ulimit -f allows no larger file", "Choose another place."),
    errno.EACCES: ("permission denied", RIGHTS),
    errno.EPERM: ("the system does not permit it", RIGHTS),
    errno.EROFS: ("the file system is read-only", "Choose another place, or mount it writable."),
    errno.EIO: ("the disk reports an error", f"Check the disk and its connection, {AGAIN}"),
    errno.EMFILE: (
        "this process has too many open files", f"Raise the limit with ulimit -n 4096, {AGAIN}",
    ),
    errno.ENFILE: ("the system has too many open files", f"Close other programs, {AGAIN}"),
    errno.ENOMEM: ("there is too little memory", f"Close other programs, {AGAIN}"),
    errno.ENAMETOOLONG: ("its name is too long for the file system", "Use a shorter name."),
    errno.EILSEQ: ("the file system does not allow its name", "Use another name."),
    errno.ELOOP: ("it is a link, or its links form a circle", "Name the file that is meant."),
    errno.ENOENT: ("there is no such file or folder", "Check the name."),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "Check the path."),
    errno.EEXIST: ("there is a file of this name", "Choose another place."),
    errno.EISDIR: ("it is a folder", "Name a file."),
    errno.EBUSY: ("another program uses it", f"Close that program, {AGAIN}"),
    errno.ENXIO: ("its device is missing", "Check the path."),
    errno.ENODEV: ("it is not a regular file", "Name a file."),
    errno.ESTALE: NO_ANSWER,
    errno.ENOTCONN: NO_ANSWER,
    errno.EHOSTDOWN: NO_ANSWER,
    errno.EHOSTUNREACH: NO_ANSWER,
    errno.ETIMEDOUT: NO_ANSWER,
}  # fmt: skip
OTHERWISE = f"Check the place, {AGAIN}"
PASSING = {errno.EMFILE, errno.ENFILE, *(n for n, told in REASONS.items() if told is NO_ANSWER)}


class MrlSearchError(Exception):
    """Base of all exceptions of this library.

    Args:
        message: what is wrong, with which file or value, in one sentence.
        hint: what to do about it; may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(MrlSearchError):
    """A setting, a plan or an option that cannot work."""


class DataError(MrlSearchError):
    """Pictures, vectors or records that cannot be used."""


class BrokenImage(DataError):
    """One picture that cannot be decoded; `message` is the reason."""


class FileError(MrlSearchError):
    """A file that the system does not open, read or write. It says nothing about its content.

    Attributes:
        errno: the number of the system's error.
        reason: what it means, in some words.
    """

    errno: int = 0
    reason: str = ""

    @classmethod
    def of(cls, number: int, path: Path | str, done: str, hint: str = "") -> Self:
        """The sentence for an errno: `path` cannot be `done`, as in `read` or `written`.

        The default of the hint is what helps against this error.
        """
        reason, advice = REASONS.get(number) or (os.strerror(number), OTHERWISE)
        found = cls(f"{path} cannot be {done}: {reason}.", hint or advice)
        found.errno, found.reason = number, reason
        return found

    @property
    def missing(self) -> bool:
        """Whether there is no such file."""
        return self.errno in (errno.ENOENT, errno.ENOTDIR)

    @property
    def passing(self) -> bool:
        """Whether all files fail alike until a shortage ends: of open files, of a network."""
        return self.errno in PASSING


class EngineError(MrlSearchError):
    """A search engine on another machine that does not answer, or refuses."""


class ModelError(MrlSearchError):
    """A model that is missing, damaged or of another kind."""


class IndexFolderError(MrlSearchError):
    """An index folder that is missing, damaged, newer than this software, or of another model."""


class Skipped(NamedTuple):
    """A picture that was left out, and why.

    Attributes:
        path: where it is.
        reason: why.
        stamp: size, time and inode of the file, by which a sync knows that it has not changed.
    """

    path: str
    reason: str
    stamp: tuple[int | None, ...] = ()


def require(condition: bool, message: str, hint: str = "") -> None:
    """Raise `ConfigError` with this message and hint unless `condition` holds."""
    if not condition:
        raise ConfigError(message, hint)


def installed(name: str, extra: str, kind: type[MrlSearchError] = ModelError) -> ModuleType:
    """Import a library that an extra installs; an error of this `kind` names the extra."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.partition(".")[0]:
            raise
        hint = f'pip install "mrl-search[{extra}]"'
        raise kind(f"{name} is not installed.", hint) from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its name."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def errno_of(error: BaseException) -> int | None:
    """The errno of an error of the system; None if it is of another kind.

    Libraries tell such errors in their own words: FAISS as a RuntimeError that ends with the
    system's text. An OSError without an errno, as from pyarrow and Pillow, is about content.
    """
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    return next((number for number in REASONS if os.strerror(number) in text), None)
