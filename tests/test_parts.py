"""Parts by themselves: who takes what, and which parts make one index."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import write_pictures
from fakes import FakeEncoder, ListSource
from machines import age, assert_same, build_all, part, parts_of

import mrl_search as mrl
from mrl_search.errors import ConfigError, IndexFolderError, MrlSearchError
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.parts import build_vector_part, share_of_pictures, share_of_vectors
from mrl_search.store.manifest import newest_index
from mrl_search.store.shard import Shard
from mrl_search.store.vector_files import open_vectors


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("machines"))


# Who takes what


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "3/", "-1/2", "a/b", ""])
def test_a_shard_is_a_number_and_a_count(text: str) -> None:
    with pytest.raises(ConfigError, match="must be NUMBER/COUNT"):
        Shard.parse(text)
    assert str(Shard.parse("16/16")) == "16/16"


def test_files_are_shared_out_the_same_in_any_order_and_place(tmp_path: Path) -> None:
    def shares(paths: list[str], root: str) -> list[set[str]]:
        source = ListSource([b""] * len(paths), name=root)
        source.paths = [f"{root}/{path}" for path in paths]
        rows = [share_of_pictures(source, Shard(n, 4))[1] for n in (1, 2, 3, 4)]
        return [{paths[row] for row in some} for some in rows]

    names = [f"cat/{number}.jpg" for number in range(200)]
    found = shares(names, str(tmp_path))
    assert found == shares(names[::-1], "/another/place")
    assert set.union(*found) == set(names) and sum(map(len, found)) == 200
    assert min(map(len, found)) > 25
    grown = shares([*names, "cat/new.jpg"], str(tmp_path))  # what is there stays where it is
    assert all(old <= new for old, new in zip(found, grown, strict=True))


def test_names_in_other_normal_forms_are_one_share() -> None:
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg"):
        source = ListSource([b""], name="/pictures")
        source.paths = [f"/pictures/{name}"]
        taken = [number for number in range(1, 8) if share_of_pictures(source, Shard(number, 7))[1]]
        assert taken == [7]


def test_vectors_are_shared_out_by_position(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((11, 4), np.float32)
    for name, some in (("x2.npy", rows[:4]), ("x10.npy", rows[4:])):
        np.save(tmp_path / name, some)
    source = open_vectors(tmp_path)
    shares = [share_of_vectors(source, Shard(number, 5))[1] for number in range(1, 6)]
    np.testing.assert_array_equal(np.concatenate([r for s in shares for r in s.read()]), rows)
    assert [share.count for share in shares] == [2, 2, 2, 2, 3]


def test_parts_of_vectors_that_changed_in_between_are_refused(tmp_path: Path) -> None:
    chance = np.random.default_rng(0)
    for number in (1, 2):
        np.save(tmp_path / "v.npy", chance.standard_normal((40, 8), dtype=np.float32))
        build_vector_part(tmp_path / "v.npy", tmp_path / f"{number}", Shard(number, 2))
    with pytest.raises(ConfigError, match="saw 40 rows") as error:
        mrl.join_parts([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert "all must see the same" in error.value.hint


def test_rows_of_a_parquet_file_are_shared_out_across_row_groups(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((23, 4)).astype(np.float32)
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 4)})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=5)
    source = open_vectors(tmp_path / "v.parquet")
    for count in (1, 3, 4, 30):
        shares = [share_of_vectors(source, Shard(n, count))[1] for n in range(1, count + 1)]
        found = [some for share in shares for some in share.read()]
        np.testing.assert_array_equal(np.concatenate(found), rows)


# What does not fit together


def refused(parts: list[Path], out: Path, **more: object) -> MrlSearchError:
    with pytest.raises(MrlSearchError) as error:
        mrl.join_parts(parts, out, model=FakeEncoder(), **more)
    assert not out.exists() and not list(out.parent.glob(f".{out.name}*"))
    return error.value


def test_missing_and_doubled_parts(place: Path, tmp_path: Path) -> None:
    two, three, one = parts_of(place)
    error = refused([two, three], tmp_path / "x")
    assert error.message == "Of 3 parts, 1/3 is missing."
    assert "--shard 1/3" in error.hint and "--partial" in error.hint
    shutil.copytree(one, tmp_path / "again")
    error = refused([one, two, three, tmp_path / "again"], tmp_path / "x")
    assert error.message == f"Part 1/3 is there twice: {one} and {tmp_path / 'again'}."
    joined = mrl.join_parts([two], tmp_path / "some", partial=True, model=FakeEncoder())
    before = len(joined)
    joined = Index.open(tmp_path / "some", FakeEncoder())
    assert len(joined.sync().added) == 41 - before  # the others come by a sync


def test_parts_of_other_kinds(place: Path, tmp_path: Path) -> None:
    one = parts_of(place)[2]
    out = tmp_path / "x"
    assert "is an index, not a part" in refused([place / "whole"], out).message
    assert "No part is given." in refused([], out).message
    other = part(place, 2, out=f"{tmp_path}/four", count=4)
    assert "shares a source out among 4" in refused([one, other], out).message
    other = part(place, 2, out=f"{tmp_path}/wide", dtype="float32")
    assert "float32" in refused([one, other], out).message
    source = open_source(str(place / "pictures"))
    mrl.build_part(source, tmp_path / "foe", FakeEncoder(fingerprint="beef" * 8), "2/3")
    assert "was made by counting (beefbeef" in refused([one, tmp_path / "foe"], out).message
    source = open_source(str(place / "pictures"), labels="none")
    mrl.build_part(source, tmp_path / "bare", FakeEncoder(), "2/3")
    assert "--labels none" in refused([one, tmp_path / "bare"], out).message


def test_vectors_that_grew_between_two_parts(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((60, 16), np.float32)
    for number, count in ((1, 50), (2, 60)):
        np.save(tmp_path / "v.npy", rows[:count])
        mrl.build_vector_part(tmp_path / "v.npy", tmp_path / str(number), f"{number}/2")
    with pytest.raises(ConfigError, match="saw 60 rows"):
        mrl.join_parts([tmp_path / "1", tmp_path / "2"], tmp_path / "x")


def test_a_path_of_two_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pictures", 4)
    first = part(tmp_path, 1, count=2)
    monkeypatch.setattr(Shard, "takes", lambda self, key: True)  # as if both took all
    second = part(tmp_path, 2, count=2)
    joined = mrl.join_parts([first, second], tmp_path / "same", model=FakeEncoder())
    assert len(joined) == 8  # the same bytes are taken once
    shutil.rmtree(second)
    write_pictures(tmp_path / "pictures", 4, seed=5)
    part(tmp_path, 2, count=2)
    assert "has other bytes in one part" in refused([first, second], tmp_path / "x").message


@pytest.mark.parametrize("note", [",note", ""])
def test_a_part_built_without_the_metadata_of_the_others(tmp_path: Path, note: str) -> None:
    pictures = tmp_path / "pictures"
    write_pictures(pictures, 4)
    table = pictures / "metadata.csv"
    table.write_text(f"file_name,label{note}\ncat/cat-0001.png,tom{',nice' if note else ''}\n")
    first = part(tmp_path, 1, count=2)
    table.unlink()
    second = part(tmp_path, 2, count=2)
    error = refused([first, second], tmp_path / "x")
    lacking = "columns label, note" if note else "column label"
    assert error.message == f"{second} was built without the {lacking}, which {first} has."
    command = f"mrl-search build-index {pictures} --out {second} --shard 2/2"
    assert error.hint.startswith(f"Remove {second} and build it again where the metadata file is: ")
    assert command in error.hint


def test_a_part_built_without_the_items_of_the_others(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.eye(16, dtype=np.float32))
    columns = {"label": ["a"] * 4 + [None] * 12, "price": [1.5] * 16}  # the last have no label
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    one, two, three = (tmp_path / f"my {number}" for number in (1, 2, 3))
    for out, items in ((one, None), (two, "items.parquet"), (three, "items.parquet")):
        mrl.build_vector_part(
            tmp_path / "v.npy", out, f"{out.name[-1]}/3", items=items and tmp_path / items
        )
    error = refused([one, two, three], tmp_path / "x")
    assert error.message == f"{one} was built without the columns label, price, which {three} has."
    command = f"build-index {tmp_path / 'v.npy'} --out '{one}' --shard 1/3 --items {tmp_path}"
    assert error.hint.endswith(f"with its --items: mrl-search {command}/items.parquet")
    joined = mrl.join_parts([two, three], tmp_path / "x", partial=True)
    assert set(joined.items.column("price")) == {1.5}


# A part that cannot be read


def test_the_hint_of_a_damaged_part_builds_that_part(place: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(place / "parts", parts)
    made = [parts / str(number) for number in (1, 2, 3)]
    two = f"build-index {place / 'pictures'} --out {made[1]} --shard 2/3"
    (made[1] / "vectors.npy").write_bytes(b"")
    error = refused(made, tmp_path / "x")
    assert "is cut short" in error.message and two in error.hint
    (made[1] / "manifest.json").write_text("{")
    error = refused(made, tmp_path / "x")
    assert error.hint.startswith(f"Remove {made[1]}. ") and two in error.hint
    shutil.rmtree(made[1])
    error = refused(made, tmp_path / "x")
    assert error.message == f"There is no {made[1]}." and two in error.hint
    shutil.rmtree(made[2])
    error = refused(made, tmp_path / "x")
    assert error.hint.endswith("--shard NUMBER/3 --model bundled\nNUMBER is one of 2, 3.")
    error = refused([made[2]], tmp_path / "x")
    assert (
        error.hint
        == f"Build one with: mrl-search build-index SRC --out {made[2]} --shard NUMBER/COUNT"
    )


def test_the_hint_of_an_unfinished_part_continues_it(place: Path, tmp_path: Path) -> None:
    one, three = place / "parts/1", place / "parts/3"
    (tmp_path / ".two.building").mkdir()
    error = refused([one, tmp_path / "two", three], tmp_path / "x")
    assert error.message == f"{tmp_path / 'two'} is not finished yet."
    command = f"mrl-search build-index {place / 'pictures'} --out {tmp_path / 'two'} --shard 2/3"
    again = f"Embedding continues where it stopped; run again: {command} --model bundled"
    assert error.hint == again


def test_the_command_of_a_part_has_the_options_that_decide_its_rows(tmp_path: Path) -> None:
    write_pictures(tmp_path / "my pictures", 2)
    source = open_source(str(tmp_path / "my pictures"), labels="none", hidden=True)
    mrl.build_part(source, tmp_path / "1", FakeEncoder(), "1/2", dtype="float32")
    model = FakeEncoder().model
    error = refused([tmp_path / "1"], tmp_path / "x")
    assert error.message == "Of 2 parts, 2/2 is missing."
    assert error.hint.splitlines()[0] == (
        f"Build what is missing: mrl-search build-index '{tmp_path}/my pictures' --out PART "
        f"--shard 2/2 --model {model} --labels none --dtype float32 --hidden"
    )


def test_a_finished_part_is_not_built_again(place: Path) -> None:
    with pytest.raises(IndexFolderError, match="holds part 2/3 of an index") as error:
        part(place, 2)
    assert "mrl-search join" in error.value.hint and "sync" not in error.value.hint


# A part by itself


def test_a_part_can_be_searched_and_not_changed(place: Path, tmp_path: Path) -> None:
    made = tmp_path / "indexes" / "part"
    shutil.copytree(parts_of(place)[0], made)
    index = Index.open(made, FakeEncoder())
    path = index.items.column("path")[0]
    assert index.search(path, k=1, plan="exact")[0].path == path
    for change in (index.sync, lambda: index.remove(path), index.compact):
        with pytest.raises(IndexFolderError, match="part 2/3 of an index") as error:
            change()
    assert "mrl-search join" in error.value.hint
    with pytest.raises(IndexFolderError, match="There is no index"):
        newest_index(tmp_path / "indexes")


def test_a_stopped_part_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pictures(tmp_path / "pictures", 150)
    age(tmp_path)
    monkeypatch.setattr("mrl_search.store.writer.COMMIT", 64)

    class Stopping(FakeEncoder):
        def encode(self, pictures: np.ndarray) -> np.ndarray:
            if len(self.batches) == 2:
                raise KeyboardInterrupt
            return super().encode(pictures)

    source = open_source(str(tmp_path / "pictures"))
    with pytest.raises(KeyboardInterrupt):
        mrl.build_part(source, tmp_path / "1", Stopping(), "1/1")
    encoder = FakeEncoder()
    mrl.build_part(source, tmp_path / "1", encoder, "1/1")
    assert sum(encoder.batches) == 300 - 128
    joined = mrl.join_parts([tmp_path / "1"], tmp_path / "joined", model=FakeEncoder())
    assert_same(joined, Index.build(source, tmp_path / "whole", model=FakeEncoder()))
