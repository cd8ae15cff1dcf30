"""Lists filled by matrix products and comparisons are those that FAISS fills row by row."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from mrl_search.engines import build
from mrl_search.engines.clustered import inverted_file, nearest_centroids
from mrl_search.engines.fill import ListFiller, find_levels
from mrl_search.engines.spec import IndexSpec
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import l2_normalize

ROWS, DIM = 5_000, 48
KINDS = [
    "RR33,IVF64,PQ33x4fsr",
    "IVF64,PQ32x4fsr",
    "RR32,IVF64,PQ32x4fsr",
    "IVF64,SQ8",
    "IVF9,Flat",
]


@pytest.fixture(scope="module")
def store() -> VectorStore:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((ROWS, DIM), dtype=np.float32) / np.arange(1, DIM + 1) ** 0.5
    return VectorStore(l2_normalize(rows).astype(np.float16))


def contents(file: faiss.IndexIVF) -> list[tuple[list[int], bytes]]:
    """The ids and the codes of each list."""
    lists = faiss.downcast_InvertedLists(file.invlists)
    found = []
    for i in range(file.nlist):
        size = lists.list_size(i)
        ids = faiss.rev_swig_ptr(lists.get_ids(i), size).tolist() if size else []
        width = file.code_size * size
        if isinstance(file, faiss.IndexIVFPQFastScan):
            width = -(-size // 32) * 32 * file.M2 // 2
        codes = faiss.rev_swig_ptr(lists.get_codes(i), width).tobytes() if size else b""
        found.append((ids, codes))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_lists_are_those_of_faiss(store: VectorStore, kind: str) -> None:
    dims = 33 if "33" in kind else 32
    index = build._trained(store, dims, kind)
    assert ListFiller.fits(index)
    filler, rows = ListFiller(index, ROWS), store.prefix(dims)
    theirs = faiss.clone_index(index)  # code levels are in order by now
    for start in range(0, ROWS, 700):
        part = slice(start, min(start + 700, ROWS))
        filler.take(part, rows[part])
    filler.finish()
    theirs.add(rows)
    assert index.ntotal == ROWS
    ours, own = contents(inverted_file(index)), contents(inverted_file(theirs))
    same = [a == b for a, b in zip(ours, own, strict=True)]
    assert np.mean(same) > 0.9  # a row may be as near to two centroids or levels
    assert sorted(i for ids, _ in ours for i in ids) == list(range(ROWS))
    np.testing.assert_array_equal(index.search(rows[:50], 5)[1], theirs.search(rows[:50], 5)[1])


@pytest.mark.parametrize("kind", ["Flat", "HNSW8", "IVF64_HNSW8,SQ8", "IVF64,PQ16x4fs"])
def test_other_kinds_are_left_to_faiss(store: VectorStore, kind: str) -> None:
    assert not ListFiller.fits(build._trained(store, 32, kind))


def test_levels_are_those_of_k_means() -> None:
    rng = np.random.default_rng(0)
    means = np.linspace(-8, 7, 16)
    clear = (means + rng.normal(0, 0.01, (256, 16))).ravel().astype(np.float32)
    found = find_levels(np.stack([clear, 2 * clear, np.zeros_like(clear)], axis=1))
    np.testing.assert_allclose(found[:, 0], means, atol=0.01)
    np.testing.assert_allclose(found[:, 1], 2 * means, atol=0.02)
    assert not found[:, 2].any()
    x = rng.standard_normal((4096, 1), dtype=np.float32)
    ours = np.abs(x - find_levels(x).T).min(axis=1)
    theirs = faiss.Kmeans(1, 16, niter=25, seed=1, max_points_per_centroid=4096)
    theirs.train(x)
    assert np.mean(ours**2) < 1.02 * np.mean(np.abs(x - theirs.centroids.T).min(axis=1) ** 2)


def test_the_nearest_centroid_is_that_of_all_products() -> None:
    rng = np.random.default_rng(0)
    x, centroids = (l2_normalize(rng.standard_normal((n, 24))) for n in (1000, 70))
    wanted = (x.astype(np.float64) @ centroids.astype(np.float64).T).argmax(axis=1)
    assert nearest_centroids(x, centroids).tolist() == wanted.tolist()
    assert nearest_centroids(x[:0], centroids).shape == (0,)


def test_threads_fill_the_same_index(
    store: VectorStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(rows: slice, unit: np.ndarray) -> None:
        np.testing.assert_array_equal(unit, l2_normalize(store.rows(rows)))

    spec, files = IndexSpec((32, 48), factory="RR32,IVF64,PQ32x4fsr", factories={"48": "Flat"}), []
    for threads in (1, 3):
        monkeypatch.setattr("mrl_search.engines.kernels.thread_count", lambda n=threads: n)
        (folder := tmp_path / str(threads)).mkdir()
        build.build_indexes(folder, store, spec, [check])
        files.append((folder / "prefix-0032.faiss").read_bytes())
    assert files[0] == files[1]
