"""Prefix indexes and the folder they live in."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import made_of, energy_first

from mrl_search.engines import (
    Index,
    add_prefix_indexes,
    build,
    build_prefix_index,
    newest_index,
    search_parameters,
)
from mrl_search.engines.clusters import allot, find_centroids, inverted_file
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, IndexFolderError, MrlSearchError
from mrl_search.store.manifest import verify
from mrl_search.store.rows import EmbeddingSet


@pytest.mark.parametrize(
    "factory", ["Flat", "SQ8", "SQfp16", "IVF8,Flat", "HNSW16", "HNSW16,SQ8", "PQ8x4fs"]
)
def test_ids_are_the_rows(small_set: EmbeddingSet, factory: str) -> None:
    x = small_set.prefix(16)
    index = build_prefix_index(x, factory)
    assert (index.d, index.ntotal, index.metric_type) == (16, 500, faiss.METRIC_INNER_PRODUCT)
    _, ids = index.search(x, 10)
    assert np.mean([row in found for row, found in enumerate(ids)]) > 0.95


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("Flatt", "FAISS makes no index of 16 dims from 'Flatt'"),
        ("PQ7", "multiple of the number of subquantizers"),
        (
            "IVF1000,Flat",
            "500 vectors cannot train an index 'IVF1000,Flat': Number of training points .500. should be at least",
        ),
        ("IDMap,Flat", "FAISS cannot fill an index 'IDMap,Flat'"),
    ],
)
def test_factory_strings_that_cannot_be_used(
    small_set: EmbeddingSet, factory: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_prefix_index(small_set.prefix(16), factory)
    assert error.value.hint
    assert "/" not in error.value.message


def test_prefix_indexes_hold_the_stored_prefixes(small_index: Index) -> None:
    for dims in (8, 16, 64):
        index = small_index.prefix_index(dims)
        np.testing.assert_array_equal(
            index.reconstruct_n(0, 500), small_index.embeddings.prefix(dims)
        )


def test_the_manifest_records_the_indexes(small_index: Index) -> None:
    assert small_index.dims == (8, 16, 64)
    assert small_index.manifest.factory == {"8": "Flat", "16": "Flat", "64": "Flat"}
    assert "prefix-0008.faiss" in small_index.manifest.files
    verify(small_index.folder)


def test_indexes_are_added_to_a_folder_that_is_still_built(
    small_set: EmbeddingSet, tmp_path: Path
) -> None:
    np.save(tmp_path / "vectors.npy", small_set.vectors)
    told: list[tuple[int, int, int]] = []
    assert add_prefix_indexes(tmp_path, IndexSpec((8, 16)), lambda *done: told.append(done)) == {
        "8": "Flat",
        "16": "Flat",
    }
    assert told == [(8, 500, 500), (16, 500, 500)]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "prefix-0008.faiss",
        "prefix-0016.faiss",
        "sieve-codes.npy",
        "sieve-steps.npy",
        "suffix-norms.npy",
        "vectors.npy",
    ]


def test_indexes_are_filled_in_blocks(
    small_set: EmbeddingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.store.rows.BLOCK", 8 * 150)
    monkeypatch.setattr("mrl_search.engines.build.FEWEST", 200)
    small_set.save(tmp_path / "it")
    told: list[tuple[int, int, int]] = []
    add_prefix_indexes(
        tmp_path / "it", IndexSpec((8,), "IVF4,Flat"), lambda *done: told.append(done)
    )
    assert [rows for _, rows, _ in told] == [150, 300, 450, 500]
    index = Index.open(tmp_path / "it").prefix_index(8)
    index.nprobe = 4
    assert (index.search(small_set.prefix(8), 1)[0] > 0.999).all()


def test_a_dim_added_later_joins_the_others(small_index: Index) -> None:
    add_prefix_indexes(small_index.folder, IndexSpec((32,), "SQ8"))
    index = Index.open(small_index.folder)
    assert index.dims == index.manifest.dims == (8, 16, 32, 64)
    assert index.manifest.factory["32"] == "SQ8"
    assert index.prefix_index(32).ntotal == 500


def test_indexes_need_vectors_that_are_long_enough(small_index: Index, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no prefix of 128 dims in vectors of 64."):
        add_prefix_indexes(small_index.folder, IndexSpec((8, 128)))
    with pytest.raises(IndexFolderError, match=r"vectors.npy cannot be read"):
        add_prefix_indexes(tmp_path / "nowhere", IndexSpec((8,)))


def test_a_dim_that_is_not_there(small_index: Index) -> None:
    with pytest.raises(ConfigError) as error:
        small_index.prefix_index(48)
    assert error.value.message == "This index has dims 8, 16, 64; there is no 48. Nearest: 64."
    assert error.value.hint == "Search at 64, or build an index with --dims 8,16,48,64."


def test_a_folder_without_prefix_indexes(small_set: EmbeddingSet, tmp_path: Path) -> None:
    small_set.save(tmp_path / "bare")
    with pytest.raises(ConfigError, match=r"bare has no prefix index yet."):
        Index.open(tmp_path / "bare").prefix_index(8)


def test_a_prefix_index_is_loaded_once_and_when_asked_for(small_index: Index) -> None:
    (small_index.folder / "prefix-0016.faiss").unlink()
    index = Index.open(small_index.folder)
    assert index.prefix_index(8) is index.prefix_index(8)
    with pytest.raises(IndexFolderError, match=r"prefix-0016.faiss is missing."):
        index.prefix_index(16)


def test_a_damaged_prefix_index(small_index: Index) -> None:
    path = small_index.folder / "prefix-0008.faiss"
    os.truncate(path, 100)
    with pytest.raises(
        IndexFolderError, match=r"prefix-0008.faiss is cut short: 100 bytes of 16,0"
    ) as error:
        small_index.prefix_index(8)
    assert "rebuild with: mrl-search build-index" in error.value.hint


def test_another_file_in_the_place_of_a_prefix_index(small_index: Index) -> None:
    eight, sixteen = (small_index.manifest.files[f"prefix-{d:04d}.faiss"] for d in (8, 16))
    (small_index.folder / "prefix-0008.faiss").write_bytes(
        (small_index.folder / "prefix-0016.faiss").read_bytes()
    )
    forged = replace(
        small_index.manifest, files={**small_index.manifest.files, "prefix-0008.faiss": sixteen}
    )
    with pytest.raises(IndexFolderError, match=r"holds 500 vectors of 16 dims, not 500 of 8."):
        Index(small_index.folder, replace(small_index.embeddings, manifest=forged)).prefix_index(8)
    (small_index.folder / "prefix-0008.faiss").write_bytes(b"x" * eight.bytes)
    record = type(eight)(eight.bytes, "0")
    forged = replace(
        small_index.manifest, files={**small_index.manifest.files, "prefix-0008.faiss": record}
    )
    with pytest.raises(IndexFolderError, match=r"its checksum differs"):
        Index(small_index.folder, replace(small_index.embeddings, manifest=forged)).prefix_index(8)


def test_a_file_that_is_no_faiss_index(small_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mrl_search.store.manifest.checksum",
        lambda path: small_index.manifest.files[path.name].xxh3,
    )
    path = small_index.folder / "prefix-0008.faiss"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(
        IndexFolderError, match=r"prefix-0008.faiss is not a FAISS index that can be read here."
    ):
        small_index.prefix_index(8)


def test_another_model(small_index: Index) -> None:
    small_index.check_encoder("f00d" * 8)
    with pytest.raises(IndexFolderError) as error:
        small_index.check_encoder("beef" * 8)
    assert (
        "small was built with the model counting (f00df00df00d); this is another one (beefbeefbeef)."
        in error.value.message
    )
    assert (
        "--model" in error.value.hint and "bundled" not in error.value.hint
    )  # which may be what was refused


def test_a_full_disk_leaves_no_half_index(
    small_set: EmbeddingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(index: faiss.Index, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError(
            "Error in write_index: write error in it: 4 != 8 (No space left on device)"
        )

    small_set.save(tmp_path / "it")
    monkeypatch.setattr(faiss, "write_index", full)
    before = sorted((tmp_path / "it").iterdir())
    with pytest.raises(
        MrlSearchError, match=r"The disk is full: .*prefix-0008.faiss could not be written."
    ):
        add_prefix_indexes(tmp_path / "it", IndexSpec((8,)))
    assert sorted((tmp_path / "it").iterdir()) == before


def test_the_newest_index_is_the_one_created_last(
    tmp_path: Path, make_index: Callable[..., Index]
) -> None:
    with pytest.raises(IndexFolderError, match=r"There is no index in") as error:
        newest_index(tmp_path)
    assert "mrl-search build-index SRC --out" in error.value.hint
    with pytest.raises(IndexFolderError, match=r"There is no index in"):
        newest_index(tmp_path / "nowhere")
    tiny = made_of(energy_first(np.random.default_rng(0), 3), [None] * 3)
    for name, created in (
        ("a", "2026-01-02T00:00:00+00:00"),
        ("z", "2025-01-02T00:00:00+00:00"),
        (".c.building", "2027-01-01T00:00:00+00:00"),
    ):
        make_index(replace(tiny, manifest=replace(tiny.manifest, created=created)), name=name)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "manifest.json").write_text("{")
    assert newest_index(tmp_path) == tmp_path / "a"


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
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = energy_first(np.random.default_rng(0), 20_000, 16)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    queries = energy_first(np.random.default_rng(1), 300, 16)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    truth = (queries @ x.T).argmax(axis=1)

    def recall(factory: str) -> float:
        index = build_prefix_index(x, factory)
        assert inverted_file(index).nlist == inverted_file(index).quantizer.ntotal == 1024
        ids = index.search(queries, 1, params=search_parameters(index, 1, 16))[1][:, 0]
        return float((ids == truth).mean())

    two_levels = {
        f: recall(f) for f in ("IVF1024,Flat", "IVF1024_HNSW16,Flat", "RR16,IVF1024_HNSW16,Flat")
    }
    centroids = find_centroids(x, 1024)
    assert (centroids.shape, centroids.dtype) == ((1024, 16), np.float32)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    monkeypatch.setattr(build, "MANY", 1 << 30)
    plain = recall("IVF1024,Flat")
    assert min(two_levels.values()) > plain - 0.03
