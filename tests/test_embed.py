"""Embedding a source: batches in order from any row, and the first row that changed."""

import numpy as np
import pytest
from fakes import FakeEncoder, ListSource, png

from mrl_search.encoders import embed as module
from mrl_search.encoders.embed import embed, embed_pictures, first_change
from mrl_search.errors import BrokenImage, Skipped
from mrl_search.images.reading import Picture


def source_of(n: int) -> ListSource:
    """`n` pictures of the grey values 0, 1, 2, …; the fourth is broken."""
    files: list[bytes | BrokenImage] = [png(grey) for grey in range(n)]
    files[3] = b""
    return ListSource(files)


@pytest.mark.parametrize("start", [0, 3, 70, 100])
def test_batches_are_the_images_from_a_row_on(start: int) -> None:
    encoder = FakeEncoder()
    batches = list(embed(source_of(100), encoder, range(start, 100)))
    entries = [entry for batch in batches for entry in batch.entries]
    assert [e.path for e in entries] == [f"image {i}" for i in range(start, 100)]
    good = [i for i in range(start, 100) if i != 3]
    assert [e.row for e in entries if isinstance(e, Picture)] == good
    rows = np.concatenate([np.empty((0, 64)), *(batch.rows for batch in batches)])
    np.testing.assert_array_equal(rows, np.repeat(np.array(good, float)[:, None], 64, axis=1))
    assert encoder.batches == [len(batch.rows) for batch in batches]
    assert all(batch.rows.dtype == np.float32 for batch in batches)


def test_a_batch_of_broken_images_has_no_rows() -> None:
    encoder = FakeEncoder()
    (batch,) = embed(ListSource([b"", b"x"]), encoder)
    assert batch.rows.shape == (0, 64) and encoder.batches == []
    assert batch.entries[0] == Skipped("image 0", "empty file")


def test_pictures_are_embedded_in_batches() -> None:
    encoder = FakeEncoder()
    pictures = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), dtype=np.uint8)
    rows = embed_pictures(encoder, pictures)
    np.testing.assert_array_equal(rows, pictures.reshape(150, -1)[:, :64])
    assert encoder.batches == [64, 64, 22]


def log_of(source: ListSource) -> list[dict]:
    return [
        {"label": entry.label, "hash": entry.hash}
        if isinstance(entry, Picture)
        else entry._asdict()
        for batch in embed(source, FakeEncoder())
        for entry in batch.entries
    ]


def test_an_unchanged_source_has_no_first_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    source, calls = source_of(10), list[tuple[int, int]]()
    log = log_of(source)[:9]
    report = lambda done, total: calls.append((done, total))  # noqa: E731
    assert first_change(source, FakeEncoder(), log, report) == 9
    assert calls == [(4, 10), (8, 10), (9, 10)]
    assert first_change(source, FakeEncoder(), []) == 0


@pytest.mark.parametrize(
    ("row", "data"),
    [(5, png(200)), (3, png(9)), (3, b"nonsense"), (7, BrokenImage("gone")), (0, b"")],
)
def test_other_bytes_are_a_change(row: int, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 4)
    source = source_of(10)
    log = log_of(source)
    source.files[row] = data
    assert first_change(source, FakeEncoder(), log) == row


def test_another_label_is_a_change() -> None:
    source = source_of(10)
    log = log_of(source)
    source.labels[6] = "other"
    assert first_change(source, FakeEncoder(), log) == 6
