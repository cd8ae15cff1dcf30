"""Scores of whole vectors that are kept: many plans propose the same candidates."""

import numpy as np
from numpy.typing import NDArray

from mrl_search.search.scoring import pair_scores
from mrl_search.store.rows import Ids, VectorStore

__all__ = ["Known"]


class Known:
    """Cosines at full length of some queries with candidates, each computed once.

    Args:
        store: the corpus.
        queries: (n, dim) float32 of any norm but zero.
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
        if most:
            self._add(ids, keys, known, most, found)
        return found

    def _add(
        self, ids: Ids, keys: Ids, known: NDArray[np.bool_], most: int, found: NDArray[np.float32]
    ) -> None:
        """Score what is not known, at most `most` candidates of a query, into `found`."""
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
