"""What a source of pictures is, and how the bytes of one file are read."""

import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from mrl_search.errors import BrokenImage, FileError
from mrl_search.files import expanded, reading

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Columns", "FileSource", "FileStamp", "Source", "read_file", "read_stamped", "subset"]

LARGEST_FILE = 1_000_000_000  # bytes
SETTLED = 2_000_000_000  # ns: the coarsest time stamps of a file system (FAT)
READS = 3  # of a file that changes meanwhile
INODES = (1 << 63) - 1  # what int64 holds

Columns: TypeAlias = Mapping[str, object]  # of one item


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
    columns: "pa.Table | None" = None

    def read(self, i: int) -> bytes:
        """The bytes of image `i`. Raises BrokenImage when they cannot be read."""
        return read_file(self.paths[i])

    def read_described(self, i: int) -> tuple[bytes, Columns]:
        """The bytes of image `i`, and columns of its item that are known once it is read."""
        return self.read(i), {}


@dataclass(frozen=True)
class FileSource(Source):
    """Files on disk; their items have the columns of `FileStamp`.

    A file that was written just before it is read has no `modified`: a further change could leave
    that time as it is, so it would prove nothing.

    Attributes:
        walked: how `open_source` found them: `labels` and `hidden`; None: not a whole folder.
        by_metadata: whether labels come from a metadata file.
    """

    walked: Mapping[str, str] | None = None
    by_metadata: bool = False

    def read_described(self, i: int) -> tuple[bytes, Columns]:
        data, stamp = read_stamped(self.paths[i])
        settled = stamp.modified < time.time_ns() - SETTLED
        return data, {**asdict(stamp), "modified": stamp.modified if settled else None}


@dataclass(frozen=True, kw_only=True)
class Subset(Source):
    """Some images of another source."""

    of: Source
    rows: Sequence[int]

    def read(self, i: int) -> bytes:
        return self.of.read(self.rows[i])

    def read_described(self, i: int) -> tuple[bytes, Columns]:
        return self.of.read_described(self.rows[i])


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells without reading whether a file may have changed.

    Attributes:
        bytes: its size.
        modified: nanoseconds since 1970 in UTC, exact.
        inode: its number, without the highest of 64 bits.
    """

    bytes: int
    modified: int
    inode: int

    @staticmethod
    def values(found: os.stat_result) -> tuple[int, int, int]:
        """The values of a stamp; all three fit into int64, whatever year a file system says."""
        modified = found.st_mtime_ns
        if not -INODES <= modified <= INODES:
            modified = INODES if modified > 0 else -INODES
        return found.st_size, modified, found.st_ino & INODES

    @classmethod
    def of(cls, found: os.stat_result) -> "FileStamp":
        """The stamp of a file from what the system says about it."""
        return cls(*cls.values(found))


def subset(source: Source, rows: Sequence[int], what: str) -> Source:
    """The images of `source` at `rows`; `what` is added to its name."""
    columns = source.columns
    if columns is not None:
        columns = columns.slice(0, 0) if not len(rows) else columns.take(list(rows))
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
    """The bytes of a regular file of at most 1 GB; raises as `read_stamped` does."""
    return read_stamped(path)[0]


def read_stamped(path: str) -> tuple[bytes, FileStamp]:
    """The bytes of a regular file of at most 1 GB, and its stamp when it had them.

    Raises:
        BrokenImage: gone, not a regular file, too large, unreadable, or changed at each of
            `READS` readings.
        FileError: a shortage that all files share, as of file descriptors.
    """
    try:
        with reading(path):
            no_wait = getattr(os, "O_NONBLOCK", 0)  # a FIFO would hang
            handle = os.open(expanded(path), os.O_RDONLY | no_wait)
            with os.fdopen(handle, "rb", buffering=0) as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise BrokenImage("not a regular file")
                for _ in range(READS):
                    before = FileStamp.of(os.fstat(handle))
                    if before.bytes > LARGEST_FILE:
                        size, limit = before.bytes / 1e9, LARGEST_FILE / 1e9
                        raise BrokenImage(f"a file of {size:.1f} GB; the limit is {limit:.1f} GB")
                    file.seek(0)
                    data = file.read()
                    if FileStamp.of(os.fstat(handle)) == before:
                        return data, before
                raise BrokenImage("changed while it was read")
    except FileError as error:
        if error.passing:  # all other pictures would be left out as well
            raise
        raise BrokenImage(f"cannot be read: {error.reason}") from error
    except ValueError as error:  # a null character
        raise BrokenImage(f"cannot be read: {error}") from error
