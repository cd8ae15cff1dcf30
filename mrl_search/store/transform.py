"""From a raw row to a stored row: as it is, cut, rotated, or along fitted axes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import blocks, l2_normalize, sample

__all__ = [
    "LARGEST", "Transform", "check_rotatable", "check_rotation", "moment_of", "principal_axes",
    "principal_axes_of", "rows_to_fit",
]  # fmt: skip

FITTED_ROWS = 50_000  # rows that a rotation is fitted to, at most
ORTHONORMAL = 1e-3  # largest error of an inner product of rows
FEW = 4  # times more dims than rows, from which on a decomposition of the rows is sooner
LARGEST = 8192  # dims; the eigenvectors of more take hours and gigabytes


@dataclass(frozen=True, eq=False, slots=True)
class Transform:
    """What happens to a row before it is stored, and to a query before it is compared.

    Attributes:
        rows_dim: dims of a raw row.
        dim: dims of a stored row, at most `rows_dim`.
        rotation: (dim, rows_dim) float32 with orthonormal rows; with a `centre`, axes of any kind;
            or None: the row is only cut.
        centre: (rows_dim,) float32 that is subtracted from a raw row before its axes are taken, or
            None: the rotation is of rows of norm 1.
    """

    rows_dim: int
    dim: int
    rotation: NDArray[np.float32] | None = None
    centre: NDArray[np.float32] | None = None

    def __call__(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Raw rows (n, rows_dim) as (n, dim) float32; rotated rows are of norm 1 before the cut."""
        raw: NDArray[np.float32] = np.ascontiguousarray(rows, dtype=np.float32)
        if self.rotation is None:
            return np.ascontiguousarray(raw[:, : self.dim])
        plain: NDArray[np.float32] = l2_normalize(raw) if self.centre is None else raw - self.centre
        return plain @ self.rotation.T

    @property
    def orthogonal(self) -> bool:
        """Whether the rotation has orthonormal rows, so that it keeps cosines of any vectors."""
        if self.rotation is None or self.centre is not None:
            return self.rotation is None
        moment = self.rotation @ self.rotation.T
        return bool(np.allclose(moment, np.eye(len(moment)), atol=ORTHONORMAL))

    def cut(self, dim: int) -> "Transform":
        """The same transform, cut to the first `dim` dims."""
        rotation = None if self.rotation is None else np.ascontiguousarray(self.rotation[:dim])
        return Transform(self.rows_dim, dim, rotation, self.centre)


def check_rotatable(dim: int) -> None:
    """Raise ConfigError for vectors with too many dims for a rotation."""
    if dim > LARGEST:
        message = f"A PCA rotation takes vectors of at most {LARGEST:,} dims; these have {dim:,}."
        raise ConfigError(message, "Leave --rotate out.")


def check_rotation(rotate: str | None, dim: int) -> None:
    """Raise ConfigError for a rotation that is unknown, or of vectors with too many dims."""
    if rotate not in (None, "pca"):
        raise ConfigError(f"There is no rotation {rotate!r}.", "Use pca, or leave it out.")
    if rotate:
        check_rotatable(dim)


def rows_to_fit(count: int) -> Ids:
    """The rows that a rotation is fitted to: all `count`, or a seeded sample; ascending."""
    return sample(count, FITTED_ROWS)


def moment_of(store: VectorStore, rows: Ids) -> NDArray[np.float64]:
    """Sum of the outer products of rows with themselves, at norm 1: (dim, dim)."""
    moment = np.zeros((store.dim, store.dim))
    for some in blocks(len(rows), store.dim):
        unit = store.prefix(store.dim, rows[some]).astype(np.float64)
        moment += unit.T @ unit
    return moment


def principal_axes(moment: NDArray[np.float64]) -> NDArray[np.float32]:
    """Principal axes by falling energy: (dim, dim) float32, orthonormal rows.

    The moment, the sum of the outer products of the rows with themselves, is not centred, so that
    rotated rows keep their norms and cosines.
    """
    _, columns = np.linalg.eigh(moment)  # by rising energy
    return _signed(columns.T[::-1])


def principal_axes_of(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    """Principal axes of rows (n, dim), as `principal_axes` gives them; sooner of few rows."""
    if len(rows) > rows.shape[1] // FEW:
        return principal_axes(rows.T @ rows)
    return _signed(np.linalg.svd(rows, full_matrices=True)[2])


def _signed(axes: NDArray[np.float64]) -> NDArray[np.float32]:
    """Axes whose largest number is positive, whichever way they were found."""
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    signs = np.where(largest < 0, -1, 1)[:, None]
    return np.ascontiguousarray(axes * signs, dtype=np.float32)
