"""Copies in a collection: levels, groups without chains, the file that is kept, and decisions."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first, made_of
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mrl_search.duplicates.decisions import DECISIONS, not_duplicates, read_decisions
from mrl_search.duplicates.groups import Content, Duplicates, Edge, Level, stars
from mrl_search.duplicates.keeping import File, Keep
from mrl_search.errors import ConfigError, DataError
from mrl_search.images.decode import content_hash
from mrl_search.images.drawn import draw_animal
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")


def named(found: Duplicates, root: Path) -> dict[str, dict[str, str]]:
    """Each kept file with its copies and their levels, by names below `root`."""
    return {
        str(Path(g.keep.path).relative_to(root)): {
            str(Path(c.file.path).relative_to(root)): str(c.level) for c in g.copies
        }
        for g in found.groups
    }


def indexed(folder: Path) -> Index:
    return Index.build(folder, folder.parent / f"index-{folder.name}", model=FakeEncoder())


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three pictures, of which one has a copy of each kind."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(3):
        draw_animal("cat", number, 120).save(folder / f"{number}.jpg", quality=95)
    one = folder / "0.jpg"
    shutil.copy2(one, folder / "same bytes.jpg")
    with Image.open(one) as picture:
        picture.save(folder / "pixels.png")
        picture.crop((10, 10, 110, 100)).save(folder / "cropped.jpg")
    for number, path in enumerate(sorted(folder.iterdir())):
        os.utime(path, (1_000_000 + number, 1_000_000 + number))
    return folder


def test_the_levels_let_in_more_and_more(album: Path) -> None:
    index, one = indexed(album), {"same bytes.jpg": "exact"}
    assert named(index.duplicates("exact"), album) == {"0.jpg": one}
    kept = {"0.jpg": "pixels", "same bytes.jpg": "pixels"}
    assert named(index.duplicates("pixels"), album) == {"pixels.png": kept}
    found = index.duplicates()
    assert named(found, album) == {"pixels.png": {**kept, "cropped.jpg": "copy"}}
    (group,) = found.groups
    assert group.why == f"least compressed ({group.keep.bytes / 14400:.2f} bytes a pixel)"
    assert group.level is Level.COPY and found.copies == 3
    assert group.bytes_freed == sum(c.file.bytes for c in group.copies) == found.bytes_freed
    assert [c.likeness for c in group.copies][:2] == [1.0, 1.0]
    assert found.threshold is None and found.compared == 10  # of five different contents
    with pytest.raises(DataError, match="5 different pictures are too few"):
        index.duplicates("similar")
    with pytest.raises(ConfigError, match="no level 'alike'"):
        index.duplicates("alike")
    with pytest.raises(ConfigError, match="--fpr is 0"):
        index.duplicates(fpr=0)


@pytest.mark.parametrize(
    ("rule", "kept", "why"),
    [
        ("best", "pixels.png", "least compressed"),
        ("oldest", "0.jpg", "oldest (1970-01-12)"),
        ("newest", "same bytes.jpg", "newest (1970-01-12)"),
        ("largest", "pixels.png", "largest"),
        ("*/cropped*", "cropped.jpg", "fits */cropped*"),
    ],
)
def test_keep_says_which_one_and_why(album: Path, rule: str, kept: str, why: str) -> None:
    (group,) = indexed(album).duplicates(keep=rule).groups
    assert Path(group.keep.path).name == kept and group.why.startswith(why)


def test_every_file_that_fits_the_pattern_is_kept(album: Path) -> None:
    found = indexed(album).duplicates(keep="*.jpg")
    (group,) = found.groups
    actions = {Path(c.file.path).name: c.action for c in group.copies}
    assert group.keep.path.endswith("0.jpg")  # both are the best that fit; it is the older one
    assert actions == {"same bytes.jpg": "kept", "pixels.png": "none", "cropped.jpg": "kept"}
    assert found.copies == 1 and found.bytes_freed == (album / "pixels.png").stat().st_size


def test_more_pixels_come_first() -> None:
    small, large = (
        File(i, f"{i}.jpg", str(i), "", width=w, height=8, bytes=b, modified=i)
        for i, (w, b) in enumerate([(8, 900), (9, 10)])
    )
    assert Keep().key(large) < Keep().key(small)
    assert Keep().why(large, [small]) == "most pixels (9 x 8)"
    same = replace(small, id=2, path="2.jpg", modified=-5.0)
    assert Keep().why(same, [small]) == "oldest (1969-12-31)"
    twin = replace(small, path="1.jpg")
    assert Keep().why(small, [twin]) == "first by name"
    far = replace(small, modified=1e300)  # a clock that went wrong
    assert Keep("newest").why(far, [small]) == "newest (1e+300)"


def test_there_are_no_chains() -> None:
    """A is like B and B like C, but A is not like C."""
    files = [File(i, f"{i}", str(i), "", width=w, height=1) for i, w in enumerate([9, 5, 7])]
    contents = [Content([f], [f]) for f in files]
    edges = [Edge(0, 1, Level.COPY, 0.9), Edge(1, 2, Level.COPY, 0.9)]
    ((group, numbers),) = stars(contents, edges, Keep(), shared=True)
    assert group.keep is files[0] and [c.file for c in group.copies] == [files[1]]
    assert numbers == [0, 1]
    best = [Content([f], [f]) for f in (files[0], replace(files[1], width=99), files[2])]
    ((group, _),) = stars(best, edges, Keep(), shared=True)
    assert group.keep.id == 1 and [c.file.id for c in group.copies] == [0, 2]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_copy_passed_against_the_kept_file_and_is_in_one_group(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 9))
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=count, max_size=count))
    contents, number = [], 0
    for i in range(count):
        files = []
        for _ in range(data.draw(st.integers(1, 3))):
            files.append(File(number, f"{number}", str(i), "", width=sizes[i], height=1))
            number += 1
        contents.append(Content(files, files))
    every = [(a, b) for a in range(count) for b in range(a)]
    chosen = data.draw(st.lists(st.sampled_from(every), unique=True))
    edges = [Edge(a, b, Level.COPY, 0.9) for a, b in chosen]
    seen: set[int | None] = set()
    for group, _ in stars(contents, edges, Keep(), shared=True):
        ids = [group.keep.id, *(c.file.id for c in group.copies)]
        assert len(ids) == len(set(ids)) > 1 and not seen & set(ids)
        seen |= set(ids)
        for copy in group.copies:
            pair = int(group.keep.hash), int(copy.file.hash)
            assert pair[0] == pair[1] or pair in chosen or pair[::-1] in chosen
            assert copy.file.width <= group.keep.width
    for content in contents:  # files of the same bytes are always together
        assert len(content.offered) == 1 or {f.id for f in content.offered} <= seen
    for a, b in chosen:  # of two that are alike, one is in a group
        assert {f.id for i in (a, b) for f in contents[i].offered} & seen


def test_shots_of_one_scene_are_similar_but_no_copies(tmp_path: Path) -> None:
    from test_look import shots

    folder = tmp_path / "shots"
    folder.mkdir()
    for number, picture in enumerate(shots(2)):
        picture.save(folder / f"shot-{number}.png")
    rng = np.random.default_rng(0)
    for number in range(64):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / f"{number}.png")
    index = indexed(folder)
    assert index.duplicates(fpr=1e-3).groups == ()
    found = index.duplicates("similar", fpr=1e-3)
    assert found.candidates >= 1 and found.expected == pytest.approx(found.compared * 1e-3, rel=0.1)
    shots_of = [g for g in found.groups if "shot-" in g.keep.path]
    assert len(shots_of) == 1 and "shot-" in shots_of[0].copies[0].file.path
    assert {c.level for g in found.groups for c in g.copies} == {Level.SIMILAR}
    assert found.copies == found.bytes_freed == 0  # nothing is ever done to them
    assert index.duplicates("similar", fpr=1e-9).threshold > found.threshold


def test_hard_links_are_one_file_and_no_copies(album: Path) -> None:
    for name in ("same bytes.jpg", "pixels.png", "cropped.jpg"):
        (album / name).unlink()
    for name in ("again.jpg", "copy.jpg"):
        shutil.copy(album / "0.jpg", album / name)
    index = indexed(album)
    (album / "again.jpg").unlink()
    os.link(album / "0.jpg", album / "again.jpg")
    (group,) = index.duplicates("exact").groups
    assert group.keep.path.endswith("0.jpg") and group.keep.links == (f"{album}/again.jpg",)
    assert [Path(c.file.path).name for c in group.copies] == ["copy.jpg"]
    (album / "copy.jpg").unlink()
    assert index.duplicates("exact").groups == ()


def test_files_that_vanish_or_change_are_counted(album: Path) -> None:
    index = indexed(album)
    (album / "same bytes.jpg").unlink()
    draw_animal("dog", 9, 120).save(album / "cropped.jpg")
    found = index.duplicates()
    assert named(found, album) == {"pixels.png": {"0.jpg": "pixels"}}
    assert found.left_out["gone"] == 1
    assert found.left_out["changed since they were indexed"] == 1


def test_removed_items_are_not_compared(album: Path) -> None:
    index = indexed(album)
    index.remove(album / "pixels.png")
    assert set(named(index.duplicates("pixels"), album)) == {"0.jpg"}


def test_decisions_hold_for_the_content_whatever_its_name(album: Path, tmp_path: Path) -> None:
    index = indexed(album)
    hashes = [content_hash((album / name).read_bytes()) for name in ("pixels.png", "cropped.jpg")]
    assert not_duplicates(index.folder, hashes) == 1 == len(read_decisions(index.folder))
    assert not_duplicates(index.folder, hashes[::-1]) == 0
    assert named(index.duplicates(), album)["pixels.png"].keys() == {"0.jpg", "same bytes.jpg"}
    (album / "cropped.jpg").rename(album / "renamed.jpg")
    index.sync()
    assert (index.folder / DECISIONS).exists()
    assert "renamed.jpg" not in named(index.duplicates(), album)["pixels.png"]
    index.compact()
    assert "renamed.jpg" not in named(index.duplicates(), album)["pixels.png"]
    more = content_hash((album / "0.jpg").read_bytes())
    assert not_duplicates(index.folder, [*hashes, more]) == 2
    assert read_decisions(index.folder) == {
        frozenset(pair) for pair in (hashes, [hashes[0], more], [hashes[1], more])
    }
    for wrong in ([more], [more, more]):
        with pytest.raises(ConfigError, match="same bytes, or there is only one"):
            not_duplicates(index.folder, wrong)


@pytest.mark.parametrize("line", ["{", "[]", '{"not_duplicates": ["a"]}', '{"not_duplicates": 1}'])
def test_damaged_decisions_are_named(album: Path, line: str) -> None:
    index = indexed(album)
    not_duplicates(index.folder, ["a", "b"])
    path = index.folder / DECISIONS
    path.write_text(path.read_text() + f"{line}\n")
    with pytest.raises(DataError, match=r"decisions.jsonl, line 2"):
        index.duplicates("exact")


def test_against_finds_what_is_there_already(album: Path, tmp_path: Path) -> None:
    index, new = indexed(album), tmp_path / "new"
    new.mkdir()
    shutil.copy(album / "1.jpg", new / "one.jpg")
    with Image.open(album / "2.jpg") as picture:
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((300, 300)).save(new / "two.jpg")
    draw_animal("dog", 8, 120).save(new / "three.jpg")
    (new / "broken.jpg").write_bytes(b"no picture")

    def found(level: str, other: object) -> dict[str, list[str]]:
        result = index.duplicates(level, against=other)
        assert all(g.why == "in the index" for g in result.groups)
        return {
            Path(g.keep.path).name: [Path(c.file.path).name for c in g.copies]
            for g in result.groups
        }

    assert found("copy", new) == {"1.jpg": ["one.jpg"], "2.jpg": ["two.jpg"]}
    assert found("exact", new) == {"1.jpg": ["one.jpg"]}
    assert found("copy", new / "three.jpg") == {}
    assert index.duplicates(against=new).left_out["that cannot be read"] == 1
    assert found("copy", indexed(new).folder) == {"1.jpg": ["one.jpg"], "2.jpg": ["two.jpg"]}
    assert found("copy", album) == {}  # a file is no copy of itself
    assert found("copy", index.folder) == {}
    (new / "three.jpg").unlink()


def test_own_vectors_have_levels_of_vectors_alone(tmp_path: Path, make_index) -> None:
    rng = np.random.default_rng(1)
    rows = energy_first(rng, 200)
    rows[7] = rows[150]
    rows[8] = rows[151] + 0.01 * rows[3]
    index = Index.from_vectors(rows, tmp_path / "own")
    (group,) = index.duplicates("exact").groups
    assert (group.keep.id, group.copies[0].file.id) == (150, 7)  # 'item 150' comes before 'item 7'
    (near,) = [g for g in index.duplicates("similar", fpr=1e-6).groups if g.keep.id == 151]
    assert [c.file.id for c in near.copies] == [8] and near.copies[0].likeness is None
    for level in ("copy", "pixels"):
        with pytest.raises(ConfigError, match="holds your own vectors: there are no pictures"):
            index.duplicates(level)


def test_a_diameter_is_of_the_two_that_differ_most(make_index) -> None:
    rows = energy_first(np.random.default_rng(2), 300)
    for i, weight in ((1, 0.15), (2, -0.15)):
        rows[i] = rows[0] + weight * rows[9]
    paths = made_of(rows, [None] * 300)
    index = Index.from_vectors(paths.vectors)
    (group,) = [g for g in index.duplicates("similar", fpr=1e-7).groups if g.keep.id == 0]
    unit = index.corpus.vectors.prefix(64, np.array([0, 1, 2]))
    assert group.diameter == pytest.approx(1 - float((unit @ unit.T).min()), abs=1e-6)
    assert group.diameter > 1 - min(c.score for c in group.copies)
