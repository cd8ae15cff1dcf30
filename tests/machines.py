"""Parts of one index, as several machines build them from the same pictures."""

import os
import shutil
from pathlib import Path

import numpy as np
from command_line import write_pictures
from fakes import FakeEncoder

import mrl_search as mrl
from mrl_search.images.sources import open_source
from mrl_search.index import Index

COUNT = 3


def build_all(folder: Path) -> Path:
    """`pictures`, one of them broken and one twice; `parts/1` to `parts/3`; and `whole` of all."""
    write_pictures(folder / "pictures", 20)
    shutil.copy(folder / "pictures/cat/cat-0000.png", folder / "pictures/dog/copy.png")
    (folder / "pictures/cat/broken.jpg").write_bytes(b"not a picture")
    age(folder)
    for number in range(1, COUNT + 1):
        part(folder, number)
    Index.build(folder / "pictures", folder / "whole", model=FakeEncoder())
    return folder


def age(folder: Path) -> None:
    """Files that were written long ago; the time of a new one is not recorded."""
    for path in folder.rglob("*.*"):
        os.utime(path, (1e9, 1e9))


def part(folder: Path, number: int, out: str = "parts", count: int = COUNT, **more: str) -> Path:
    made = folder / out / str(number)
    source = open_source(str(folder / "pictures"))
    mrl.build_part(source, made, FakeEncoder(), f"{number}/{count}", **more)
    return made


def parts_of(place: Path) -> list[Path]:
    return [place / "parts" / str(number) for number in (2, 3, 1)]


def assert_same(joined: Index, whole: Index) -> None:
    """Equal to the last bit: vectors, items, what is skipped, and all of the manifest but times."""
    np.testing.assert_array_equal(joined.corpus.vectors.rows(), whole.corpus.vectors.rows())
    assert joined.items.table().equals(whole.items.table())
    assert joined.corpus.collection.skipped == whole.corpus.collection.skipped
    a, b = joined.manifest, whole.manifest
    for name in ("dims", "factory", "axes", "roots", "source", "count", "rows_dim", "shard"):
        assert getattr(a, name) == getattr(b, name), name
