"""What a search gives back: nouns outside, arrays inside."""

import numpy as np
import pytest

from mrl_search.results import BatchHits, Hit, Hits


def batch() -> BatchHits:
    return BatchHits(np.array([[7, 3], [1, -1]]), np.array([[0.5, 0.25], [0.75, -np.inf]], dtype=np.float32))


def test_a_batch_is_a_sequence_of_hits() -> None:
    assert len(batch()) == 2
    assert next(list(hits) for hits in batch()) == [Hit(1, 7, 0.5), Hit(2, 3, 0.25)]
    assert isinstance(batch()[1], Hits)


def test_the_type_does_not_change_with_the_size_of_the_batch() -> None:
    one = BatchHits(batch().ids[:1], batch().scores[:1])
    assert len(one) == 1
    assert [hit.id for hit in one[0]] == [7, 3]


def test_ranks_count_from_one_and_from_the_end() -> None:
    hits = batch()[0]
    assert hits[1] == Hit(2, 3, 0.25)
    assert hits[-1] == Hit(2, 3, 0.25)
    with pytest.raises(IndexError):
        hits[2]


def test_a_hit_is_made_of_plain_numbers() -> None:
    hit = batch()[0][0]
    assert (type(hit.rank), type(hit.id), type(hit.score)) == (int, int, float)


def test_what_is_known_of_an_answer_goes_with_it() -> None:
    hits = BatchHits(
        np.array([[7, 3], [1, 2]]), np.array([[0.9, 0.8], [0.5, 0.4]], dtype=np.float32),
        np.array([[True, False], [True, True]]), np.array([8, 64]),
    )  # fmt: skip
    assert [(hit.id, hit.proven) for hit in hits[0]] == [(7, True), (3, False)]
    assert [one.dims for one in hits] == [8, 64]
    best = hits.first(1)
    assert (best.ids.tolist(), best[1].dims) == ([[7], [1]], 64)
    assert best[0][0].proven is True
    plain = BatchHits(hits.ids, hits.scores)
    assert (plain[0].dims, plain[0][0].proven, plain.first(1).proven) == (None, None, None)
