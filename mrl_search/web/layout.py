"""Where items lie on the map: their two principal axes."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["layout"]

FITTED = 20_000  # rows that find the axes


def layout(rows: NDArray[np.floating]) -> NDArray[np.float32]:
    """Positions of vectors along the two principal axes of them all.

    Args:
        rows: (n, dims) float32 or float16 of unit norm.

    Returns:
        (n, 2) float32 from -1 to 1, in one scale for both axes. The direction of an axis is the one
        in which its largest weight is positive, so that the same rows always look the same.
    """
    found = np.zeros((len(rows), 2), np.float32)
    if len(rows) < 2:
        return found
    some = np.unique(np.linspace(0, len(rows) - 1, FITTED).astype(np.int64))
    sample = np.asarray(rows[some], np.float32)
    centre = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov((sample - centre).T, dtype=np.float64))
    two = axes[:, :-3:-1] if axes.ndim == 2 and len(axes) > 1 else np.ones((1, 1))
    two = two * np.sign(two[abs(two).argmax(axis=0), np.arange(two.shape[1])])
    found[:, : two.shape[1]] = (np.asarray(rows, np.float32) - centre) @ two.astype(np.float32)
    middle = (found.max(axis=0) + found.min(axis=0)) / 2
    found -= middle
    return found / max(float(abs(found).max()), 1e-12)
