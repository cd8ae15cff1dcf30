"""What exact search sifts a corpus by: how long each vector's rest is behind every prefix, and its first numbers in a byte each.

Both are derived from the stored vectors and lie beside them, memory-mapped: about 100 bytes a vector, read only by proofs and exact
search.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import IndexFolderError
from mrl_search.files import write_atomically
from mrl_search.store.manifest import CODES, STEPS, SUFFIX, Manifest, check_file
from mrl_search.store.rows import blocks
from mrl_search.vectors import l2_normalize, suffix_norms

__all__ = ["Sieve", "coded_dims", "write_sieve"]

LONGEST = 64  # dims that are coded at most: a longer prefix leaves less in the sieve, and takes longer to read


@dataclass(frozen=True, eq=False)
class Sieve:
    """What is known of every vector without reading it; row i is item i, taken at unit length.

    Attributes:
        dims: the prefixes of which the rest is measured, ascending.
        norms: (len(dims), n) float32, length of what follows each prefix.
        codes: (n, coded) int8; times `steps` they are the first numbers of a vector, within `error`. None where no prefix is short
            enough to be coded.
        steps: (coded,) float32.
        error: the largest distance between the first numbers of a vector and what its codes say.
    """

    dims: tuple[int, ...]
    norms: NDArray[np.float32]
    codes: NDArray[np.int8] | None
    steps: NDArray[np.float32]
    error: float

    @classmethod
    def open(cls, folder: Path, manifest: Manifest) -> Self:
        """Map the sieve of an index folder.

        Raises:
            IndexFolderError: a file is missing, cut short, or altered.
        """
        norms = np.load(check_file(folder, manifest, SUFFIX), mmap_mode="r", allow_pickle=False)
        dims = tuple(sorted(map(int, manifest.factory)))
        if norms.shape != (len(dims), manifest.count):
            raise IndexFolderError(
                f"{folder / SUFFIX} is not of this index: its shape is {norms.shape}.",
                manifest.rebuild(folder),
            )
        if coded_dims(dims, manifest.dim) is None:
            return cls(dims, norms, None, np.empty(0, np.float32), 0.0)
        codes = np.load(check_file(folder, manifest, CODES), mmap_mode="r", allow_pickle=False)
        *steps, error = np.load(check_file(folder, manifest, STEPS), allow_pickle=False).tolist()
        return cls(dims, norms, codes, np.array(steps, dtype=np.float32), error)

    def norms_at(self, dims: int) -> NDArray[np.float32]:
        """Length of what follows the first `dims` numbers: (n,) float32."""
        norms: NDArray[np.float32] = self.norms[self.dims.index(dims)]
        return norms


def coded_dims(dims: tuple[int, ...], full: int) -> int | None:
    """The prefix that is coded: the longest of at most 64 numbers that is not the whole vector."""
    return max((d for d in dims if d <= LONGEST and d < full), default=None)


def write_sieve(folder: Path, vectors: NDArray[np.floating], dims: tuple[int, ...]) -> None:
    """Write the sieve of `vectors` (n, dim) for the prefixes `dims` into `folder`.

    Raises:
        MrlSearchError: the disk is full.
    """
    norms = np.empty((len(dims), len(vectors)), dtype=np.float32)
    coded = coded_dims(dims, vectors.shape[1])
    largest = np.zeros(coded or 0, dtype=np.float32)
    for rows, unit in _unit_blocks(vectors):
        norms[:, rows] = suffix_norms(unit, dims)
        largest = np.maximum(largest, np.abs(unit[:, :coded]).max(axis=0)) if coded else largest
    _save(folder / SUFFIX, norms)
    if coded is None:
        return
    steps, error = np.maximum(largest, np.float32(1e-12)) / 127, 0.0
    codes = np.empty((len(vectors), coded), dtype=np.int8)
    for rows, unit in _unit_blocks(vectors):
        codes[rows] = np.rint(unit[:, :coded] / steps)
        error = max(
            error, float(np.linalg.norm(unit[:, :coded] - codes[rows] * steps, axis=1).max())
        )
    _save(folder / CODES, codes)
    _save(folder / STEPS, np.append(steps, np.float32(error * (1 + 1e-6))).astype(np.float32))


def _unit_blocks(vectors: NDArray[np.floating]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    for rows in blocks(*vectors.shape):
        yield rows, l2_normalize(vectors[rows])


def _save(path: Path, array: NDArray[np.generic]) -> None:
    with write_atomically(path) as part, part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
