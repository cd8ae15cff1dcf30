"""Slicing and normalising, the one scoring rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrl_search.errors import ConfigError, DataError
from mrl_search.vectors import check_dims, l2_normalize, nearest, prefix, rows_of

ROWS = arrays(
    np.float32,
    (5, 12),
    elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


def test_normalised_rows_by_hand() -> None:
    x = l2_normalize(np.array([[3, 4], [0, 0], [-2, 0]], dtype=np.float16))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)


@pytest.mark.parametrize("length", [1e-44, 1e-30, 1e25, 1e38])
def test_rows_of_any_length_become_unit_length(length: float) -> None:
    x = np.array([[length, -length, 0], [3, 0, 4], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(
        l2_normalize(x), [[0.5**0.5, -(0.5**0.5), 0], [0.6, 0, 0.8], [0, 0, 0]], rtol=1e-6
    )


def test_a_prefix_is_of_unit_length_again() -> None:
    x = prefix(np.array([[3, 4, 12]], dtype=np.float32), 2)
    np.testing.assert_allclose(x, [[0.6, 0.8]], rtol=1e-6)
    assert x.flags.c_contiguous


@settings(max_examples=40, deadline=None)
@given(ROWS, st.integers(1, 12), st.integers(1, 12))
def test_prefixes_nest(x: np.ndarray, a: int, b: int) -> None:
    short, long = sorted((a, b))
    np.testing.assert_allclose(prefix(prefix(x, long), short), prefix(x, short), atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(ROWS, st.integers(1, 12))
def test_a_row_does_not_depend_on_its_batch(x: np.ndarray, dims: int) -> None:
    np.testing.assert_array_equal(
        prefix(x, dims), np.concatenate([prefix(row[None], dims) for row in x])
    )


@pytest.mark.parametrize("dims", [0, -1, 4])
def test_no_such_prefix(dims: int) -> None:
    with pytest.raises(
        ConfigError, match=f"A prefix of {dims} dims cannot be taken from vectors of 3."
    ):
        prefix(np.ones((2, 3), dtype=np.float32), dims)


def test_rows_of_gives_float32_rows() -> None:
    assert rows_of(np.arange(3)).shape == (1, 3)
    x = rows_of(np.ones((4, 6), dtype=np.float64)[:, ::2], dim=3)
    assert x.dtype == np.float32
    assert x.flags.c_contiguous


@pytest.mark.parametrize(
    ("x", "dim", "message"),
    [
        (
            np.ones((2, 2, 2)),
            None,
            "Vectors must be an .n, dim. array of numbers, not float64 of shape .2, 2, 2..",
        ),
        (np.array([["a"]]), None, "array of numbers"),
        (np.ones((2, 3)), 4, "These vectors have 3 dims; the index has 4."),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), None, "Row 1 of the vectors is not finite."),
        (np.array([[np.inf, 1.0]]), 2, "Row 0 of the vectors is not finite."),
    ],
)
def test_unusable_rows(x: np.ndarray, dim: int | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(x, dim)


def test_dims_are_put_in_order() -> None:
    assert check_dims([64, 8, 16], full=64) == (8, 16, 64)
    assert nearest((8, 64, 1024), 128) == 64
    assert nearest((8, 24), 16) == 8


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ([], "distinct positive"),
        ([8, 8], "distinct"),
        ([0, 8], "positive"),
        ([8, 65], "no prefix of 65"),
    ],
)
def test_unusable_dims(dims: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_dims(dims, full=64)
