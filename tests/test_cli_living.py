"""The commands `sync`, `add`, `remove`, `compact`, `restore` and `info`: an index that changes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import assert_error, lines, ok, run, write_pictures
from fakes import FakeEncoder

from mrl_search.errors import ConfigError
from mrl_search.index import Index

pytestmark = pytest.mark.usefixtures("fake_model")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `pictures`, and an `index` of them."""
    write_pictures(tmp_path / "pictures", 3)
    Index.build(tmp_path / "pictures", tmp_path / "index", model=FakeEncoder())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an index `own` of 20 vectors, and 5 more with labels."""
    rows = np.random.default_rng(0).standard_normal((25, 16)).astype(np.float32)
    Index.from_vectors(rows[:20], tmp_path / "own")
    np.save(tmp_path / "more.npy", rows[20:])
    pq.write_table(pa.table({"label": list("aabbb")}), tmp_path / "more.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(place: Path) -> None:
    """One picture more, one less, one elsewhere, one edited, and one broken."""
    cats = place / "pictures" / "cat"
    (cats / "cat-0000.png").rename(place / "pictures" / "dog" / "moved.png")
    (cats / "cat-0001.png").unlink()
    write_pictures(place / "fresh", 2, seed=9)
    shutil.copyfile(place / "fresh" / "cat" / "cat-0000.png", cats / "cat-0002.png")
    shutil.copyfile(place / "fresh" / "cat" / "cat-0001.png", cats / "new.png")
    (cats / "bad.png").write_bytes(b"not a picture")


def test_sync_says_what_it_did(place: Path) -> None:
    change(place)
    planned = ok("sync", "index", "--dry-run")
    assert "→1 ~1" in planned.stdout and "nothing was done" in planned.stdout
    assert Index.open("index").generation == 0
    done = ok("sync", "index")
    assert done.stdout.startswith("+1 −1 →1 ~1  6 items, generation ")
    for text in ("+ ", "moved.png", "~ ", "bad.png", "skipped"):
        assert text in done.stderr
    again = ok("sync", "index")
    assert again.stdout.startswith("+0 −0 →0 ~0  6 items")


def test_sync_as_json(place: Path) -> None:
    change(place)
    (planned,) = lines(ok("sync", "index", "--dry-run", "--json"))
    (done,) = lines(ok("sync", "index", "--json"))
    assert planned["dry_run"] and not done["dry_run"]
    cats = place / "pictures" / "cat"
    for found in (planned, done):
        assert found["removed"] == [str(cats / "cat-0001.png")]
        assert found["edited"] == [str(cats / "cat-0002.png")]
        moved = [str(cats / "cat-0000.png"), str(place / "pictures" / "dog" / "moved.png")]
        assert found["moved"] == [moved]
    assert done["added"] == [str(cats / "new.png")]
    assert [entry["path"] for entry in done["skipped"]] == [str(cats / "bad.png")]
    assert (done["items"], done["lost"]) == (6, {})


def test_a_lost_root_stays_until_it_is_meant(place: Path) -> None:
    (place / "pictures").rename(place / "away")
    found = ok("sync", "index")
    assert "stay in the index" in found.stderr and "--yes" in found.stderr
    assert len(Index.open("index")) == 6
    (told,) = lines(ok("sync", "index", "--json"))
    assert list(told["lost"]) == [str(place / "pictures")] and told["items"] == 6
    meant = ok("sync", "index", "--yes")
    assert meant.stdout.startswith("+0 −6 →0 ~0  0 items")
    assert len(Index.open("index")) == 0
    assert "are gone" not in ok("sync", "index").stderr  # there is nothing left to lose
    assert_error(run("compact", "index"), "is deleted")
    (place / "away").rename(place / "pictures")
    assert ok("sync", "index").stdout.startswith("+6 −0")


def test_dry_run_and_watch_exclude_each_other(place: Path) -> None:
    assert_error(run("sync", "index", "--watch", "--dry-run"), "--watch changes the index")


def test_a_folder_is_added_and_walked_from_then_on(place: Path) -> None:
    write_pictures(place / "more", 2, seed=4)
    (done,) = lines(ok("add", "index", "more", "--json"))
    assert len(done["added"]) == 4 and done["items"] == 10
    (place / "more" / "cat" / "cat-0000.png").unlink()
    assert ok("sync", "index").stdout.startswith("+0 −1")
    assert_error(run("add", "index", "nowhere"), "nowhere")


def test_add_has_labels_and_hidden_files(place: Path) -> None:
    write_pictures(place / "more", 1, seed=4)
    (place / "more" / "cat").rename(place / "more" / ".cat")
    ok("add", "index", "more", "--labels", "none")
    assert ok("info", "index").stdout.count("cat 3") == 1
    write_pictures(place / "others" / ".hidden", 1, seed=5)
    (done,) = lines(ok("add", "index", "others", "--hidden", "--json"))
    assert len(done["added"]) == 2


def test_vectors_are_added_with_their_items(vectors: Path) -> None:
    added = ok("add", "own", "more.npy", "--items", "more.parquet")
    assert added.stdout.startswith("+5 −0") and "25 items, generation 1" in added.stdout
    hits = Index.open("own").search(np.load("more.npy")[2], 1, where="label=b")
    assert (hits[0].id, hits[0].label) == (22, "b")
    assert_error(
        run("add", "own", "more.npy", "more.npy", "--items", "more.parquet"), "--items belongs"
    )
    np.save("other.npy", np.ones((2, 8), np.float32))
    assert_error(run("add", "own", "other.npy"), "has 8 dims")
    assert Index.open("own").generation == 1


def test_items_of_another_type_are_refused(vectors: Path) -> None:
    pq.write_table(pa.table({"price": [1, 2, 3, 4, 5]}), "a.parquet")
    pq.write_table(pa.table({"price": [["x"], ["y"], [], [], []]}), "b.parquet")
    ok("add", "own", "more.npy", "--items", "a.parquet")
    ok("compact", "own")  # a part that is not written again
    assert_error(run("add", "own", "more.npy", "--items", "b.parquet"), "price")
    index = Index.open("own")
    assert len(index) == 25 and index.items.column("price").tolist()[-1] == 5


def test_remove_by_path_where_and_ids(place: Path) -> None:
    (done,) = lines(ok("remove", "index", "pictures/cat/cat-0000.png", "--json"))
    (path,) = done.pop("paths")
    assert path == str(place / "pictures/cat/cat-0000.png")
    assert done == {"removed": 1, "items": 5, "generation": 1, "dry_run": False}
    Path("ids.txt").write_text("1\n")
    assert "removed 1; 4 items" in ok("remove", "index", "--ids", "ids.txt").stdout
    assert "removed 3; 1 items" in ok("remove", "index", "--where", "label=dog").stdout
    assert_error(run("remove", "index", "--where", "label=dog"), "No item")
    assert_error(run("remove", "index", "pictures/dog"), "no item")
    assert_error(run("remove", "index"), "Say what to remove")
    found = ok("sync", "index")
    assert found.stdout.startswith("+0") and "removed by hand" in found.stderr
    assert ok("add", "index", "pictures/cat").stdout.startswith("+2")


def test_compact_and_restore(vectors: Path) -> None:
    Path("ids.txt").write_text("3\n4\n")
    ok("remove", "own", "--ids", "ids.txt")
    assert "18 items without 2 removed" in ok("compact", "own").stderr
    index = Index.open("own")
    assert (index.manifest.count, index.manifest.deleted, index.generation) == (18, 0, 2)
    assert "generation 3 is what 0 was: 20 items" in ok("restore", "own", "0").stderr
    assert Index.open("own").items.all_ids.tolist() == list(range(20))
    assert_error(run("restore", "own", "99"), "has no generation 99")


def test_info_shows_generations_and_verifies(vectors: Path) -> None:
    assert "generation" not in ok("info", "own").stdout
    ok("add", "own", "more.npy")
    Path("ids.txt").write_text("3\n")
    ok("remove", "own", "--ids", "ids.txt")
    shown = ok("info", "own", "--verify")
    assert "2: 24 items after remove −1" in shown.stdout and "1 deleted rows" in shown.stdout
    assert "25 items after add +5" in shown.stdout and "restore 0" in shown.stdout
    assert "as it was written" in shown.stderr
    (told,) = lines(ok("info", "own", "--json"))
    assert (told["generation"], told["deleted"], told["format"]) == (2, 1, 2)
    (vectors / "own" / "parts" / "000002" / "deleted.bits").write_bytes(b"\0\0\0\0")
    assert_error(run("info", "own", "--verify"), "deleted.bits")


WATCH = """
import sys
sys.path[:0] = {paths!r}
from fakes import FakeEncoder
from mrl_search.encoders import registry
registry.load_encoder = lambda model, *_: FakeEncoder()
from mrl_search.cli.app import app
app(["sync", "index", "--watch"], prog_name="mrl-search")
"""


def test_watch_takes_what_comes_until_it_is_stopped(place: Path) -> None:
    pytest.importorskip("watchfiles")
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    with subprocess.Popen(
        [sys.executable, "-c", WATCH.format(paths=paths)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            assert process.stderr and process.stdout
            for line in process.stderr:
                if "watching" in line:
                    break
            write_pictures(place / "pictures" / "later", 1, seed=8)
            end = time.monotonic() + 60
            while len(Index.open("index")) < 8 and time.monotonic() < end:
                time.sleep(0.1)
            assert len(Index.open("index")) == 8
            told = [process.stdout.readline() for _ in range(2)]
            process.send_signal(signal.SIGINT)
            shown, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode in (0, 130), (shown, errors)
    assert "Traceback" not in errors
    assert "+2 −0 →0 ~0  8 items" in told[1]


def generations(place: Path) -> list[tuple[str, int]]:
    """The command and the number of items of each generation that can be restored."""
    (told,) = lines(ok("info", "index", "--json"))
    return [(one["name"], one["items"]) for one in told["generations"]]


def test_a_command_is_one_generation_to_restore(place: Path) -> None:
    change(place)
    ok("sync", "index")  # embeds, edits, and notes what is skipped
    ok("sync", "index")
    ok("remove", "index", "pictures/dog/dog-0001.png")
    os.utime("pictures/dog/dog-0000.png")
    ok("sync", "index")  # nothing but a time
    assert generations(place) == [("", 6), ("sync", 6), ("remove", 5)]
    shown = ok("info", "index").stdout
    assert "5 items after remove −1" in shown and "6 items after sync +1 −1 →1 ~1" in shown
    for _ in range(4):
        ok("sync", "index")
    assert generations(place) == [("", 6), ("sync", 6), ("remove", 5)]
    ok("restore", "index", "0")
    assert len(Index.open("index")) == 6


def test_a_removed_picture_stays_out_by_another_name(place: Path) -> None:
    cats = place / "pictures" / "cat"
    ok("remove", "index", "pictures/cat/cat-0001.png")
    (cats / "cat-0001.png").rename(cats / "renamed.png")
    for _ in range(2):
        assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0  5 items")
    (cats / "renamed.png").rename(cats / "again.png")
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0  5 items")
    assert ok("add", "index", "pictures/cat/again.png").stdout.startswith("+1")
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0  6 items")


def test_remove_shows_first_what_would_go(place: Path) -> None:
    shown = ok("remove", "index", "--where", "label=cat", "--dry-run")
    assert shown.stdout.startswith("would remove 3; 3 items")
    assert shown.stderr.count("/pictures/cat/") == 3 and len(Index.open("index")) == 6
    index = Index.open("index")
    assert index.remove([str(place / "pictures/cat/cat-0000.png")], ids=[0, 1, 2]) == 1
    with pytest.raises(ConfigError, match="whole numbers"):
        index.remove(ids=[0.5])


def test_a_hidden_folder_is_added_when_it_is_named(place: Path) -> None:
    write_pictures(place / "pictures" / ".hidden", 1)
    assert ok("sync", "index").stdout.startswith("+0")
    assert ok("add", "index", "pictures/.hidden").stdout.startswith("+2")
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0  8 items")
    assert f"{place}/pictures, {place}/pictures/.hidden" in ok("info", "index").stdout


def test_a_single_picture_that_is_deleted_goes(place: Path) -> None:
    write_pictures(place / "more", 1)
    ok("add", "index", "more/cat/cat-0000.png")
    (place / "more/cat/cat-0000.png").unlink()
    assert ok("sync", "index").stdout.startswith("+0 −1 →0 ~0  6 items")
    assert "are gone" not in ok("sync", "index").stderr


def test_an_edited_table_changes_columns(place: Path) -> None:
    table = place / "pictures" / "metadata.csv"
    table.write_text("file_name,label\ncat/cat-0000.png,tiger\ndog/dog-0000.png,wolf\n")
    assert "~6" in ok("sync", "index", "--dry-run").stdout
    done = ok("sync", "index")
    assert done.stdout.startswith("+0 −0 →0 ~6") and "embedding" not in done.stderr
    assert Index.open("index").items["label"].to_pylist().count("tiger") == 1
    table.write_text(table.read_text().replace("wolf", "fox"))
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~1")
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0")
    table.write_text("file_name,label,price,id\ncat/cat-0000.png,tiger,7,99\n")
    assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~2")  # one has a price, one no label
    Path("pictures/cat/cat-0000.png").rename("pictures/cat/renamed.png")
    table.write_text("file_name,label,price,id\ncat/renamed.png,lion,8,98\n")
    assert ok("sync", "index").stdout.startswith("+0 −0 →1 ~0")
    items = Index.open("index").items
    told = {name: items[name].to_pylist() for name in ("id", "label", "price", "item_id")}
    row = items["path"].to_pylist().index(f"{place}/pictures/cat/renamed.png")
    assert sorted(told["id"]) == list(range(6))  # a column of that name replaces no id
    assert (told["label"][row], told["price"][row], told["item_id"][row]) == ("lion", 8, 98)
    assert told["price"].count(None) == 5
    table.write_text("file_name,label,price\ncat/renamed.png,lion,much\n")
    assert_error(run("sync", "index"), "gives another now")


def test_a_table_that_is_removed_takes_its_labels_and_columns_along(place: Path) -> None:
    table, some = place / "pictures" / "metadata.csv", "cat/cat-0000.png"
    before = Index.open("index").items["label"].to_pylist()
    for text in (f"file_name,label,price\n{some},tiger,7\n", f"file_name,label\n{some},tiger\n"):
        table.write_text(text)
        assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~6")
        assert Index.open("index").items["label"].to_pylist().count("tiger") == 1
        table.unlink()
        done = ok("sync", "index")
        assert done.stdout.startswith("+0 −0 →0 ~6")
        assert f"~ columns of {place}/pictures/{some}" in done.stderr
        items = Index.open("index").items
        assert items["label"].to_pylist() == before
        assert items["price"].null_count == len(before)
        assert ok("sync", "index").stdout.startswith("+0 −0 →0 ~0")


def test_labels_of_a_removed_table_go_where_no_other_were_wanted(place: Path) -> None:
    table = place / "pictures" / "metadata.csv"
    table.write_text("file_name,label\ncat/cat-0000.png,tiger\n")
    ok("build-index", "pictures", "--out", "named", "--labels", "metadata")
    table.unlink()
    assert ok("sync", "named").stdout.startswith("+0 −0 →0 ~1")
    assert Index.open("named").items["label"].null_count == 6


def test_what_is_skipped_as_before_is_only_counted(place: Path) -> None:
    (place / "pictures/bad.png").write_bytes(b"not a picture")
    assert "bad.png: " in ok("sync", "index").stderr
    (place / "pictures/worse.png").write_bytes(b"not a picture either")
    again = ok("sync", "index").stderr
    assert "worse.png: " in again and "bad.png: " not in again and "1 skipped as before" in again


def test_a_renamed_folder_is_one_line(place: Path) -> None:
    (place / "pictures/dog").rename(place / "pictures/wolf")
    told = ok("sync", "index").stderr
    assert f"{place}/pictures/dog/ → {place}/pictures/wolf/  (3 pictures)" in told
    assert "dog-0000" not in told


def test_links_out_of_all_roots_are_counted_and_not_followed(place: Path) -> None:
    write_pictures(place / "private", 2, seed=7)
    (place / "pictures/secret.png").symlink_to(place / "private/cat/cat-0000.png")
    (place / "pictures/folder").symlink_to(place / "private")
    (place / "pictures/inside.png").symlink_to("cat/cat-0000.png")
    told = ok("sync", "index")
    assert told.stdout.startswith("+0 −0 →0 ~0  6 items")
    assert "2 links lead out of the folders" in told.stderr
    built = ok("build-index", "pictures", "--out", "fresh")
    assert "left out 2 links that lead out of the folder" in built.stderr
    assert len(Index.open("fresh")) == 6
    ok("add", "index", "private/cat")  # a root by now, where the first link leads
    paths = Index.open("index").items["path"].to_pylist()
    assert len(paths) == 8 and len(set(paths)) == 8
    assert "1 links lead out" in ok("sync", "index").stderr


def test_a_dry_run_tells_the_numbers_of_the_real_one(place: Path) -> None:
    change(place)
    cats = place / "pictures" / "cat"
    for told in ("+1 −1 →1 ~1", "+0 −1 →0 ~0", "+0 −0 →0 ~0"):
        planned, done = ok("sync", "index", "--dry-run"), ok("sync", "index")
        assert planned.stdout.startswith(told) and done.stdout.startswith(told)
        if (cats / "bad.png").exists():
            (cats / "bad.png").rename(place / "pictures" / "dog" / "bad.png")  # a broken one moves
            (cats / "cat-0002.png").write_bytes(b"no picture any more")


def test_what_a_command_does_is_one_generation_on_the_disk(place: Path) -> None:
    change(place)
    ok("sync", "index")
    index = Index.open("index")
    assert index.generation == 1 and index.generations == [0, 1]


def test_vectors_that_are_added_again_are_told(vectors: Path) -> None:
    pq.write_table(pa.table({"path": list("abcde")}), "paths.parquet")
    assert "already" not in ok("add", "own", "more.npy").stderr
    again = ok("add", "own", "more.npy")
    assert again.stdout.startswith("+5") and "30 items, generation 2" in again.stdout
    assert "5 were there already" in again.stderr and "mrl-search restore own 1" in again.stderr
    assert "already" not in ok("add", "own", "more.npy", "--items", "paths.parquet").stderr
    np.save("others.npy", np.eye(5, 16, dtype=np.float32))
    told = ok("add", "own", "others.npy", "--items", "paths.parquet").stderr
    assert "5 were there already" in told  # by their paths
    ok("restore", "own", "1")
    assert len(Index.open("own")) == 25


def test_adding_vectors_says_the_generation_and_is_short() -> None:
    index = Index.from_vectors(np.eye(20, 16, dtype=np.float32) + 1)
    done = index.add(np.eye(3, 16, dtype=np.float32))
    assert (done.generation, done.items, len(done.added)) == (1, 23, 3)
    assert repr(done) == "<Synced +3 −0 →0 ~0, generation 1>"
