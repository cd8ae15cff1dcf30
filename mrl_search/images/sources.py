"""Where images come from: a folder, a data set on disk, or one on the Hugging Face hub.

A source knows the path and the label of every image without reading it; `read(i)` returns the bytes
of the file. The path of a row in a data set is `WHERE#split/row`, which `read_path` can open.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from mrl_search.errors import BrokenImage, DataError
from mrl_search.files import expanded, recordable
from mrl_search.images.base import FileSource, Source, read_file, subset
from mrl_search.images.decode import suffixes
from mrl_search.images.folders import FOLDER, folder_source
from mrl_search.images.tables import HUB, TABLES, dataset_source, has_images, row_bytes  # fmt: skip
from mrl_search.images.walk import Walk, is_picture_file

__all__ = [
    "RecordedSource", "Source", "is_gone", "open_source", "read_path", "read_recorded",
    "subset",
]  # fmt: skip

MARKERS = ("dataset_info.json", "dataset_dict.json", "state.json")  # of `datasets`


@dataclass(frozen=True)
class RecordedSource(Source):
    """Pictures by the paths that an index recorded, of its `places`; default: `name`."""

    places: Sequence[str] = ()

    def read(self, i: int) -> bytes:
        return read_recorded(self.paths[i], *(self.places or (self.name,)))


def open_source(
    where: str, label: str | None = None, *, labels: str = "", column: str | None = None,
    hidden: bool = False,
) -> Source:  # fmt: skip
    """Open a source of images.

    Args:
        where: an image folder or file, a data set on disk, or `hub:OWNER/NAME`.
        label: the column of a data set that has the labels; default: `label` or `labels`.
        labels: of a folder: `folder`, `none`, `metadata` or `depth:N`; see `folder_source`.
        column: the column of a data set that has the images; default: `image`, or the only one.
        hidden: also take hidden files, and thumbnail, trash and system folders.

    Raises:
        ConfigError: another value of `labels`.
        DataError: `where` is missing, has no images, has pictures as well as tables of images, or
            has no image column or no such label column.
    """
    if where.startswith(HUB):
        return dataset_source(where, label, column)
    path = expanded(where)
    if not path.exists():
        hint = "SRC is an image folder, a data set on disk, or hub:OWNER/NAME."
        raise DataError(f"There is nothing at {where}.", hint)
    if path.is_file() and is_picture_file(path, chosen=True):
        name = recordable(path.resolve())
        return FileSource(name, [name], [None], columns=pa.table({FOLDER: [""]}), walked={})
    if path.is_file() or any((path / name).is_file() for name in MARKERS):
        return dataset_source(str(path.resolve()), label, column)
    walk = Walk(path, hidden)
    files = walk.files()
    source = folder_source(walk, files, labels)
    tables = [p for p in files if p.suffix in TABLES and not p.name.startswith("metadata.")]
    table = next((p for p in tables if has_images(p)), None)
    if table is not None and source.paths:
        first = source.paths[0]
        message = f"{where} has images in tables ({table}) and in files ({first})."
        raise DataError(message, "Name the folder of one of them.")
    if tables and not source.paths:
        return dataset_source(str(path.resolve()), label, column)
    for name, value in {"column": label, "--column": column}.items():
        if value is not None:
            hint = "Labels of an image folder come from its sub-folders or a metadata file."
            raise DataError(f"{where} is an image folder, which has no {name} {value!r}.", hint)
    if not source.paths:
        hint = f"Images are files, in sub-folders too, such as {', '.join(sorted(suffixes()))}."
        told = "".join(f" {note}." for note in source.notes)
        raise DataError(f"There is no image in {where}.{told}", hint)
    return source


def read_path(path: str) -> bytes:
    """The bytes of an image by the path that a source gave it; the hub is never asked.

    Raises:
        BrokenImage: the file or row is gone.
    """
    if "#" in path and not os.path.lexists(path):
        where, _, position = path.rpartition("#")
        split, _, row = position.rpartition("/")
        try:
            return row_bytes(dataset_source(where, fetch=False), split, int(row))
        except (DataError, KeyError, ValueError, IndexError) as error:
            raise BrokenImage(f"{path} is gone: {error}") from error
    return read_file(path)


def is_gone(path: str) -> bool:
    """Whether an image that a source recorded, or its data set, is no longer on disk."""
    file = expanded(path)
    if os.path.lexists(file) or path.startswith(HUB):
        return False
    return not ("#" in path and os.path.lexists(expanded(path.rpartition("#")[0])))


def read_recorded(path: str, *sources: str) -> bytes:
    """The bytes of an image by a path that stands in an index: data, not trusted.

    Args:
        path: the path.
        sources: what the index is made of; "" for own vectors, whose items name any file.

    Raises:
        BrokenImage: gone, or outside of all `sources` that are folders or data sets.
    """
    file, known = expanded(path), " and ".join(sources)
    if not os.path.lexists(file) and "#" in path:
        if path.rpartition("#")[0] not in sources:
            raise BrokenImage(f"{path} is not in {known or 'any file that an index may name'}")
    elif not any(_holds(source, file) for source in sources):
        raise BrokenImage(f"{path} is outside of {known}, which the index was built from")
    return read_path(path)


def _holds(source: str, file: Path) -> bool:
    """Whether a source may have a file; only of a folder and of a file is that known."""
    place = expanded(source)
    if not source or not place.exists():
        return True
    return Path(os.path.realpath(file)).is_relative_to(os.path.realpath(place))
