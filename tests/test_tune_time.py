"""Tuning does no work twice."""

import numpy as np
import pytest
from conftest import Rows

from mrl_search.index import Index
from mrl_search.search import scoring
from mrl_search.search import tune as tuning
from mrl_search.search.plan import Plan
from mrl_search.search.scoring import pair_scores
from mrl_search.search.tune import Trial
from mrl_search.store.rows import Ids, VectorStore


def test_scores_are_computed_once(small_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = small_index.corpus
    queries = corpus.vectors.rows(np.arange(3)).astype(np.float32)
    asked: list[int] = []

    def counted(store: VectorStore, x: Rows, ids: Ids, dims: int) -> np.ndarray:
        asked.append(int((ids >= 0).sum()))
        return pair_scores(store, x, ids, dims)

    monkeypatch.setattr(scoring, "pair_scores", counted)
    kept, last = scoring.Known(corpus.vectors, queries), len(corpus) - 1
    first = np.array([[5, last, 7, -1], [0, 5, -1, -1], [9, 8, 7, 6]])
    second = np.array([[7, 3, 5, last], [-1, 5, 2, 0], [-1, -1, 6, 9]])
    for ids in (first, second, second):
        np.testing.assert_array_equal(
            kept.scores(ids), pair_scores(corpus.vectors, queries, ids, corpus.dim)
        )
    assert asked == [9, 2]


def test_plans_far_from_the_front_are_timed_once() -> None:
    def trial(keep: int, value: float) -> Trial:
        return Trial(Plan.parse(f"8:{keep},64"), value, True, 0)

    trials = [trial(10, 0.8), trial(20, 0.9), trial(30, 0.9), trial(40, 0.85)]
    times = dict(zip((str(t.plan) for t in trials), (1.0, 2.0, 2.5, 3.0), strict=True))
    near = tuning._near_front(trials, {**times, "exact": 9.0})
    assert sorted(near) == sorted(["exact", *(str(t.plan) for t in trials[:3])])
