"""The writer of index folders: whole or not at all, and continued after a kill."""

import errno
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import Rows
from fakes import FakeEncoder, ListSource, png

from mrl_search.errors import BrokenImage, IndexFolderError, MrlSearchError
from mrl_search.files import building_folder, checksum, claim, publish
from mrl_search.index import Index
from mrl_search.store.collection import Collection
from mrl_search.store.intact import verify
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import l2_normalize

JOB = ("f00d", "a list")


def entry(i: int) -> dict[str, object]:
    return {"path": f"{i}.jpg", "label": None, "hash": f"{i:032x}", "width": 1, "height": 1}


def bad(i: int) -> dict[str, object]:
    return {"path": f"{i}.jpg", "reason": "It is empty."}


# From finished rows


def test_a_second_build_into_the_same_folder(small_set: Rows, tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    small_set.save(folder)
    before = checksum(folder / "manifest.json")
    with pytest.raises(IndexFolderError, match=r"pets exists already.") as error:
        small_set.save(folder)
    assert "--out" in error.value.hint
    with pytest.raises(IndexFolderError, match=r"pets exists already."):
        publish(folder.with_name("other"), folder)
    assert checksum(folder / "manifest.json") == before


def test_an_empty_folder_may_be_filled(small_set: Rows, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    small_set.save(tmp_path / "made")
    assert len(Collection.open(tmp_path / "made")) == 500


def test_a_failed_build_leaves_nothing(
    small_set: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pyarrow.parquet.write_table", full)
        with pytest.raises(MrlSearchError, match=r"items.parquet cannot be written: the disk"):
            small_set.save(tmp_path / "pets")
    assert not list(tmp_path.iterdir())
    small_set.save(tmp_path / "pets")
    assert len(Collection.open(tmp_path / "pets")) == 500


def test_files_of_a_killed_build_do_not_count(small_set: Rows, tmp_path: Path) -> None:
    left = building_folder(tmp_path / "pets")
    np.save(left / "rotation.npy", np.eye(64, dtype=np.float32))
    (left / "prefix-0016.faiss").write_bytes(b"half")
    small_set.save(tmp_path / "pets", (8,))
    assert set(Collection.open(tmp_path / "pets").manifest.files) == {
        "heads.safetensors", "items.parquet", "prefix-0008.faiss", "vectors.npy",
    }  # fmt: skip
    verify(tmp_path / "pets")


def test_two_builds_never_share_a_folder(small_set: Rows, tmp_path: Path) -> None:
    with (
        claim(building_folder(tmp_path / "pets")),
        pytest.raises(IndexFolderError, match="Another process works in"),
    ):
        small_set.save(tmp_path / "pets")


# Row by row


def test_rows_are_normalised_and_logged(tmp_path: Path) -> None:
    raw = np.array([[3, 4], [0, 2], [1, 0]], dtype=np.float32)
    with CollectionWriter.open(tmp_path / "it", 2, "float32", JOB) as writer:
        writer.keep(0)
        writer.append(raw[:2], [entry(0), bad(1), entry(2)])
        writer.append(raw[2:], [entry(3)])
        assert writer.read == 4
        store = writer.finish_rows("a list")
        np.testing.assert_array_equal(store.rows(), l2_normalize(raw))
        assert [e["path"] for e in writer.entries] == [f"{i}.jpg" for i in range(4)]
        assert [e.get("norm") for e in writer.entries] == [5, None, 2, 1]
    assert (writer.folder / "skipped.json").exists() and not (tmp_path / "it").exists()


def test_a_build_is_continued_by_its_own_job_alone(tmp_path: Path) -> None:
    def begin(dtype: str = "float32", job: tuple[str, ...] = JOB) -> None:
        with CollectionWriter.open(tmp_path / "it", 2, dtype, job) as writer:
            writer.keep(writer.read)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    for wrong in (("float16", JOB), ("float32", ("beef", "a list")), ("float32", ("f00d",))):
        with pytest.raises(IndexFolderError, match="unfinished build of other images"):
            begin(*wrong)
    with pytest.raises(IndexFolderError, match="unfinished build of pictures"):
        begin(job=())
    with pytest.raises(KeyboardInterrupt):
        begin()


def test_lost_rows_begin_again(tmp_path: Path) -> None:
    def write(count: int) -> int:
        with CollectionWriter.open(tmp_path / "it", 2, "float32", JOB) as writer:
            writer.keep(len(writer.entries))
            begun = writer.read
            writer.append(np.ones((count, 2)), [entry(begun + i) for i in range(count)])
            writer._commit()
            raise KeyboardInterrupt
        return begun

    with pytest.raises(KeyboardInterrupt):
        write(5)
    file = building_folder(tmp_path / "it") / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-8])  # a row is gone
    with CollectionWriter.open(tmp_path / "it", 2, "float32", JOB) as writer:
        writer.keep(len(writer.entries))
        assert writer.read == 0


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda data: data[:-3],
    lambda data: data[: len(data) // 2],
    lambda data: b"",
    lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:],
    lambda data: bytes([data[0] ^ 4]) + data[1:],
    lambda data: data.replace(b"0", b"1"),
    lambda data: data.replace(b"1", b"-1").replace(b"2", b"9"),
    lambda data: b"[" * 100_000,
    lambda data: b"{}",
]


@pytest.mark.parametrize("damage", range(len(DAMAGES)))
@pytest.mark.parametrize("name", ["progress.json", "items.jsonl", "vectors.npy"])
def test_a_damaged_unfinished_build_is_begun_again(
    source: "ListSource", stopped: "StoppingEncoder", tmp_path: Path, name: str, damage: int
) -> None:
    file = building_folder(tmp_path / "it") / name
    data = file.read_bytes()
    changed = DAMAGES[damage](data)
    if changed == data:
        pytest.skip("nothing to change")
    rows = changed[128:] == data[128:] and name == "vectors.npy"  # its header is written anew
    file.write_bytes(changed)
    before, said = sum(stopped.batches), set[str]()
    try:
        index = Index.build(
            source, tmp_path / "it", model=stopped, progress=lambda what, *_: said.add(what)
        )
    except IndexFolderError as error:  # the job itself was altered: it may be another's
        assert name == "progress.json" and "unfinished build of other images" in error.message
        return
    other = Index.build(source, tmp_path / "other", model=FakeEncoder())
    assert whole(index) == whole(other)
    again = sum(stopped.batches) - before
    assert (again == 39) == ("embedding again" in said) == (not rows)
    assert (index.folder / "vectors.npy").read_bytes() == (
        other.folder / "vectors.npy"
    ).read_bytes()


# From a source


@pytest.fixture
def source() -> ListSource:
    """Forty pictures; the sixth is broken."""
    files: list[bytes | BrokenImage] = [png(3 * i + 5) for i in range(40)]
    files[5] = b"nonsense"
    return ListSource(files)


class StoppingEncoder(FakeEncoder):
    """Is stopped by the user at a batch."""

    stop_at = -1

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        if len(self.batches) == self.stop_at:
            self.stop_at = -1
            raise KeyboardInterrupt
        return super().encode(pictures)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("mrl_search.encoders.embed.BATCH", 8)
    monkeypatch.setattr("mrl_search.store.writer.COMMIT", 1)
    yield


@pytest.fixture
def stopped(source: ListSource, tmp_path: Path) -> StoppingEncoder:
    """A build that was stopped after three batches."""
    encoder = StoppingEncoder()
    encoder.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        Index.build(source, tmp_path / "it", model=encoder)
    return encoder


def whole(index: Index) -> list[tuple[object, ...]]:
    table = index.items.table().to_pylist()
    return [
        (row["id"], row["path"], row["label"], row["hash"], *vector)
        for row, vector in zip(table, index.corpus.vectors.rows().tolist(), strict=True)
    ]


def test_a_stopped_build_embeds_nothing_twice(
    source: ListSource, stopped: StoppingEncoder, tmp_path: Path
) -> None:
    done = sum(stopped.batches)
    assert done in (23, 24)  # three batches, with or without the broken one
    with pytest.raises(IndexFolderError, match="it is not finished yet"):
        Index.open(tmp_path / "it")
    index = Index.build(source, tmp_path / "it", model=stopped)
    assert sum(stopped.batches) == 39
    assert whole(index) == whole(Index.build(source, tmp_path / "other", model=FakeEncoder()))
    assert [s.path for s in index.corpus.collection.skipped] == ["image 5"]
    assert not {"progress.json", "items.jsonl"} & {p.name for p in index.folder.iterdir()}
    verify(index.folder)


@pytest.mark.parametrize(
    ("change", "again"),
    [
        (lambda s: s.files.__setitem__(5, png(200)), 35),
        (lambda s: s.files.__setitem__(10, png(200)), 30),
        (lambda s: s.files.__setitem__(0, b""), 38),
        (lambda s: s.files.__setitem__(39, png(200)), 16),
        (lambda s: s.labels.__setitem__(12, "new"), 28),
    ],
)
def test_a_continued_build_reads_again_from_the_first_change_on(
    source: ListSource,
    stopped: StoppingEncoder,
    tmp_path: Path,
    change: Callable[[ListSource], None],
    again: int,
) -> None:
    before = sum(stopped.batches)
    change(source)
    index = Index.build(source, tmp_path / "it", model=stopped)
    assert sum(stopped.batches) - before == again
    assert whole(index) == whole(Index.build(source, tmp_path / "other", model=FakeEncoder()))


def test_a_build_that_is_stopped_again_continues(
    source: ListSource, stopped: StoppingEncoder, tmp_path: Path
) -> None:
    first = source.files[0]
    source.files[0] = png(222)
    stopped.stop_at = len(stopped.batches)
    with pytest.raises(KeyboardInterrupt):
        Index.build(source, tmp_path / "it", model=stopped)
    source.files[0] = first
    index = Index.build(source, tmp_path / "it", model=stopped)
    assert whole(index) == whole(Index.build(source, tmp_path / "other", model=FakeEncoder()))


def test_another_model_source_or_dtype_does_not_continue(
    source: ListSource, stopped: StoppingEncoder, tmp_path: Path
) -> None:
    other = ListSource(source.files[:-1])
    for files, model in ((other, FakeEncoder()), (source, FakeEncoder(fingerprint="beef" * 8))):
        with pytest.raises(IndexFolderError, match="unfinished build of other images"):
            Index.build(files, tmp_path / "it", model=model)
    np.save(tmp_path / "x.npy", np.eye(8, dtype=np.float32))
    with pytest.raises(IndexFolderError, match="unfinished build of pictures"):
        Index.from_vectors(tmp_path / "x.npy", tmp_path / "it")


def test_a_build_that_was_stopped_late_is_finished_with_other_dims(
    source: ListSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mrl_search.engines.spec import IndexSpec

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    encoder = FakeEncoder()
    for place in ("publish", "write_manifest"):
        with monkeypatch.context() as patch:
            patch.setattr(f"mrl_search.store.writer.{place}", killed)
            with pytest.raises(KeyboardInterrupt):
                Index.build(source, tmp_path / "it", model=encoder)
    building = building_folder(tmp_path / "it")
    assert (building / "prefix-0016.faiss").exists()
    (building / ".prefix-0016.faiss.77.writing").write_bytes(b"half")
    index = Index.build(source, tmp_path / "it", model=encoder, spec=IndexSpec((8,)))
    assert sum(encoder.batches) == 39
    held = sorted(p.name for p in index.folder.iterdir() if "prefix" in p.name)
    assert held == ["prefix-0008.faiss", "prefix-0064.faiss"]
    assert json.loads((index.folder / "manifest.json").read_text())["dims"] == [8, 64]


def test_a_full_disk_while_embedding_is_a_sentence(
    source: ListSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(MrlSearchError, match="cannot be made: the disk is full"):
            Index.build(source, tmp_path / "it", model=FakeEncoder())
    assert len(Index.build(source, tmp_path / "it", model=FakeEncoder())) == 39
