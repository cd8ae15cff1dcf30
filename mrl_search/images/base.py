"""What a source of pictures is, and how the bytes of one file are read."""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from mrl_search.errors import BrokenImage, FileError
from mrl_search.files import expanded, reading

__all__ = ["Source", "read_file", "subset"]

LARGEST_FILE = 1_000_000_000  # bytes


@dataclass(frozen=True)
class Source:
    """A sequence of images. `paths` and `labels` (None where unknown) are aligned.

    Attributes:
        name: where they are, for people.
        paths: of the images.
        labels: of the images.
        notes: what a user should know, such as what was passed over.
        columns: further columns of the items, one row an image.
    """

    name: str
    paths: Sequence[str]
    labels: Sequence[str | None]
    notes: Sequence[str] = ()
    columns: pa.Table | None = None

    def read(self, i: int) -> bytes:
        """The bytes of image `i`. Raises BrokenImage when they cannot be read."""
        return read_file(self.paths[i])


@dataclass(frozen=True, kw_only=True)
class Subset(Source):
    """Some images of another source."""

    of: Source
    rows: Sequence[int]

    def read(self, i: int) -> bytes:
        return self.of.read(self.rows[i])


def subset(source: Source, rows: Sequence[int], what: str) -> Source:
    """The images of `source` at `rows`; `what` is added to its name."""
    columns = None if source.columns is None else source.columns.take(list(rows))
    return Subset(
        f"{source.name} ({what})",
        [source.paths[i] for i in rows],
        [source.labels[i] for i in rows],
        source.notes,
        columns,
        of=source,
        rows=rows,
    )


def read_file(path: str) -> bytes:
    """The bytes of a regular file of at most 1 GB.

    Raises:
        BrokenImage: gone, not a regular file, too large, or unreadable.
        FileError: a shortage that all files share, as of file descriptors.
    """
    try:
        with reading(path):
            no_wait = getattr(os, "O_NONBLOCK", 0)  # a FIFO would hang
            handle = os.open(expanded(path), os.O_RDONLY | no_wait)
            with os.fdopen(handle, "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode):
                    raise BrokenImage("not a regular file")
                if found.st_size > LARGEST_FILE:
                    size, limit = found.st_size / 1e9, LARGEST_FILE / 1e9
                    raise BrokenImage(f"a file of {size:.1f} GB; the limit is {limit:.1f} GB")
                return file.read()
    except FileError as error:
        if error.passing:  # all other pictures would be left out as well
            raise
        raise BrokenImage(f"cannot be read: {error.reason}") from error
    except ValueError as error:  # a null character
        raise BrokenImage(f"cannot be read: {error}") from error
