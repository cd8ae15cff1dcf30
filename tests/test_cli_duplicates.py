"""`mrl-search duplicates`: what it shows, and what it does to files. It deletes none."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from command_line import assert_error, lines, ok, run
from fakes import FakeEncoder
from PIL import Image

from mrl_search.duplicates import acting
from mrl_search.duplicates.keeping import Item
from mrl_search.images.drawn import draw_animal
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")

NAMES = ["it's.jpg", 'a "quoted" $(touch no) `name`.jpg', "two\nlines.jpg", "-rf.jpg", "  .jpg"]


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """`one.jpg`, and copies of it: of the same bytes, as PNG, and cropped; and another picture."""
    folder = tmp_path / "the album"
    (folder / "sub").mkdir(parents=True)
    draw_animal("cat", 1, 120).save(folder / "one.jpg", quality=95)
    draw_animal("dog", 2, 120).save(folder / "other.jpg")
    shutil.copy(folder / "one.jpg", folder / "sub" / "two.jpg")
    with Image.open(folder / "one.jpg") as picture:
        picture.save(folder / "sub" / "three.png")
        picture.crop((10, 10, 110, 100)).save(folder / "four.jpg")
    os.utime(folder / "one.jpg", (1, 1))
    return folder


@pytest.fixture
def index(album: Path, tmp_path: Path) -> Path:
    Index.build(album, tmp_path / "index", model=FakeEncoder())
    return tmp_path / "index"


def left(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir()}


EVERY = {"one.jpg", "other.jpg", "sub/two.jpg", "sub/three.png", "four.jpg"}


def test_it_shows_groups_and_changes_nothing(index: Path, album: Path) -> None:
    result = ok("duplicates", index, "--keep", "oldest")
    assert "oldest (1970-01-01)" in result.stdout and "pixels" in result.stdout
    assert f"5 items in {index}: 1 group, 3 copies" in result.stderr
    (line,) = lines(ok("duplicates", index, "--keep", "oldest", "--json"))
    assert line["group"] == 1 and line["level"] == "copy"
    assert line["keep"]["path"] == str(album / "one.jpg")
    assert line["keep"]["modified"] == "1970-01-01T00:00:01+00:00"
    members = {Path(m["path"]).name: m for m in line["members"]}
    assert {name: m["evidence"] for name, m in members.items()} == {
        "two.jpg": "hash", "three.png": "pixels", "four.jpg": "look",
    }  # fmt: skip
    four = members["four.jpg"]
    assert (four["width"], four["height"], four["action"]) == (100, 90, "none")
    assert four["bytes"] == (album / "four.jpg").stat().st_size and 0.88 <= four["likeness"] <= 1
    assert line["bytes_freed"] == sum(m["bytes"] for m in members.values())
    assert left(album) == EVERY


def test_a_lower_level_shows_less(index: Path) -> None:
    (line,) = lines(ok("duplicates", index, "--level", "exact", "--json"))
    assert [Path(m["path"]).name for m in line["members"]] == ["two.jpg"]
    assert_error(run("duplicates", index, "--level", "alike"), "There is no level 'alike'")
    assert_error(run("duplicates", index, "--fpr", "2"), "--fpr is 2.0")


def test_move_needs_yes_and_keeps_the_names(index: Path, album: Path, tmp_path: Path) -> None:
    place = tmp_path / "moved"
    shown = ok("duplicates", index, "--keep", "oldest", "--move", place)
    assert "would move 3 copies; add --yes" in shown.stderr and not place.exists()
    assert left(album) == EVERY
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "two.jpg").write_text("was here before")
    result = ok("duplicates", index, "--keep", "oldest", "--move", place, "--yes", "--json")
    assert "moved: 3 copies" in result.stderr
    assert left(album) == {"one.jpg", "other.jpg"}
    assert left(place) == {"sub/two.jpg", "sub/two (2).jpg", "sub/three.png", "four.jpg"}
    assert (place / "sub" / "two.jpg").read_text() == "was here before"
    (line,) = lines(result)
    assert {m["action"] for m in line["members"]} == {
        f"moved to {place}/{name}" for name in ("sub/two (2).jpg", "sub/three.png", "four.jpg")
    }
    inside = run("duplicates", index, "--move", album / "sub" / "x", "--yes")
    assert_error(inside, "the copies would be found again")


def test_what_changed_between_the_look_and_the_move_is_passed_over(
    index: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = acting._checked

    def checked(keep: Item, file: Item) -> tuple[os.stat_result, list[Path]]:
        if file.path.endswith("two.jpg"):
            (album / "sub" / "two.jpg").write_bytes(b"edited")
        if file.path.endswith("three.png"):
            (album / "sub" / "three.png").unlink()
        return before(keep, file)

    monkeypatch.setattr(acting, "_checked", checked)
    result = ok("duplicates", index, "--keep", "oldest", "--move", tmp_path / "moved", "--yes")
    assert "moved: 1 copy" in result.stderr
    assert "passed over 1 copy: changed since they were indexed" in result.stderr
    assert "passed over 1 copy: gone" in result.stderr
    assert (album / "sub" / "two.jpg").read_bytes() == b"edited"
    assert left(tmp_path / "moved") == {"four.jpg"}


def test_nothing_moves_when_the_kept_file_changed(
    index: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = acting._checked

    def checked(keep: Item, file: Item) -> tuple[os.stat_result, list[Path]]:
        (album / "one.jpg").write_bytes(b"edited")
        return before(keep, file)

    monkeypatch.setattr(acting, "_checked", checked)
    result = ok("duplicates", index, "--keep", "oldest", "--move", tmp_path / "moved", "--yes")
    assert "moved: 0 copies" in result.stderr
    assert "passed over 3 copies: the kept file is changed since" in result.stderr
    assert left(album) == EVERY and not (tmp_path / "moved").exists()


def test_moving_to_another_disk_copies_checks_and_removes(
    index: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = (album / "four.jpg").read_bytes()

    def replace(self: Path, target: Path) -> Path:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "replace", replace)
    ok("duplicates", index, "--keep", "oldest", "--move", tmp_path / "moved", "--yes")
    assert left(album) == {"one.jpg", "other.jpg"}
    assert (tmp_path / "moved" / "four.jpg").read_bytes() == content


@pytest.mark.parametrize("kind", ["hard", "sym"])
def test_links_replace_copies_of_the_same_bytes_alone(index: Path, album: Path, kind: str) -> None:
    two, inode = album / "sub" / "two.jpg", (album / "one.jpg").stat().st_ino
    shown = ok("duplicates", index, "--keep", "oldest", "--link", kind)
    assert "would link 1 copy; add --yes" in shown.stderr and two.lstat().st_ino != inode
    assert "passed over 2 copies: not the same bytes" in shown.stderr
    result = ok("duplicates", index, "--keep", "oldest", "--link", kind, "--yes")
    assert "linked: 1 copy" in result.stderr
    assert "passed over 2 copies: not the same bytes" in result.stderr
    assert left(album) == EVERY and two.stat().st_ino == inode
    assert two.is_symlink() == (kind == "sym")
    if kind == "sym":
        assert two.readlink() == Path("../one.jpg")
    again = ok("duplicates", index, "--level", "exact", "--json")
    assert lines(again) == []  # they are one file now


def test_the_script_removes_what_has_not_changed(tmp_path: Path) -> None:
    album, script = tmp_path / "al'bum", tmp_path / "remove copies.sh"
    album.mkdir()
    draw_animal("cat", 1, 60).save(album / "kept.jpg")
    for name in [*NAMES, os.fsdecode(b"not \xff UTF-8.jpg"), "edited.jpg"]:
        shutil.copy(album / "kept.jpg", album / name)
    os.utime(album / "kept.jpg", (1, 1))
    Index.build(album, tmp_path / "index", model=FakeEncoder())
    result = ok("duplicates", tmp_path / "index", "--keep", "oldest", "--script", script)
    assert "to remove: 7 copies" in result.stderr and len(list(album.iterdir())) == 8
    (album / "edited.jpg").write_bytes(b"edited")
    done = subprocess.run(["sh", script], capture_output=True, text=True, cwd=album, check=True)
    assert done.stdout == "6 removed, 1 passed over\n"
    assert done.stderr == f"passed over: {album}/edited.jpg\n"
    assert sorted(p.name for p in album.iterdir()) == ["edited.jpg", "kept.jpg"]


def test_names_that_are_not_utf8_are_moved(tmp_path: Path) -> None:
    album = tmp_path / "album"
    album.mkdir()
    draw_animal("cat", 1, 60).save(album / "kept.jpg")
    name = os.fsdecode(b"not \xff UTF-8.jpg")
    shutil.copy(album / "kept.jpg", album / name)
    os.utime(album / "kept.jpg", (1, 1))
    Index.build(album, tmp_path / "index", model=FakeEncoder())
    how = ["--keep", "oldest", "--json", "--move", tmp_path / "moved", "--yes"]
    (line,) = lines(ok("duplicates", tmp_path / "index", *how))
    assert left(tmp_path / "moved") == {name}
    assert line["members"][0]["action"].endswith("moved/not%20%FF%20UTF-8.jpg")


def test_the_script_never_removes_the_last_one(index: Path, album: Path, tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    ok("duplicates", index, "--keep", "oldest", "--script", script)
    (album / "one.jpg").unlink()
    (album / "one.jpg").symlink_to("sub/two.jpg")
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0 removed, 3 passed over\n" and left(album) == EVERY


def test_similar_pictures_are_never_offered(tmp_path: Path) -> None:
    from test_look import shots

    album = tmp_path / "album"
    album.mkdir()
    for number, picture in enumerate(shots(2)):
        picture.save(album / f"shot-{number}.png")
    rng = np.random.default_rng(0)
    for number in range(64):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(album / f"{number}.png")
    Index.build(album, tmp_path / "index", model=FakeEncoder())
    how = ["duplicates", tmp_path / "index", "--level", "similar", "--fpr", "1e-3"]
    result = ok(*how, "--move", tmp_path / "moved", "--yes")
    assert "similar" in result.stdout and "moved: 0 copies" in result.stderr
    assert "expected false pairs here: 2.1" in result.stderr
    assert len(left(album)) == 66


def test_not_duplicate_is_remembered(index: Path, album: Path) -> None:
    how = ["--not-duplicate", album / "one.jpg", "--not-duplicate", album / "four.jpg"]
    result = ok("duplicates", index, *how)
    assert "1 pair will no longer be shown" in result.stderr and result.stdout == ""
    (line,) = lines(ok("duplicates", index, "--keep", "oldest", "--json"))
    assert {Path(m["path"]).name for m in line["members"]} == {"two.jpg", "three.png"}
    alone = run("duplicates", index, "--not-duplicate", album / "one.jpg")
    assert_error(alone, "or there is only one")
    missing = run("duplicates", index, *how, "--not-duplicate", album / "no.jpg")
    assert_error(missing, "no.jpg is no picture of the index")


def test_against_ends_with_3_when_nothing_is_there(
    index: Path, album: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    draw_animal("dog", 7, 120).save(new / "new.jpg")
    result = run("duplicates", index, "--against", new / "new.jpg")
    assert result.exit_code == 3 and result.stdout == ""
    shutil.copy(album / "other.jpg", new / "again.jpg")
    (line,) = lines(ok("duplicates", index, "--against", new, "--json"))
    assert (line["keep"]["path"], line["keep"]["why"]) == (f"{album}/other.jpg", "in the index")
    assert [(m["path"], m["id"]) for m in line["members"]] == [(f"{new}/again.jpg", None)]
    ok("duplicates", index, "--against", new, "--move", tmp_path / "moved", "--yes")
    assert left(new) == {"new.jpg"} and left(album) == EVERY


def test_the_sheet_shows_the_groups(index: Path, tmp_path: Path) -> None:
    result = ok("duplicates", index, "--sheet", tmp_path / "groups.png")
    assert "pictures of the groups" in result.stderr
    with Image.open(tmp_path / "groups.png") as sheet:
        colours = {colour for _, colour in sheet.convert("RGB").getcolors(1 << 20)}
    assert (0, 158, 115) in colours  # the mark of the kept one
    wrong = run("duplicates", index, "--sheet", tmp_path / "groups.txt")
    assert_error(wrong, "is not the name of a contact sheet")


def test_rows_of_a_data_set_are_found_but_not_touched(tmp_path: Path) -> None:
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    drawn = [draw_animal("cat", i, 60) for i in (1, 2, 1)]
    made = Dataset.from_dict({"image": drawn}, features=Features({"image": ImageFeature()}))
    made.save_to_disk(tmp_path / "set")
    Index.build(tmp_path / "set", tmp_path / "index", model=FakeEncoder())
    result = ok("duplicates", tmp_path / "index", "--move", tmp_path / "moved", "--yes", "--json")
    (line,) = lines(result)
    assert [m["evidence"] for m in line["members"]] == ["hash"]
    assert "passed over 1 copy: the kept file is a row of a data set" in result.stderr


def test_an_index_of_vectors_says_what_it_cannot_do(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((80, 16)).astype(np.float32)
    rows[5] = rows[6]
    Index.from_vectors(rows, tmp_path / "own")
    assert_error(run("duplicates", tmp_path / "own"), "holds your own vectors")
    (line,) = lines(ok("duplicates", tmp_path / "own", "--level", "exact", "--json"))
    assert (line["keep"]["id"], line["members"][0]["id"]) == (5, 6)
    acts = ["--script", "--move", "--against"]
    for act in acts:
        result = run("duplicates", tmp_path / "own", "--level", "exact", act, tmp_path / "x")
        assert_error(result, "holds your own vectors")
    decided = ["--not-duplicate", "item 5", "--not-duplicate", "item 7"]
    assert "1 pair" in ok("duplicates", tmp_path / "own", *decided).stderr


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (["--script", "a", "--move", "b"], "exclude each other"),
        (["--link", "soft"], "--link is 'soft'"),
        (["--against", "no-such-place"], "There is nothing at no-such-place"),
    ],
)
def test_what_cannot_be_meant_is_refused(index: Path, how: list[str], message: str) -> None:
    assert_error(run("duplicates", index, *how), message)


def saved_again(folder: Path, side: int) -> Path:
    """64 small pictures, and one of them as PNG, as a poorer JPEG, and as WebP."""
    folder.mkdir()
    for number in range(64):
        kind = "cat" if number % 2 else "dog"
        draw_animal(kind, number, side).save(folder / f"{number}.jpg", quality=90)
    with Image.open(folder / "7.jpg") as picture:
        picture.save(folder / "7.png")
        picture.save(folder / "7 again.jpg", quality=70)
        picture.save(folder / "7.webp", quality=80)
    return folder


def test_small_pictures_are_found_and_others_are_not(tmp_path: Path) -> None:
    icons = saved_again(tmp_path / "icons", 32)
    with Image.open(icons / "7.jpg") as picture:
        cropped = picture.crop((7, 5, 30, 28))
    cropped.save(icons / "7 cropped.png")  # far from it, to the fake encoder
    Index.build(icons, tmp_path / "index", model=FakeEncoder())
    result = ok("duplicates", tmp_path / "index", "--json")
    (line,) = lines(result)
    names = {Path(m["path"]).name for m in [line["keep"], *line["members"]]}
    assert names == {"7.jpg", "7.png", "7 again.jpg", "7.webp", "7 cropped.png"}
    assert min(m["score"] for m in line["members"]) < 0.98
    assert "before the second look at them, which decides" in result.stderr


def test_the_threshold_is_explained(index: Path, tmp_path: Path) -> None:
    assert "second look at each of 6 pairs\n" in ok("duplicates", index).stderr
    few = ok("duplicates", index, "--fpr", "1e-6").stderr
    assert "each of 6 pairs; --fpr is of use from 64 different pictures on" in few
    Index.build(saved_again(tmp_path / "icons", 32), tmp_path / "icons-index", model=FakeEncoder())
    alike = ok("duplicates", tmp_path / "icons-index", "--fpr", "1e-9", "--level", "pixels").stderr
    assert "cosine of at least 0.950" in alike
    assert "more than --fpr 1e-09 means: unrelated pictures are so similar here" in alike


@pytest.mark.parametrize("level", ["exact", "copy"])
def test_against_says_what_is_there(index: Path, album: Path, tmp_path: Path, level: str) -> None:
    new, half = tmp_path / "new", tmp_path / "half"
    for folder in (new, half):
        folder.mkdir()
        draw_animal("dog", 7, 120).save(folder / "new.jpg")
    shutil.copy(album / "other.jpg", half / "again.jpg")
    Index.build(half, tmp_path / "half index", model=FakeEncoder())
    Index.build(new, tmp_path / "new index", model=FakeEncoder())
    for other, code, count in [
        (album / "one.jpg", 0, "1 picture of {}: 1"), (half / "again.jpg", 0, "1 picture of {}: 1"),
        (new / "new.jpg", 3, "1 picture of {}: 0"), (album, 0, "5 pictures of {}: 5"),
        (half, 0, "2 pictures of {}: 1"), (new, 3, "1 picture of {}: 0"),
        (index, 0, "5 pictures of {}: 5"), (tmp_path / "half index", 0, "2 pictures of {}: 1"),
        (tmp_path / "new index", 3, "1 picture of {}: 0"),
    ]:  # fmt: skip
        result = run("duplicates", index, "--against", other, "--level", level)
        assert result.exit_code == code, other
        assert f"{count.format(other)} found there already" in result.stderr
    (half / "linked.jpg").hardlink_to(half / "again.jpg")
    linked = ok("duplicates", index, "--against", half, "--level", level)
    assert f"3 pictures of {half}: 2 found there already" in linked.stderr
    ok("duplicates", index, "--against", album, "--move", tmp_path / "moved", "--yes")
    assert left(album) == EVERY and not (tmp_path / "moved").exists()


@pytest.mark.parametrize("how", [["--move", "moved"], ["--link", "hard"], ["--link", "sym"]])
def test_a_dry_run_counts_what_is_done(
    index: Path, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("changed", "gone", "elsewhere"):
        shutil.copy(album / "one.jpg", album / f"{name}.jpg")
    Index.open(index, FakeEncoder()).sync()
    before = acting._checked

    def checked(keep: Item, file: Item) -> tuple[os.stat_result, list[Path]]:
        (album / "changed.jpg").write_bytes(b"edited")
        (album / "gone.jpg").unlink(missing_ok=True)
        kept, places = before(keep, file)
        if file.path.endswith("elsewhere.jpg"):
            kept = os.stat_result([*kept[:2], kept.st_dev + 1, *kept[3:]])
        return kept, places

    monkeypatch.setattr(acting, "_checked", checked)
    notes = []
    for yes in ([], ["--yes"]):
        for name in ("changed", "gone"):
            shutil.copy(album / "one.jpg", album / f"{name}.jpg")
        shown = ok("duplicates", index, "--keep", "oldest", *how, *yes).stderr
        notes.append([n for n in shown.splitlines() if "passed over" in n or "would" in n
                      or n.startswith(("moved:", "linked:"))])  # fmt: skip
    (would, *dry), (did, *real) = notes
    count = {"--move": 4, "hard": 1, "sym": 2}[how[0] if how[0] == "--move" else how[1]]
    plural = "copy" if count == 1 else "copies"
    assert would == f"would {how[0].strip('-')} {count} {plural}; add --yes to do it"
    assert did.endswith(f"ed: {count} {plural}")
    assert dry == real and "passed over 1 copy: gone" in dry
    assert ("passed over 1 copy: on another disk" in " ".join(dry)) == ("hard" in how)


@pytest.mark.parametrize("kind", ["hard", "sym"])
def test_linked_pictures_stay_in_the_index(index: Path, album: Path, kind: str) -> None:
    ok("duplicates", index, "--keep", "oldest", "--link", kind, "--yes")
    found = Index.open(index, FakeEncoder())
    done = found.sync()
    gone = () if kind == "hard" else (str(album / "sub" / "two.jpg"),)
    assert (done.added, done.moved, done.removed) == ((), (), gone)  # a symbolic link stands back
    assert not found.sync().changed and str(album / "one.jpg") in found.corpus.collection.paths
    (album / "three.jpg").hardlink_to(album / "one.jpg")
    done = found.sync()
    assert (done.copied, done.moved, done.removed) == ((str(album / "three.jpg"),), (), ())
    assert len(found) == 6 - len(gone) and len(found.duplicates("exact")) == 0


def test_not_duplicate_takes_pictures_of_the_index_alone(
    index: Path, album: Path, tmp_path: Path
) -> None:
    draw_animal("dog", 9, 60).save(tmp_path / "stranger.jpg")
    both = ["--not-duplicate", album / "one.jpg", "--not-duplicate"]
    wrong = run("duplicates", index, *both, tmp_path / "stranger.jpg")
    assert_error(wrong, "stranger.jpg is no picture of the index")
    shutil.copy(album / "other.jpg", tmp_path / "known by its bytes.jpg")
    assert "1 pair" in ok("duplicates", index, *both, tmp_path / "known by its bytes.jpg").stderr


def test_keep_says_where_its_pattern_fits_nothing(index: Path) -> None:
    result = ok("duplicates", index, "--keep", "*/other.jpg")
    assert "--keep */other.jpg fits no file of 1 group: the best is kept there" in result.stderr
