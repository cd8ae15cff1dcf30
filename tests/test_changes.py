"""What changed on disk: single cases with exact values, then any changes against a model."""

import contextlib
import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mrl_search import changes as module
from mrl_search.changes import Changes, Recorded, compare
from mrl_search.errors import ConfigError, FileError
from mrl_search.files import recordable
from mrl_search.images import scan as scanning
from mrl_search.images import watch as watching
from mrl_search.images.decode import content_hash
from mrl_search.images.scan import Scan, hash_file, scan
from mrl_search.images.walk import File, Walk

OLD = 10**18  # 2001, ns
PNG = b"\x89PNG\r\n\x1a\n"
NOTHING = Changes([], [], [], [], [], [], [], [], [], {})


def write(path: Path, content: bytes, modified: int | None = OLD) -> Path:
    """Write a file with a time of change; None: now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    if modified is not None:
        os.utime(path, ns=(modified, modified))
    return path


def recorded(*scans: Scan) -> Recorded:
    """What an index records of the pictures that were found."""
    files = [file for each in scans for file in each.pictures]
    return Recorded(
        [file.path for file in files],
        [hash_file(file) for file in files],
        [file[1:4] for file in files],
    )


def names(pairs: list[tuple[int, File]]) -> list[tuple[int, str]]:
    return [(row, Path(file.path).name) for row, file in pairs]


class Hashes:
    """`hash_file`, which notes what it is asked."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    @property
    def asked(self) -> list[str]:
        return [Path(path).name for path in self.paths]

    def __call__(self, file: File) -> str:
        self.paths.append(file.path)
        return hash_file(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three pictures, rows 0 to 2: a.jpg, b.jpg, c.jpg of 1, 2 and 3 bytes."""
    for size, name in enumerate("abc", start=1):
        write(tmp_path / "root" / f"{name}.jpg", name.encode() * size)
    return tmp_path / "root"


def test_a_scan_tells_size_time_inode_and_device_of_every_picture(root: Path) -> None:
    write(root / "later.jpg", b"x", time.time_ns() + 10**12)
    write(root / "just now.jpg", b"x", None)
    write(root / "notes.txt", b"x")
    info = {path.name: path.stat() for path in root.iterdir()}
    expected = [
        File(str(root / name), size, modified, info[name].st_ino, info[name].st_dev)
        for name, size, modified in (
            ("a.jpg", 1, OLD), ("b.jpg", 2, OLD), ("c.jpg", 3, OLD),
            ("just now.jpg", 1, None), ("later.jpg", 1, None),
        )
    ]  # fmt: skip
    found = scan(root)
    assert (found.root, found.pictures) == (str(root), expected)


def test_where_nothing_changed_no_file_is_read(root: Path) -> None:
    hashes = Hashes()
    assert compare(recorded(scan(root)), [scan(root)], hashes) == replace(NOTHING, same=[0, 1, 2])
    assert hashes.asked == []


def test_what_is_touched_edited_new_and_gone(root: Path) -> None:
    known = recorded(scan(root))
    os.utime(root / "a.jpg", ns=(OLD + 1, OLD + 1))
    write(root / "b.jpg", b"BB")
    os.utime(root / "b.jpg", ns=(OLD + 1, OLD + 1))
    (root / "c.jpg").unlink()
    write(root / "d.jpg", b"dddd")
    hashes, now = Hashes(), scan(root)
    a, b, d = now.pictures
    assert a.modified == OLD + 1
    assert compare(known, [now], hashes) == replace(
        NOTHING, touched=[(0, a)], edited=[(1, b)], gone=[2], new=[d]
    )
    assert sorted(hashes.asked) == ["a.jpg", "b.jpg"]  # no picture ever had four bytes


def test_a_renamed_picture_keeps_its_row_and_a_copy_takes_a_vector_over(root: Path) -> None:
    known = recorded(scan(root))
    (root / "a.jpg").rename(root / "A.jpg")
    (root / "b.jpg").rename(root / "sub.jpg")
    shutil.copyfile(root / "c.jpg", root / "copy.jpg")
    found = compare(known, [scan(root)])
    assert (names(found.moved), names(found.copied)) == (
        [(0, "A.jpg"), (1, "sub.jpg")], [(2, "copy.jpg")],
    )  # fmt: skip
    assert (found.same, found.new, found.gone, found.edited) == ([2], [], [], [])


def test_two_pictures_that_swap_their_names_are_moved(root: Path) -> None:
    write(root / "b.jpg", b"b")
    known = recorded(scan(root))
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (root / f"{old}.jpg").rename(root / f"{new}.jpg")
    found = compare(known, [scan(root)])
    assert names(found.moved) == [(0, "b.jpg"), (1, "a.jpg")]
    assert replace(found, moved=[]) == replace(NOTHING, same=[2])


def test_a_picture_that_takes_the_place_of_another(root: Path) -> None:
    known = recorded(scan(root))
    (root / "a.jpg").replace(root / "b.jpg")  # its bytes live on, those of b do not
    shutil.copyfile(root / "b.jpg", root / "c.jpg")
    found = compare(known, [scan(root)])
    assert (names(found.moved), names(found.copied)) == ([(0, "b.jpg")], [(0, "c.jpg")])
    assert (found.gone, found.edited, found.new) == ([1, 2], [], [])
    (root / "b.jpg").rename(root / "z.jpg")
    write(root / "b.jpg", b"something else")
    again = compare(known, [scan(root)])
    assert names(again.moved) == [(0, "z.jpg")]  # c has the same bytes, z the inode
    assert (names(again.copied), names(again.edited)) == ([(0, "c.jpg")], [(1, "b.jpg")])
    assert again.gone == [2]


def test_of_several_that_moved_each_goes_where_its_inode_or_its_name_is(tmp_path: Path) -> None:
    root = tmp_path / "root"
    for name in ("1/x.jpg", "1/y.jpg", "2/x.jpg", "2/y.jpg"):
        write(root / name, b"same")
    known = recorded(scan(root))
    (root / "1").rename(root / "b")
    (root / "2").rename(root / "a")
    found = compare(known, [scan(root)])
    assert [(row, file.path[len(str(root)) :]) for row, file in found.moved] == [
        (0, "/b/x.jpg"), (1, "/b/y.jpg"), (2, "/a/x.jpg"), (3, "/a/y.jpg"),
    ]  # fmt: skip
    (root / "a" / "y.jpg").unlink()
    found = compare(replace(known, facts=[(*fact[:2], None) for fact in known.facts]), [scan(root)])
    assert [(row, file.path[len(str(root)) :]) for row, file in found.moved] == [
        (0, "/a/x.jpg"), (1, "/b/y.jpg"), (2, "/b/x.jpg"),
    ]  # fmt: skip
    assert found.gone == [3]


def test_an_old_index_without_sizes_and_times_has_every_file_read_once(root: Path) -> None:
    full = recorded(scan(root))
    old = Recorded(full.paths, full.hashes, [(None, None, None)] * 3, [30, 10, 20])
    hashes = Hashes()
    found = compare(old, [scan(root)], hashes)
    assert names(found.touched) == [(10, "b.jpg"), (20, "c.jpg"), (30, "a.jpg")]
    assert replace(found, touched=[]) == NOTHING
    assert sorted(hashes.asked) == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_time_that_a_later_edit_could_keep_proves_nothing(root: Path) -> None:
    write(root / "a.jpg", b"1", None)
    known = recorded(scan(root))
    assert [time for _, time, _ in known.facts] == [None, OLD, OLD]
    hashes = Hashes()
    assert compare(known, [scan(root)], hashes) == replace(NOTHING, same=[0, 1, 2])
    assert hashes.asked == ["a.jpg"]
    info = (root / "a.jpg").stat()
    write(root / "a.jpg", b"2", info.st_mtime_ns)  # the same size, time and inode
    assert names(compare(known, [scan(root)]).edited) == [(0, "a.jpg")]


def test_the_rules_of_time_and_size_at_their_edges() -> None:
    now = 1_700_000_000_000_000_000
    for age, expected in ((2_000_000_001, True), (2_000_000_000, False), (-5, False)):
        info = SimpleNamespace(st_size=3, st_mtime_ns=now - age, st_ino=7, st_dev=8)
        file = File.of("p", info, now)  # type: ignore[arg-type]
        assert file == ("p", 3, now - age if expected else None, 7, 8)


def test_a_file_that_cannot_be_read_or_changes_keeps_its_row(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = recorded(scan(root))
    write(root / "a.jpg", b"A", OLD + 1)
    write(root / "d.jpg", b"d")
    write(root / "e.jpg", b"e")
    now = scan(root)
    (root / "d.jpg").unlink()
    real = scanning.checksum

    def slow(path: Path) -> str:
        digest = real(path)
        if path.name == "a.jpg":
            write(path, b"later", OLD + 2)
        return digest

    monkeypatch.setattr(scanning, "checksum", slow)
    found = compare(known, [now])
    assert found.unread == [
        (str(root / "a.jpg"), "it changed while it was read"),
        (str(root / "d.jpg"), "there is no such file or folder"),
    ]
    assert found.kept == [(0, "it changed while it was read")]
    assert (found.same, found.new) == ([1, 2], [now.pictures[-1]])


def test_a_shortage_that_all_files_share_ends_it(root: Path) -> None:
    def full(file: File) -> str:
        raise FileError.of(errno.EMFILE, file.path, "read")

    known = recorded(scan(root))
    known = replace(known, facts=[(size, None, inode) for size, _, inode in known.facts])
    with pytest.raises(FileError, match="too many open files"):
        compare(known, [scan(root)], full)

    def denied(file: File) -> str:
        raise FileError.of(errno.EACCES, file.path, "read")

    found = compare(known, [scan(root)], denied)
    assert found.kept == [(row, "permission denied") for row in (0, 1, 2)]


def test_reading_tells_how_far_it_is(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "GROUP", 2)
    steps: list[tuple[str, int, int]] = []
    known = recorded(scan(root))
    known = replace(known, facts=[(size, None, inode) for size, _, inode in known.facts])
    compare(known, [scan(root)], progress=lambda *step: steps.append(step))
    assert steps == [("reading changed files", 2, 3), ("reading changed files", 3, 3)]


def test_a_root_that_is_gone_whole_is_told_and_its_rows_are_kept(root: Path) -> None:
    other = root.parent / "other"
    write(other / "z.jpg", b"z")
    known = recorded(scan(root), scan(other))
    shutil.move(root, root.parent / "elsewhere")
    scans = [scan(root), scan(other), scan(root.parent / "elsewhere")]
    found = compare(known, scans)
    assert found.lost_roots == {str(root): "it does not exist"}
    assert found.kept == [(row, f"{root}: it does not exist") for row in range(3)]
    assert names(found.copied) == [(0, "a.jpg"), (1, "b.jpg"), (2, "c.jpg")]
    meant = compare(known, scans, meant=[str(root)])
    assert names(meant.moved) == [(0, "a.jpg"), (1, "b.jpg"), (2, "c.jpg")]
    assert (meant.lost_roots, meant.kept, meant.gone) == ({}, [], [])
    root.mkdir()
    (root / "README").write_text("the disk is not mounted")
    scans[0] = scan(root)
    assert compare(known, scans).lost_roots == {str(root): "it has no pictures any more"}
    assert compare(known, scans[:2], meant=[str(root)]).gone == [0, 1, 2]
    assert compare(known, scans[1:]).kept == [
        (row, "it is outside of the folders looked at") for row in range(3)
    ]


def test_an_empty_root_that_never_had_a_picture_is_not_lost(root: Path) -> None:
    (root / "empty").mkdir()
    known = recorded(scan(root))
    found = compare(known, [scan(root), scan(root / "empty")])
    assert found == replace(NOTHING, same=[0, 1, 2])


def test_overlapping_roots_are_one_collection_and_each_can_be_lost(root: Path) -> None:
    write(root / "sub" / "d.jpg", b"dddd")
    write(root / "sub" / "deep" / "e.jpg", b"eeeee")
    roots = (root / "sub", root)
    scans = [scan(each) for each in roots]
    known = compare(Recorded([], [], []), scans).new
    assert [Path(file.path).name for file in known] == [
        "d.jpg", "e.jpg", "a.jpg", "b.jpg", "c.jpg",
    ]  # fmt: skip
    row = recorded(Scan("", known, Walk(root)))
    assert compare(row, scans[::-1]).same == [0, 1, 2, 3, 4]
    shutil.rmtree(root / "sub")
    found = compare(row, [scan(each) for each in roots])
    assert (found.same, found.gone) == ([2, 3, 4], [])
    assert found.lost_roots == {str(root / "sub"): "it does not exist"}


def test_a_root_that_is_one_file(root: Path) -> None:
    raw = write(root / "raw.cr2", PNG)
    known = recorded(scan(root / "a.jpg"), scan(raw))
    assert known.paths == [str(root / "a.jpg"), str(raw)]
    write(root / "a.jpg", b"new")
    found = compare(known, [scan(root / "a.jpg"), scan(raw)])
    assert (names(found.edited), found.same) == ([(0, "a.jpg")], [1])
    raw.unlink()
    found = compare(known, [scan(root / "a.jpg"), scan(raw)])
    assert (found.gone, found.kept, found.lost_roots) == ([1], [], {})  # deleted by itself
    left = recorded(scan(root / "a.jpg"))
    assert compare(left, [scan(root / "a.jpg"), scan(raw)]).lost_roots == {}  # nothing is lost
    root.rename(root.parent / "unmounted")
    found = compare(left, [scan(root / "a.jpg")])
    assert found.lost_roots == {f"{root}/a.jpg": "it does not exist"}
    assert found.kept == [(0, f"{root}/a.jpg: it does not exist")]
    assert compare(left, [scan(root / "a.jpg")], meant=[f"{root}/a.jpg"]).gone == [0]
    (root.parent / "unmounted").rename(root)
    assert scan(write(root / "x.txt", b"no picture")).pictures == []


def test_a_root_that_became_a_link_keeps_its_paths(root: Path) -> None:
    known = recorded(scan(root))
    root.rename(root.parent / "larger disk")
    root.symlink_to(root.parent / "larger disk")
    assert compare(known, [scan(root)]) == replace(NOTHING, same=[0, 1, 2])
    (root.parent / "larger disk").rename(root.parent / "unmounted")
    assert compare(known, [scan(root)]).lost_roots == {str(root): "it does not exist"}


def test_what_lies_below_a_link_that_leads_nowhere_is_kept(root: Path) -> None:
    write(root.parent / "disk" / "d.jpg", b"dddd")
    (root / "disk").symlink_to(root.parent / "disk")
    known = recorded(scan(root, roots=[root.parent / "disk"]))
    (root.parent / "disk").rename(root.parent / "unmounted")
    found = compare(known, [scan(root, roots=[root.parent / "disk"])])
    assert found == replace(NOTHING, same=[0, 1, 2], kept=[(3, f"{root / 'disk'} leads nowhere")])
    (root / "disk").unlink()
    assert compare(known, [scan(root)]).gone == [3]


def test_what_vanishes_during_the_walk_is_kept_this_time(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "sub" / "d.jpg", b"dddd")
    known = recorded(scan(root))
    real = os.scandir

    @contextlib.contextmanager
    def scandir(folder: str) -> Iterator[list[os.DirEntry[str]]]:
        with real(folder) as found:
            entries = list(found)
        if folder == str(root):
            (root / "a.jpg").unlink()
            shutil.rmtree(root / "sub")
            write(root / "e.jpg", b"eeeee")
        yield entries

    monkeypatch.setattr(os, "scandir", scandir)
    now = scan(root)
    monkeypatch.undo()
    assert now.walk.vanished == [str(root / "a.jpg"), str(root / "sub")]
    found = compare(known, [now])
    assert found == replace(
        NOTHING, same=[1, 2],
        kept=[(0, f"{root / 'a.jpg'} vanished"), (3, f"{root / 'sub'} vanished")],
    )  # fmt: skip
    found = compare(known, [scan(root)])
    assert (found.same, found.gone, [file.size for file in found.new]) == ([1, 2], [0, 3], [5])


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """Rights of files count, even where root runs the tests."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A folder that everybody can read, as those of pytest are not."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with unprivileged():
            if not os.access(folder, os.R_OK | os.X_OK, effective_ids=True):
                pytest.skip("the folder of temporary files is private")
        yield Path(folder).resolve()


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
def test_rows_below_a_folder_that_cannot_be_read_are_kept(open_place: Path) -> None:
    root = open_place / "root"
    for name in ("a.jpg", "no list/b.jpg", "no enter/c.jpg", "no enter/sub/d.jpg", "e.jpg"):
        write(root / name, name.encode())
    (root / "link.jpg").symlink_to("no enter/c.jpg")
    known = recorded(scan(root))
    assert [path[len(str(root)) :] for path in known.paths] == [
        "/a.jpg", "/e.jpg", "/no enter/c.jpg", "/no enter/sub/d.jpg", "/no list/b.jpg",
    ]  # fmt: skip
    (root / "no list").chmod(0o000)
    (root / "no enter").chmod(0o444)
    (root / "e.jpg").unlink()
    with unprivileged():
        now = scan(root)
    found = compare(known, [now])
    (root / "no list").chmod(0o755)
    (root / "no enter").chmod(0o755)
    assert sorted(now.walk.closed) == [
        f"{root}/link.jpg", f"{root}/no enter", f"{root}/no enter/sub", f"{root}/no list",
    ]  # fmt: skip
    assert (found.same, found.gone, found.lost_roots) == ([0], [1], {})
    assert found.kept == [
        (2, f"{root}/no enter cannot be read: Permission denied"),
        (3, f"{root}/no enter/sub cannot be read: Permission denied"),
        (4, f"{root}/no list cannot be read: Permission denied"),
    ]
    root.chmod(0o000)
    with unprivileged():
        found = compare(known, [scan(root)])
    root.chmod(0o755)
    assert [row for row, _ in found.kept] == [0, 1, 2, 3, 4]
    assert found.lost_roots == {}


@pytest.mark.skipif(sys.platform != "linux", reason="names of any bytes")
def test_names_that_are_not_utf8_are_escaped_and_found_again(root: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(root) + b"/\xff d"))
    write(folder / "x.jpg", b"xxxx")
    known = recorded(scan(root))
    assert known.paths[3] == recordable(folder / "x.jpg")
    assert known.paths[3].endswith("/%FF%20d/x.jpg")
    assert compare(known, [scan(root)]).same == [0, 1, 2, 3]
    os.utime(folder / "x.jpg", ns=(OLD + 1, OLD + 1))
    assert names(compare(known, [scan(root)]).touched) == [(3, "x.jpg")]
    (folder / "x.jpg").rename(folder / "x")  # no longer a picture by its ending
    renamed = replace(known, paths=[*known.paths[:3], recordable(folder / "x")])
    assert compare(renamed, [scan(root)]).gone == [3]
    assert names(compare(renamed, [scan(root, known=renamed.paths)]).touched) == [(3, "x")]
    (folder / "x").rename(folder / "x.jpg")
    now = scan(root)
    now.walk.closed[str(folder)] = "denied"
    hidden = replace(now, pictures=now.pictures[:3])
    assert compare(known, [hidden]).kept == [(3, f"{folder} cannot be read: denied")]
    (folder / "x.jpg").rename(root / "x.jpg")
    assert names(compare(known, [scan(root)]).moved) == [(3, "x.jpg")]


def test_hard_links_are_files_and_symbolic_ones_stand_back(root: Path) -> None:
    (root / "sub").mkdir()
    os.link(root / "b.jpg", root / "sub" / "0.jpg")
    os.link(root / "b.jpg", root / "also b.jpg")
    (root / "0.jpg").symlink_to("c.jpg")
    (root / "00.jpg").symlink_to("b.jpg")
    (root / "folder").symlink_to("sub")
    (root / "loop").symlink_to("..")
    found = [path.relative_to(root).as_posix() for path in Walk(root).files()]
    assert found == ["a.jpg", "also b.jpg", "b.jpg", "c.jpg", "sub/0.jpg"]
    for name in ("also b.jpg", "sub/0.jpg", "00.jpg", "loop"):
        (root / name).unlink()
    (root / "b.jpg").rename(root.parent / "b.jpg")
    for name in ("02.jpg", "01.jpg"):
        (root / name).symlink_to(root.parent / "b.jpg")
    walk = Walk(root)
    found = [path.relative_to(root).as_posix() for path in walk.files()]
    assert found == ["a.jpg", "c.jpg"]
    assert sorted(walk.outside) == [str(root / "01.jpg"), str(root / "02.jpg")]
    found = [path.relative_to(root).as_posix() for path in Walk(root, roots=[root.parent]).files()]
    assert found == ["01.jpg", "a.jpg", "c.jpg"]


def test_a_new_hard_link_is_a_copy_and_nothing_moves(root: Path) -> None:
    (root / "sub").mkdir()
    known = recorded(scan(root))
    os.link(root / "b.jpg", root / "0.jpg")
    os.link(root / "b.jpg", root / "sub" / "b.jpg")
    found = compare(known, [scan(root)])
    assert found.same == [0, 1, 2] and not found.moved and not found.gone
    assert names(found.copied) == [(1, "0.jpg"), (1, "b.jpg")]
    other = root.parent / "other"
    other.mkdir()
    (root / "sub" / "b.jpg").rename(other / "z.jpg")
    (other / "y.jpg").symlink_to(root / "b.jpg")
    (other / "x").symlink_to(root)
    both = compare(known, [scan(root, roots=[other]), scan(other, roots=[root])])
    assert both.same == [0, 1, 2] and names(both.copied) == [(1, "0.jpg"), (1, "z.jpg")]


def test_of_several_links_to_a_folder_the_first_is_entered(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "x.jpg", b"x")
    for name in "cafbed":
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "link").symlink_to(tmp_path / "outside")
    walk = Walk(tmp_path / "root", roots=[tmp_path / "outside"])
    assert walk.files() == [tmp_path / "root" / "a" / "link" / "x.jpg"]


def test_files_are_sorted_by_the_parts_of_their_paths(tmp_path: Path) -> None:
    made = [
        write(tmp_path / name, b"x") for name in ("a/z", "a-b", "a.b", "a b/c", "ab/c", "a/b/c")
    ]
    assert Walk(tmp_path).files() == sorted(made)


def test_a_known_file_of_any_ending_is_not_opened_again(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(root / "picture", PNG + b"1")
    write(root / "text", b"text")
    write(root / "x.jfif", PNG + b"23")
    known = recorded(scan(root))
    assert [Path(path).name for path in known.paths[3:]] == ["picture", "x.jfif"]
    looked: list[bytes] = []

    def is_picture(head: bytes) -> bool:
        looked.append(head)
        return head.startswith(PNG)

    monkeypatch.setattr("mrl_search.images.decode.is_picture", is_picture)
    now = scan(root, known=set(known.paths))
    assert looked == [b"text"]
    assert compare(known, [now]).same == [0, 1, 2, 3, 4]


def test_hidden_files_come_only_when_wanted(root: Path) -> None:
    write(root / ".trash" / "x.jpg", b"xxxx")
    assert len(scan(root).pictures) == 3
    assert len(scan(root, hidden=True).pictures) == 4


# Watching, with a stand-in for watchfiles


class Watchfiles:
    """A library whose series of changes, or errors, are given."""

    def __init__(self, *series: object) -> None:
        self.series = list(series)
        self.calls: list[tuple[tuple[Path, ...], object]] = []

    def watch(self, *roots: Path, force_polling: bool | None, **_: object) -> Iterator[object]:
        self.calls.append((roots, force_polling))
        while self.series:
            if isinstance(each := self.series.pop(0), Exception):
                raise each
            yield {(1, str(path)) for path in (each() if callable(each) else each)}
        raise KeyboardInterrupt

    def turns(self, *roots: Path, **options: object) -> list[int]:
        """How many series were left, each time that something had changed."""
        left = []
        with pytest.raises(KeyboardInterrupt):
            for _ in watching.watch(roots, **options):  # type: ignore[arg-type]
                left.append(len(self.series))
        return left


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setattr(time, "sleep", lambda _: None)

    def use(*series: object) -> Watchfiles:
        library = Watchfiles(*series)
        monkeypatch.setitem(sys.modules, "watchfiles", library)  # type: ignore[arg-type]
        return library

    return use  # type: ignore[return-value]


def test_watching_tells_of_what_a_walk_would_see(root: Path, install) -> None:
    hidden = [root / ".cache" / "x.jpg"]
    series = ([], [root / "a.jpg"], [], hidden, [*hidden, root / "b.jpg"], [root / "index" / "x"])
    library = install(*series)
    assert library.turns(root, ignored=[root / "index"]) == [5, 4, 1]
    assert library.calls == [((root,), None)]
    assert install(*series).turns(root, hidden=True) == [5, 4, 2, 1, 0]


def test_watching_goes_on_when_roots_vanish_and_come_back(root: Path, install) -> None:
    def vanish() -> list[Path]:
        root.rename(root.parent / "away")
        return []

    def back() -> list[Path]:
        (root.parent / "away").rename(root)
        return []

    other = root.parent / "other"
    other.mkdir()
    library = install([], vanish, [], [], back, [], [])
    # begun; gone; begun anew; back; begun anew
    assert library.turns(root, other) == [6, 5, 4, 2, 1]
    assert [roots for roots, _ in library.calls] == [(root, other), (other,), (root, other)]


def test_watching_polls_where_the_system_cannot_tell(root: Path, install) -> None:
    limit = OSError("OS file watch limit reached.")
    library = install(limit, [], [root / "a.jpg"])
    assert library.turns(root) == [1, 0]
    assert [polling for _, polling in library.calls] == [None, True]
    install(limit, limit)
    with pytest.raises(FileError, match=r"cannot be watched"):
        next(watching.watch([root]))


def test_watching_survives_names_and_roots_that_the_library_does_not(root: Path, install) -> None:
    library = install([], RuntimeError("Unable to decode path"), [], FileNotFoundError(), [])
    assert library.turns(root) == [4, 3, 2, 0]


def test_watching_says_which_extra_it_needs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"watchfiles is not installed") as error:
        watching.watch([root])
    assert error.value.hint == 'pip install "mrl-search[watch]"'


def test_the_library_itself_tells_of_a_new_picture_and_not_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("watchfiles")
    monkeypatch.setattr(watching, "QUIET", 100)
    monkeypatch.setattr(watching, "LOOK", 100)
    series = watching.watch([tmp_path])
    next(series)
    write(tmp_path / "a.jpg", b"a", None)
    next(series)
    (tmp_path / "a.jpg").read_bytes()
    start = time.monotonic()
    later = Timer(1, write, (tmp_path / "sub" / "b.jpg", b"b", None))
    later.start()
    next(series)
    later.join()
    assert time.monotonic() - start > 1


# Any series of changes

CONTENTS = (PNG + b"1", PNG + b"2", PNG + b"33", PNG + b"444", b"text", b"tex2")
FOLDERS = ("", "d", "D", "d/e", "\udcff")
NAMES = ("a.jpg", "A.jpg", "b.jpg", "c.PNG", "n", "x.cr2", "\udcfe.jpg")
TIMES = (OLD, OLD + 1, OLD + 10**9, None)  # None: now
SHUT = [
    *[()] * 6, ("d",), ("D", "f"), ("d/e",), ("", "a.jpg"), ("a.jpg", "d/n"), ("A.jpg",),
    ("b.jpg", "n"),
]  # fmt: skip
PLACES = st.builds(os.path.join, st.sampled_from(FOLDERS), st.sampled_from(NAMES))


@settings(
    max_examples=60, stateful_step_count=40, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip
class Disk(RuleBasedStateMachine):
    """A folder that changes in any way, and an index that is brought up to date by `compare`.

    `self.index` is row: (path, hash, size, modified, inode). What must hold is said in terms of
    names and bytes alone; see `sync`.
    """

    @initialize(files=st.dictionaries(PLACES, st.sampled_from(CONTENTS), min_size=2, max_size=8))
    def begin(self, files: dict[str, bytes]) -> None:
        self.base = Path(tempfile.mkdtemp())
        self.base.chmod(0o755)
        self.root = self.base.resolve() / "root"
        self.root.mkdir()
        self.shut: set[Path] = set()  # what cannot be read, during a sync
        self.index: dict[int, tuple[str, str, int | None, int | None, int | None]] = {}
        self.rows = 0
        for place, content in files.items():
            write(self.root / place, content)
        self.sync(False, ())

    def teardown(self) -> None:
        shutil.rmtree(self.base)

    def files(self) -> list[Path]:
        found = [Path(here, name) for here, _, names in os.walk(self.root) for name in names]
        return sorted(path for path in found if not path.is_symlink())

    def draw(self, data: st.DataObject, choices: list[Path]) -> Path:
        return data.draw(st.sampled_from(choices))

    @rule(place=PLACES, content=st.sampled_from(CONTENTS), modified=st.sampled_from(TIMES))
    def create(self, place: str, content: bytes, modified: int | None) -> None:
        path = self.root / place
        if path.is_symlink():
            path.unlink()
        write(path, content, modified)

    @precondition(lambda self: self.files())
    @rule(data=st.data(), content=st.sampled_from(CONTENTS), restored=st.booleans())
    def edit(self, data: st.DataObject, content: bytes, restored: bool) -> None:
        path = self.draw(data, self.files())
        before = path.stat()
        path.write_bytes(content)
        if restored:
            os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))

    @precondition(lambda self: self.files())
    @rule(data=st.data(), modified=st.sampled_from(TIMES[:-1]))
    def touch(self, data: st.DataObject, modified: int) -> None:
        os.utime(self.draw(data, self.files()), ns=(modified, modified))

    @precondition(lambda self: self.files())
    @rule(data=st.data(), place=PLACES, how=st.sampled_from(("move", "copy", "copy2", "link")))
    def spread(self, data: st.DataObject, place: str, how: str) -> None:
        path, to = self.draw(data, self.files()), self.root / place
        if to == path or (to.exists() and to.samefile(path)):
            return
        to.parent.mkdir(parents=True, exist_ok=True)
        to.unlink(missing_ok=True)
        if how == "move":
            path.rename(to)
        elif how == "link":
            os.link(path, to)
        else:
            getattr(shutil, how)(path, to)

    @precondition(lambda self: self.files())
    @rule(data=st.data())
    def swap(self, data: st.DataObject) -> None:
        one, two = self.draw(data, self.files()), self.draw(data, self.files())
        one.rename(aside := self.base / "aside")
        if one != two:
            two.rename(one)
        aside.rename(two)

    @precondition(lambda self: self.files())
    @rule(data=st.data(), everything=st.integers(0, 29))
    def delete(self, data: st.DataObject, everything: int) -> None:
        for path in [self.draw(data, self.files())] if everything else self.files():
            path.unlink()

    @rule(old=st.sampled_from(FOLDERS[1:]), new=st.sampled_from(("d", "D", "f", "d/f")))
    def rename_folder(self, old: str, new: str) -> None:
        one, two = self.root / old, self.root / new
        if one.is_dir() and not os.path.lexists(two) and one not in two.parents:
            two.parent.mkdir(exist_ok=True)
            one.rename(two)

    @rule(place=st.sampled_from(("l.jpg", "d/l.jpg", "l")), to=PLACES, folder=st.booleans())
    def symlink(self, place: str, to: str, folder: bool) -> None:
        link, target = self.root / place, self.root / to
        if link.is_symlink():
            link.unlink()
        if not os.path.lexists(link) and link.parent.is_dir():
            link.symlink_to(target.parent if folder else target)

    def reached(self) -> dict[str, Path]:
        """The pictures that a walk must find, by recorded path: the slow way, by real paths."""
        files: dict[tuple[int, int], list[Path]] = {}
        entered: set[str] = set()
        links = [self.root]
        while links:
            for here, folders, names in os.walk(links.pop(0)):
                if (real := os.path.realpath(here)) in entered or self.beyond(Path(real)):
                    folders.clear()
                    continue
                entered.add(real)
                folders.sort()
                ways = [Path(here, name) for name in folders]
                links += [way for way in ways if way.is_symlink() and self.inside(way)]
                for path in (Path(here, name) for name in names):
                    if (
                        path.is_file()
                        and self.inside(path)
                        and not self.beyond(path.resolve().parent)
                    ):
                        which = (path.stat().st_ino, path.stat().st_dev)
                        files.setdefault(which, []).append(path)
        known = {path for path, *_ in self.index.values()}
        real = {which: [p for p in paths if not p.is_symlink()] for which, paths in files.items()}
        found = [path for which, paths in files.items() for path in real[which] or [min(paths)]]
        return {
            recordable(path): path
            for path in found
            if recordable(path) in known
            or path.suffix.lower() in (".jpg", ".png")
            or (
                path.suffix != ".cr2"
                and path.read_bytes().startswith(PNG)
                and not self.denied(path)
            )
        }

    def inside(self, path: Path) -> bool:
        """Whether what a path leads to lies in the root."""
        return path.resolve().is_relative_to(self.root.resolve())

    def beyond(self, real: Path) -> bool:
        """Whether a folder lies in one that cannot be read."""
        return any(path in self.shut for path in (real, *real.parents))

    def denied(self, path: Path) -> bool:
        """Whether a file cannot be read: by any of its names."""
        return any(each.is_file() and each.samefile(path) for each in self.shut)

    def lost(self, path: str) -> bool:
        """Whether what cannot be looked at hides what is at a path."""
        place = Path(os.fsdecode(path)) if not path.startswith("file:") else module.expanded(path)
        for each in (place, *place.parents):
            if each.is_symlink() and (not each.exists() or self.beyond(each.resolve().parent)):
                return True
            if each in self.shut and each.is_dir() and not each.is_symlink():
                return True
        return False

    @rule(meant=st.booleans(), shut=st.sampled_from(SHUT))
    def sync(self, meant: bool, shut: tuple[str, ...]) -> None:
        """Compare and apply. Then names and bytes are those on disk, at the least cost."""
        self.shut = {self.root / each for each in shut}
        modes = {path: path.stat().st_mode for path in self.shut if path.exists()}
        for path in modes:
            path.chmod(0)
        old, hashes, roots = self.index, Hashes(), [str(self.root)] if meant else []
        values = [(path, digest, facts) for path, digest, *facts in old.values()]
        paths, hashed, facts = zip(*values, strict=True) if old else ((), (), ())
        known = Recorded(paths, hashed, [*map(tuple, facts)], [*old])
        with unprivileged():
            now = scan(self.root, known=set(known.paths))
            found = compare(known, [now], hashes, roots)
        for path, mode in sorted(modes.items()):
            path.chmod(mode)

        on_disk = self.reached()
        truth = {path: content_hash(where.read_bytes()) for path, where in on_disk.items()}
        unread, kept = dict(found.unread), dict(found.kept)
        self.check_partition(found, old, on_disk)
        self.apply(found, truth)
        # The rows that are kept are those that must be.
        empty = not on_disk and not meant and self.root not in self.shut
        assert bool(found.lost_roots) == (empty and any(not self.lost(o[0]) for o in old.values()))
        for row, (path, *_) in old.items():
            must = path in unread or (path not in on_disk and (empty or self.lost(path)))
            assert (row in kept) == must, (path, kept.get(row))
            assert not must or self.index[row] == old[row]
        for path in unread:
            assert self.denied(on_disk[path])
        # All others are as they are on disk.
        after = {o[0]: o[1] for row, o in self.index.items() if row not in kept}
        truth = {path: digest for path, digest in truth.items() if path not in unread}
        wrong = {path for path in after | truth if after.get(path) != truth.get(path)}
        facts = {path: rest for path, _, *rest in old.values()}
        for path in wrong:  # only where nothing can tell: size, time and inode are as they were
            info = on_disk[path].stat()
            assert facts[path] == [info.st_size, info.st_mtime_ns, info.st_ino], path
        # Nothing is embedded or dropped that the index has and needs.
        embedded = [truth[file.path] for _, file in found.edited] + [
            truth[file.path] for file in found.new
        ]
        assert not {o[1] for o in old.values()}.intersection(embedded)
        owned = {path for path, *_ in (self.index[row] for row in self.index.keys() & old.keys())}
        for row in {*found.gone, *(row for row, _ in found.edited)}:
            assert all(path in owned for path in truth if truth[path] == old[row][1])
        for row, file in found.moved:
            assert truth.get(old[row][0]) != old[row][1], "its bytes are where they were"
            assert file.path != old[row][0]
        # A file is read once, and only where its size, time or inode are not as recorded.
        assert len(hashes.paths) == len(set(hashes.paths))
        for file in now.pictures:
            if facts.get(file.path) == [*file[1:4]] and file.modified is not None:
                assert file.path not in hashes.paths

    def check_partition(self, found: Changes, old: dict, on_disk: dict) -> None:
        pairs = [*found.touched, *found.edited, *found.moved]
        rows = [*found.same, *(row for row, _ in (*pairs, *found.kept)), *found.gone]
        assert sorted(rows) == sorted(old)
        paths = [old[row][0] for row in found.same] + [file.path for _, file in pairs]
        paths += [file.path for _, file in found.copied] + [file.path for file in found.new]
        paths += [path for path, _ in found.unread]
        assert sorted(paths) == sorted(on_disk)

    def apply(self, found: Changes, truth: dict[str, str]) -> None:
        old, self.index = self.index, dict(self.index)
        for row, file in (*found.touched, *found.moved):
            self.index[row] = (file.path, old[row][1], *file[1:4])
        for row, file in found.edited:
            self.index[row] = (file.path, truth[file.path], *file[1:4])
        for file, digest in [(f, old[row][1]) for row, f in found.copied] + [
            (f, truth[f.path]) for f in found.new
        ]:
            self.index[self.rows] = (file.path, digest, *file[1:4])
            self.rows += 1
        for row in found.gone:
            del self.index[row]


TestDisk = Disk.TestCase
