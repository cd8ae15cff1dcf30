"""The one scoring rule: a stage scores by the cosine of its own prefix, query and corpus alike.

Scores and order depend neither on the kind of index nor on the size of the batch.
"""

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Found
from mrl_search.engines.kernels import best, pair_cosines
from mrl_search.store.rows import Ids, VectorStore
from mrl_search.vectors import prefix

__all__ = ["Known", "joined", "pair_scores", "rescore"]


def rescore(
    store: VectorStore, queries: NDArray[np.float32], ids: Ids, dims: int, keep: int
) -> Found:
    """The best `keep` of the candidates `ids` (n, m) of each query, by their prefixes."""
    return best(pair_scores(store, queries, ids, dims), ids, keep)


def pair_scores(
    store: VectorStore, queries: NDArray[np.float32], ids: Ids, dims: int
) -> NDArray[np.float32]:
    """Cosines of the prefix of each query with those of its own candidates: (n, m) float32.

    Queries are (n, dim) float32 of any norm but zero, candidates (n, m) rows; -1 scores -inf.
    """
    unit = prefix(queries, dims)
    parts = [_scored(store, unit[some], ids[some]) for some in store.in_turn(*ids.shape)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _scored(store: VectorStore, unit: NDArray[np.float32], ids: Ids) -> NDArray[np.float32]:
    if len(store.parts) == 1:
        return pair_cosines(store.part(ids), unit, ids)
    scores: NDArray[np.float32] | None = None
    for part, local, inside in store.by_part(ids):
        if scores is None:  # most rows lie in the first part
            scores = pair_cosines(part, unit, np.where(inside, local, -1))
        elif len(unit) == 1:
            places = inside[0].nonzero()[0]
            if len(places):
                scores[0, places] = pair_cosines(part, unit, local[:, places])[0]
        elif inside.any():
            np.maximum(scores, pair_cosines(part, unit, np.where(inside, local, -1)), out=scores)
    return np.full(ids.shape, -np.inf, np.float32) if scores is None else scores


def joined(found: list[Found], k: int) -> Found:
    """Answers to some queries and then to others as one; no answers at all have `k` columns."""
    empty = np.empty((0, k), np.float32), np.empty((0, k), np.int64)
    scores, ids = zip(*(found or [empty]), strict=True)
    return np.concatenate(scores), np.concatenate(ids)


class Known:
    """Cosines at full length of queries (n, dim) with candidates, each computed once.

    Many plans propose the same candidates.
    """

    def __init__(self, store: VectorStore, queries: NDArray[np.float32]) -> None:
        self._store, self._queries = store, queries
        self._keys = np.empty(0, np.int64)  # query times the size of the corpus, plus row: rising
        self._scores = np.empty(0, np.float32)

    def scores(self, ids: Ids) -> NDArray[np.float32]:
        """(n, m) float32, as `pair_scores` gives them, for the candidates (n, m) of each query."""
        keys = np.arange(len(ids))[:, None] * len(self._store) + ids
        places = np.searchsorted(self._keys, keys)
        places[places == len(self._keys)] = 0
        found = np.full(ids.shape, -np.inf, np.float32)
        known = ids < 0
        if len(self._keys):
            same = (self._keys[places] == keys) & ~known
            found[same] = self._scores[places[same]]
            known |= same
        most = int((~known).sum(axis=1).max(initial=0))
        if not most:
            return found
        columns = np.argsort(known, axis=1, kind="stable")[:, :most]
        new = ~np.take_along_axis(known, columns, axis=1)
        asked = np.where(new, np.take_along_axis(ids, columns, axis=1), -1)
        scores = pair_scores(self._store, self._queries, asked, self._store.dim)
        rows = np.nonzero(new)[0]
        found[rows, columns[new]] = scores[new]
        every = np.concatenate([self._keys, np.take_along_axis(keys, columns, axis=1)[new]])
        order = np.argsort(every, kind="stable")
        self._keys = every[order]
        self._scores = np.concatenate([self._scores, scores[new]])[order]
        return found
