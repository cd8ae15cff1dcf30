"""`evaluate` on a few pictures with an encoder that can be checked by hand."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import write_pictures
from PIL import Image

import mrl_search as mrl
from mrl_search.encoders.base import LinearHeads, Preprocessing
from mrl_search.errors import DataError, IndexFolderError
from mrl_search.index import Index
from mrl_search.measure.copies import STANDARD


class Pixels:
    """Embeds a picture as its 192 pixels, after its mean colour: 8 dims tell the class."""

    model, name, fingerprint, dims = "pixels", "pixels", "f00d" * 8, (8, 196)
    preprocessing = Preprocessing(8)
    heads = LinearHeads()
    training: Mapping[str, Any] = {}
    axes, device = "none", "cpu"

    def encode(self, pictures: np.ndarray) -> np.ndarray:
        x = pictures.reshape(len(pictures), -1, 3).astype(np.float32) / 255
        colour = x.mean(axis=1) - x.mean(axis=(1, 2))[:, None]
        return np.concatenate([10 * colour, np.ones((len(x), 1)), x.reshape(len(x), -1)], axis=1)


class Another(Pixels):
    fingerprint = "beef" * 8


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "pictures", 12)
    write_pictures(tmp_path / "others", 4, seed=9)
    return tmp_path


@pytest.fixture
def index(place: Path) -> Index:
    return Index.build(place / "pictures", place / "index", model=Pixels())


def test_pictures_are_searched_in_the_index(place: Path, index: Index) -> None:
    found = mrl.evaluate(index, place / "others", Pixels(), k=3)
    assert [(p.dims, p.n, p.knn_top1, p.linear_top1) for p in found.prefixes] == [
        (8, 8, 1.0, None), (196, 8, 1.0, None),
    ]  # fmt: skip
    low, high = found.prefixes[0].ci95["knn_top1"]
    assert (round(low, 4), high) == (0.6756, 1.0)
    assert found.prefixes[0].map_at_10 == 1.0 and found.prefixes[0].instance_recall_at_1 is None
    assert found.thumbnail_recall_at_1 is None and found.skipped == ()
    assert {t.point.expected_dims for t in found.adaptive} == {196.0}  # four are too few to stop


def test_without_an_index_the_pictures_are_searched_in_themselves(place: Path) -> None:
    (place / "pictures" / "cat" / "dog-0099.png").write_bytes(
        (place / "pictures" / "dog" / "dog-0000.png").read_bytes()
    )  # a copy with another label is left out with its original
    (place / "pictures" / "cat" / "broken.png").write_bytes(b"")
    found = mrl.evaluate(None, str(place / "pictures"), Pixels(), k=3, instance=STANDARD)
    eight, full = found.prefixes
    assert (eight.n, eight.knn_top1) == (25, 24 / 25)
    assert full.n_instance == 25 and full.instance_recall_at_1 >= 0.6
    assert full.instance_recall_at_1 > eight.instance_recall_at_1
    assert found.thumbnail_recall_at_1 is not None
    assert [s.path.rpartition("/")[2] for s in found.skipped] == ["broken.png"]


def test_the_nearest_alone_is_measured_beside_the_vote(place: Path) -> None:
    image = Image.open(next((place / "others" / "dog").iterdir())).convert("RGB")
    image.putpixel((0, 0), (9, 9, 9))
    image.save(place / "pictures" / "cat" / "mislabelled.png")
    index = Index.build(place / "pictures", place / "mislabelled", model=Pixels())
    for k, share in ((3, 1.0), (1, 7 / 8)):
        full = mrl.evaluate(index, place / "others", Pixels(), k=k).prefixes[-1]
        assert (full.nearest_top1, full.knn_top1) == (7 / 8, share)
        assert full.ci95["nearest_top1"][1] < 1


def test_what_cannot_be_measured_is_refused(place: Path, index: Index) -> None:
    with pytest.raises(IndexFolderError, match="was built with the model pixels"):
        mrl.evaluate(index, place / "others", Another())
    with pytest.raises(DataError, match="no copy can find its original"):
        mrl.evaluate(index, place / "others", Pixels(), instance=STANDARD)
    for name in ("cat", "dog"):
        for path in (place / "others" / name).iterdir():
            path.rename(place / "others" / path.name)
        (place / "others" / name).rmdir()
    with pytest.raises(DataError, match="have no labels"):
        mrl.evaluate(index, place / "others", Pixels())
