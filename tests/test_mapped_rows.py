"""Large mapped files: the same answers, and few of their pages in memory."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import made_of, energy_first

from mrl_search.engines import Index
from mrl_search.search import exact, exact_pruned, kernels, search
from mrl_search.search.exact import pruned
from mrl_search.search.plan import Plan
from mrl_search.store import mapped_rows
from mrl_search.store.mapped_rows import MappedRows


def _resident(path: Path) -> int:
    """Bytes of a mapped file that this process has in memory."""
    lines = Path("/proc/self/smaps").read_text().splitlines()
    starts = [i for i, line in enumerate(lines) if line.endswith(str(path))]
    return sum(
        1024 * int(next(line for line in lines[i:] if line.startswith("Rss:")).split()[1])
        for i in starts
    )


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pages_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.npy"
    np.save(path, np.ones((20_000, 512), np.float16))
    monkeypatch.setattr(mapped_rows, "HELD", 1000)

    def resident_after_all() -> int:
        rows = np.load(path, mmap_mode="r")
        mapped = MappedRows(rows)
        assert (
            sum(int(rows[some].sum(dtype=np.int64)) for some in mapped.in_turn(len(rows), 1))
            == rows.size
        )
        return _resident(path)

    assert resident_after_all() > 15_000_000  # a small file stays
    monkeypatch.setattr(mapped_rows, "LARGE", 1000)
    assert resident_after_all() < 4_000_000


def test_turns_cover_all_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "rows.npy", np.ones((50, 4), np.float16))
    for large, expected in ((1 << 30, [slice(0, 7)]), (0, [slice(0, 3), slice(3, 6), slice(6, 7)])):
        monkeypatch.setattr(mapped_rows, "LARGE", large)
        monkeypatch.setattr(mapped_rows, "HELD", 10)
        mapped = MappedRows(np.load(tmp_path / "rows.npy", mmap_mode="r"))
        assert list(mapped.in_turn(7, 3)) == expected
        assert list(mapped.in_turn(0, 3)) == [slice(0, 0)]
        assert [s.stop - s.start for s in mapped.in_turn(2, 1000)] == ([2] if large else [1, 1])
    assert list(MappedRows(np.ones((50, 4), np.float16)).in_turn(7, 3)) == [
        slice(0, 7)
    ]  # in memory


@pytest.mark.parametrize("engine", ["numpy", "numba"])
def test_a_large_index_answers_as_a_small_one(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for module in (kernels, pruned):
        monkeypatch.setattr(module, "compiled", lambda products: engine == "numba")
    rows, queries = (
        energy_first(np.random.default_rng(0), 3000, 32),
        energy_first(np.random.default_rng(1), 40, 32),
    )
    folder = make_index(made_of(rows, [None] * len(rows)), dims=(8, 16, 32)).folder
    plan = Plan.parse("8:100,32:10", 10)

    def answers() -> list[np.ndarray]:
        index = Index.open(folder)
        return [
            f.ids
            for f in (
                search(index, queries, plan),
                exact(index, queries, 10),
                exact_pruned(index, queries, 10),
            )
        ]

    small = answers()
    monkeypatch.setattr(mapped_rows, "LARGE", 0)
    monkeypatch.setattr(mapped_rows, "HELD", 300)
    for a, b in zip(small, answers(), strict=True):
        np.testing.assert_array_equal(a, b)
