"""The tables of README.md are those of the records; the last record of a kind counts."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

README = Path(__file__).parent / "README.md"


def test_the_readme_has_the_tables_of_the_records(load: Callable[[str], ModuleType]) -> None:
    module = load("table")
    told = README.read_text().partition(module.BEGIN)[2].partition(module.END)[0]
    assert told.strip() == module.tables().strip()


def test_the_last_record_counts_and_what_is_missing_is_a_dash(
    load: Callable[[str], ModuleType],
) -> None:
    module = load("table")
    head = {"part": "times", "clients": 1, "index": "mine", "items": 2000, "plan": "8:9,64"}
    library = {**head, "what": "library", "p50_ms": 0.5, "beside": ["vector"]}
    told = module.times([
        {**head, "what": "vector", "p50_ms": 7.0, "over_library_ms": 6.5}, library,
        {**library, "p50_ms": 9.0, "beside": ["bare FAISS"]},
        {**head, "what": "vector", "p50_ms": 1.0, "over_library_ms": 0.5},
    ])  # fmt: skip
    assert "2,000 mine, 8:9,64: p50 ms" in told and "| the library | 0.500 | – |" in told
    assert "| by vector, as numbers | 1.00 | 0.500 |" in told
    assert "| by picture | – | – |" in told
