"""Large files: a damaged block is found when it is read, and a file cut short kills nobody."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first

from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError, IndexFolderError
from mrl_search.files import BLOCK
from mrl_search.index import Index
from mrl_search.store import blocks, intact
from mrl_search.store.blocks import Blocks, decoded, encoded
from mrl_search.store.collection import Collection
from mrl_search.store.manifest import read_manifest

ROWS, DIM = 3000, 512  # 2 bytes a number: 12 blocks


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return energy_first(np.random.default_rng(0), ROWS, DIM)


@pytest.fixture
def folder(tmp_path: Path, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(intact, "CHECKED_AT_OPEN", 1 << 20)
    monkeypatch.setattr("mrl_search.building.CLUSTERED_FROM", 0)  # with a sieve
    spec = IndexSpec((16, 64, DIM), factories={"512": "Scan"})
    Index.from_vectors(vectors, tmp_path / "index", spec=spec)
    return tmp_path / "index"


def damage(folder: Path, row: int) -> None:
    """Change the least bit of one number of a row."""
    with (folder / "vectors.npy").open("r+b") as file:
        file.seek(128 + row * DIM * 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def test_only_large_vectors_have_checksums_of_blocks(folder: Path, vectors: np.ndarray) -> None:
    files = read_manifest(folder).files
    assert [name for name, record in files.items() if record.blocks] == ["vectors.npy"]
    size = files["vectors.npy"].bytes
    assert len(decoded(files["vectors.npy"].blocks, size)) == -(-size // BLOCK) == 12
    assert (folder / "manifest.json").read_text().count('"blocks"') == 1


ASK: list[Callable[[Index, np.ndarray], object]] = [
    lambda index, x: index.search(x, k=3, plan="exact"),
    lambda index, x: index.search(x, k=3, plan="64:50,512"),
    lambda index, x: index.search(x, k=3, plan="512"),
    lambda index, x: index.search(x, k=3, plan="16:900,64:20,512"),
    lambda index, x: index.search(x, k=3, ids=np.arange(1990, 2010)),
    lambda index, x: index.corpus.vectors.rows(np.array([5, 2000])),
    lambda index, x: index.corpus.vectors.rows(slice(1990, 2001), 8),
    lambda index, x: index.corpus.vectors.prefix(8, np.array([2000])),
    lambda index, x: list(index.corpus.vectors.chunks(16)),
    lambda index, x: index.tune(queries=200),
]


@pytest.mark.parametrize("ask", ASK)
def test_a_damaged_row_is_found_before_it_is_used(
    folder: Path, vectors: np.ndarray, ask: Callable[[Index, np.ndarray], object]
) -> None:
    ask(Index.open(folder), vectors[2000])
    damage(folder, 2000)
    index = Index.open(folder)
    with pytest.raises(IndexFolderError, match=r"vectors.npy was altered: the checksum of"):
        ask(index, vectors[2000])


def test_what_does_not_lie_in_the_damaged_block_is_answered(folder: Path) -> None:
    sound = Collection.open(folder).vectors.rows().copy()
    damage(folder, 2000)
    store = Collection.open(folder).vectors
    lies = (128 + np.arange(ROWS) * DIM * 2) // BLOCK == (128 + 2000 * DIM * 2) // BLOCK
    lies |= (128 + (np.arange(ROWS) + 1) * DIM * 2 - 1) // BLOCK == (128 + 2000 * 1024) // BLOCK
    for row in range(0, ROWS, 7):
        if lies[row]:
            with pytest.raises(IndexFolderError):
                store.rows(np.array([row]))
        else:
            assert (store.rows(np.array([row]))[0] == sound[row]).all()
    np.testing.assert_array_equal(store.rows(np.flatnonzero(~lies)), sound[~lies])


@pytest.mark.parametrize("large", [False, True])
def test_rows_over_several_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    monkeypatch.setattr(blocks, "LARGE", 0 if large else 1 << 40)
    rows = np.random.default_rng(0).standard_normal((4, 200_000)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    data = (tmp_path / "x.npy").read_bytes()
    parts = [data[i : i + BLOCK] for i in range(0, len(data), BLOCK)]
    hashes = np.array([blocks.xxhash.xxh3_64_intdigest(part) for part in parts], np.uint64)
    for wrong in range(len(parts)):
        other = hashes.copy()
        other[wrong] ^= np.uint64(1)
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        check = Blocks.of(mapped, tmp_path / "x.npy", other, DataError)
        assert check is not None
        assert (check.descriptor >= 0) is (large and hasattr(os, "pread"))
        for row in range(4):
            first, last = (128 + row * 800_000) // BLOCK, (128 + (row + 1) * 800_000 - 1) // BLOCK
            if first <= wrong <= last:
                with pytest.raises(DataError, match="was altered"):
                    check.check(np.array([row]))
                with pytest.raises(DataError, match="was altered"):
                    check.check(slice(row, row + 1))
            else:
                check.check(np.array([[-1, row]]))
                check.check(slice(row, row + 1))


@pytest.mark.parametrize("name", ["vectors.npy", "prefix-0064.faiss", "sieve-codes.npy"])
def test_a_file_cut_short_under_a_reader_is_an_error(
    folder: Path, vectors: np.ndarray, name: str
) -> None:
    index = Index.open(folder)
    plan = "exact" if "sieve" in name else "64:20,512"
    assert index.search(vectors[7], k=1, plan=plan)[0].id == 7
    os.truncate(folder / name, 4096)
    with pytest.raises(IndexFolderError, match=f"{name} was cut short while it was open"):
        index.search(vectors[7], k=1, plan=plan)


def test_checksums_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(DataError, match="1 checksums of blocks for 600,000 bytes"):
        decoded(encoded([1]), 600_000)
    with pytest.raises(DataError, match="checksums of its blocks are damaged"):
        decoded("no base64!", 600_000)
    text = (folder / "manifest.json").read_text()
    record = read_manifest(folder).files["vectors.npy"]
    (folder / "manifest.json").write_text(text.replace(record.blocks, encoded([1])))
    with pytest.raises(IndexFolderError, match="contradicts itself"):
        Index.open(folder)
