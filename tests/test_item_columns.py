"""Columns that pictures bring along: what their files were when they were read."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from fakes import FakeEncoder, ListSource, png

from mrl_search.errors import BrokenImage
from mrl_search.images import base
from mrl_search.images.base import FileStamp, read_file, read_stamped, subset
from mrl_search.images.sources import open_source
from mrl_search.index import Index
from mrl_search.store.items import FILE_COLUMNS, ITEMS_SCHEMA, Items, _reader_of, write_items

NANOSECONDS = 1_717_171_717_123_456_789  # 2024-05-31 16:08:37 UTC


def stamp_of(path: Path) -> dict[str, int]:
    found = path.stat()
    return {"bytes": found.st_size, "modified": found.st_mtime_ns, "inode": found.st_ino}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of 3, 4 and 5, modified one nanosecond after another."""
    for i in range(3):
        path = tmp_path / "pictures" / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(png(3 + i))
        os.utime(path, ns=(NANOSECONDS, NANOSECONDS + i))
    return path.parent


def rows_of(index: Index) -> list[dict[str, object]]:
    """The items with times as integers."""
    table = index.items.table()
    at = table.schema.get_field_index("modified")
    return table.set_column(at, "modified", table["modified"].cast(pa.int64())).to_pylist()


def test_files_have_size_time_and_inode(folder: Path, tmp_path: Path) -> None:
    index = Index.build(folder, tmp_path / "index", model=FakeEncoder())
    assert index.items.schema.field("modified").type == pa.timestamp("ns", tz="UTC")
    for row in rows_of(index):
        assert {name: row[name] for name in FILE_COLUMNS.names} == stamp_of(Path(str(row["path"])))
    (hit,) = index.search(folder / "1.png", k=1)
    assert hit["modified"] == datetime(2024, 5, 31, 16, 8, 37, 123456, tzinfo=UTC)
    one = Index.build(folder / "0.png", tmp_path / "one", model=FakeEncoder())
    assert rows_of(one)[0]["modified"] == NANOSECONDS


def test_what_is_no_file_has_no_such_columns(tmp_path: Path) -> None:
    index = Index.build(ListSource([png(1), png(2)]), tmp_path / "index", model=FakeEncoder())
    assert index.items.column_names == ITEMS_SCHEMA.names


def test_a_part_of_a_source_has_them(folder: Path, tmp_path: Path) -> None:
    part = subset(open_source(str(folder)), [2, 0], "two")
    rows = rows_of(Index.build(part, tmp_path / "index", model=FakeEncoder()))
    assert [row["modified"] for row in rows] == [NANOSECONDS + 2, NANOSECONDS]


def test_columns_of_a_user_keep_their_values(folder: Path, tmp_path: Path) -> None:
    metadata = folder / "metadata.csv"
    metadata.write_text("file_name,bytes,inode,item_inode,width\n2.png,many,x,y,wide\n")
    rows = rows_of(Index.build(folder, tmp_path / "index", model=FakeEncoder()))
    own = [rows[2][name] for name in ("item_bytes", "item_inode", "item_item_inode", "item_width")]
    assert own == ["many", "x", "y", "wide"]
    assert [row["item_bytes"] for row in rows[:2]] == [None, None]
    assert rows[2]["bytes"] == (folder / "2.png").stat().st_size


def test_a_stopped_build_keeps_them(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopping(FakeEncoder):
        def encode(self, pictures):
            if len(self.batches) == 2:
                self.batches.append(0)
                raise KeyboardInterrupt
            return super().encode(pictures)

    monkeypatch.setattr("mrl_search.encoders.embed.BATCH", 1)
    monkeypatch.setattr("mrl_search.store.writer.COMMIT", 1)
    model = Stopping()
    with pytest.raises(KeyboardInterrupt):
        Index.build(folder, tmp_path / "index", model=model)
    continued = Index.build(folder, tmp_path / "index", model=model)
    assert model.batches == [1, 1, 0, 1]
    assert rows_of(continued) == rows_of(Index.build(folder, tmp_path / "b", model=FakeEncoder()))


@pytest.fixture
def changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Path]:
    """A file of one letter that grows by one at each of the first `times` readings."""

    def make(times: int) -> Path:
        path = tmp_path / "growing"
        path.write_bytes(b"x")
        looked, fstat = [0], os.fstat

        def look(handle: int) -> os.stat_result:
            looked[0] += 1
            again, after = divmod(looked[0] - 2, 2)  # the first look is at the kind of file
            if after == 1 and 0 <= again < times:
                path.write_bytes(path.read_bytes() + b"x")
            return fstat(handle)

        monkeypatch.setattr(base.os, "fstat", look)
        return path

    return make


@pytest.mark.parametrize("times", [0, 1, base.READS - 1])
def test_a_file_that_changes_is_read_again(changing: Callable[[int], Path], times: int) -> None:
    path = changing(times)
    data, stamp = read_stamped(str(path))
    assert data == b"x" * (1 + times)
    assert stamp == FileStamp(**stamp_of(path))


def test_a_file_that_never_rests_is_broken(changing: Callable[[int], Path]) -> None:
    with pytest.raises(BrokenImage, match="changed while it was read"):
        read_file(str(changing(base.READS)))


def test_any_stamp_of_a_file_system_fits_into_int64() -> None:
    class Odd:
        st_size, st_mtime_ns, st_ino = 5, 1 << 70, (1 << 64) - 1

    stamp = FileStamp.of(Odd())  # type: ignore[arg-type]
    assert stamp == FileStamp(5, (1 << 63) - 1, (1 << 63) - 1)
    assert pa.array([stamp.modified, -stamp.modified], FILE_COLUMNS.field("modified").type)


@pytest.mark.parametrize("labels", [["a", "ü", ""], ["a", None, "b"]])
def test_texts_are_those_of_the_column(tmp_path: Path, labels: list[str | None]) -> None:
    paths = []
    for part in range(2):
        rows = [{"id": i + 3 * part, "path": f"é/{i}", "label": labels[i]} for i in range(3)]
        folder = tmp_path / str(part)
        folder.mkdir()
        write_items(folder, pa.Table.from_pylist(rows, ITEMS_SCHEMA))
        paths.append(folder / "items.parquet")
    for items, rows in ((Items(paths[0]), [2, 0, 1, 2]), (Items(*paths), [5, 0, 3])):
        for name in ("path", "label", "hash"):
            assert items.texts(name, rows) == [items.value(name, row) for row in rows]
    assert Items(paths[0]).texts("path", []) == []
    column = Items(*paths)["label"].combine_chunks().slice(1, 4)
    read = _reader_of(pa.chunked_array([column]))
    assert [read(row) for row in range(4)] == column.to_pylist()
