"""Copies in a collection: levels, groups without chains, the file that is kept, and decisions."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import energy_first
from fakes import FakeEncoder
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_info, threadpool_limits

from mrl_search.duplicates import finding
from mrl_search.duplicates.decisions import DECISIONS, not_duplicates, read_decisions
from mrl_search.duplicates.groups import Content, Duplicates, Edge, Level, stars
from mrl_search.duplicates.keeping import Item, Keep
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
    more = {**one, "pixels.png": "pixels"}
    assert named(index.duplicates("pixels"), album) == {"0.jpg": more}
    found = index.duplicates()
    assert named(found, album) == {"0.jpg": {**more, "cropped.jpg": "copy"}}
    (group,) = found
    assert len(found) == 1 and group.why == "most pixels (120 x 120), then oldest (1970-01-12)"
    assert group.level is Level.COPY and found.copies == 3
    assert group.bytes_freed == sum(c.file.bytes for c in group.copies) == found.bytes_freed
    assert [c.likeness for c in group.copies][:2] == [None, 1.0]
    assert found.threshold is None and found.compared == 10  # of five different contents
    with pytest.raises(DataError, match="5 different pictures are too few"):
        index.duplicates("similar")
    with pytest.raises(ConfigError, match="no level 'alike'"):
        index.duplicates("alike")
    with pytest.raises(ConfigError, match="--fpr is 0"):
        index.duplicates(fpr=0)


def test_the_second_look_is_one_thread(album: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index, look, threads = indexed(album), finding.likeness, set[int]()

    def counted(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
        libraries = threadpool_info()
        threads.update(lib["num_threads"] for lib in libraries if lib["user_api"] == "blas")
        return look(a, b)

    monkeypatch.setattr(finding, "likeness", counted)
    with threadpool_limits(2, "blas"):
        assert len(index.duplicates()) == 1
    assert threads == {1}


@pytest.mark.parametrize(
    ("rule", "kept", "why"),
    [
        ("best", "0.jpg", "most pixels (120 x 120), then oldest (1970-01-12)"),
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


def test_a_pattern_that_fits_nothing_is_an_error(album: Path) -> None:
    with pytest.raises(ConfigError, match=r"--keep is 'originals'; no picture has") as error:
        indexed(album).duplicates(keep="originals")
    assert "best, oldest, newest, largest" in error.value.hint and f"{album}/" in error.value.hint


def camera_file(folder: Path, quality: int = 90, exif: bool = True) -> tuple[Path, Image.Exif]:
    """A photograph as a camera writes it; the oldest file of its folder."""
    tags, path = Image.Exif(), folder / "camera.jpg"
    tags[0x010F], tags[0x0110] = "Canon", "EOS 5D"
    folder.mkdir()
    draw_animal("dog", 4, 200).save(path, quality=quality, exif=tags if exif else Image.Exif())
    os.utime(path, (1_000_000, 1_000_000))
    return path, tags


SIZE = "most pixels (200 x 200)"
CAMERA, OLDEST = "camera data (Canon EOS 5D)", "oldest (1970-01-12)"
BEFORE = "most pixels before enlargement"


def resized(picture: Image.Image, side: int) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.LANCZOS)


@pytest.mark.parametrize("exif", [True, False], ids=["EXIF", "no EXIF"])
@pytest.mark.parametrize(
    ("change", "options", "keeps_exif", "why"),
    [
        (lambda p: p, {"quality": 99}, False, (CAMERA, OLDEST)),
        (lambda p: p, {"quality": 99}, True, (OLDEST, OLDEST)),
        (lambda p: p, {"quality": 60}, False, (CAMERA, "least compressed")),
        (lambda p: p, {"quality": 60}, True, ("least compressed", "least compressed")),
        (lambda p: resized(p, 300), {"quality": 95}, False, (CAMERA, "not enlarged")),
        (lambda p: resized(p, 300), {"quality": 95}, True, ("not enlarged", "not enlarged")),
        (lambda p: resized(p, 400), {"quality": 80}, True, ("not enlarged", "not enlarged")),
        (lambda p: resized(p, 140), {"quality": 99}, False, (SIZE, SIZE)),
        (lambda p: resized(p, 140), {"quality": 99}, True, (SIZE, SIZE)),
    ],
)
def test_the_file_of_the_camera_is_kept(
    tmp_path: Path, exif: bool, change: object, options: dict[str, int], keeps_exif: bool,
    why: tuple[str, str],
) -> None:  # fmt: skip
    """Though a copy is larger in pixels or bytes; `why` with EXIF in the camera's file, without."""
    path, tags = camera_file(tmp_path / "album", exif=exif)
    with Image.open(path) as picture:
        kept = {"exif": tags} if keeps_exif and exif else {}
        change(picture).save(tmp_path / "album" / "a copy.jpg", **options, **kept)  # type: ignore[operator]
    (group,) = indexed(tmp_path / "album").duplicates()
    assert (Path(group.keep.path).name, group.why) == ("camera.jpg", why[not exif])


def test_an_old_poor_copy_is_not_kept(tmp_path: Path) -> None:
    path, _ = camera_file(tmp_path / "album", exif=False)
    with Image.open(path) as picture:
        picture.save(tmp_path / "album" / "poor.jpg", quality=40)
    os.utime(tmp_path / "album" / "poor.jpg", (1, 1))
    (group,) = indexed(tmp_path / "album").duplicates()
    assert (group.keep.path, group.why) == (str(path), "least compressed")


def test_every_reason_that_is_given_is_true() -> None:
    old, large = Item(0, "0", "", "", width=8, height=8), Item(1, "1", "", "", width=9, height=9)
    old, mine = replace(old, modified=1.0), replace(large, id=2, modified=5.0)
    later = replace(large, modified=9.0)
    assert Keep().why(mine, [old, later]) == "most pixels (9 x 9), then oldest (1970-01-01)"
    blown = replace(large, width=99, original=81)
    assert Keep().why(mine, [old, blown]) == f"{BEFORE}, then not enlarged"
    assert Keep().why(replace(blown, camera="X"), [old, mine]) == f"{BEFORE}, then camera data (X)"


def test_more_pixels_come_first() -> None:
    small, large = (
        Item(i, f"{i}.jpg", str(i), "", width=w, height=8, bytes=b, modified=i)
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
    files = [Item(i, f"{i}", str(i), "", width=w, height=1) for i, w in enumerate([9, 5, 7])]
    contents = [Content([f], [f]) for f in files]
    edges = [Edge(0, 1, Level.COPY, 0.9), Edge(1, 2, Level.COPY, 0.9)]
    (group,) = stars(contents, edges, Keep(), shared=True)
    assert group.keep is files[0] and [c.file for c in group.copies] == [files[1]]
    best = [Content([f], [f]) for f in (files[0], replace(files[1], width=99), files[2])]
    (group,) = stars(best, edges, Keep(), shared=True)
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
            files.append(Item(number, f"{number}", str(i), "", width=sizes[i], height=1))
            number += 1
        contents.append(Content(files, files))
    every = [(a, b) for a in range(count) for b in range(a)]
    apart = {frozenset(p) for p in data.draw(st.lists(st.sampled_from(every), max_size=4))}
    pairs = data.draw(st.lists(st.sampled_from(every), unique=True))
    chosen = [pair for pair in pairs if frozenset(pair) not in apart]
    edges = [Edge(a, b, Level.COPY, 0.9) for a, b in chosen]
    seen: set[int | None] = set()
    for group in stars(contents, edges, Keep(), shared=True, apart=apart):
        ids = [group.keep.id, *(c.file.id for c in group.copies)]
        within = {int(file.hash) for file in (group.keep, *(c.file for c in group.copies))}
        assert not any(pair <= within for pair in apart)
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
    assert len(index.duplicates(fpr=1e-3)) == len(index.duplicates()) == 0
    few, by_default = index.duplicates(fpr=1e-3), index.duplicates()
    assert few.candidates < 20 and few.threshold == 0.95  # these pictures are much alike
    assert 250 < by_default.expected <= 330 and by_default.candidates > 250  # five a picture
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
    assert named(found, album) == {"0.jpg": {"pixels.png": "pixels"}}
    assert found.left_out["gone"] == 1
    assert found.left_out["changed since they were indexed"] == 1


def test_removed_items_are_not_compared(album: Path) -> None:
    index = indexed(album)
    index.remove(album / "pixels.png")
    assert set(named(index.duplicates("pixels"), album)) == {"0.jpg"}


def test_decisions_hold_for_the_content_whatever_its_name(album: Path, tmp_path: Path) -> None:
    index = indexed(album)
    hashes = [content_hash((album / name).read_bytes()) for name in ("0.jpg", "cropped.jpg")]
    assert not_duplicates(index.folder, hashes) == 1 == len(read_decisions(index.folder))
    assert not_duplicates(index.folder, hashes[::-1]) == 0
    rest = {"pixels.png", "same bytes.jpg"}
    assert named(index.duplicates(), album)["0.jpg"].keys() == rest
    (album / "cropped.jpg").rename(album / "renamed.jpg")
    index.sync()
    assert (index.folder / DECISIONS).exists()
    assert named(index.duplicates(), album)["0.jpg"].keys() == rest
    index.compact()
    assert named(index.duplicates(), album)["0.jpg"].keys() == rest
    more = content_hash((album / "pixels.png").read_bytes())
    assert not_duplicates(index.folder, [*hashes, more]) == 2
    assert read_decisions(index.folder) == {
        frozenset(pair) for pair in (hashes, [hashes[0], more], [hashes[1], more])
    }
    for wrong in ([more], [more, more]):
        with pytest.raises(ConfigError, match="same bytes, or there is only one"):
            not_duplicates(index.folder, wrong)


def test_declared_pairs_do_not_meet_around_a_third_picture(album: Path) -> None:
    index = indexed(album)
    names = ("pixels.png", "cropped.jpg")
    not_duplicates(index.folder, [content_hash((album / n).read_bytes()) for n in names])
    found = named(index.duplicates(), album)
    assert found == {"0.jpg": {"same bytes.jpg": "exact", "pixels.png": "pixels"}}
    other = named(index.duplicates(keep="*/cropped.jpg"), album)
    assert other == {"cropped.jpg": {"0.jpg": "copy", "same bytes.jpg": "copy"}}


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

    def found(level: str, other: object, itself: bool = False) -> dict[str, list[str]]:
        result = index.duplicates(level, against=other)
        assert all(g.why == "in the index" for g in result.groups)
        actions = {c.action for group in result for c in group.copies}
        assert actions <= {"in the index itself" if itself else "none"}
        assert not itself or result.copies == result.bytes_freed == 0  # it is never offered
        return {
            Path(g.keep.path).name: [Path(c.file.path).name for c in g.copies]
            for g in result.groups
        }

    assert found("copy", new) == {"1.jpg": ["one.jpg"], "2.jpg": ["two.jpg"]}
    assert found("exact", new) == {"1.jpg": ["one.jpg"]}
    assert found("copy", new / "three.jpg") == {}
    assert index.duplicates(against=new).left_out["that cannot be read"] == 1
    assert found("copy", indexed(new).folder) == {"1.jpg": ["one.jpg"], "2.jpg": ["two.jpg"]}
    every = {
        "0.jpg": ["0.jpg", "same bytes.jpg"], "1.jpg": ["1.jpg"], "2.jpg": ["2.jpg"],
        "cropped.jpg": ["cropped.jpg"], "pixels.png": ["pixels.png"],
    }  # fmt: skip
    for level in ("exact", "copy"):
        assert found(level, album, itself=True) == every
        assert found(level, index.folder, itself=True) == every
        assert found(level, album / "2.jpg", itself=True) == {"2.jpg": ["2.jpg"]}
    os.link(album / "2.jpg", new / "link.jpg")
    assert found("copy", new / "link.jpg", itself=True) == {"2.jpg": ["link.jpg"]}


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
