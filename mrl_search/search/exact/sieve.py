"""The sieve of exact search: norms of tails and int8 codes of a prefix, for every vector.

Both are derived from the stored vectors and lie beside them, memory-mapped: about 100 bytes a
vector. Small corpora have none: comparing everything is as fast there.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.arrays import open_array
from mrl_search.engines.build import Pass
from mrl_search.engines.kernels import spread
from mrl_search.files import write_atomically
from mrl_search.store.blocks import Blocks
from mrl_search.store.collection import checks_of, load_checked
from mrl_search.store.manifest import CODES, STEPS, SUFFIX, Manifest
from mrl_search.vectors import blocks, suffix_norms

__all__ = ["Sieve", "building_sieve", "coded_dims"]

LONGEST = 64  # dims that are coded at most


@dataclass(frozen=True, eq=False)
class Sieve:
    """What is known of every vector without reading it; row i is item i, at unit norm.

    Attributes:
        dims: prefix lengths whose tails are measured, ascending.
        norms: (len(dims), n) float32, norm of the tail after each prefix.
        codes: (n, coded) int8; times `steps` they are the first dims of a vector, within `error`.
        steps: (coded,) float32.
        error: largest distance between the first dims of a vector and its codes.
        checks: of the mapped files.
    """

    dims: tuple[int, ...]
    norms: NDArray[np.float32]
    codes: NDArray[np.int8]
    steps: NDArray[np.float32]
    error: float
    checks: tuple[Blocks, ...] = ()

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> Self:
        """Map the sieve of an index folder.

        Raises:
            IndexFolderError: a file is damaged, or of another index.
        """
        dims = tuple(sorted(map(int, manifest.factory)))

        def opened(name: str, dtype: str, *shape: int | None) -> NDArray[Any]:
            read = partial(open_array, dtype=dtype, shape=shape)
            return load_checked(folder, manifest, name, read)

        norms = opened(SUFFIX, "float32", len(dims), manifest.indexed)
        codes = opened(CODES, "int8", manifest.indexed, None)
        steps = np.array(opened(STEPS, "float32", codes.shape[1] + 1))
        files = ((norms, SUFFIX), (codes, CODES))
        found = [checks_of(array, folder, manifest, name) for array, name in files]
        checks = tuple(check for check in found if check is not None)
        return cls(dims, norms, codes, steps[:-1], float(steps[-1]), checks)

    def check(self) -> None:
        """Raise IndexFolderError if a file was cut short while it was open."""
        for check in self.checks:
            check.check(slice(0, 0))

    def norms_at(self, dims: int) -> NDArray[np.float32]:
        """Norm of each vector's tail after the first `dims` dims: (n,) float32."""
        norms: NDArray[np.float32] = self.norms[self.dims.index(dims)]
        return norms


def coded_dims(dims: tuple[int, ...], full: int) -> int | None:
    """The prefix that is coded: the longest of at most 64 dims that is not the whole vector."""
    return max((d for d in dims if d <= LONGEST and d < full), default=None)


@contextmanager
def building_sieve(folder: Path, count: int, dims: tuple[int, ...], full: int) -> Iterator[Pass]:
    """Yield what takes all `count` vectors of `full` dims in order; then write the sieve.

    The steps of the codes are known only after the last row, so the first dims of all rows wait in
    a temporary file.
    """
    coded = coded_dims(dims, full) or 0
    norms = np.empty((len(dims), count), dtype=np.float32)
    largest = np.full(coded, 1e-12, dtype=np.float32)
    with tempfile.TemporaryFile(dir=folder, prefix=".", suffix=".writing") as file:

        def measure(first: int, unit: NDArray[np.float32], part: slice) -> None:
            rows = slice(first + part.start, first + part.stop)
            norms[:, rows] = suffix_norms(unit[part], dims)

        def add(rows: slice, unit: NDArray[np.float32]) -> None:
            spread(len(unit), partial(measure, rows.start, unit))
            head = np.ascontiguousarray(unit[:, :coded])
            np.maximum(largest, np.abs(head).max(axis=0, initial=0), out=largest)
            file.write(head.tobytes())

        yield add
        _save(folder / SUFFIX, norms)
        if coded:
            file.seek(0)
            codes, steps, error = _coded(file, count, largest / np.float32(127))
            _save(folder / CODES, codes)
            _save(folder / STEPS, np.append(steps, error * (1 + 1e-6)).astype(np.float32))


def _coded(
    file: BinaryIO, count: int, steps: NDArray[np.float32]
) -> tuple[NDArray[np.int8], NDArray[np.float32], float]:
    """Codes of the `count` heads in `file`, their steps, and their largest error."""
    codes, error = np.empty((count, len(steps)), dtype=np.int8), 0.0
    for rows in blocks(count, len(steps)):
        wanted = (rows.stop - rows.start) * len(steps)
        head = np.frombuffer(file.read(4 * wanted), dtype=np.float32).reshape(-1, len(steps))
        codes[rows] = np.rint(head / steps)
        distance = np.linalg.norm(head - codes[rows] * steps, axis=1)
        error = max(error, float(distance.max()))
    return codes, steps, error


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with write_atomically(path) as file:
        np.save(file, array, allow_pickle=False)
