"""Vector stores: parts as one, prefixes, and few pages of large files in memory."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first, made_of

from mrl_search.engines import kernels
from mrl_search.engines.base import Mask
from mrl_search.engines.scan import ScanIndex
from mrl_search.errors import ConfigError
from mrl_search.index import Index
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.search.scoring import pair_scores
from mrl_search.store import rows as module
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import l2_normalize, prefix


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
    monkeypatch.setattr(module, "KEPT", 1000)

    def resident_after_all() -> int:
        rows = np.load(path, mmap_mode="r")
        mapped = VectorStore(rows)
        assert (
            sum(int(rows[some].sum(dtype=np.int64)) for some in mapped.in_turn(len(rows), 1))
            == rows.size
        )
        return _resident(path)

    assert resident_after_all() > 15_000_000  # a small file stays
    monkeypatch.setattr(module, "LARGE", 1000)
    assert resident_after_all() < 4_000_000


def test_turns_cover_all_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "rows.npy", np.ones((50, 4), np.float16))
    for large, expected in ((1 << 30, [slice(0, 7)]), (0, [slice(0, 3), slice(3, 6), slice(6, 7)])):
        monkeypatch.setattr(module, "LARGE", large)
        monkeypatch.setattr(module, "KEPT", 10)
        mapped = VectorStore(np.load(tmp_path / "rows.npy", mmap_mode="r"))
        assert list(mapped.in_turn(7, 3)) == expected
        assert list(mapped.in_turn(0, 3)) == [slice(0, 0)]
        assert [s.stop - s.start for s in mapped.in_turn(2, 1000)] == ([2] if large else [1, 1])
    assert list(VectorStore(np.ones((50, 4), np.float16)).in_turn(7, 3)) == [
        slice(0, 7)
    ]  # in memory


@pytest.mark.parametrize("engine", ["numpy", "compiled"])
def test_a_large_index_answers_as_a_small_one(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    if engine == "numpy":
        monkeypatch.setattr(kernels, "native", None)
    monkeypatch.setattr("mrl_search.building.CLUSTERED_FROM", 1000)  # with a sieve
    rows = energy_first(np.random.default_rng(0), 3000, 32)
    queries = energy_first(np.random.default_rng(1), 40, 32)
    folder = make_index(made_of(rows, [None] * len(rows)), dims=(8, 16, 32)).folder

    def answers() -> list[np.ndarray]:
        corpus = Index.open(folder).corpus
        assert corpus.sieve is not None
        return [
            search(corpus, queries, plan, 10).ids for plan in (Plan.parse("8:100,32"), Plan.EXACT)
        ]

    small = answers()
    monkeypatch.setattr(module, "LARGE", 0)
    monkeypatch.setattr(module, "KEPT", 300)
    monkeypatch.setattr("mrl_search.store.blocks.LARGE", 0)
    for a, b in zip(small, answers(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not hasattr(os, "pread"), reason="rows stay mapped")
def test_rows_of_a_large_file_are_read(
    make_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = energy_first(np.random.default_rng(0), 3000, 32)
    made = made_of(rows, [None] * len(rows))
    folder = make_index(made, dims=(8,), factory="IVF16,PQ8x4fsr").folder
    plan, zeros = Plan.parse("8:100,32"), np.zeros_like(rows)
    mapped = search(Index.open(folder).corpus, rows[::20], plan, 10)
    monkeypatch.setattr("mrl_search.store.blocks.LARGE", 0)
    corpus = Index.open(folder).corpus
    places = corpus.vectors.addresses()
    places[:, 0] = zeros.ctypes.data  # rows would be found here if they were taken as mapped
    monkeypatch.setattr(VectorStore, "addresses", lambda _: places)
    found = search(corpus, rows[::20], plan, 10)
    np.testing.assert_array_equal(found.ids, mapped.ids)
    np.testing.assert_array_equal(found.scores, mapped.scores)


@pytest.fixture
def array() -> np.ndarray:
    return l2_normalize(energy_first(np.random.default_rng(0), 500, 32)).astype(np.float16)


@pytest.fixture
def parts(array: np.ndarray) -> VectorStore:
    return VectorStore(array[:200], array[200:201], array[201:201], array[201:])


def test_several_parts_are_one_array(array: np.ndarray, parts: VectorStore) -> None:
    one = VectorStore(array)
    assert (len(parts), parts.dim, parts.dtype, parts.nbytes) == (500, 32, np.float16, 32_000)
    assert (len(one), one.dim, one.nbytes) == (500, 32, 32_000)
    some = np.array([499, 0, 200, 200, 201, 199])
    for ids in (slice(None), slice(190, 210), slice(10, 400, 7), some, some[:0]):
        for dims in (None, 8, 32):
            np.testing.assert_array_equal(parts.rows(ids, dims), one.rows(ids, dims))
        np.testing.assert_array_equal(parts.prefix(8, ids), one.prefix(8, ids))
    np.testing.assert_array_equal(one.part(some), array)
    with pytest.raises(ValueError, match="unpack"):
        parts.part(some)  # it has several


def test_chunks_are_all_rows_in_order(
    array: np.ndarray, parts: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 16 * 130)
    chunks = list(parts.chunks(16))
    assert [(rows.start, rows.stop) for rows, _ in chunks] == [
        (0, 130), (130, 260), (260, 390), (390, 500),
    ]  # fmt: skip
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in chunks]), array[:, :16])


def test_prefixes_of_all_of_a_range_and_of_some_rows(array: np.ndarray) -> None:
    store, full = VectorStore(array), array.astype(np.float32)
    np.testing.assert_allclose(store.prefix(8), l2_normalize(full[:, :8]), rtol=1e-6)
    np.testing.assert_array_equal(store.prefix(16, slice(3, 5)), store.prefix(16)[3:5])
    some = np.array([7, 7, 2])
    np.testing.assert_array_equal(store.prefix(16, some), store.prefix(16)[some])
    for dims in (0, 33):
        with pytest.raises(ConfigError, match=f"no prefix of {dims}"):
            store.prefix(dims)


def test_scores_and_scans_of_several_parts(array: np.ndarray, parts: VectorStore) -> None:
    rng = np.random.default_rng(1)
    queries, one = energy_first(rng, 20, 32), VectorStore(array)
    ids = rng.integers(-1, 500, (20, 30))
    for dims in (8, 32):
        np.testing.assert_array_equal(
            pair_scores(parts, queries, ids, dims), pair_scores(one, queries, ids, dims)
        )
        for n in (1, 20):
            for mask in (None, Mask(np.arange(500) % 3 == 0)):
                x = prefix(queries[:n], dims)
                found = [ScanIndex(s, dims).search(x, 7, mask=mask) for s in (parts, one)]
                np.testing.assert_array_equal(found[0][1], found[1][1])
                np.testing.assert_array_equal(found[0][0], found[1][0])
