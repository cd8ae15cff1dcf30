"""Filters: what a condition means, and that no kind of index leaks a row or loses one."""

import operator
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from conftest import energy_first, made_of
from hypothesis import given
from hypothesis import strategies as st

from mrl_search.engines.base import Mask
from mrl_search.engines.scan import scan
from mrl_search.errors import ConfigError, DataError, FileError
from mrl_search.index import Index
from mrl_search.search.cascade import Cascade
from mrl_search.search.classify import Ballot, classify_adaptive
from mrl_search.search.explain import explain
from mrl_search.search.filters import _in_period, mask_of, read_ids
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.store.items import ITEMS_SCHEMA, Items, write_items
from mrl_search.vectors import prefix

KINDS = ("Flat", "SQ8", "SQfp16", "IVF8,Flat", "HNSW16", "PQ8x4fs", "PQ8x4np")


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[pa.Table], Items]:
    """Writes items and opens them."""

    def write(table: pa.Table) -> Items:
        write_items(tmp_path, table)
        return Items(tmp_path / "items.parquet")

    return write


def rows_of(items: Items, where: list[str]) -> list[int]:
    mask = mask_of(items, where)
    assert mask is not None and len(mask) == items.num_rows and mask.count == len(mask.ids)
    return mask.ids.tolist()


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
def test_conditions(
    opened: Callable[[pa.Table], Items], where: list[str], wanted: list[int]
) -> None:
    raw = np.eye(5, 8, dtype=np.float32) * np.arange(1, 6, dtype=np.float32)[:, None]
    items = made_of(raw, ["bird", "cat", "dog", "bird", "cat"]).items
    assert rows_of(opened(items), where) == wanted


def test_an_unknown_value_meets_no_condition(opened: Callable[[pa.Table], Items]) -> None:
    items = made_of(np.eye(3, 8, dtype=np.float32), [None, "cat", None]).items
    table = opened(items)
    for where in ("label=cat", "label!=dog"):
        assert rows_of(table, [where]) == [1]


def test_nan_meets_no_condition(opened: Callable[[pa.Table], Items]) -> None:
    items = made_of(np.eye(3, 8, dtype=np.float32), [None] * 3).items
    items = items.append_column("price", pa.array([1.0, float("nan"), 2.0]))
    assert rows_of(opened(items), ["price!=1"]) == [2]


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


@pytest.fixture
def typed(opened: Callable[[pa.Table], Items]) -> Items:
    items = made_of(np.eye(3, 8, dtype=np.float32), [None] * 3).items
    for name, values in COLUMNS.items():
        items = items.append_column(name, values)
    return opened(items)


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
        ("date>2024-01-02", [2]),
        ("zoned=2024-01-02", [1]),
        ("zoned=2024-01-02T01:00:00", [1]),
    ],
)
def test_columns_of_every_type(typed: Items, where: str, wanted: list[int]) -> None:
    assert rows_of(typed, [where]) == wanted


@pytest.mark.parametrize(
    "where", ["small=1.5", "list=1", "zoned=noon", "half=x", "moment=2024-13", "date<2024-02-30"]
)
def test_values_that_a_column_cannot_be_compared_with(typed: Items, where: str) -> None:
    with pytest.raises(ConfigError, match=r": column '.*' is .*; '.*' is not\.") as error:
        mask_of(typed, [where])
    assert error.value.hint.startswith("Compare text, numbers, ")


SIGNS = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le,
    ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
ZONES = (None, "UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana")
NEAR = [  # times around the ends of months and years, and days that begin at one o'clock
    datetime(2023, 12, 31, 23, 59, 59, 999_999), datetime(2024, 1, 1), datetime(2024, 2, 29, 12),
    datetime(2024, 3, 1), datetime(2018, 11, 4, 1), datetime(2018, 11, 3, 23, 59, 59),
    datetime(1969, 12, 31, 23, 59, 59, 500_000), datetime(2024, 3, 10, 0, 30),
]  # fmt: skip
TIMES = st.sampled_from(NEAR) | st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1))


@given(
    times=st.lists(TIMES | st.none(), min_size=1, max_size=8),
    around=TIMES,
    length=st.integers(1, 3),
    sign=st.sampled_from(sorted(SIGNS)),
    unit=st.sampled_from(["s", "ms", "us", "ns"]),
    zone=st.sampled_from(ZONES),
)
def test_a_year_a_month_and_a_day_are_compared_by_the_calendar(
    times: list[datetime | None], around: datetime, length: int, sign: str, unit: str,
    zone: str | None,
) -> None:  # fmt: skip
    """As if year, month and day of each time, as far as they are named, were compared."""
    column = pa.chunked_array([pa.array(times, pa.timestamp("us")).cast(unit_of(unit), safe=False)])
    if zone:
        early = {"ambiguous": "earliest", "nonexistent": "earliest"}
        column = pc.assume_timezone(column, zone, **early)
    kept = [value and (value.year, value.month, value.day)[:length] for value in local(column)]
    wanted = (around.year, around.month, around.day)[:length]
    text = "-".join(f"{part:02}" for part in wanted)
    met = _in_period(column, sign, text).to_pylist()
    assert met == [None if key is None else SIGNS[sign](key, wanted) for key in kept]


def unit_of(unit: str) -> pa.DataType:
    return pa.timestamp(unit)


def local(column: pa.ChunkedArray) -> list[datetime | None]:
    """The times that clocks show, in microseconds."""
    shown = pc.local_timestamp(column) if column.type.tz else column
    return shown.cast(pa.timestamp("us"), safe=False).to_pylist()


def test_periods_beyond_what_a_column_holds(opened: Callable[[pa.Table], Items]) -> None:
    items = made_of(np.eye(2, 8, dtype=np.float32), [None] * 2).items
    values = pa.array([datetime(2024, 1, 1), datetime(1700, 1, 1)], pa.timestamp("ns", tz="UTC"))
    table = opened(items.append_column("modified", values))
    for where in ("modified<9999", "modified>0001", "modified<=9999-12", "modified!=9999-12-31"):
        assert rows_of(table, [where]) == [0, 1]


def test_ids_and_conditions_both_count(opened: Callable[[pa.Table], Items]) -> None:
    items = made_of(np.eye(4, 8, dtype=np.float32), ["cat", "dog", "cat", None]).items
    table = opened(items)
    assert mask_of(table) is None
    mask = mask_of(table, ["label=cat"], np.array([3, 2, 2, 1]))
    assert mask is not None
    assert mask.ids.tolist() == [2]
    assert np.unpackbits(mask.bits, bitorder="little")[:4].tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("label", "'label' is not a condition"),
        ("=cat", "'=cat' is not a condition"),
        (" " * 100_000, "is not a condition"),  # at once
        ("colour=red", "Items have no column 'colour'"),
        ("width=wide", "column 'width' is int32; 'wide' is not"),
    ],
)
def test_conditions_that_make_no_sense(small_index: Index, where: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        mask_of(small_index.items, [where])


def test_a_filter_that_allows_nothing(small_index: Index) -> None:
    with pytest.raises(DataError, match="No item of this index meets label=cow and width>200"):
        mask_of(small_index.items, ["label=cow", "width>200"])
    with pytest.raises(DataError, match=r"There is no item 500\."):
        mask_of(small_index.items, ids=np.array([3, 500]))


def test_reading_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("3\n1\n\n2\n")
    assert read_ids(tmp_path / "ids.txt").tolist() == [3, 1, 2]
    np.save(tmp_path / "ids.npy", np.array([5, 4], dtype=np.int32))
    assert read_ids(tmp_path / "ids.npy").tolist() == [5, 4]
    np.save(tmp_path / "floats.npy", np.zeros(3))
    (tmp_path / "words.txt").write_text("cat")
    (tmp_path / "broken.npy").write_bytes(b"no")
    for name in ("floats.npy", "words.txt", "broken.npy"):
        with pytest.raises(DataError, match=name) as error:
            read_ids(tmp_path / name)
        assert error.value.hint
    with pytest.raises(FileError, match=r"missing.txt cannot be read: there is no such file"):
        read_ids(tmp_path / "missing.txt")


@pytest.mark.parametrize("factory", KINDS)
@pytest.mark.parametrize("share", [0.5, 0.1, 0.01, 1e-3])
def test_no_kind_leaks_or_loses(
    make_index: Callable[..., Index], factory: str, share: float
) -> None:
    """Down to one vector in a thousand, exact kinds and short lists give the true answers."""
    rng = np.random.default_rng(0)
    raw = energy_first(rng, 3000, 16)
    raw[1500:2000] = raw[:500]  # ties, on both sides of any filter
    corpus = make_index(made_of(raw, [None] * 3000), dims=(8, 16), factory=factory).corpus
    chosen = np.sort(rng.choice(3000, round(share * 3000), replace=False))
    mask = Mask(np.isin(np.arange(3000), chosen))
    queries = np.concatenate([energy_first(rng, 5, 16), raw[chosen[:3]], raw[:3]])
    k = min(10, len(chosen))
    for dims in (8, 16):
        index = corpus.prefix_index(dims)
        hits = search(corpus, queries, Plan.single(dims), 10, mask)
        assert hits.ids.shape == (len(queries), k)
        assert mask.allowed[hits.ids[hits.ids >= 0]].all()
        true = scan(corpus.vectors, prefix(queries, dims), k, mask.ids)[1]
        if index.exact or not index.filters or share < 0.01:
            np.testing.assert_array_equal(hits.ids, true)
    exact = search(corpus, queries, Plan.EXACT, 10, mask).ids
    np.testing.assert_array_equal(exact, scan(corpus.vectors, prefix(queries, 16), k, chosen)[1])


@pytest.mark.parametrize("count", [1, 6, 120, 400])
def test_every_way_to_search_keeps_to_the_filter(
    small_index: Index, queries: np.ndarray, count: int
) -> None:
    corpus = small_index.corpus
    chosen = np.sort(np.random.default_rng(1).choice(500, count, replace=False))
    mask = Mask(np.isin(np.arange(500), chosen))
    true = search(corpus, queries, Plan.EXACT, 5, mask)
    everything = search(corpus, queries, Plan.EXACT, 500).ids.tolist()
    wanted = [[i for i in row if mask.allowed[i]][:5] for row in everything]
    assert true.ids.tolist() == wanted
    deep = search(corpus, queries, Plan.parse("8:400,16:400,64"), 5, mask)
    np.testing.assert_array_equal(deep.ids, true.ids)
    cascade = Cascade((8, 16, 64), (0.9, 0.9, 0.0))
    plan = Plan.parse("8:60,16:60,64")
    votes = classify_adaptive(corpus, queries, plan, cascade, Ballot(5), mask)
    known = set(corpus.collection.labels[chosen])
    assert {label for v in votes for label in v.shares} <= known
    ranks = explain(corpus, queries, true.ids, mask).ranks
    assert ranks[:, :, -1].tolist() == [list(range(1, min(5, count) + 1))] * len(queries)
    assert ranks.max() <= count


def test_a_star_stands_for_any_text(opened: Callable[[pa.Table], Items]) -> None:
    names = ["old/a.jpg", "new/old/b.png", "new/c.jpg", "o*d", None, "x\ny.jpg"]
    table = {f.name: pa.nulls(len(names), f.type) for f in ITEMS_SCHEMA}
    items = opened(pa.table({**table, "id": range(len(names)), "path": names}))
    for condition, rows in {
        "path=old*": [0], "path=*old*": [0, 1], "path=*.jpg": [0, 2, 5], "path!=*.jpg": [1, 3],
        "path=new/*.png": [1], "path==x*y.jpg": [5], "path=o*d": [3], "path=*": [0, 1, 2, 3, 5],
    }.items():  # fmt: skip
        assert rows_of(items, [condition]) == rows, condition
    with pytest.raises(DataError, match="No item"):
        mask_of(items, ["path=new.c*"])
