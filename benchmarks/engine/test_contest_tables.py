"""The headline compares with whoever is fastest at the same recall."""

import pytest
import table
from contest_tables import contest_page, headline
from goals import goals_table

from mrl_search.errors import DataError


def record(name: str, target: float | None, p50: float, recall: float, batch: float = 1000) -> dict:
    return {
        "contestant": name, "target": target, "setting": {"ef": 7} if target else {}, "p50_ms": p50,
        "p99_ms": 2 * p50, "recall": recall, "recall_low": recall - 0.002,
        "recall_high": recall + 0.002, "batch_per_s_1_thread": batch,
        "batch_per_s_all_threads": 2 * batch, "n": 100, "vectors": "easy", "rounds": 5,
        "timings": 1000, "build_s": 3.0, "build_cores": 2, "effort": "none",
        "versions": {"numpy": "2"}, "cores": 1, "simd": ["avx2"], "tune_s": 7,
        "coarse_bytes": 100, "rows_bytes": 200, "mapped_bytes": 300,
        "rss_bytes": 1e6, "open_cold_s": 1.0, "first_query_ms": 5.0, "cold_p50_ms": 1.0,
        "cold_p99_ms": 2.0, "environment": {"cpu": "x", "cores": 2, "commit": "abc"},
    }  # fmt: skip


CONTEST = [
    record("mrl-search tuned", 0.99, 0.5, 0.991),
    record("mrl-search swept", 0.99, 0.4, 0.99),
    record("mrl-search exact", None, 5, 1.0),
    record("IndexFlatIP", None, 50, 1.0),
    record("wrong but fast", 0.99, 0.1, 0.985),
    record("peer", 0.99, 0.4, 0.99, batch=4000),
    record("slow peer", 0.99, 0.8, 0.999),
]


def test_the_fastest_peer_that_reaches_the_target_counts() -> None:
    said = headline(CONTEST, 0.99)
    assert "10.00x as fast as the fastest exact search (mrl-search exact, 5.000 ms)" in said
    assert "0.80x as fast as the fastest peer (peer, 0.400 ms)" in said
    assert "0.25x the fastest peer (peer)" in said
    assert "misses" not in said


def test_fewer_queries_are_told() -> None:
    slow = {**record("IndexFlatIP", None, 50, 1.0), "timings": 240}
    page = contest_page([*CONTEST[:2], slow])
    assert "| IndexFlatIP (240 queries) | exact |" in page
    assert "mrl-search exact (" not in page


def test_a_plan_below_the_target_says_so() -> None:
    assert "misses" in headline([record("mrl-search tuned", 0.99, 0.5, 0.98)], 0.99)


def test_the_page_names_everybody() -> None:
    absent = {**record("gone", 0.99, 1, 1), "absent": "not installed: gone"}
    for key in ("p50_ms", "target"):
        del absent[key]
    missed = {**record("weak", 0.99, 1, 1), "setting": None, "reason": "reaches 0.9000"}
    del missed["p50_ms"]
    page = contest_page([*CONTEST, absent, missed])
    assert "gone (not installed: gone)" in page
    assert "weak (reaches 0.9000)" in page
    assert page.count("wrong but fast") == 2
    assert "misses" in page


def test_goals_are_told_with_what_was_measured() -> None:
    said = goals_table([CONTEST])
    assert "single query at 0.99 against peer | 1.30x | 2.00x | 0.80x | 1.00x | no |" in said
    assert "easy, 100: exact against IndexFlatIP | 1.00x | 1.50x | 10.00x |  | aim |" in said
    assert "batch of 256 against peer | 1.50x | 2.50x | 0.25x | 0.25x | no |" in said
    assert "bytes" not in said
    large = goals_table([[{**r, "n": 1_000_000} for r in CONTEST]])
    assert "at 0.99 against IndexFlatIP | 1,200x | 1,800x | 100x |  | no |" in large
    assert "RSS after 1,000 queries, MB | 1,000 | 500 | 1 |  | aim |" in large


def test_records_of_uncommitted_code_get_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(name: str) -> list[dict]:
        made = {**CONTEST[0], "kind": "contest", "run": "abc-dirty"}
        made["environment"] = {"cpu": "x", "cores": 2, "commit": "abc-dirty"}
        return [made] if name == "records.jsonl" else []

    monkeypatch.setattr(table, "read", read)
    with pytest.raises(DataError, match="uncommitted"):
        table.tables()
