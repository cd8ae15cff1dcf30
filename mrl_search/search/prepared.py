"""A plan in one call of compiled code: from the numbers of a query to its answers.

It serves plans of two stages, a shortlist from clusters and full length; the walk in `run` serves
all others. What does not change from query to query is prepared once.
"""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import kernels
from mrl_search.engines.base import Found, Mask, PrefixIndex, Visits
from mrl_search.engines.lists import CodeLists
from mrl_search.files import BLOCK
from mrl_search.search.corpus import Corpus
from mrl_search.search.first import scans
from mrl_search.search.plan import Plan
from mrl_search.vectors import query_rows

__all__ = ["Prepared"]

DOUBT = 5  # times the precision of a stored number: by which norms of rows may differ from 1


class Prepared:
    """A search of two stages, the second at full length, for any number of queries and any mask."""

    def __init__(self, corpus: Corpus, index: PrefixIndex, lists: CodeLists, plan: Plan) -> None:
        self._index, self._lists, self._store = index, lists, corpus.vectors
        self._stage, self._dim, self._keep = plan.stages[0], corpus.dim, plan.stages[0].keep or 0
        self._every = index.visits(self._stage.effort, None)
        dtype, where = self._store.dtype, self._store.addresses()
        doubt = DOUBT * float(np.finfo(dtype).eps)
        half = dtype == np.float16
        self._rows = kernels.native.rows(len(self._store), self._dim, half, doubt, BLOCK, where)
        self._mapped = bool((where[:, -1] < 0).all())

    @classmethod
    def of(cls, corpus: Corpus, plan: Plan) -> "Prepared | None":
        """A plan that the corpus can run, prepared; None where it needs the walk."""
        if len(plan.stages) != 2 or plan.dims[1] != corpus.dim or not len(corpus):
            return None
        index = corpus.prefix_index(plan.dims[0])
        return None if index.lists is None else cls(corpus, index, index.lists, plan)

    def fits(self, queries: NDArray[np.generic], allowed: int, mask: Mask | None) -> bool:
        """Whether compiled code takes these queries and this mask.

        Few allowed rows are all compared; unusual arrays are checked and converted first.
        """
        if not isinstance(queries, np.ndarray) or queries.dtype != np.float32 or queries.ndim != 2:
            return False
        if not queries.flags.c_contiguous or queries.shape[1] != self._dim or self._keep >= allowed:
            return False
        return mask is None or not scans(self._index, self._stage, mask)

    def search(self, queries: NDArray[np.float32], width: int, mask: Mask | None) -> Found:
        """The best `width` rows of each query: scores and ids, (n, width).

        Queries (n, dim) float32 are C-contiguous; `width` is at most the length of the shortlist.

        Raises:
            DataError: a query that is zero or not finite.
            IndexFolderError: a file was cut short or altered.
        """
        if self._index.check is not None:
            self._index.check()
        self._store.check()
        count = len(queries)
        found = np.empty((count, width), np.float32), np.empty((count, width), np.int64)
        visits = self._every if mask is None else self._index.visits(self._stage.effort, mask)
        turns = self._store.in_turn(count, self._keep) if self._mapped else [slice(0, count)]
        for some in turns:
            jobs = [queries[some], *(column[some] for column in found)]
            kernels.spread(len(jobs[0]), partial(self._answer, jobs, visits, mask))
        return found

    def _answer(
        self, jobs: list[NDArray[Any]], visits: Visits, mask: Mask | None, at: slice
    ) -> None:
        """Fill scores and ids of some queries, `jobs`, in one thread."""
        queries, scores, ids = (array[at] for array in jobs)
        start, bits = 0, None if mask is None else mask.bits
        while True:
            wrong = kernels.native.answer(
                self._lists.handle, self._rows, queries[start:], self._keep, *visits, bits,
                ids[start:], scores[start:],
            )  # fmt: skip
            if wrong is None:
                return
            number, candidates = wrong
            start += number
            if candidates is None:
                query_rows(queries[start : start + 1], self._dim)  # raises the error
            self._store.check(np.frombuffer(candidates, np.int64))  # read for the first time
