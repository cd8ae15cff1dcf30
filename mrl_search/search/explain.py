"""Where in the vector an answer was decided: the score and the rank that each hit has at every prefix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.search.kernels import settled
from mrl_search.search.scoring import Rows, count_of, directions, pair_scores
from mrl_search.store.rows import blocks
from mrl_search.vectors import prefix, query_rows

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """How the hits of each query fare at every prefix.

    Attributes:
        dims: the prefix lengths, ascending, of the L levels.
        scores: (n, k, L) float32, cosine of hit and query at each prefix.
        ranks: (n, k, L) int64, place of the hit among all allowed vectors there, from 1; equal scores are ordered by id.
    """

    dims: tuple[int, ...]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]


def explain(
    index: Index, queries: NDArray[np.floating], ids: Rows, allowed: Rows | None = None
) -> Explanation:
    """Score and rank `ids` (n, k), answers to `queries` (n, dim), at every prefix of the index and at full length.

    Every allowed vector is compared at every prefix: as much work as an exact search at each. An id of -1 scores -inf and comes last.

    Raises:
        DataError: queries that are not finite, zero, or of another length than the vectors.
    """
    queries = query_rows(queries, index.dim)
    dims = tuple(sorted({*index.dims, index.dim}))
    scores = np.stack([pair_scores(index, queries, ids, d) for d in dims], axis=2)
    ranks = np.ones(scores.shape, dtype=np.int64)
    for level, d in enumerate(dims):
        unit = prefix(queries, d).astype(np.float64)
        for rows in blocks(count_of(index, allowed), max(d, len(queries))):
            others = np.arange(rows.start, rows.stop) if allowed is None else allowed[rows]
            found = settled(
                (unit @ directions(index, d, rows if allowed is None else others).T).astype(
                    np.float32
                )
            )
            for hit in range(ids.shape[1]):
                own, score = ids[:, hit, None], scores[:, hit, level, None]
                ranks[:, hit, level] += ((found > score) | ((found == score) & (others < own))).sum(
                    axis=1
                )
    return Explanation(dims, scores, ranks)
