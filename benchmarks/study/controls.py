"""Controls of a study, and the shape of a representation; nothing is trained here.

The controls are those of the MRL paper (arXiv 2205.13147, section 4.1): random dims, and principal
components. Both keep the network's own head: its matrix is cut, or rotated, as the rows are.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from quality import Part, Representation

from mrl_search.measure.controls import centred_axes

__all__ = ["plane", "principal", "shuffled", "spectrum"]


def principal(representation: Representation, dims: tuple[int, ...]) -> Representation:
    """The rows on the principal axes of the training part: the best linear cut there is.

    The head at each of `dims` is the network's own, for rows of which only the first axes are kept.
    """
    full = representation.train.rows.shape[1]
    mean, axes = centred_axes(representation.train.rows)

    def rotated(part: Part) -> Part:
        return replace(part, rows=(part.rows - mean) @ axes)

    heads = {}
    if full in representation.heads:
        weight, bias = representation.heads[full]
        heads = {d: (weight @ axes[:, :d], weight @ mean + bias) for d in dims}
    train, held_out = rotated(representation.train), rotated(representation.validation)
    return Representation("pca", train, held_out, heads, representation.classes)


def shuffled(representation: Representation, dims: tuple[int, ...], seed: int) -> Representation:
    """The rows with their dims in random order: a prefix is a random choice of dims."""
    full = representation.train.rows.shape[1]
    order = np.random.default_rng(seed).permutation(full)

    def cut(part: Part) -> Part:
        return replace(part, rows=np.ascontiguousarray(part.rows[:, order]))

    heads = {}
    if full in representation.heads:
        weight, bias = representation.heads[full]
        heads = {d: (np.ascontiguousarray(weight[:, order[:d]]), bias) for d in dims}
    train, held_out = cut(representation.train), cut(representation.validation)
    return Representation(f"random {seed}", train, held_out, heads, representation.classes)


def spectrum(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """Singular values of the centred `rows` (n, dim) relative to the largest: (dim,) float64."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred)[::-1], 0, None))
    relative: NDArray[np.float64] = values / values[0] if values[0] > 0 else values
    return relative


def plane(rows: NDArray[np.float32]) -> NDArray[np.float64]:
    """The `rows` (n, d) on their two widest principal axes: (n, 2) float64.

    The point farthest out on each axis is positive.
    """
    mean, axes = centred_axes(rows)
    points = (rows - mean).astype(np.float64) @ axes[:, :2]
    farthest = points[np.abs(points).argmax(axis=0), range(points.shape[1])]
    turned: NDArray[np.float64] = points * np.where(farthest < 0, -1.0, 1.0)
    return turned
