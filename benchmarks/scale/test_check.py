"""The fit finds the constants that made the times, and the tables are those of the records."""

import pytest
from check import HERE, fit, needs, records, table, written

from mrl_search import capacity
from mrl_search.capacity import query_us


def test_the_fit_finds_the_constants() -> None:
    made = [
        {**r, "p50_ms": query_us((r["first"], r["dim"]), r["n"], r["codes"], r["shortlist"]) / 1000}
        for r in records()
    ]
    for name, value in fit(made).items():
        assert value == pytest.approx(getattr(capacity, name), rel=1e-6), name


def test_the_constants_are_those_of_the_records() -> None:
    for name, value in fit(records()).items():
        assert getattr(capacity, name) == pytest.approx(value, rel=0.01), name


def test_the_tables_are_up_to_date() -> None:
    text = (HERE / "README.md").read_text()
    assert written(text, "measured", table(records())) == text
    assert written(text, "needs", needs()) == text
