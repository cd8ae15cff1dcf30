"""Parts that several machines build, and the index that they become: that of one machine."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import assert_error, ok, run, write_pictures
from fakes import FakeEncoder, ListSource, png

import mrl_search as mrl
from mrl_search.errors import ConfigError, DataError, IndexFolderError, MrlSearchError
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.parts import share_of_pictures, share_of_vectors
from mrl_search.store.manifest import newest_index, read_manifest
from mrl_search.store.shard import Shard
from mrl_search.store.vector_files import open_vectors

COUNT = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pictures`, one of them broken and one twice; `parts/1` to `parts/3`; and `whole` of all."""
    folder = tmp_path_factory.mktemp("machines")
    write_pictures(folder / "pictures", 20)
    shutil.copy(folder / "pictures/cat/cat-0000.png", folder / "pictures/dog/copy.png")
    (folder / "pictures/cat/broken.jpg").write_bytes(b"not a picture")
    age(folder)
    for number in range(1, COUNT + 1):
        part(folder, number)
    Index.build(folder / "pictures", folder / "whole", model=FakeEncoder())
    return folder


def age(folder: Path) -> None:
    """Files that were written long ago; the time of a new one is not recorded."""
    for path in folder.rglob("*.*"):
        os.utime(path, (1e9, 1e9))


def part(folder: Path, number: int, out: str = "parts", count: int = COUNT, **more: str) -> Path:
    made = folder / out / str(number)
    source = open_source(str(folder / "pictures"))
    mrl.build_part(source, made, FakeEncoder(), f"{number}/{count}", **more)
    return made


def parts_of(place: Path) -> list[Path]:
    return [place / "parts" / str(number) for number in (2, 3, 1)]


def assert_same(joined: Index, whole: Index) -> None:
    """Equal to the last bit: vectors, items, what is skipped, and all of the manifest but times."""
    np.testing.assert_array_equal(joined.corpus.vectors.rows(), whole.corpus.vectors.rows())
    assert joined.items.table().equals(whole.items.table())
    assert joined.corpus.collection.skipped == whole.corpus.collection.skipped
    a, b = joined.manifest, whole.manifest
    for name in ("dims", "factory", "axes", "roots", "source", "count", "rows_dim", "shard"):
        assert getattr(a, name) == getattr(b, name), name


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


def test_rows_of_a_parquet_file_are_shared_out_across_row_groups(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((23, 4)).astype(np.float32)
    table = pa.table({"v": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 4)})
    pq.write_table(table, tmp_path / "v.parquet", row_group_size=5)
    source = open_vectors(tmp_path / "v.parquet")
    for count in (1, 3, 4, 30):
        shares = [share_of_vectors(source, Shard(n, count))[1] for n in range(1, count + 1)]
        found = [some for share in shares for some in share.read()]
        np.testing.assert_array_equal(np.concatenate(found), rows)


# Joined


def test_parts_become_the_index_of_one_machine(place: Path, tmp_path: Path) -> None:
    joined = mrl.join_parts(parts_of(place), tmp_path / "joined", model=FakeEncoder())
    assert_same(joined, Index.open(place / "whole"))
    assert len(joined) == 41  # a copy is an item of its own, as everywhere
    joined = Index.open(tmp_path / "joined", FakeEncoder())
    done = joined.sync()
    assert (done.added, done.removed, done.edited) == ((), (), ())


@pytest.mark.parametrize("axes", ["pca", "views", "labels"])
def test_axes_are_fitted_to_all_parts(place: Path, tmp_path: Path, axes: str) -> None:
    joined = mrl.join_parts(parts_of(place), tmp_path / "a", axes=axes, model=FakeEncoder())
    whole = Index.build(place / "pictures", tmp_path / "b", axes=axes, model=FakeEncoder())
    assert joined.manifest.axes["choice"] == axes
    assert_same(joined, whole)


def test_default_axes_are_those_of_the_encoder(place: Path, tmp_path: Path) -> None:
    encoder = FakeEncoder(axes="views")
    source = open_source(str(place / "pictures"))
    made = [tmp_path / str(number) for number in (1, 2)]
    for number, out in enumerate(made, 1):
        mrl.build_part(source, out, encoder, f"{number}/2")
    joined = mrl.join_parts(made, tmp_path / "joined", model=encoder)
    assert joined.manifest.axes["choice"] == "views"
    assert_same(joined, Index.build(source, tmp_path / "whole", model=encoder))


def test_without_model_and_pictures_pca_is_joined_and_views_are_not(
    place: Path, tmp_path: Path
) -> None:
    joined = mrl.join_parts(parts_of(place), tmp_path / "a", axes="pca", model="there/is/none")
    whole = Index.build(place / "pictures", tmp_path / "b", axes="pca", model=FakeEncoder())
    np.testing.assert_array_equal(joined.corpus.vectors.rows(), whole.corpus.vectors.rows())
    with pytest.raises(MrlSearchError, match="there/is/none"):
        mrl.join_parts(parts_of(place), tmp_path / "c", axes="views", model="there/is/none")
    with pytest.raises(ConfigError, match="did not make these parts"):
        other = FakeEncoder(fingerprint="beef" * 8)
        mrl.join_parts(parts_of(place), tmp_path / "c", axes="views", model=other)
    assert not list(tmp_path.glob("*c*"))


def test_pictures_in_another_place(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "pictures", tmp_path / "mounted")
    source = tmp_path / "mounted"
    mixed = [*parts_of(place)[:2], tmp_path / "one"]
    mrl.build_part(open_source(str(source)), mixed[2], FakeEncoder(), "1/3")
    with pytest.raises(ConfigError, match="is of ") as error:
        mrl.join_parts(mixed, tmp_path / "joined", model=FakeEncoder())
    assert "--source" in error.value.hint
    joined = mrl.join_parts(
        mixed, tmp_path / "joined", source=source, axes="views", model=FakeEncoder()
    )
    whole = Index.build(source, tmp_path / "whole", axes="views", model=FakeEncoder())
    assert joined.manifest.roots == whole.manifest.roots
    assert joined.items.column("path").tolist() == whole.items.column("path").tolist()
    np.testing.assert_array_equal(joined.corpus.vectors.rows(), whole.corpus.vectors.rows())
    assert [s.path for s in joined.corpus.collection.skipped] == [f"{source}/cat/broken.jpg"]
    with pytest.raises(DataError, match="There is nothing at"):
        mrl.join_parts(mixed, tmp_path / "new", source=tmp_path / "gone", model=FakeEncoder())


def test_a_part_without_pictures_counts(tmp_path: Path) -> None:
    for grey in (10, 20):
        path = tmp_path / "pictures" / f"{grey}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(grey))
    age(tmp_path)
    made = [part(tmp_path, number, count=9) for number in range(1, 10)]
    assert sorted(len(Index.open(folder)) for folder in made) == [0] * 7 + [1] * 2
    whole = Index.build(tmp_path / "pictures", tmp_path / "whole", model=FakeEncoder())
    assert_same(mrl.join_parts(made, tmp_path / "joined", model=FakeEncoder()), whole)
    empty = [folder for folder in made if not len(Index.open(folder))]
    with pytest.raises(DataError, match="The parts hold nothing"):
        mrl.join_parts(empty, tmp_path / "none", partial=True)


def test_columns_of_some_parts_alone(place: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(place / "pictures", pictures)
    age(pictures)
    (pictures / "metadata.csv").write_text("file_name,note\ncat/cat-0003.png,nice\n")
    made = [part(tmp_path, number) for number in (1, 2, 3)]
    joined = mrl.join_parts(made, tmp_path / "joined", model=FakeEncoder())
    assert_same(joined, Index.build(pictures, tmp_path / "whole", model=FakeEncoder()))
    assert joined.items.column("note").tolist().count("nice") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes")
def test_names_that_are_not_text(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 3)
    for name in (b"caf\xe9.png", b"zo\xeb.png"):
        file = os.fsencode(tmp_path / "pictures" / "cat") + b"/" + name
        Path(os.fsdecode(file)).write_bytes(png(len(name)))
    age(tmp_path)
    made = [part(tmp_path, number) for number in (1, 2, 3)]
    joined = mrl.join_parts(made, tmp_path / "joined", model=FakeEncoder())
    assert_same(joined, Index.build(tmp_path / "pictures", tmp_path / "w", model=FakeEncoder()))


def test_pictures_in_a_table(tmp_path: Path) -> None:
    """Shared out by row; a machine may have the table in another place."""
    table = pa.table({
        "image": pa.array([png(grey) if grey != 5 else b"broken" for grey in range(30)]),
        "label": [f"label {row % 3}" for row in range(30)],
    })  # fmt: skip
    places = [tmp_path / name / "pictures.parquet" for name in ("here", "there")]
    for file in places:
        file.parent.mkdir()
        pq.write_table(table, file)
    made = [tmp_path / str(number) for number in (1, 2, 3)]
    for number, out in enumerate(made, 1):
        source = open_source(str(places[number % 2]))
        mrl.build_part(source, out, FakeEncoder(), f"{number}/3")
        assert read_manifest(out).shard.by == "position"
    with pytest.raises(ConfigError, match="is of "):
        mrl.join_parts(made, tmp_path / "joined", model=FakeEncoder())
    how = {"axes": "views", "model": FakeEncoder()}
    joined = mrl.join_parts(made, tmp_path / "joined", source=places[0], **how)
    assert_same(joined, Index.build(str(places[0]), tmp_path / "whole", **how))
    assert joined.items.column("path")[-1] == f"{places[0]}#train/29"


@pytest.mark.parametrize("rotate", [None, "pca"])
def test_own_vectors(tmp_path: Path, rotate: str | None) -> None:
    rows = np.random.default_rng(0).standard_normal((60, 16), np.float32)
    np.save(tmp_path / "v.npy", rows)
    pq.write_table(pa.table({"label": ["a", "b", "c"] * 20}), tmp_path / "items.parquet")
    made = [tmp_path / f"part-{number}" for number in (1, 2, 3, 4)]
    for number, out in enumerate(made, 1):
        items = tmp_path / "items.parquet"
        mrl.build_vector_part(tmp_path / "v.npy", out, f"{number}/4", items=items, dtype="float32")
    joined = mrl.join_parts(made[::-1], tmp_path / "joined", rotate=rotate)
    spec = mrl.IndexSpec(dtype="float32")
    whole = Index.from_vectors(
        tmp_path / "v.npy", tmp_path / "w", items=tmp_path / "items.parquet", rotate=rotate,
        spec=spec,
    )  # fmt: skip
    got, wanted = joined.corpus.vectors.rows(), whole.corpus.vectors.rows()
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert joined.items.table().equals(whole.items.table())
    assert joined.search(rows[7], k=1)[0].id == 7
    with pytest.raises(ConfigError, match="the parts hold vectors of your own"):
        mrl.join_parts(made, tmp_path / "other", axes="pca")


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


# The command line


def test_commands(place: Path, tmp_path: Path, fake_model: Callable[..., object]) -> None:
    shown = ""
    for number in (1, 2, 3):
        out = tmp_path / f"part{number}"
        shown = ok(
            "build-index", place / "pictures", "--shard", f"{number}/3", "--out", out,
            "--dtype", "float32",
        ).stderr  # fmt: skip
        assert f"part {number}/3: " in shown and "mrl-search join" in shown
    made = [tmp_path / f"part{number}" for number in (1, 2, 3)]
    options = ("--dims", "8,64", "--factory", "8=SQ8", "--axes", "pca")
    shown = ok("join", *made, "--out", tmp_path / "joined", *options).stderr
    assert "41 images of 3 parts" in shown and "axes pca" in shown
    m = read_manifest(tmp_path / "joined")
    assert (m.dims, m.factory, m.dtype) == ((8, 64), {"8": "SQ8", "64": "Flat"}, "float32")
    assert "2/3 of 42 items, shared out by path" in ok("info", made[1]).stdout
    result = run("join", *made[:2], "--out", tmp_path / "x")
    assert_error(result, "Of 3 parts, 3/3 is missing.")
    ok("join", *made[:2], "--out", tmp_path / "x", "--partial")
    result = run("join", *made, "--out", tmp_path / "y", "--rotate", "pca")
    assert_error(result, "--rotate is given, and the parts hold pictures.")


@pytest.mark.parametrize("option", ["--dims=8", "--factory=Flat", "--axes=pca", "--rotate=pca"])
def test_what_depends_on_all_parts_is_for_join(
    tmp_path: Path, option: str, fake_model: Callable[..., object]
) -> None:
    write_pictures(tmp_path / "pictures", 1)
    np.save(tmp_path / "v.npy", np.eye(9, dtype=np.float32))
    src = tmp_path / ("v.npy" if "rotate" in option else "pictures")
    result = run("build-index", src, "--shard", "1/2", "--out", tmp_path / "x", option)
    assert_error(result, f"{option.split('=')[0]} depends on all parts")
    assert "mrl-search join" in result.stderr


def test_parts_of_vectors_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((50, 16), np.float32))
    for number in (1, 2):
        shown = ok("build-index", "v.npy", "--shard", f"{number}/2").stderr
    assert "part 2/2: 25 vectors, from row 25 on, in indexes/v-2-of-2" in shown
    made = ("indexes/v-1-of-2", "indexes/v-2-of-2")
    shown = ok("join", *made, "--out", "all", "--rotate", "pca", "--dims", "8").stderr
    assert "50 vectors of 2 parts" in shown
    assert read_manifest(Path("all")).dims == (8, 16)
    assert (Path("all") / "rotation.npy").exists()
