"""Pictures in Milvus: one that was changed keeps its id, and is found as FAISS finds it."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from fakes import FakeEncoder

from mrl_search.copied import copy_back
from mrl_search.engines.base import Mask
from mrl_search.engines.remote import expression_of
from mrl_search.index import Index
from mrl_search.mirror import copy_to

pytest.importorskip("milvus_lite")
pytestmark = pytest.mark.slow


def test_a_changed_picture_is_found(
    tmp_path: Path, gallery: Path, fake_model: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(gallery / "pictures", pictures)
    Index.build(pictures, tmp_path / "faiss", model=fake_model)
    shutil.copytree(tmp_path / "faiss", tmp_path / "milvus")
    copy_to(tmp_path / "milvus", f"milvus:{tmp_path / 'there.db'}#pictures")
    changed = sorted(path for path in (pictures / "dog").iterdir())[3]
    fresh = next(path for path in (gallery / "fresh").rglob("*") if path.is_file())
    shutil.copyfile(fresh, changed)
    both = [Index.open(tmp_path / name) for name in ("faiss", "milvus")]
    for one in both:
        one.sync()
    for plan in ("exact", "8:20,64"):
        found, known = (one.search(changed, 15, plan=plan) for one in both)
        assert found.ids.tolist() == known.ids.tolist()
        assert found[0].path == str(changed)
    alive = both[1].corpus.alive
    assert alive is not None
    mask = Mask(alive.allowed)
    monkeypatch.setattr("mrl_search.engines.remote.LISTED", mask.count - 1)
    items = both[1].corpus.items
    assert expression_of(mask, items) == "id not in []"  # the id of the deleted row lives on
    assert np.unique(items.all_ids).size == len(items.all_ids) - 1


def test_a_copy_back_knows_what_was_removed_by_hand(
    tmp_path: Path, gallery: Path, fake_model: FakeEncoder
) -> None:
    pictures, place = tmp_path / "pictures", f"milvus:{tmp_path / 'there.db'}#pictures"
    shutil.copytree(gallery / "pictures", pictures)
    Index.build(pictures, tmp_path / "index", model=fake_model)
    copy_to(tmp_path / "index", place)
    index = Index.open(tmp_path / "index")
    path = sorted((pictures / "dog").iterdir())[3]
    index.remove([path])
    for name, left_out in (("removed", 1), ("added", 0)):
        copy_back(place, tmp_path / name)
        done = Index.open(tmp_path / name).sync(dry_run=True)
        assert done.left_out == left_out and not done.changed
        assert not done.new_skipped and len(done.skipped) == 1
        index.add(path)
