"""Where items lie on the map: their two principal axes; and the bytes that tell it."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.search.corpus import Corpus
from mrl_search.store.transform import principal_axes_of

__all__ = ["layout", "points"]

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
    sample = np.asarray(rows[some], np.float64)
    centre = sample.mean(axis=0)
    axes = principal_axes_of(sample - centre)[:2]
    found[:, : len(axes)] = (rows - centre.astype(np.float32)) @ axes.T
    middle = (found.max(axis=0) + found.min(axis=0)) / 2
    found -= middle
    return found / max(float(abs(found).max()), 1e-12)


def points(
    corpus: Corpus, rows: NDArray[np.int64], dims: int, numbers: NDArray[np.uint16]
) -> bytes:
    """Some rows on the map by a prefix, as `GET …/map` sends them; `numbers` (n,) are of labels."""
    head = np.array([len(rows), corpus.manifest.generation], "<u4")
    ids, xy = corpus.items.all_ids[rows], layout(corpus.vectors.prefix(dims, rows))
    parts = head, ids.astype("<i8"), xy.astype("<f4"), numbers[rows].astype("<u2")
    return b"".join(part.tobytes() for part in parts)
