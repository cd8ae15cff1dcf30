"""The sieve of exact search: norms of tails and int8 codes of a prefix, for every vector.

Both are derived from the stored vectors and lie beside them, memory-mapped: about 100 bytes a
vector. Small corpora have none: comparing everything is as fast there.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import IndexFolderError
from mrl_search.files import write_atomically
from mrl_search.store.manifest import CODES, STEPS, SUFFIX, Manifest, check_file
from mrl_search.vectors import blocks, suffix_norms

__all__ = ["Sieve", "SieveBuilder", "coded_dims"]

LONGEST = 64  # dims that are coded at most


@dataclass(frozen=True, eq=False)
class Sieve:
    """What is known of every vector without reading it; row i is item i, at unit norm.

    Attributes:
        dims: prefix lengths whose tails are measured, ascending.
        norms: (len(dims), n) float32, norm of the tail after each prefix.
        codes: (n, coded) int8; times `steps` they are the first dims of a vector, within `error`.
            None where no prefix is short enough to be coded.
        steps: (coded,) float32.
        error: largest distance between the first dims of a vector and its codes.
    """

    dims: tuple[int, ...]
    norms: NDArray[np.float32]
    codes: NDArray[np.int8] | None
    steps: NDArray[np.float32]
    error: float

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> Self:
        """Map the sieve of an index folder."""
        suffix = check_file(folder, manifest, SUFFIX)
        norms = np.load(suffix, mmap_mode="r", allow_pickle=False)
        dims = tuple(sorted(map(int, manifest.factory)))
        if norms.shape != (len(dims), manifest.count):
            hint = manifest.rebuild(folder)
            raise IndexFolderError(f"{suffix} has shape {norms.shape}: of another index.", hint)
        if coded_dims(dims, manifest.dim) is None:
            return cls(dims, norms, None, np.empty(0, np.float32), 0.0)
        codes = np.load(check_file(folder, manifest, CODES), mmap_mode="r", allow_pickle=False)
        steps = np.load(check_file(folder, manifest, STEPS), allow_pickle=False)
        return cls(dims, norms, codes, steps[:-1].astype(np.float32), float(steps[-1]))

    def norms_at(self, dims: int) -> NDArray[np.float32]:
        """Norm of each vector's tail after the first `dims` dims: (n,) float32."""
        norms: NDArray[np.float32] = self.norms[self.dims.index(dims)]
        return norms


def coded_dims(dims: tuple[int, ...], full: int) -> int | None:
    """The prefix that is coded: the longest of at most 64 dims that is not the whole vector."""
    return max((d for d in dims if d <= LONGEST and d < full), default=None)


class SieveBuilder:
    """Derives the sieve from one pass over all vectors; a `Pass` of `build_indexes`.

    The steps of the codes are known only after the last row, so the first dims of all rows wait in
    a temporary file.

    Args:
        folder: where the files go.
        count: number of vectors.
        dims: prefix lengths.
        full: dims of the vectors.
    """

    def __init__(self, folder: Path, count: int, dims: tuple[int, ...], full: int) -> None:
        self._folder, self._count, self._dims = folder, count, dims
        self._coded = coded_dims(dims, full) or 0
        self._norms = np.empty((len(dims), count), dtype=np.float32)
        self._largest = np.zeros(self._coded, dtype=np.float32)

    def __enter__(self) -> Self:
        self._file = tempfile.TemporaryFile(dir=self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self._write()
        self._file.close()

    def add(self, rows: slice, unit: NDArray[np.float32]) -> None:
        """Take the rows at their place: (rows, dim) float32 of unit norm."""
        self._norms[:, rows] = suffix_norms(unit, self._dims)
        head = np.ascontiguousarray(unit[:, : self._coded])
        self._largest = np.maximum(self._largest, np.abs(head).max(axis=0, initial=0))
        self._file.write(head.tobytes())

    def _write(self) -> None:
        _save(self._folder / SUFFIX, self._norms)
        if not self._coded:
            return
        steps, error = np.maximum(self._largest, np.float32(1e-12)) / 127, 0.0
        codes = np.empty((self._count, self._coded), dtype=np.int8)
        for rows, head in self._heads():
            codes[rows] = np.rint(head / steps)
            distance = np.linalg.norm(head - codes[rows] * steps, axis=1)
            error = max(error, float(distance.max()))
        _save(self._folder / CODES, codes)
        _save(self._folder / STEPS, np.append(steps, error * (1 + 1e-6)).astype(np.float32))

    def _heads(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        self._file.seek(0)
        for rows in blocks(self._count, self._coded):
            wanted = (rows.stop - rows.start) * self._coded
            head = np.frombuffer(self._file.read(4 * wanted), dtype=np.float32)
            yield rows, head.reshape(-1, self._coded)


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with write_atomically(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
