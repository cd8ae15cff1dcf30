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
from fakes import FakeEncoder, png
from machines import age, assert_same, build_all, part, parts_of

import mrl_search as mrl
from mrl_search.errors import ConfigError, DataError, MrlSearchError
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.store.manifest import read_manifest


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_all(tmp_path_factory.mktemp("machines"))


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


@pytest.mark.parametrize("change", ["", "option", "part", "row"])
def test_the_same_join_again_finds_its_work_done(tmp_path: Path, change: str) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).standard_normal((60, 16), np.float32))
    made = [tmp_path / f"part-{number}" for number in (1, 2)]
    for number, out in enumerate(made, 1):
        mrl.build_vector_part(tmp_path / "v.npy", out, f"{number}/2")
    again = ("join", *made[::-1], "--out", tmp_path / "all", "--dims", "8")
    ok(*again)
    before = (tmp_path / "all" / "manifest.json").stat()
    if change == "option":
        again = (*again, "--rotate", "pca")
    elif change == "part":
        shutil.rmtree(made[0])
        mrl.build_vector_part(tmp_path / "v.npy", made[0], "1/2", dtype="float32")
    elif change == "row":
        Index.open(tmp_path / "all").remove(ids=[3])
    if change:
        assert_error(run(*again), "all exists already: it holds an index.")
    else:
        assert "joined of these parts before" in ok(*again).stderr
        assert (tmp_path / "all" / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns
        small = mrl.shrink_index(Index.open(tmp_path / "all"), tmp_path / "small", 8)
        assert_error(run(*again[:3], "--out", small.folder, "--dims", "8"), "exists already")


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
