"""Stored vectors: rows of mapped files, one part or several after one another."""

import mmap
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mrl_search import vectors
from mrl_search.store.blocks import LARGE, Blocks, Ids
from mrl_search.vectors import blocks

__all__ = ["Ids", "Rearranged", "VectorStore"]

KEPT = 2048  # rows read before pages are given back; each brings about 220 KiB into memory


class VectorStore:
    """Vectors of unit norm at rest, (n, dim) float16 or float32, usually memory-mapped.

    A process that reads rows here and there from a file larger than memory would seem to hold all
    of it, so pages of large mapped files are given back now and then. Compiled code reads single
    rows of such files (see `addresses`). Rows are numbered across parts, which have the same dims
    and dtype; the checks of a part, `blocks`, are made before its rows are read.
    """

    def __init__(self, *parts: NDArray[np.floating], blocks: Sequence[Blocks | None] = ()) -> None:
        self.parts: Sequence[NDArray[np.floating]] = parts
        self._blocks = blocks or [None] * len(parts)
        self.starts = np.cumsum([0, *map(len, parts)]).tolist()
        maps = [getattr(part, "_mmap", None) for part in parts if part.nbytes >= LARGE]
        given_back = hasattr(mmap, "MADV_DONTNEED")
        self._maps = [m for m in maps if isinstance(m, mmap.mmap) and given_back]
        self._plain = [np.asarray(part) for part in parts]  # a memmap's own indexing is slow
        self._rows_read = 0

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def dim(self) -> int:
        """Dims of a row."""
        return int(self.parts[0].shape[1])

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """float16 or float32."""
        return self.parts[0].dtype

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return len(self) * self.dim * self.dtype.itemsize

    def rows(self, ids: Ids | slice = slice(None), dims: int | None = None) -> NDArray[np.floating]:
        """The first `dims` dims (default: all) of the rows `ids`, as stored: (rows, dims)."""
        if len(self._plain) == 1:
            (part,), (check,) = self._plain, self._blocks
            if check is not None:
                check.check(slice(*ids.indices(len(part))) if isinstance(ids, slice) else ids)
            return part[ids, :dims]
        return self._of_parts(np.arange(len(self))[ids], dims)

    def _of_parts(self, wanted: Ids, dims: int | None) -> NDArray[np.floating]:
        found = np.empty((len(wanted), dims or self.dim), dtype=self.dtype)
        for part, local, inside in self.by_part(wanted):
            found[inside] = part[local[inside], :dims]
        return found

    def between(self, start: int, stop: int) -> "VectorStore":
        """The rows from `start` to before `stop`, which are whole parts."""
        places = zip(self.starts, self.parts, self._blocks, strict=False)
        kept = [(part, check) for at, part, check in places if start <= at < stop]
        return VectorStore(*(part for part, _ in kept), blocks=[check for _, check in kept])

    @classmethod
    def joined(cls, stores: "Sequence[VectorStore]") -> "VectorStore":
        """The rows of one store after another."""
        parts = [part for store in stores for part in store.parts]
        return cls(*parts, blocks=[check for store in stores for check in store._blocks])

    def prefix(self, dims: int, ids: Ids | slice = slice(None)) -> NDArray[np.float32]:
        """Prefixes of the rows `ids`, normalised: (rows, dims) float32."""
        return vectors.prefix(self.rows(ids, min(dims, self.dim)), dims)

    def chunks(
        self, dims: int | None = None, among: Ids | None = None
    ) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """Rows `among` (default: all), some at a time: their place, (rows, dims) as stored."""
        for place in blocks(len(self) if among is None else len(among), dims or self.dim):
            self.will_read(place.stop - place.start)
            yield place, self.rows(place if among is None else among[place], dims)

    def part(self, ids: Ids) -> NDArray[np.floating]:
        """The only part, of which the rows `ids` will be read."""
        (array,), (check,) = self._plain, self._blocks
        if check is not None:
            check.check(ids)
        return array

    def addresses(self) -> NDArray[np.int64]:
        """For compiled code: (parts, 5) int64, address of the rows, first row, and `places`."""
        places = zip(self._plain, self.starts, self._blocks, strict=False)
        return np.array([
            (part.ctypes.data, start, *((0, 0, -1) if check is None else check.places))
            for part, start, check in places if len(part)
        ], np.int64).reshape(-1, 5)  # fmt: skip

    def check(self, ids: Ids | None = None) -> None:
        """Check that files were not cut short while they are open, and the blocks of rows `ids`.

        Raises:
            IndexFolderError: a file was cut short, or a block is damaged.
        """
        for _ in () if ids is None else self.by_part(ids):
            continue
        for check in self._blocks:
            if check is not None:
                check.check(slice(0, 0))

    def by_part(self, ids: Ids) -> Iterator[tuple[NDArray[np.floating], Ids, NDArray[np.bool_]]]:
        """For each part: its array, `ids` as its own row numbers, and which of them lie in it.

        Negative ids count as those of the first part.
        """
        before: NDArray[np.bool_] | None = None  # which ids lie before the part
        for start, part, check in zip(self.starts[:-1], self._plain, self._blocks, strict=True):
            inside = ids < start + len(part)
            here = inside if before is None else inside & ~before
            local = ids - start if start else ids
            if check is not None and here.any():
                check.check(local[here])
            if len(part):
                yield part, local, here
            before = inside

    def will_read(self, count: int) -> None:
        """Announce that `count` rows will be read, so that pages can be given back first."""
        self._rows_read += count
        if self._maps and self._rows_read > KEPT:
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)
            self._rows_read = count

    def in_turn(self, count: int, width: int) -> Iterator[slice]:
        """Slices of `count` readers of `width` rows each, to be read one after another."""
        step = max(1, KEPT // max(1, width)) if self._maps else max(1, count)
        for start in range(0, max(1, count), step):
            part = slice(start, min(start + step, count))
            self.will_read((part.stop - start) * width)
            yield part


class Rearranged(VectorStore):
    """Some rows of another store, (n,) int64, in another order."""

    def __init__(self, store: VectorStore, order: Ids) -> None:
        super().__init__(*store.parts, blocks=store._blocks)
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, ids: Ids | slice = slice(None), dims: int | None = None) -> NDArray[np.floating]:
        """As `VectorStore.rows`, by the new numbers."""
        return self._of_parts(self.order[ids], dims)
