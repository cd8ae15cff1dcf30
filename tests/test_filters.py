"""Filters: what a condition means, and that no kind of index leaks a row or loses one."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import energy_first, made_of

from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.search import allowed_rows, certify, exact, exact_pruned, search_adaptive
from mrl_search.search.explain import explain
from mrl_search.search.filters import read_ids
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.store.rows import EmbeddingSet

KINDS = ("Flat", "SQ8", "SQfp16", "IVF8,Flat", "HNSW16", "PQ8x4fs")


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        (["label=cat"], [1, 4]),
        (["label == cat"], [1, 4]),
        (["label!=cat"], [0, 2, 3]),
        (["norm>2"], [2, 3, 4]),
        (["norm >= 2"], [1, 2, 3, 4]),
        (["norm<2"], [0]),
        (["norm<=2", "label=cat"], [1]),
        (["id>2"], [3, 4]),
        (["path=pictures/3.jpg"], [3]),
        (["width=320"], [0, 1, 2, 3, 4]),
    ],
)
def test_conditions(where: list[str], wanted: list[int]) -> None:
    raw = np.eye(5, 8, dtype=np.float32) * np.arange(1, 6, dtype=np.float32)[:, None]
    items = made_of(raw, ["bird", "cat", "dog", "bird", "cat"]).items
    rows = allowed_rows(items, where)
    assert rows is not None
    assert rows.tolist() == wanted


def test_what_is_not_known_meets_no_condition() -> None:
    items = made_of(np.eye(3, 8, dtype=np.float32), [None, "cat", None]).items
    for where in ("label=cat", "label!=dog"):
        rows = allowed_rows(items, [where])
        assert rows is not None
        assert rows.tolist() == [1]


def test_a_number_that_is_none_meets_no_condition() -> None:
    items = made_of(np.eye(3, 8, dtype=np.float32), [None] * 3).items
    items = items.append_column("price", pa.array([1.0, float("nan"), 2.0]))
    rows = allowed_rows(items, ["price!=1"])
    assert rows is not None
    assert rows.tolist() == [2]


COLUMNS = {
    "half": pa.array(np.array([0.1, 2, 70], np.float16)),
    "small": pa.array([1, 2, 255], pa.uint8()),
    "large": pa.array([1, 2, 2**64 - 1], pa.uint64()),
    "zoned": pa.array(
        [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)],
        pa.timestamp("us", tz="Europe/Berlin"),
    ),
    "moment": pa.array([datetime(2024, 1, day) for day in (1, 2, 3)], pa.timestamp("us")),
    "date": pa.array([date(2024, 1, day) for day in (1, 2, 3)]),
    "list": pa.array([[1], [2], [3]]),
}


@pytest.mark.parametrize(
    ("where", "wanted"),
    [
        ("half=0.1", [0]),
        ("half<70000", [0, 1, 2]),
        ("small<300", [0, 1, 2]),
        ("small>=-1", [0, 1, 2]),
        ("small=255", [2]),
        ("large>2", [2]),
        ("large<99999999999999999999", [0, 1, 2]),
        ("zoned<2024-01-02", [0]),  # there the day begins an hour earlier
        ("zoned<=2024-01-02T01:00:00", [0, 1]),
        ("zoned>=2024-01-02T00:00:00Z", [1, 2]),
        ("zoned>2024-01-01 23:00:00-01:00", [2]),
        ("moment>2024-01-01T12:00:00", [1, 2]),
        ("date=2024-01-03", [2]),
    ],
)
def test_columns_of_every_type(where: str, wanted: list[int]) -> None:
    rows = allowed_rows(pa.table(COLUMNS), [where])
    assert rows is not None
    assert rows.tolist() == wanted


@pytest.mark.parametrize("where", ["small=1.5", "list=1", "zoned=noon", "half=x"])
def test_what_a_column_cannot_be_compared_with(where: str) -> None:
    with pytest.raises(ConfigError, match="cannot be compared with the column") as error:
        allowed_rows(pa.table(COLUMNS), [where])
    assert error.value.hint.startswith("What can be compared: ")


def test_ids_and_conditions_both_count() -> None:
    items = made_of(np.eye(4, 8, dtype=np.float32), ["cat", "dog", "cat", None]).items
    assert allowed_rows(items) is None
    rows = allowed_rows(items, ["label=cat"], np.array([3, 2, 2, 1]))
    assert rows is not None
    assert rows.tolist() == [2]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("label", "'label' is not a condition"),
        ("=cat", "'=cat' is not a condition"),
        ("colour=red", "Items have no column 'colour'"),
        ("width=wide", "'wide' cannot be compared with the column 'width', which holds int32"),
    ],
)
def test_conditions_that_make_no_sense(small_set: EmbeddingSet, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        allowed_rows(small_set.items, [where])


def test_a_filter_that_allows_nothing(small_set: EmbeddingSet) -> None:
    with pytest.raises(DataError, match="No item of this index meets label=cow and width>200"):
        allowed_rows(small_set.items, ["label=cow", "width>200"])
    with pytest.raises(DataError, match="There is no item 500 in this index of 500"):
        allowed_rows(small_set.items, ids=np.array([3, 500]))


def test_reading_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("3\n1\n\n2\n")
    assert read_ids(tmp_path / "ids.txt").tolist() == [3, 1, 2]
    np.save(tmp_path / "ids.npy", np.array([5, 4], dtype=np.int32))
    assert read_ids(tmp_path / "ids.npy").tolist() == [5, 4]
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "words.txt").write_text("cat")
    (tmp_path / "broken.npy").write_bytes(b"no")
    for name in ("floats.npy", "words.txt", "broken.npy", "missing.txt"):
        with pytest.raises(DataError, match=name) as error:
            read_ids(tmp_path / name)
        assert error.value.hint


@pytest.mark.parametrize("factory", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 1e-4])
def test_no_kind_leaks_or_loses(
    make_index: Callable[..., Index], factory: str, share: float
) -> None:
    """From every second vector down to one in ten thousand, on each kind: the answers are those of the allowed rows alone."""
    rng = np.random.default_rng(0)
    raw = energy_first(rng, 10_000, 16)
    raw[5000:6000] = raw[:1000]  # ties, on both sides of any filter
    index = make_index(made_of(raw, [None] * 10_000), dims=(8, 16), factory=factory)
    allowed = np.sort(rng.choice(10_000, round(share * 10_000), replace=False))
    queries = np.concatenate([energy_first(rng, 5, 16), raw[allowed[:3]], raw[:3]])
    k = min(10, len(allowed))
    for dims in (8, 16):
        hits, true = (
            search(index, queries, Plan.single(dims, 10), allowed),
            exact(index, queries, 10, dims, allowed),
        )
        assert hits.ids.shape == (len(queries), k)
        np.testing.assert_array_equal(hits.ids, true.ids)
    both = search(index, queries, Plan.parse("8:10000,16:10", 10), allowed)
    np.testing.assert_array_equal(both.ids, exact(index, queries, 10, allowed=allowed).ids)


def test_exact_search_among_some_rows_is_brute_force_among_them(
    small_index: Index, queries: np.ndarray
) -> None:
    allowed = np.arange(0, 500, 7)
    true = exact(small_index, queries, 500)
    wanted = [[i for i in row if i in set(allowed.tolist())][:10] for row in true.ids.tolist()]
    assert exact(small_index, queries, 10, allowed=allowed).ids.tolist() == wanted
    assert exact_pruned(small_index, queries, 10, allowed).ids.tolist() == wanted


@pytest.mark.parametrize("count", [1, 6, 120, 400])
def test_every_way_to_search_keeps_to_the_filter(
    small_index: Index, queries: np.ndarray, count: int
) -> None:
    allowed = np.sort(np.random.default_rng(1).choice(500, count, replace=False))
    plan = Plan.parse("8:400,16:400,64:5", 5)
    true = exact(small_index, queries, 5, allowed=allowed)
    hits = certify(small_index, queries, plan, allowed)
    np.testing.assert_array_equal(hits.ids, true.ids)
    assert hits.proven is not None
    assert hits.proven.all()
    early = search_adaptive(small_index, queries, plan, 5, allowed)
    assert np.isin(early.ids, allowed).all()
    ranks = explain(small_index, queries, true.ids, allowed).ranks
    assert ranks[:, :, -1].tolist() == [list(range(1, min(5, count) + 1))] * len(queries)
    assert ranks.max() <= count
