"""Principal axes: a rotation that moves the energy of ordinary vectors into their first numbers, as Matryoshka training would.

The second-moment matrix is not centred, so that rotated rows have the lengths and the cosines of the rows themselves.
"""

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError

__all__ = ["FITTED_ROWS", "LARGEST", "check_rotatable", "principal_axes", "rotate", "rows_to_fit"]

FITTED_ROWS = 50_000  # rows that a rotation is fitted on, at most
LARGEST = 8192  # dims; the eigenvectors of more take hours and gigabytes


def check_rotatable(dim: int) -> None:
    """Raise ConfigError for vectors too long to be rotated."""
    if dim > LARGEST:
        raise ConfigError(
            f"Vectors of {dim:,} numbers are too long for a PCA rotation.",
            f"It goes up to {LARGEST:,}; leave --rotate out.",
        )


def rows_to_fit(count: int) -> NDArray[np.int64]:
    """The rows of `count` that a rotation is fitted on, ascending: all, or `FITTED_ROWS` of them drawn with a fixed seed."""
    if count <= FITTED_ROWS:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, FITTED_ROWS, replace=False))


def principal_axes(moment: NDArray[np.float64]) -> NDArray[np.float32]:
    """The rotation that sorts energy: (dim, dim) float32, orthonormal rows, the one with most energy first.

    Args:
        moment: (dim, dim) sum of the outer products of the rows with themselves.
    """
    _, columns = np.linalg.eigh(moment)  # by rising energy
    axes = columns.T[::-1]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    rotation: NDArray[np.float32] = np.ascontiguousarray(
        axes * np.where(largest < 0, -1, 1)[:, None], dtype=np.float32
    )
    return rotation


def rotate(rows: NDArray[np.floating], rotation: NDArray[np.float32]) -> NDArray[np.float32]:
    """`rows` (n, rows_dim) along the axes of `rotation` (dim, rows_dim): (n, dim) float32."""
    rotated: NDArray[np.float32] = np.ascontiguousarray(rows, dtype=np.float32) @ rotation.T
    return rotated
