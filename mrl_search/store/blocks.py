"""Checks of a mapped file of rows: its size before every read, a block when it is first read.

A file of many gigabytes cannot be hashed whenever it is opened. So its manifest has a checksum for
every block, and a block is compared with its own before any of its rows is used.

Of a large file, blocks and single rows are read into a buffer, where the system can: mapping a page
costs three to four times as much (benchmarks/scale/README.md), and mapped pages count as memory of
the process.
"""

import base64
import binascii
import mmap
import os
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.files import BLOCK, reading

__all__ = ["LARGE", "Blocks", "decoded", "encoded"]

Ids: TypeAlias = NDArray[np.int64]
LARGE = 4 << 30  # bytes of rows from which a file is large


def encoded(hashes: list[int]) -> str:
    """XXH3-64 of each block as one text: base64 of little-endian words."""
    return base64.b64encode(np.array(hashes, dtype="<u8").tobytes()).decode()


def decoded(text: str, size: int) -> NDArray[np.uint64]:
    """The checksums in such a text, for a file of `size` bytes: (blocks,) uint64.

    Raises:
        DataError: not base64, or of a file with another number of blocks.
    """
    try:
        hashes = np.frombuffer(base64.b64decode(text, validate=True), dtype="<u8")
    except (binascii.Error, ValueError) as error:
        raise DataError("The checksums of its blocks are damaged.") from error
    if len(hashes) != -(-size // BLOCK):
        raise DataError(f"There are {len(hashes):,} checksums of blocks for {size:,} bytes.")
    return hashes.astype(np.uint64)


class Blocks:
    """The checks of one mapped array, (rows, dim). Safe in several threads.

    Args:
        file: the mapped file, from its first byte.
        start: where its rows begin.
        row: bytes of a row.
        hashes: checksum of each block; None: only the size is checked.
        fail: makes the exception from what is wrong, as in `was cut short`.

    Attributes:
        descriptor: from which rows of a large file are read; -1: they are mapped.
    """

    def __init__(
        self, file: mmap.mmap, start: int, row: int, hashes: NDArray[np.uint64] | None,
        fail: Callable[[str], Exception],
    ) -> None:  # fmt: skip
        self._file, self._bytes, self._fail = file, len(file), fail
        self.descriptor = -1
        self._start, self._row, self._hashes = start, row, hashes
        self._good = np.zeros(0 if hashes is None else len(hashes), dtype=bool)

    @classmethod
    def of(
        cls, array: NDArray[np.generic], path: Path, hashes: NDArray[np.uint64] | None,
        fail: Callable[[str], Exception],
    ) -> "Blocks | None":  # fmt: skip
        """The checks of `open_array(path)`; None where it is not mapped: it has no rows.

        Raises:
            FileError: the system does not open a large file once more.
        """
        file = getattr(array, "_mmap", None)
        if not isinstance(file, mmap.mmap):
            return None
        found = cls(file, len(file) - array.nbytes, array.strides[0], hashes, fail)
        if array.nbytes >= LARGE and hasattr(os, "pread"):
            with reading(path):
                found.descriptor = os.open(path, os.O_RDONLY)
            weakref.finalize(found, os.close, found.descriptor)
        return found

    @property
    def places(self) -> tuple[int, int, int]:
        """For compiled code: the address of one byte a block, 1 once it is verified; the byte of
        the file at which rows begin; the descriptor. The address is 0 where blocks have no
        checksums.
        """
        good = 0 if self._hashes is None else self._good.ctypes.data
        return good, self._start, self.descriptor

    def check(self, ids: Ids | slice) -> None:
        """Check what the rows `ids` lie in; negative ids are passed over.

        Raises:
            IndexFolderError: as `fail` makes it: the file was cut short, or a block is damaged.
        """
        if self._file.size() < self._bytes:  # reading beyond its end would kill the process
            raise self._fail("was cut short while it was open")
        if self._hashes is None:
            return
        if isinstance(ids, slice):
            if ids.start >= ids.stop:
                return
            first, last = self._start + ids.start * self._row, self._start + ids.stop * self._row
            blocks = np.arange(first // BLOCK, (last - 1) // BLOCK + 1)
        else:
            begin = ids[ids >= 0] * self._row + self._start
            spans = range(0, self._row + BLOCK, BLOCK)
            ends = begin + (self._row - 1)
            blocks = np.concatenate([np.minimum(begin + span, ends) // BLOCK for span in spans])
        unseen = blocks[~self._good[blocks]]
        if len(unseen):
            self._verify(np.unique(unseen).tolist(), self._hashes)

    def _verify(self, blocks: list[int], hashes: NDArray[np.uint64]) -> None:
        for number in blocks:
            if self._digest(number * BLOCK) != int(hashes[number]):
                place = f"the {BLOCK:,} bytes from {number * BLOCK:,}"
                raise self._fail(f"was altered: the checksum of {place} differs")
            self._good[number] = True
        if self._good.all():
            self._hashes = None

    def _digest(self, start: int) -> int:
        if self.descriptor >= 0:
            return xxhash.xxh3_64_intdigest(os.pread(self.descriptor, BLOCK, start))
        with memoryview(self._file) as view, view[start : start + BLOCK] as block:
            return xxhash.xxh3_64_intdigest(block)
