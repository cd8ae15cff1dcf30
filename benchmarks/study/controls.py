"""What a representation without Matryoshka training is worth when it is cut short, and the shape of a representation: no training here.

The controls of the paper (arXiv 2205.13147, section 4.1): dims chosen at random, and the first principal components. Both keep the
network's own head: its matrix is cut, or turned, as the rows are.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from quality import Part, Representation

__all__ = ["plane", "principal", "shuffled", "spectrum"]


def principal(representation: Representation, dims: tuple[int, ...]) -> Representation:
    """The rows on their principal axes, those of the training part, the widest first: cutting them is the best linear cut there is.

    The head at each of `dims` is the network's own at full length, for rows of which only the first axes are kept.
    """
    full = representation.train.rows.shape[1]
    mean, axes = _axes(representation.train.rows)

    def turned(part: Part) -> Part:
        return replace(part, rows=((part.rows - mean) @ axes).astype(np.float32))

    heads = {}
    if full in representation.heads:
        weight, bias = representation.heads[full]
        heads = {
            d: (
                (weight @ axes[:, :d]).astype(np.float32),
                (weight @ mean + bias).astype(np.float32),
            )
            for d in dims
        }
    return Representation(
        "pca",
        turned(representation.train),
        turned(representation.validation),
        heads,
        representation.classes,
    )


def shuffled(representation: Representation, dims: tuple[int, ...], seed: int) -> Representation:
    """The rows with their dims in an order drawn from `seed`: a prefix is a random choice of dims, and of the columns of the head."""
    full = representation.train.rows.shape[1]
    order = np.random.default_rng(seed).permutation(full)

    def cut(part: Part) -> Part:
        return replace(part, rows=np.ascontiguousarray(part.rows[:, order]))

    heads = {}
    if full in representation.heads:
        weight, bias = representation.heads[full]
        heads = {d: (np.ascontiguousarray(weight[:, order[:d]]), bias) for d in dims}
    return Representation(
        f"random {seed}",
        cut(representation.train),
        cut(representation.validation),
        heads,
        representation.classes,
    )


def spectrum(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Singular values of the centred `rows` (n, dim), largest first, relative to the largest: (dim,) float64. How few axes carry them?"""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred)[::-1], 0, None))
    relative: NDArray[np.float64] = values / values[0] if values[0] > 0 else values
    return relative


def plane(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The `rows` (n, d) on their two widest principal axes: (n, 2) float64, each axis turned so that its longest point is positive."""
    mean, axes = _axes(rows)
    points = (rows.astype(np.float64) - mean) @ axes[:, :2]
    longest = points[np.abs(points).argmax(axis=0), range(points.shape[1])]
    turned: NDArray[np.float64] = points * np.where(longest < 0, -1.0, 1.0)
    return turned


def _axes(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (d,) and principal axes (d, d) of the rows, an axis a column, the widest first."""
    mean = rows.mean(axis=0, dtype=np.float64)
    centred = rows.astype(np.float64) - mean
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return mean, vectors[:, ::-1]
