"""Collections on disk: they come back as they were, and damage has a sentence of its own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import Rows

from mrl_search.errors import ConfigError, DataError, IndexFolderError, Skipped
from mrl_search.files import building_folder
from mrl_search.index import Index
from mrl_search.store.collection import Collection
from mrl_search.store.intact import verify, write_manifest
from mrl_search.store.items import write_items
from mrl_search.store.manifest import FORMAT, OWN_VECTORS, read_manifest
from mrl_search.store.rows import VectorStore
from mrl_search.store.transform import Transform


@pytest.fixture
def folder(small_set: Rows, tmp_path: Path) -> Path:
    skipped = (Skipped("pictures/bad.jpg", "It is empty."),)
    replace(small_set, skipped=skipped).save(tmp_path / "pets")
    return tmp_path / "pets"


@pytest.fixture
def collection(folder: Path) -> Collection:
    return Collection.open(folder)


def test_a_collection_comes_back_as_it_was(small_set: Rows, folder: Path) -> None:
    back = Collection.open(folder)
    assert isinstance(back.vectors.parts[0], np.memmap)
    np.testing.assert_array_equal(back.vectors.rows(), small_set.vectors)
    assert back.items.table().equals(small_set.items)
    assert back.skipped == (Skipped("pictures/bad.jpg", "It is empty."),)
    for dims, (weight, bias) in small_set.heads.items():
        np.testing.assert_array_equal(back.heads[dims][0], weight)
        np.testing.assert_array_equal(back.heads[dims][1], bias)
    assert replace(back.manifest, files={}) == small_set.manifest
    assert sorted(back.manifest.files) == [
        "heads.safetensors", "items.parquet", "skipped.json", "vectors.npy",
    ]  # fmt: skip
    assert verify(folder) == back.manifest
    assert not folder.with_name(".pets.building").exists()


def test_columns_are_aligned_with_the_rows(collection: Collection) -> None:
    s = collection
    assert (len(s), s.vectors.dim, s.manifest.dims) == (500, 64, (8, 16, 64))
    assert (s.labels[1], s.paths[1], s.hashes[1]) == ("cat", "pictures/1.jpg", f"{1:032x}")
    assert s.norms.dtype == np.float32
    assert s.labelled.all() and s.copies([f"{1:032x}", "beef"]).tolist() == [1, 0]


def test_columns_are_read_when_they_are_used(collection: Collection) -> None:
    items = collection.items
    assert items.num_rows == 500 and items.own_columns == []
    assert items._columns == {}
    assert items["label"][1].as_py() == "cat"
    assert list(items._columns) == ["label"]
    with pytest.raises(KeyError):
        items["colour"]


def test_linear_heads_read_the_raw_prefix(collection: Collection) -> None:
    weight, bias = collection.heads[16]
    raw = collection.vectors.rows()[:, :16].astype(np.float32) * collection.norms[:, None]
    scores = collection.linear_scores(16)
    np.testing.assert_allclose(scores, raw @ weight.T + bias, rtol=1e-5, atol=1e-4)
    right = [(collection.linear_predictions(d) == collection.labels).mean() for d in (8, 16, 64)]
    assert min(right) > 0.7
    cats = np.array([0, 1e6, 0], dtype=np.float32)
    shifted = replace(collection, heads={16: (weight, bias + cats)})
    assert set(shifted.linear_predictions(16)) == {"cat"}
    assert collection.has_head(16, ["cat"]) and not collection.has_head(16, ["cow", None])


def test_cosine_heads_read_prefixes_of_unit_norm(collection: Collection) -> None:
    cosine = replace(collection, manifest=replace(collection.manifest, unit_heads=True))
    weight, bias = collection.heads[16]
    expected = collection.vectors.prefix(16) @ weight.T + bias
    np.testing.assert_allclose(cosine.linear_scores(16), expected, rtol=1e-5, atol=1e-4)
    assert not np.allclose(cosine.linear_scores(16), collection.linear_scores(16))


def test_heads_that_are_not_there(collection: Collection) -> None:
    with pytest.raises(ConfigError, match=r"There is no linear head at 32 dims.") as error:
        collection.linear_scores(32)
    assert error.value.hint == "There are heads at 8, 16, 64."
    with pytest.raises(ConfigError, match=r"The model counting has no linear heads."):
        replace(collection, heads={}).linear_scores(8)


def test_a_collection_whose_parts_disagree(collection: Collection) -> None:
    array = collection.vectors.rows()
    with pytest.raises(DataError, match=r"500 vectors of 8 dims in float16; the manifest says 500"):
        replace(collection, vectors=VectorStore(array[:, :8]))
    with pytest.raises(DataError, match=r"499 vectors of 64 dims in float16"):
        replace(collection, vectors=VectorStore(array[1:]))
    with pytest.raises(DataError, match=r"The head at 8 dims has shape .3, 16., not .3, 8."):
        replace(collection, heads={8: collection.heads[16]})
    turned = Transform(64, 64, np.eye(63, 64, dtype=np.float32))
    with pytest.raises(DataError, match=r"The rotation has shape \(63, 64\), not \(64, 64\)."):
        replace(collection, transform=turned)


def test_items_of_other_rows_or_columns(small_set: Rows, folder: Path) -> None:
    for items, message in (
        (small_set.items.slice(1), "There are 499 items for 500 vectors"),
        (small_set.items.drop(["hash"]), "hash"),
    ):
        (folder / "items.parquet").unlink()
        if "hash" in items.column_names:
            write_items(folder, items)
        else:
            import pyarrow.parquet as pq

            pq.write_table(items, folder / "items.parquet")
        write_manifest(folder, read_manifest(folder))
        with pytest.raises(IndexFolderError, match=message):
            Collection.open(folder)


def cut_short(folder: Path) -> None:
    os.truncate(folder / "vectors.npy", 1000)


def grown(folder: Path) -> None:
    with (folder / "items.parquet").open("ab") as file:
        file.write(b"more")


def flip_a_byte(folder: Path) -> None:
    path = folder / "vectors.npy"
    data = bytearray(path.read_bytes())
    data[5000] ^= 1
    path.write_bytes(data)


def lose_a_file(folder: Path) -> None:
    (folder / "heads.safetensors").unlink()


def change_manifest(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def lose_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def garble_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1,')


def empty_the_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text('{"format": 1}')


def forge_a_file(name: str, data: bytes) -> Callable[[Path], None]:
    def forge(folder: Path) -> None:
        (folder / name).write_bytes(data)
        write_manifest(folder, read_manifest(folder))

    return forge


DAMAGE = [
    (
        cut_short,
        "pets/vectors.npy is cut short: 1,000 bytes, not 64,128.",
        "Remove it and build it again: mrl-search build-index pictures --out ",
    ),
    (grown, "pets/items.parquet was altered: ", "build it again"),
    (flip_a_byte, "pets/vectors.npy was altered: its checksum differs.", "build it again"),
    (lose_a_file, "pets/heads.safetensors is missing.", "build it again"),
    (
        lose_the_manifest,
        "pets is not finished: no manifest.json.",
        "mrl-search build-index SRC --out",
    ),
    (
        garble_the_manifest,
        "pets/manifest.json cannot be read as JSON: ",
        "mrl-search build-index SRC --out",
    ),
    (
        empty_the_manifest,
        "pets/manifest.json has no key 'encoder'.",
        "mrl-search build-index SRC --out",
    ),
    (
        change_manifest(format=FORMAT + 1),
        f"has format {FORMAT + 1}; this version reads up to {FORMAT}.",
        "Upgrade",
    ),
    (change_manifest(format="new"), "is not the manifest of an index", "build-index"),
    (change_manifest(dim="many"), "dim", "build-index"),
    (
        change_manifest(dtype="banana"),
        "manifest.json: dtype is 'banana', not float16 or float32.",
        "build-index",
    ),
    (
        change_manifest(files={"../other.npy": {"bytes": 1, "xxh3": "0"}}),
        "manifest.json lists an unknown file '../other.npy'.",
        "build-index",
    ),
    (
        change_manifest(factory={"abc": "Flat"}),
        "manifest.json: factory has a prefix of 'abc' dims.",
        "build-index",
    ),
    (
        change_manifest(factory={"08": "Flat"}),
        "manifest.json: factory has a prefix of '08' dims.",
        "build-index",
    ),
    (
        change_manifest(count=3),
        "pets contradicts itself. There are 500 vectors of 64 dims in float16; the manifest says 3",
        "build it again",
    ),
    (
        forge_a_file("vectors.npy", b"no array"),
        "pets/vectors.npy cannot be read as .npy: damaged",
        "build it again",
    ),
    (
        forge_a_file("items.parquet", b"no table"),
        "pets/items.parquet cannot be read: ",
        "build it again",
    ),
    (
        forge_a_file("heads.safetensors", b"no tensors"),
        "pets/heads.safetensors cannot be read: ",
        "build it again",
    ),
    (forge_a_file("skipped.json", b"[1]"), "pets/skipped.json cannot be read: ", "build it again"),
]


@pytest.mark.parametrize(("damage", "message", "hint"), DAMAGE)
def test_damage_is_named(
    folder: Path, damage: Callable[[Path], None], message: str, hint: str
) -> None:
    damage(folder)
    with pytest.raises(IndexFolderError) as error:
        Collection.open(folder)
    assert message in error.value.message
    assert hint in error.value.hint


def test_pickles_are_not_read(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.array([{}], dtype=object), allow_pickle=True)
    write_manifest(folder, read_manifest(folder))
    with pytest.raises(IndexFolderError, match=r"vectors.npy cannot be read"):
        Collection.open(folder)


def test_damage_in_a_large_file_is_for_verify(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.store.intact.CHECKED_AT_OPEN", 60_000)
    flip_a_byte(folder)
    Collection.open(folder)
    with pytest.raises(IndexFolderError, match=r"vectors.npy was altered"):
        verify(folder)
    assert read_manifest(folder).files["vectors.npy"].blocks == ""  # written by a version before


def test_keys_of_a_later_version_are_passed_over(folder: Path) -> None:
    before = read_manifest(folder)
    files = {
        name: {"bytes": f.bytes, "xxh3": f.xxh3, "colour": "red"}
        for name, f in before.files.items()
    }
    change_manifest(mood="good", files=files)(folder)
    assert read_manifest(folder) == before
    Collection.open(folder)


def test_nothing_there_and_not_finished_yet(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"There is no .*nowhere") as error:
        Collection.open(tmp_path / "nowhere")
    assert "mrl-search build-index SRC --out" in error.value.hint
    building_folder(tmp_path / "half")
    with pytest.raises(IndexFolderError, match=r"half is not finished yet.") as error:
        Collection.open(tmp_path / "half")
    assert "continues where it stopped" in error.value.hint


def test_the_way_to_build_again_names_the_part(small_set: Rows) -> None:
    made = replace(small_set.manifest, source="my pictures (validation part)", model="runs/mine")
    assert made.rebuild(Path("x")) == (
        "Remove it and build it again: mrl-search build-index 'my pictures' --out x "
        "--model runs/mine --split validation"
    )
    assert made.root == "my pictures" and replace(made, source="x").root == "x"
    assert replace(made, encoder=OWN_VECTORS).root == ""
    own = replace(made, encoder=OWN_VECTORS, model="").rebuild(Path("x"))
    assert "with the options it had" in own and "--model" not in own
    assert "shrink INDEX --dims 64" in replace(made, rows_dim=99).rebuild(Path("x"))


def test_an_unfinished_folder_has_no_manifest(small_set: Rows, tmp_path: Path) -> None:
    write_items(tmp_path, small_set.items)
    with pytest.raises(IndexFolderError, match=r"has no vectors.npy."):
        write_manifest(tmp_path, small_set.manifest)
    assert [p.name for p in tmp_path.iterdir()] == ["items.parquet"]


def test_neither_torch_nor_faiss_nor_pandas_is_needed(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mrl_search.store.collection import Collection\n"
        "opened = Collection.open(Path(sys.argv[1])); opened.labels[0], opened.paths[0]\n"
        "print('pandas' in sys.modules, end=' ')\n"  # it takes a quarter of a second
        "opened.linear_predictions(8); print('torch' in sys.modules, 'faiss' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False False\n"


def test_a_folder_can_be_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    assert len(Collection.open(tmp_path / "elsewhere")) == 500


def test_the_hint_of_a_damaged_generation_is_a_way_out(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    index = Index.from_vectors(rows, tmp_path / "index")
    for row in (1, 2, 3):
        index.remove(ids=[row])
    folder, older = tmp_path / "index", tmp_path / "index/generations/000001.json"
    texts = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def mended(damaged: Path, message: str, generation: int, steps: int = 1) -> None:
        for _ in range(steps):
            with pytest.raises(IndexFolderError) as error:
                assert Index.open(folder).generations
            assert f"{damaged} {message}" in error.value.message
            subprocess.run(error.value.hint.split(": ", 1)[1], shell=True, check=True)
        index = Index.open(folder)
        assert index.generation == generation == index.generations[-1]
        for path, content in texts.items():
            path.write_bytes(content)

    older.write_text("{")
    mended(older, "cannot be read as JSON", 3)
    newest = folder / "generations/000003.json"
    newest.write_text("{}")
    mended(newest, "is not the manifest of an index", 2, steps=2)
    (folder / "manifest.json").write_text("{")
    mended(folder / "manifest.json", "cannot be read as JSON", 3)
    lost = folder / "parts/000003/deleted.bits"
    lost.unlink()
    with pytest.raises(IndexFolderError, match=r"deleted\.bits is missing") as error:
        Index.open(folder)
    assert "go back to generation 2: echo" in error.value.hint
