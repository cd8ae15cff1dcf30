"""Voting for a label: weights, ties, and neighbours without one."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.errors import ConfigError, DataError
from mrl_search.search.classify import Ballot, Weighting, vote
from mrl_search.search.results import BatchHits

LABELS = np.array(["cat", "cat", "dog", "dog", "dog", None], dtype=object)


def hits(ids: list[int], scores: list[float]) -> BatchHits:
    return BatchHits(np.array([ids]), np.array([scores], dtype=np.float32))


def test_softmax_weights_by_hand() -> None:
    [v] = vote(hits([0, 2, 3], [0.9, 0.5, 0.5]), LABELS, Ballot(temperature=0.5))
    cat, dog = math.exp(0.9 / 0.5), 2 * math.exp(0.5 / 0.5)
    assert v.label == "cat"
    assert v.confidence == pytest.approx(cat / (cat + dog), rel=1e-6)
    assert dict(v.shares) == pytest.approx(
        {"cat": cat / (cat + dog), "dog": dog / (cat + dog)}, rel=1e-6
    )


def test_majority_counts_heads() -> None:
    near_cat = hits([0, 2, 3], [0.99, 0.1, 0.1])
    assert vote(near_cat, LABELS)[0].label == "cat"
    [v] = vote(near_cat, LABELS, Ballot(weighting=Weighting.MAJORITY))
    assert (v.label, v.confidence) == ("dog", 2 / 3)
    assert list(v.shares) == ["dog", "cat"]


def test_a_high_temperature_counts_heads_and_a_low_one_follows_the_nearest() -> None:
    h = hits([0, 2, 3], [0.9, 0.8, 0.8])
    assert vote(h, LABELS, Ballot(temperature=100))[0].label == "dog"
    assert vote(h, LABELS, Ballot(temperature=0.01))[0].label == "cat"
    assert vote(h, LABELS, Ballot(temperature=1e-9))[0].confidence == 1.0


def test_ties_go_to_the_greater_sum_and_then_to_the_alphabet() -> None:
    assert (
        vote(hits([0, 2], [0.4, 0.6]), LABELS, Ballot(weighting=Weighting.MAJORITY))[0].label
        == "dog"
    )
    assert (
        vote(hits([2, 0], [0.5, 0.5]), LABELS, Ballot(weighting=Weighting.MAJORITY))[0].label
        == "cat"
    )
    assert vote(hits([2, 0], [0.5, 0.5]), LABELS)[0].label == "cat"


def test_neighbours_without_a_label_do_not_vote() -> None:
    [v] = vote(hits([5, 2, -1], [0.99, 0.5, -np.inf]), LABELS)
    assert (v.label, v.confidence) == ("dog", 1.0)
    [v] = vote(hits([5, -1], [0.99, -np.inf]), LABELS)
    assert (v.label, v.confidence, v.shares) == (None, 0.0, {})


def test_no_labels_at_all() -> None:
    with pytest.raises(DataError, match=r"have no labels") as error:
        vote(hits([0], [1.0]), np.array([None, None], dtype=object))
    assert "sub-folder" in error.value.hint


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_is_positive(temperature: float) -> None:
    with pytest.raises(ConfigError, match=r"The temperature is .*; it must be positive"):
        Ballot(temperature=temperature)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=5),
    st.floats(1e-6, 10),
    st.sampled_from(Weighting),
)
def test_shares_are_a_distribution(
    scores: list[float], temperature: float, weighting: Weighting
) -> None:
    [v] = vote(hits(list(range(len(scores))), scores), LABELS, Ballot(5, temperature, weighting))
    assert sum(v.shares.values()) == pytest.approx(1)
    assert v.confidence == max(v.shares.values()) == v.shares[str(v.label)]


def test_one_vote_for_each_query() -> None:
    batch = BatchHits(np.array([[0, 1], [2, 3]]), np.ones((2, 2), dtype=np.float32))
    assert [v.label for v in vote(batch, LABELS)] == ["cat", "dog"]


def test_no_queries_have_no_votes() -> None:
    none = BatchHits(np.empty((0, 5), dtype=np.int64), np.empty((0, 5), dtype=np.float32))
    for weighting in Weighting:
        assert vote(none, LABELS, Ballot(weighting=weighting)) == []
