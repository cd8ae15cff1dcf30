"""Sets of vectors on disk: they come back as they were, and damage has a sentence of its own."""

import errno
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

from mrl_search.errors import ConfigError, DataError, IndexFolderError, MrlSearchError, Skipped
from mrl_search.files import (
    building_folder,
    checksum,
    claim,
    fresh_folder,
    publish,
    write_atomically,
)
from mrl_search.store.items import as_table, write_items
from mrl_search.store.manifest import FORMAT, OWN_VECTORS, read_manifest, verify, write_manifest
from mrl_search.store.rows import EmbeddingSet
from mrl_search.vectors import l2_normalize


@pytest.fixture
def folder(small_set: EmbeddingSet, tmp_path: Path) -> Path:
    replace(small_set, skipped=(Skipped("pictures/bad.jpg", "It is empty."),)).save(
        tmp_path / "pets"
    )
    return tmp_path / "pets"


def test_a_set_comes_back_as_it_was(small_set: EmbeddingSet, folder: Path) -> None:
    back = EmbeddingSet.open(folder)
    assert isinstance(back.vectors, np.memmap)
    np.testing.assert_array_equal(back.vectors, small_set.vectors)
    assert as_table(back.items).equals(small_set.items)
    assert back.skipped == (Skipped("pictures/bad.jpg", "It is empty."),)
    for dims, (weight, bias) in small_set.heads.items():
        np.testing.assert_array_equal(back.heads[dims][0], weight)
        np.testing.assert_array_equal(back.heads[dims][1], bias)
    assert replace(back.manifest, files={}) == small_set.manifest
    assert sorted(back.manifest.files) == [
        "heads.safetensors",
        "items.parquet",
        "skipped.json",
        "vectors.npy",
    ]
    assert verify(folder) == back.manifest
    assert not building_folder_of(folder).exists()


def building_folder_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.building")


def test_columns_are_aligned_with_the_rows(folder: Path) -> None:
    s = EmbeddingSet.open(folder)
    assert (len(s), s.dims) == (500, (8, 16, 64))
    assert (s.labels[1], s.paths[1], s.hashes[1]) == ("cat", "pictures/1.jpg", f"{1:032x}")
    assert s.norms.dtype == np.float32


def test_prefixes_of_all_of_a_range_and_of_some_rows(small_set: EmbeddingSet) -> None:
    full = small_set.vectors.astype(np.float32)
    np.testing.assert_allclose(small_set.prefix(8), l2_normalize(full[:, :8]), rtol=1e-6)
    np.testing.assert_array_equal(small_set.prefix(16, slice(3, 5)), small_set.prefix(16)[3:5])
    np.testing.assert_array_equal(
        small_set.prefix(16, np.array([7, 7, 2])), small_set.prefix(16)[[7, 7, 2]]
    )
    with pytest.raises(ConfigError):
        small_set.prefix(65)


def test_linear_heads_read_the_raw_prefix(small_set: EmbeddingSet) -> None:
    weight, bias = small_set.heads[16]
    raw = small_set.vectors[:, :16].astype(np.float32) * small_set.norms[:, None]
    np.testing.assert_allclose(
        small_set.linear_scores(16), raw @ weight.T + bias, rtol=1e-5, atol=1e-4
    )
    right = [(small_set.linear_predictions(d) == small_set.labels).mean() for d in small_set.dims]
    assert min(right) > 0.7
    shifted = replace(
        small_set, heads={16: (weight, bias + np.array([0, 1e6, 0], dtype=np.float32))}
    )
    assert set(shifted.linear_predictions(16)) == {"cat"}


def test_cosine_heads_read_prefixes_of_unit_length(small_set: EmbeddingSet) -> None:
    cosine = replace(small_set, manifest=replace(small_set.manifest, unit_heads=True))
    weight, bias = small_set.heads[16]
    np.testing.assert_allclose(
        cosine.linear_scores(16), small_set.prefix(16) @ weight.T + bias, rtol=1e-5, atol=1e-4
    )
    assert not np.allclose(cosine.linear_scores(16), small_set.linear_scores(16))


def test_heads_that_are_not_there(small_set: EmbeddingSet) -> None:
    with pytest.raises(ConfigError, match=r"There is no linear head at 32 dims.") as error:
        small_set.linear_scores(32)
    assert error.value.hint == "There are heads at 8, 16, 64."
    with pytest.raises(ConfigError, match=r"The model counting has no linear heads."):
        replace(small_set, heads={}).linear_scores(8)


def test_a_set_whose_parts_disagree(small_set: EmbeddingSet) -> None:
    with pytest.raises(
        DataError, match=r"shape .500, 8.; the manifest says float16 of shape .500, 64."
    ):
        replace(small_set, vectors=small_set.vectors[:, :8])
    with pytest.raises(DataError, match=r"There are 499 items for 500 vectors."):
        replace(small_set, items=small_set.items.slice(1))
    with pytest.raises(DataError, match=r"Items have columns"):
        replace(small_set, items=small_set.items.drop(["hash"]))
    with pytest.raises(DataError, match=r"The head at 8 dims has shape .3, 16.; wanted is .3, 8."):
        replace(small_set, heads={8: small_set.heads[16]})


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
        "pets/vectors.npy is cut short: 1,000 bytes of 64,128.",
        "Remove it and rebuild with: mrl-search build-index pictures --out ",
    ),
    (grown, "pets/items.parquet was altered: ", "rebuild with"),
    (
        flip_a_byte,
        "pets/vectors.npy was altered since it was written: its checksum differs.",
        "rebuild with",
    ),
    (lose_a_file, "pets/heads.safetensors is missing.", "rebuild with"),
    (
        lose_the_manifest,
        "pets is not an index, or not a finished one: it has no manifest.json.",
        "mrl-search build-index SRC --out",
    ),
    (
        garble_the_manifest,
        "pets/manifest.json cannot be read: ",
        "mrl-search build-index SRC --out",
    ),
    (
        empty_the_manifest,
        "pets/manifest.json does not say 'encoder'.",
        "mrl-search build-index SRC --out",
    ),
    (
        change_manifest(format=FORMAT + 1),
        f"has format {FORMAT + 1}; this version of mrl-search reads up to {FORMAT}.",
        "Upgrade",
    ),
    (change_manifest(format="new"), "is not the manifest of an index", "build-index"),
    (change_manifest(dim="many"), "dim cannot be 'many'.", "build-index"),
    (change_manifest(dtype="banana"), "manifest.json: dtype cannot be 'banana'.", "build-index"),
    (
        change_manifest(factory={"abc": "Flat"}),
        "manifest.json: factory cannot have a prefix of 'abc' dims.",
        "build-index",
    ),
    (
        change_manifest(factory={"08": "Flat"}),
        "manifest.json: factory cannot have a prefix of '08' dims.",
        "build-index",
    ),
    (
        change_manifest(count=3),
        "pets contradicts itself. Vectors are float16 of shape (500, 64)",
        "rebuild with",
    ),
    (forge_a_file("vectors.npy", b"no array"), "pets/vectors.npy cannot be read: ", "rebuild with"),
    (
        forge_a_file("items.parquet", b"no table"),
        "pets/items.parquet cannot be read: ",
        "rebuild with",
    ),
    (
        forge_a_file("heads.safetensors", b"no tensors"),
        "pets/heads.safetensors cannot be read: ",
        "rebuild with",
    ),
    (forge_a_file("skipped.json", b"[1]"), "pets/skipped.json cannot be read: ", "rebuild with"),
]


@pytest.mark.parametrize(("damage", "message", "hint"), DAMAGE)
def test_damage_is_named(
    folder: Path, damage: Callable[[Path], None], message: str, hint: str
) -> None:
    damage(folder)
    with pytest.raises(IndexFolderError) as error:
        EmbeddingSet.open(folder)
    assert message in error.value.message
    assert hint in error.value.hint


def test_pickles_are_not_read(folder: Path) -> None:
    np.save(folder / "vectors.npy", np.array([{}], dtype=object), allow_pickle=True)
    write_manifest(folder, read_manifest(folder))
    with pytest.raises(IndexFolderError, match=r"vectors.npy cannot be read"):
        EmbeddingSet.open(folder)


def test_damage_in_a_large_file_is_for_verify(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.store.manifest.CHECKED_AT_OPEN", 60_000)
    flip_a_byte(folder)
    EmbeddingSet.open(folder)
    with pytest.raises(IndexFolderError, match=r"vectors.npy was altered"):
        verify(folder)


def test_keys_of_a_later_version_are_passed_over(folder: Path) -> None:
    before = read_manifest(folder)
    files = {
        name: {"bytes": f.bytes, "xxh3": f.xxh3, "colour": "red"}
        for name, f in before.files.items()
    }
    change_manifest(mood="good", files=files)(folder)
    assert read_manifest(folder) == before
    EmbeddingSet.open(folder)


def test_nothing_there_and_not_finished_yet(tmp_path: Path) -> None:
    with pytest.raises(IndexFolderError, match=r"There is no .*nowhere") as error:
        EmbeddingSet.open(tmp_path / "nowhere")
    assert "mrl-search build-index SRC --out" in error.value.hint
    building_folder(tmp_path / "half")
    with pytest.raises(IndexFolderError, match=r"half is not finished yet.") as error:
        EmbeddingSet.open(tmp_path / "half")
    assert "goes on where it stopped" in error.value.hint


def test_a_second_build_into_the_same_folder(small_set: EmbeddingSet, folder: Path) -> None:
    before = checksum(folder / "manifest.json")
    with pytest.raises(IndexFolderError, match=r"pets exists already.") as error:
        small_set.save(folder)
    assert "--out" in error.value.hint
    with pytest.raises(IndexFolderError, match=r"pets exists already."):
        publish(folder.with_name("other"), folder)
    assert checksum(folder / "manifest.json") == before


def test_an_empty_folder_may_be_filled(small_set: EmbeddingSet, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    small_set.save(tmp_path / "made")
    assert len(EmbeddingSet.open(tmp_path / "made")) == 500


def test_a_place_that_cannot_hold_an_index(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IndexFolderError, match=r"cannot be made"):
        building_folder(tmp_path / "file" / "pets")
    with pytest.raises(IndexFolderError, match=r"file exists already."):
        building_folder(tmp_path / "file")


def test_what_is_built_is_kept_where_its_place_is_taken_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build() -> None:
        with fresh_folder(tmp_path / "pets") as building:
            (building / "vectors.npy").touch()
            (tmp_path / "pets").touch()

    with pytest.raises(IndexFolderError, match="exists already"):
        build()
    assert (tmp_path / ".pets.building" / "vectors.npy").exists()
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda _: True)
    with (
        pytest.raises(IndexFolderError, match="where a volume is mounted"),
        fresh_folder(tmp_path / "volume"),
    ):
        pass


def test_the_way_to_build_again_names_the_part(small_set: EmbeddingSet, tmp_path: Path) -> None:
    made = replace(small_set.manifest, source="my pictures (validation part)", model="runs/mine")
    assert made.rebuild(Path("x")) == (
        "Remove it and rebuild with: mrl-search build-index 'my pictures' --out x --model runs/mine --split validation"
    )
    assert "--items, --rotate, --dims" in replace(made, encoder=OWN_VECTORS).rebuild(Path("x"))


@pytest.mark.skipif(sys.platform == "win32", reason="folders are not locked on Windows")
def test_two_builds_at_once(tmp_path: Path) -> None:
    building = building_folder(tmp_path / "pets")
    program = "import sys; from pathlib import Path; from mrl_search.storage import claim\nwith claim(Path(sys.argv[1])): print('held')"
    with claim(building):
        other = subprocess.run(
            [sys.executable, "-c", program, str(building)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Another process is at work in" in other.stderr
    assert (
        subprocess.run(
            [sys.executable, "-c", program, str(building)],
            capture_output=True,
            text=True,
            check=False,
        ).stdout
        == "held\n"
    )


def test_an_unfinished_folder_has_no_manifest(small_set: EmbeddingSet, tmp_path: Path) -> None:
    write_items(tmp_path, small_set.items)
    with pytest.raises(IndexFolderError, match=r"has no vectors.npy yet: it is not complete."):
        write_manifest(tmp_path, small_set.manifest)
    assert [p.name for p in tmp_path.iterdir()] == ["items.parquet"]


def test_a_file_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "it"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), write_atomically(path) as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])
    with write_atomically(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert (path.read_text(), list(tmp_path.iterdir())) == ("new", [path])


def test_a_file_is_flushed_before_it_takes_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda handle: there.append((tmp_path / "it").exists()))
    with write_atomically(tmp_path / "it") as temporary:
        temporary.write_text("new")
    assert there == [False, True]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("write error (No space left on device)"),
    ],
)
def test_a_full_disk(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(
            MrlSearchError, match=r"The disk is full: .*it could not be written."
        ) as raised,
        write_atomically(tmp_path / "it") as path,
    ):
        path.write_text("half")
        raise error
    assert raised.value.hint
    assert not list(tmp_path.iterdir())


def test_a_full_disk_while_saving(
    small_set: EmbeddingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        with pytest.raises(MrlSearchError, match=r"The disk is full"):
            small_set.save(tmp_path / "pets")
    assert not (tmp_path / "pets").exists()
    small_set.save(tmp_path / "pets")
    assert len(EmbeddingSet.open(tmp_path / "pets")) == 500


def test_a_place_without_rights(tmp_path: Path) -> None:
    with (
        pytest.raises(MrlSearchError, match=r"it cannot be written: No such file or directory."),
        write_atomically(tmp_path / "no" / "it") as path,
    ):
        path.write_text("new")


def test_neither_torch_nor_faiss_is_needed(folder: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mrl_search.embeddings import EmbeddingSet\n"
        "EmbeddingSet.open(Path(sys.argv[1])).linear_predictions(8); print('torch' in sys.modules, 'faiss' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


def test_a_folder_can_be_moved(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder, tmp_path / "elsewhere")
    assert len(EmbeddingSet.open(tmp_path / "elsewhere")) == 500
