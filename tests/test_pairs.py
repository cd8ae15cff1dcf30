"""All close pairs are found: exactly those that comparing everything finds."""

import numpy as np
import pytest
from conftest import energy_first
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mrl_search.errors import DataError
from mrl_search.search.exact import pairs as module
from mrl_search.search.exact.pairs import Side, close_pairs, random_cosines
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import l2_normalize


def side(rows: np.ndarray, *cuts: int) -> Side:
    return Side(VectorStore(*np.split(rows, cuts)), np.arange(len(rows)))


def clustered(seed: int, n: int, dim: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = energy_first(rng, n, dim)
    rows[n // 2 :] = rows[: n - n // 2] + 0.3 * energy_first(rng, n - n // 2, dim)
    return rows.astype(np.float16)


def expected(a: np.ndarray, b: np.ndarray | None, least: float) -> set[tuple[int, int]]:
    wide = [
        l2_normalize(x.astype(np.float32)).astype(np.float64) for x in (a, a if b is None else b)
    ]
    cosines = wide[0] @ wide[1].T
    near = cosines >= least
    assume(not (np.abs(cosines - least) < 1e-6).any())  # rounding would decide
    i, j = np.nonzero(np.triu(near, 1) if b is None else near)
    return set(zip(i.tolist(), j.tolist(), strict=True))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-0.5, 0.99), st.sampled_from([16, 64, 128]))
def test_none_is_missed_and_none_is_made_up(seed: int, least: float, dim: int) -> None:
    rows = clustered(seed, 90, dim)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "LEFT", 32)
        patch.setattr(module, "RIGHT", 40)
        found = close_pairs(side(rows, 30, 70), least)
        others = close_pairs(side(rows[:37]), least, side(rows[37:], 10))
    for pairs, wanted in (
        (found, expected(rows, None, least)), (others, expected(rows[:37], rows[37:], least)),
    ):  # fmt: skip
        places = list(zip(pairs.left.tolist(), pairs.right.tolist(), strict=True))
        assert set(places) == wanted and places == sorted(wanted)
    unit = l2_normalize(rows.astype(np.float32))
    products = np.vecdot(unit[found.left], unit[found.right])
    np.testing.assert_allclose(found.scores, products, atol=1e-6)


def test_only_the_rows_of_a_side_are_compared() -> None:
    rows = clustered(1, 40)
    some = np.array([3, 5, 23, 25, 39])
    found = close_pairs(Side(VectorStore(rows), some), 0.8)
    assert set(zip(some[found.left].tolist(), some[found.right].tolist(), strict=True)) == {
        (3, 23), (5, 25),
    }  # fmt: skip


def test_no_rows_and_no_pairs() -> None:
    rows = clustered(2, 40)
    assert len(close_pairs(side(rows[:0]), 0.5)) == len(close_pairs(side(rows[:1]), -1)) == 0
    assert len(close_pairs(side(rows), 1.5)) == 0


def test_too_many_pairs_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 100)
    with pytest.raises(DataError, match=r"More than 100 pairs have a cosine of at least -1\.000"):
        close_pairs(side(clustered(3, 40)), -1)


def test_random_cosines_are_those_of_pairs() -> None:
    rows = clustered(4, 50)
    unit = l2_normalize(rows.astype(np.float32))
    every = (unit @ unit.T)[np.triu_indices(50, 1)]
    np.testing.assert_allclose(random_cosines(side(rows), 2000), every, atol=1e-6)
    drawn = random_cosines(side(rows), 1000)
    assert len(drawn) == 1000 and (random_cosines(side(rows), 1000) == drawn).all()
    assert np.isin(drawn.round(3), every.round(3)).mean() > 0.99
    assert abs(drawn.mean() - every.mean()) < 4 * every.std() / 1000**0.5
