"""Where an answer was decided: its score and its rank at every prefix."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Mask
from mrl_search.engines.kernels import settled
from mrl_search.engines.scan import directions
from mrl_search.search.corpus import Corpus
from mrl_search.search.scoring import pair_scores
from mrl_search.store.rows import Ids
from mrl_search.vectors import blocks, prefix, query_rows

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True, eq=False, slots=True)
class Explanation:
    """Scores and ranks of the hits of each query at L prefixes.

    Attributes:
        dims: (L,) prefix lengths, ascending.
        scores: (n, k, L) float32, cosine of hit and query.
        ranks: (n, k, L) int64, rank among all allowed vectors, from 1; ties go by id.
    """

    dims: tuple[int, ...]
    scores: NDArray[np.float32]
    ranks: NDArray[np.int64]


def explain(
    corpus: Corpus, queries: NDArray[np.floating], ids: Ids, mask: Mask | None = None
) -> Explanation:
    """Score and rank `ids` (n, k), answers to `queries` (n, dim), at every prefix.

    Every allowed vector is compared at every prefix: as much work as an exact search at each. An id
    of -1 scores -inf and comes last.
    """
    queries, store = query_rows(queries, corpus.dim), corpus.vectors
    dims = tuple(sorted({*corpus.dims, corpus.dim}))
    scores = np.stack([pair_scores(store, queries, ids, d) for d in dims], axis=2)
    ranks = np.ones(scores.shape, dtype=np.int64)
    allowed = np.arange(len(corpus)) if mask is None else mask.ids
    for level, d in enumerate(dims):
        unit = prefix(queries, d).astype(np.float64)
        for place in blocks(len(allowed), max(d, len(queries))):
            rows = allowed[place]
            cosines = directions(store, d, place if mask is None else rows).T
            found = settled((unit @ cosines).astype(np.float32))
            for hit in range(ids.shape[1]):
                own, score = ids[:, hit, None], scores[:, hit, level, None]
                before = (found > score) | ((found == score) & (rows < own))
                ranks[:, hit, level] += before.sum(axis=1)
    return Explanation(dims, scores, ranks)
