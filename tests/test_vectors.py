"""Slicing and normalising, the one scoring rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mrl_search.errors import ConfigError, DataError
from mrl_search.vectors import (
    blocks,
    check_dims,
    default_dims,
    l2_normalize,
    nearest,
    prefix,
    query_rows,
    rows_of,
    sample,
    suffix_norms,
    unit_rows,
)  # fmt: skip

ROWS = arrays(
    np.float32,
    (5, 12),
    elements=st.floats(-100, 100, width=32).filter(lambda x: x == 0 or abs(x) > 1e-3),
)


def test_normalised_rows_by_hand() -> None:
    x = l2_normalize(np.array([[3, 4], [0, 0], [-2, 0]], dtype=np.float16))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[0.6, 0.8], [0, 0], [-1, 0]], rtol=1e-6)


@pytest.mark.parametrize("norm", [1e-44, 1e-30, 1e25, 1e38])
def test_rows_of_any_norm_become_unit_rows(norm: float) -> None:
    x = np.array([[norm, -norm, 0], [3, 0, 4], [0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(
        l2_normalize(x), [[0.5**0.5, -(0.5**0.5), 0], [0.6, 0, 0.8], [0, 0, 0]], rtol=1e-6
    )


def test_a_prefix_has_unit_norm_again() -> None:
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
    with pytest.raises(ConfigError, match=f"Vectors of 3 dims have no prefix of {dims}."):
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
            "Vectors must be an .n, dim. array of numbers, not float64 .2, 2, 2..",
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


def test_a_query_has_a_direction() -> None:
    assert query_rows(np.array([1, 2]), 2).tolist() == [[1, 2]]
    with pytest.raises(DataError, match=r"Row 1 of the queries is all zeros"):
        query_rows(np.array([[1.0, 0], [0, 0]]), 2)


@pytest.mark.parametrize(
    ("dim", "dims"),
    [(5, (5,)), (8, (8,)), (24, (8, 16, 24)), (768, (8, 16, 32, 64, 128, 256, 512, 768))],
)
def test_default_dims(dim: int, dims: tuple[int, ...]) -> None:
    assert default_dims(dim) == dims


def test_norms_of_tails_by_hand() -> None:
    x = np.array([[3, 0, 4, 0], [5, 0, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(suffix_norms(x, (1, 2, 3, 4)), [[0.8, 0], [0.8, 0], [0, 0], [0, 0]])
    assert suffix_norms(x, ()).shape == (0, 2)


def test_samples_are_seeded_ascending_and_without_repeats() -> None:
    chosen = sample(1000, 50)
    assert len(set(chosen.tolist())) == 50 and (np.diff(chosen) > 0).all()
    np.testing.assert_array_equal(chosen, sample(1000, 50))
    assert not np.array_equal(chosen, sample(1000, 50, seed=1))
    assert sample(5, 50).tolist() == [0, 1, 2, 3, 4]


@given(st.integers(0, 500), st.integers(0, 50), st.integers(1, 400))
def test_blocks_cover_everything_once(count: int, width: int, size: int) -> None:
    slices = list(blocks(count, width, size))
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(count))
    assert all((s.stop - s.start) * width <= max(size, width) for s in slices)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rows_of_unit_norm_stay_as_they_are_bit_for_bit(dtype: str) -> None:
    x = np.random.default_rng(0).standard_normal((50, 300))
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(dtype)
    kept, norms = unit_rows(unit)
    np.testing.assert_array_equal(kept.astype(dtype), unit)
    np.testing.assert_allclose(norms, 1, atol=4 * np.finfo(dtype).eps)
    halved, norms = unit_rows(unit / 2)
    np.testing.assert_allclose(np.linalg.norm(halved, axis=1), 1, atol=1e-15)
    np.testing.assert_allclose(norms, 0.5, atol=2 * np.finfo(dtype).eps)
