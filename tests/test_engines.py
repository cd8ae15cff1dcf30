"""Prefix indexes: building, loading, clusters and graphs. Their contract: test_engine_contract."""

import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from conftest import Rows, energy_first, made_of
from fakes import fail_writes

from mrl_search.engines import build, trial
from mrl_search.engines.base import Mask, PrefixIndex
from mrl_search.engines.build import build_indexes, load_index
from mrl_search.engines.clustered import ClusteredIndex, allot, find_centroids
from mrl_search.engines.spec import IndexSpec
from mrl_search.engines.trial import check_kinds
from mrl_search.errors import ConfigError, FileError, IndexFolderError
from mrl_search.index import Index
from mrl_search.metrics import recall_at_k
from mrl_search.store.collection import Collection
from mrl_search.store.intact import verify, write_manifest
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import default_dims, l2_normalize, prefix

DIMS = 16


# Building


def built(folder: Path, rows: np.ndarray, factory: str) -> PrefixIndex:
    made_of(rows, [None] * len(rows), dtype="float32").save(folder, (rows.shape[1],), factory)
    return Index.open(folder).corpus.prefix_index(rows.shape[1])


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Flatt", "FAISS has no index 'Flatt' for 16 dims"),
        ("PQ7", "multiple of the number of subquantizers"),
        (
            "IVF1000,Flat",
            "500 vectors cannot train an index 'IVF1000,Flat': Number of training points .500.",
        ),
        ("IDMap,Flat", "FAISS cannot fill an index of kind 'IDMap,Flat'"),
        ("IVF16,Flat,RFlat", "would keep the vectors a second time"),
        ("OPQ8,IVF16,PQ8,RFlat", "would keep the vectors a second time"),
        ("IVF16,PQ8,Refine(SQ8)", "would keep the vectors a second time"),
    ],
)
def test_kinds_that_cannot_be_used(
    small_set: Rows, tmp_path: Path, factory: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        small_set.save(tmp_path / "it", (16,), factory)
    assert error.value.hint
    assert "/" not in error.value.message
    assert not list(tmp_path.iterdir())


def test_kinds_are_checked_before_there_are_vectors() -> None:
    check_kinds(IndexSpec((8, 16), "Flat", {"16": "Scan"}), 100)
    with pytest.raises(ConfigError, match="FAISS has no index 'Flatt' for 8 dims"):
        check_kinds(IndexSpec((8, 16), "Flat", {"8": "Flatt"}), 100)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("HNSW0", "FAISS crashes when it builds or searches an index 'HNSW0' for 16 dims"),
        ("HNSW1", "FAISS crashes when it builds or searches an index 'HNSW1' for 16 dims"),
        ("IVF0,Flat", "FAISS cannot search the index 'IVF0,Flat' of 16 dims: 'cur_nprobe > 0'"),
        ("HNSW8_2+PQ4", "cannot search the index 'HNSW8_2.PQ4' of 16 dims: search params not"),
        ("IVF4096,Flat", "3,000 vectors cannot train an index 'IVF4096,Flat'"),
        ("HNSW1000000", "An index 'HNSW1000000' for 16 dims takes too much memory"),
        ("IVF99999999999,Flat", "FAISS has no index 'IVF99999999999,Flat'"),
        ("", "FAISS has no index ''"),
    ],
)
def test_a_kind_that_faiss_cannot_use_is_refused_beforehand(kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check_kinds(IndexSpec((16,), kind), 3000)
    assert caught.value.hint


@pytest.mark.parametrize("kind", ["HNSW0", "HNSW1,SQ8", "IVF64_HNSW01,Flat"])
def test_graphs_that_crash_faiss_are_not_even_tried(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise AssertionError("a child process was started: it leaves a segfault in the log")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(ConfigError, match="FAISS crashes when it builds or searches an index"):
        check_kinds(IndexSpec((16,), kind), 500)


def test_a_kind_that_ends_the_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CHILD", "import os; os.abort()")
    with pytest.raises(ConfigError, match="FAISS crashes when it builds or searches an index 'HN"):
        check_kinds(IndexSpec((16,), "HNSW2,SQ8"), 777)


def test_graphs_of_more_links_are_tried() -> None:
    check_kinds(IndexSpec((16,), "HNSW10"), 500)


def test_a_kind_may_need_more_vectors_than_the_first_trial_has() -> None:
    check_kinds(IndexSpec((16,), "PQ2x11np"), 20_000)  # 2,048 centroids
    check_kinds(IndexSpec((16,), "IVF2048,SQ8"), 40_000)


def test_flat_indexes_hold_the_stored_prefixes(small_index: Index) -> None:
    for dims in (8, 16, 64):
        index: Any = faiss.read_index(str(small_index.folder / f"prefix-{dims:04d}.faiss"))
        held = index.reconstruct_n(0, 500)
        np.testing.assert_allclose(held, small_index.corpus.vectors.prefix(dims), atol=2e-7)
        assert index.metric_type == faiss.METRIC_INNER_PRODUCT


def test_the_manifest_records_the_indexes(small_index: Index) -> None:
    assert small_index.dims == (8, 16, 64)
    assert small_index.manifest.factory == {"8": "Flat", "16": "Flat", "64": "Flat"}
    assert "prefix-0008.faiss" in small_index.manifest.files
    verify(small_index.folder)


def test_all_prefixes_are_built_in_one_pass(
    small_set: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 64 * 150)
    fed: list[tuple[int, int, float]] = []

    class Watch:
        def add(self, rows: slice, unit: np.ndarray) -> None:
            fed.append((rows.start, rows.stop, float(np.linalg.norm(unit, axis=1).min())))

    calls: list[tuple[str, int, int]] = []
    spec = IndexSpec((8, 16), "Flat", {"8": "IVF4,Flat"})
    store = VectorStore(small_set.vectors)
    report = lambda *done: calls.append(done)  # noqa: E731
    factory = build_indexes(tmp_path, store, spec, [Watch().add], report)
    assert factory == {"8": "IVF4,Flat", "16": "Flat"}
    stops = [150, 300, 450, 500]
    assert calls == [("indexing", stop, 500) for stop in stops]
    assert [stop for _, stop, _ in fed] == stops and fed[1][0] == 150
    assert all(norm == pytest.approx(1, abs=1e-6) for *_, norm in fed)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["prefix-0008.faiss", "prefix-0016.faiss"]
    found = faiss.read_index(str(tmp_path / "prefix-0008.faiss"))
    found.nprobe = 4
    assert (found.search(store.prefix(8), 1)[0] > 0.999).all()


def test_a_scanned_prefix_needs_no_file(small_set: Rows, make_index: Callable[..., Index]) -> None:
    index = make_index(small_set, factory="Scan", name="scanned")
    assert not list(index.folder.glob("*.faiss"))
    assert index.dims == (8, 16, 64)


def test_no_sieve_files_for_a_small_corpus(small_index: Index) -> None:
    assert sorted(small_index.manifest.files) == [
        "heads.safetensors", "items.parquet", "prefix-0008.faiss", "prefix-0016.faiss",
        "prefix-0064.faiss", "vectors.npy",
    ]  # fmt: skip
    assert small_index.corpus.sieve is None


def test_a_full_disk_leaves_no_half_index(
    small_set: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = faiss.write_index

    def full(index: faiss.Index, writer: faiss.IOWriter) -> None:
        fail_writes(monkeypatch, errno.ENOSPC)
        write(index, writer)

    monkeypatch.setattr(faiss, "write_index", full)
    with pytest.raises(FileError, match=r"prefix-0008.faiss cannot be written: the disk is full"):
        small_set.save(tmp_path / "it", (8,))
    assert not list(tmp_path.iterdir())


def test_kinds_follow_from_the_size_of_the_corpus() -> None:
    spec = IndexSpec(default_dims(1024))
    assert {spec.factory_of(d, 4_999) for d in spec.dims} == {"Flat"}
    kinds = {d: spec.factory_of(d, 9_999) for d in spec.dims}
    assert kinds == {**dict.fromkeys(spec.dims, "Flat"), 512: "Panorama", 1024: "Panorama"}
    coded = {d: f"RR{d},IVF256,PQ{d}x4fsr" for d in (32, 64, 128)}
    assert {d: spec.factory_of(d, 22_998) for d in spec.dims} == {**kinds, **coded}
    assert spec.factory_of(64, 1_000_000) == "RR64,IVF2048,PQ64x4fsr"
    assert spec.factory_of(8, 1_000_000) == "IVF2048,SQ8"
    assert spec.factory_of(128, 10_000_000) == "RR128,IVF8192,PQ128x4fsr"
    assert spec.factory_of(128, 40_000_000) == "RR128,IVF16384_HNSW16,PQ128x4fsr"
    assert spec.factory_of(1024, 1_000_000) == "Scan"
    mixed = IndexSpec((8, 64), "Flat", {"64": "HNSW16,SQ8"})
    assert (mixed.factory_of(8, 10**6), mixed.factory_of(64, 10**6)) == ("Flat", "HNSW16,SQ8")
    with pytest.raises(ConfigError, match="--factory names 32 dims, which get no index"):
        IndexSpec((8, 64), factories={"32": "Flat"}).over((8, 16, 64))
    with pytest.raises(ConfigError, match=r"dtype is 'int8'; it must be float16 or float32"):
        IndexSpec(dtype="int8")


# Loading


def test_a_dim_that_is_not_there(small_index: Index) -> None:
    with pytest.raises(ConfigError) as error:
        small_index.corpus.prefix_index(48)
    assert error.value.message == "This index has dims 8, 16, 64; there is no 48. Nearest: 64."
    assert error.value.hint == "Search at 64, or build an index with --dims 8,16,48,64."


def test_a_folder_without_prefix_indexes(small_set: Rows, tmp_path: Path) -> None:
    small_set.save(tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"bare has no prefix index"):
        Index.open(tmp_path / "bare").corpus.prefix_index(8)


def test_a_prefix_index_is_loaded_once_and_when_it_is_used(small_index: Index) -> None:
    (small_index.folder / "prefix-0016.faiss").unlink()
    corpus = Index.open(small_index.folder).corpus
    assert corpus.prefix_index(8) is corpus.prefix_index(8)
    with pytest.raises(IndexFolderError, match=r"prefix-0016.faiss is missing."):
        corpus.prefix_index(16)


def test_a_damaged_prefix_index(small_index: Index) -> None:
    os.truncate(small_index.folder / "prefix-0008.faiss", 100)
    with pytest.raises(
        IndexFolderError, match=r"prefix-0008.faiss is cut short: 100 bytes"
    ) as error:
        small_index.corpus.prefix_index(8)
    assert "build it again: mrl-search build-index" in error.value.hint


def test_another_file_in_the_place_of_a_prefix_index(small_index: Index) -> None:
    folder, manifest = small_index.folder, small_index.manifest
    store = small_index.corpus.vectors
    (folder / "prefix-0008.faiss").write_bytes((folder / "prefix-0016.faiss").read_bytes())
    with pytest.raises(IndexFolderError, match=r"prefix-0008.faiss was altered"):
        load_index(folder, manifest, store, 8)
    forged = write_manifest(folder, manifest)
    with pytest.raises(IndexFolderError, match=r"has 500 vectors of 16 dims, not 500 of 8."):
        load_index(folder, forged, store, 8)


def test_a_file_that_is_no_faiss_index(small_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    files = small_index.manifest.files
    monkeypatch.setattr("mrl_search.store.intact.checksum", lambda path: files[path.name].xxh3)
    path = small_index.folder / "prefix-0008.faiss"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(IndexFolderError, match=r"prefix-0008.faiss is not a FAISS index"):
        small_index.corpus.prefix_index(8)


# Clusters


def test_clusters_are_shared_out_by_size() -> None:
    assert allot(10, np.array([50, 30, 20])).tolist() == [5, 3, 2]
    assert allot(7, np.array([1, 1, 5, 0])).tolist() == [1, 1, 5, 0]
    assert allot(4, np.array([34, 33, 33])).tolist() == [2, 1, 1]
    sizes = np.random.default_rng(0).integers(0, 90, 300)
    parts = allot(999, sizes)
    assert parts.sum() == 999
    assert (parts <= sizes).all()
    assert np.abs(parts - 999 * sizes / sizes.sum()).max() < 1


def test_many_clusters_are_found_in_two_levels_and_serve_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = prefix(energy_first(np.random.default_rng(0), 12_000, 16), 16)
    queries = prefix(energy_first(np.random.default_rng(1), 300, 16), 16)
    truth = (queries @ x.T).argmax(axis=1)

    def recall(factory: str, name: str) -> float:
        index = built(tmp_path / name, x, factory)
        return float((index.search(queries, 1, 16)[1][:, 0] == truth).mean())

    found = find_centroids(x, 1024)
    assert (found.shape, found.dtype) == ((1024, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    factories = ("IVF1024,Flat", "IVF1024_HNSW16,Flat", "RR16,IVF1024_HNSW16,Flat")
    two_levels = [recall(f, f"two-{i}") for i, f in enumerate(factories)]
    monkeypatch.setattr(build, "MANY", 1 << 30)
    plain = recall("IVF1024,Flat", "plain")
    assert min(two_levels) > plain - 0.03


@pytest.fixture(scope="module")
def clustered(tmp_path_factory: pytest.TempPathFactory) -> ClusteredIndex:
    rows = energy_first(np.random.default_rng(0), 4000, 16)
    index = built(tmp_path_factory.mktemp("clustered") / "it", rows, "RR16,IVF64,Flat")
    assert isinstance(index, ClusteredIndex)
    return index


def clustered_rows() -> np.ndarray:
    return prefix(energy_first(np.random.default_rng(0), 4000, 16), 16)


def test_a_query_visits_its_own_number_of_clusters(clustered: ClusteredIndex) -> None:
    rows, file = clustered_rows(), clustered._file
    sizes = np.array([file.invlists.list_size(i) for i in range(64)])
    read = (clustered.search(rows, len(rows), 8)[1] >= 0).sum(axis=1)  # all of a visited cluster
    assert read.mean() == pytest.approx(8 / 64 * sizes.sum(), rel=0.5)  # full ones are nearer
    assert read.min() < 0.5 * read.mean()
    assert read.max() <= np.sort(sizes)[-32:].sum()


def test_visiting_all_clusters_is_exact(clustered: ClusteredIndex) -> None:
    rows = clustered_rows()
    truth = np.argsort(-rows @ rows.T, axis=1, kind="stable")[:, :5]
    assert (clustered.search(rows, 5, 1000)[1] == truth).mean() > 0.99
    by_default, eight = clustered.search(rows, 1)[1], clustered.search(rows, 1, 8)[1]
    np.testing.assert_array_equal(by_default, eight)  # an eighth of 64


def test_a_filter_visits_more_clusters(clustered: ClusteredIndex) -> None:
    few = Mask(np.arange(4000) % 16 == 0)
    assert clustered.cost(4) == 64 + 4000 * 4 / 64
    assert clustered.cost(4, few) == 64 + 4000 * 16 / 64
    assert clustered.cost(64, few) == clustered.cost(64) == 64 + 4000


def test_own_numbers_of_clusters_find_more_than_one_for_all(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    centres = energy_first(rng, 100, 32)
    raw = centres[rng.integers(0, 100, 10_000)] + energy_first(rng, 10_000, 32) * np.float32(1.2)
    x, queries = prefix(raw[:-300], 32), prefix(raw[-300:], 32)
    index = built(tmp_path / "it", raw[:-300], "IVF128,Flat")
    assert isinstance(index, ClusteredIndex)
    truth = np.argsort(-queries @ x.T, axis=1)[:, :10]
    for effort in (8, 16):
        own = recall_at_k(index.search(queries, 10, effort)[1], truth)
        same = index._index.search(queries, 10, params=faiss.SearchParametersIVF(nprobe=effort))[1]
        assert own > recall_at_k(same, truth)


def test_clusters_where_all_vectors_are_the_same(tmp_path: Path) -> None:
    rows = clustered_rows()
    index = built(tmp_path / "it", np.repeat(rows[:1], 400, axis=0), "IVF8,Flat")
    assert (index.search(rows[:20], 3, 8)[1] >= 0).all()
    assert index.search(rows[:20], 3, 2)[1].shape == (20, 3)  # most clusters hold nothing


# Graphs


def test_a_beam_holds_what_a_search_returns(tmp_path: Path) -> None:
    graph: Any = built(tmp_path / "it", clustered_rows(), "HNSW8")
    half = Mask(np.arange(4000) % 2 == 0)
    assert graph._beam(64, 10, None) == 64
    assert (
        64 < graph._beam(64, 10, half) < 128 < graph._beam(64, 100, half)
    )  # a walk passes through rows that are not allowed
    assert graph._beam(10**11, 10, None) == 4000  # all there are
    for k, effort in ((100, 16), (300, 0)):
        assert (graph.search(clustered_rows()[:5], k, effort)[1] >= 0).all()


def test_an_index_keeps_its_collection_alive(small_index: Index) -> None:
    opened = Collection.open(small_index.folder)
    index = load_index(small_index.folder, opened.manifest, opened.vectors, 8)
    x = opened.vectors.prefix(8, slice(0, 3))
    del opened
    assert index.search(x, 1)[1][:, 0].tolist() == [0, 1, 2]


def test_an_index_that_loses_dims_is_not_exact(
    make_index: Callable[..., Index], small_set: Rows
) -> None:
    index = make_index(small_set, factory="PCA4,Flat", dims=(16, 64))
    assert not index.corpus.prefix_index(16).exact


def test_clusters_may_be_found_by_any_quantizer(
    make_index: Callable[..., Index], small_set: Rows
) -> None:
    index = make_index(small_set, factory="IVF16(PQ8x4),Flat", dims=(16, 64))
    rows = small_set.vectors[:20].astype(np.float32)
    every = index.search(rows, 5, plan="16:100@16,64").ids
    np.testing.assert_array_equal(every[:, 0], np.arange(20))


def test_copies_of_few_vectors_are_found_among_equal_centroids() -> None:
    few = l2_normalize(np.random.default_rng(5).standard_normal((40, DIMS)).astype(np.float32))
    which = np.random.default_rng(1).integers(0, 40, 20_000)
    store = VectorStore(few[which])
    index = build._trained(store, DIMS, "IVF1024,SQ8")
    index.add(few[which])
    _, ids = build.index_of(index, "IVF1024,SQ8", 0, store).search(few, 10)
    assert (which[ids] == np.arange(40)[:, None]).all() and (ids >= 0).all()
