"""The order of answers: higher score first, and of equal scores the lower id, in whatever order they were found."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.results import BatchHits

__all__ = ["best"]


def best(ids: NDArray[np.int64], scores: NDArray[np.float32], keep: int) -> BatchHits:
    """The best `keep` of each row, in order.

    Args:
        ids: (n, m) int64, below 2**32 and distinct within a row, or -1 where a row holds fewer than m.
        scores: (n, m) float32, aligned; -inf where the id is -1.
        keep: how many of each row; all m if that is fewer.
    """
    bits = (scores + np.float32(0)).view(np.int32)  # adding 0 turns -0 into 0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)  # as integers in the order of the floats
    key = (-ascending.astype(np.int64) << 32) + ids
    if keep < key.shape[1]:
        rows = np.argpartition(key, keep, axis=1)[:, :keep]
        rows = np.take_along_axis(rows, np.take_along_axis(key, rows, axis=1).argsort(axis=1), axis=1)
    else:
        rows = key.argsort(axis=1)
    return BatchHits(np.take_along_axis(ids, rows, axis=1), np.take_along_axis(scores, rows, axis=1))
