"""Reading rows here and there from a mapped file that may be larger than memory.

A page that was read stays in the memory of the process until the system wants it back, and with it come those around it that the system
holds anyway: a process that answers a few thousand queries would seem to hold all of a large file. So its pages are given back now and
then; the system keeps what it has room for, and a page that is wanted again costs a microsecond.
"""

import mmap
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["MappedRows"]

LARGE = 4 << 30  # bytes of a file from which on pages are given back
HELD = 2048  # rows read after which they are: each was seen to bring 220 KiB with it


class MappedRows:
    """Counts how many rows of `rows`, (n, dim), were read, and gives their pages back in time where they are of a large mapped file."""

    def __init__(self, rows: NDArray[np.floating]) -> None:
        known = getattr(rows, "_mmap", None)
        self._map = (
            known
            if isinstance(known, mmap.mmap)
            and rows.nbytes >= LARGE
            and hasattr(mmap, "MADV_DONTNEED")
            else None
        )
        self._held = 0

    def read(self, count: int) -> None:
        """Say that so many rows are going to be read."""
        self._held += count
        if self._map is not None and self._held > HELD:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._held = count

    def in_turn(self, count: int, width: int) -> Iterator[slice]:
        """Slices of `count` readers of `width` rows each, all of them where the file is not large; to be read one after the other."""
        step = max(1, HELD // max(1, width)) if self._map is not None else max(1, count)
        for start in range(0, max(1, count), step):
            some = slice(start, min(start + step, count))
            self.read((some.stop - start) * width)
            yield some
