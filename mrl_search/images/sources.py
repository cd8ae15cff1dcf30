"""Where images come from: a folder, a data set on disk, or one on the Hugging Face hub.

A source knows the path and the label of every image without reading it; `read(i)` returns the bytes
of the file. The path of a row in a data set is `WHERE#split/row`, which `read_path` can open.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mrl_search.errors import BrokenImage, DataError, FileError
from mrl_search.files import reading
from mrl_search.images.decode import SUFFIXES

__all__ = ["Source", "may_hold_images", "open_source", "read_path", "scan_folder", "subset"]

IMAGE_COLUMNS = ("image", "img", "picture")
LABEL_COLUMNS = ("label", "labels")
HUB = "hub:"


@dataclass(frozen=True)
class Source:
    """A sequence of images. `paths` and `labels` (None where unknown) are aligned."""

    name: str
    paths: Sequence[str]
    labels: Sequence[str | None]

    def read(self, i: int) -> bytes:
        """The bytes of image `i`. Raises BrokenImage when they cannot be read."""
        return read_path(self.paths[i])


@dataclass(frozen=True)
class DatasetSource(Source):
    """The rows of a `datasets` data set, one split after the other."""

    splits: dict[str, Any]
    column: str

    def read(self, i: int) -> bytes:
        split, _, row = self.paths[i].rpartition("#")[2].rpartition("/")
        return _row_bytes(self.splits[split], int(row), self.column, self.paths[i])


@dataclass(frozen=True)
class Subset(Source):
    """Some images of another source."""

    of: Source
    rows: Sequence[int]

    def read(self, i: int) -> bytes:
        return self.of.read(self.rows[i])


def subset(source: Source, rows: Sequence[int], what: str) -> Source:
    """The images of `source` at `rows`; `what` is added to its name."""
    paths, labels = source.paths, source.labels
    return Subset(
        f"{source.name} ({what})", [paths[i] for i in rows], [labels[i] for i in rows], source, rows
    )


def scan_folder(folder: Path) -> Source:
    """The pictures in a folder and its sub-folders, whose names are the labels, by path.

    Links are followed.
    """
    files = sorted(p for p in _files(folder) if p.suffix.lower() in SUFFIXES and p.is_file())
    labels = [p.parent.name if p.parent != folder else None for p in files]
    return Source(str(folder.resolve()), [str(p.resolve()) for p in files], labels)


def open_source(where: str, label: str | None = None) -> Source:
    """Open a source of images.

    Args:
        where: an image folder or file, a data set on disk, or `hub:OWNER/NAME`.
        label: the column of a data set that has the labels; default: `label` or `labels`.

    Raises:
        DataError: `where` is missing, has no images, has pictures as well as tables of images, or
            has no image column or no such label column.
    """
    if where.startswith(HUB):
        return _dataset_source(where, label)
    path = Path(where).expanduser()
    if not path.exists():
        hint = "SRC is an image folder, a data set on disk, or hub:OWNER/NAME."
        raise DataError(f"There is nothing at {where}.", hint)
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        return Source(str(path.resolve()), [str(path.resolve())], [None])
    if path.is_file() or _is_dataset(path):
        return _dataset_source(str(path.resolve()), label)
    if label is not None:
        hint = "The labels of an image folder are the names of its sub-folders."
        raise DataError(f"{where} is an image folder, which has no column {label!r}.", hint)
    source = scan_folder(path)
    if not source.paths:
        hint = f"Images are files, in sub-folders too, ending in {', '.join(sorted(SUFFIXES))}."
        raise DataError(f"There is no image in {where}.", hint)
    return source


def read_path(path: str) -> bytes:
    """The bytes of an image by the path that a source gave it.

    Raises:
        BrokenImage: the file or row is gone.
    """
    if "#" in path and not Path(path).exists():
        where, _, position = path.rpartition("#")
        split, _, row = position.rpartition("/")
        try:
            source = _dataset_source(where, None)
            return _row_bytes(source.splits[split], int(row), source.column, path)
        except (DataError, KeyError, ValueError, IndexError) as error:
            raise BrokenImage(f"{path} is gone: {error}") from error
    return _read_file(path)


def _read_file(path: str) -> bytes:
    try:
        with reading(path):
            return Path(path).read_bytes()
    except FileError as error:
        if error.passing:  # all other pictures would be left out as well
            raise
        raise BrokenImage(f"cannot be read: {error.reason}") from error


def may_hold_images(column: pa.Field) -> bool:
    """Whether a Parquet column can hold pictures: bytes, or structs with bytes."""
    kind = column.type
    packed = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    is_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    return column.name in IMAGE_COLUMNS or packed or bool(is_bytes)


def _is_dataset(folder: Path) -> bool:
    """Whether the images of a folder are in tables. Tables without images are ignored.

    Raises:
        DataError: there are pictures, and images in tables.
    """
    markers = ("dataset_info.json", "dataset_dict.json", "state.json")
    if any((folder / name).is_file() for name in markers):
        return True
    tables = sorted(p for p in _files(folder) if p.suffix in (".parquet", ".arrow") and p.is_file())
    table = next((p for p in tables if _has_images(p)), None)
    pictures = scan_folder(folder).paths if tables else []
    if table is not None and pictures:
        message = f"{folder} has images in tables ({table}) and in files ({pictures[0]})."
        hint = "Name the folder of one of them."
        raise DataError(message, hint)
    return bool(tables) and not pictures


def _has_images(table: Path) -> bool:
    """Whether a table has a column for images; true if unreadable: `datasets` will report it."""
    try:
        if table.suffix == ".parquet":
            return any(may_hold_images(field) for field in pq.read_schema(table))
        with pa.memory_map(str(table)) as file:
            return any(may_hold_images(field) for field in pa.ipc.open_stream(file).schema)
    except (pa.ArrowException, OSError):
        return True


def _files(folder: Path) -> Iterator[Path]:
    """Every file under `folder`. Linked folders are followed, and none is entered twice."""
    entered: set[Path] = set()
    waiting = [folder]
    while waiting:
        for here, folders, names in os.walk(waiting.pop(0)):
            real = Path(here).resolve()
            if real in entered:
                folders.clear()
                continue
            entered.add(real)
            waiting += [link for name in sorted(folders) if (link := Path(here, name)).is_symlink()]
            yield from (Path(here, name) for name in names)


@lru_cache(maxsize=4)
def _dataset_source(where: str, wanted: str | None = None) -> DatasetSource:
    import datasets  # slow, and no other source needs it

    try:
        loaded = _load(datasets, where)
    except DataError:
        raise
    except Exception as error:  # `datasets` raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{where} cannot be loaded as a data set: {reason}.",
            "Check the network and the name."
            if where.startswith(HUB)
            else "Check that datasets.load_dataset(PATH) can load it.",
        ) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    splits = {name: split.with_format(None) for name, split in splits.items()}
    first = next(iter(splits.values()))
    columns = first.column_names
    image = next((c for c, f in first.features.items() if isinstance(f, datasets.Image)), None)
    image = image or next((c for c in IMAGE_COLUMNS if c in columns), None)
    if image is None:
        hint = f"Name the column {IMAGE_COLUMNS[0]!r}."
        raise DataError(f"{where} has no image column; it has {', '.join(columns)}.", hint)
    lacking = next((name for name, s in splits.items() if image not in s.column_names), None)
    if lacking is not None:
        hint = "Every split needs it."
        raise DataError(f"{where} has no image column {image!r} in its split {lacking!r}.", hint)
    if wanted is not None and wanted not in columns:
        raise DataError(f"{where} has no column {wanted!r}.", f"It has: {', '.join(columns)}.")
    label = wanted or next((c for c in LABEL_COLUMNS if c in columns), None)
    paths: list[str] = []
    labels: list[str | None] = []
    for name, split in splits.items():
        paths += [f"{where}#{name}/{i}" for i in range(len(split))]
        labels += _label_names(split, label)
    if not paths:
        raise DataError(f"{where} has no rows.", "A data set needs at least one image.")
    undecoded = datasets.Image(decode=False)
    try:
        splits = {name: split.cast_column(image, undecoded) for name, split in splits.items()}
    except Exception as error:  # as above
        message = f"The column {image!r} of {where} has {first.features[image]}, not images."
        hint = "Name the column of the images 'image'."
        raise DataError(message, hint) from error
    return DatasetSource(where, paths, labels, splits, image)


def _load(datasets: Any, where: str) -> Any:  # noqa: ANN401 - `datasets` has no types
    if where.startswith(HUB):
        return datasets.load_dataset(where.removeprefix(HUB))
    path = Path(where)
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(where)
        return datasets.load_dataset(where)
    if path.suffix not in (".parquet", ".arrow"):
        hint = "A data set is a Parquet or Arrow file, or a folder of them."
        raise DataError(f"{where} is neither an image nor a data set.", hint)
    return datasets.load_dataset(path.suffix[1:], data_files=where)


def _label_names(split: Any, column: str | None) -> list[str | None]:  # noqa: ANN401
    if column not in split.column_names:
        return [None] * len(split)
    names = getattr(split.features[column], "names", None)
    values = split.select_columns([column])[column]
    return [
        None if v is None or (names and v < 0) else names[v] if names else str(v) for v in values
    ]


def _row_bytes(split: Any, row: int, column: str, path: str) -> bytes:  # noqa: ANN401
    value = split[row][column]
    if isinstance(value, dict) and value.get("bytes"):
        return bytes(value["bytes"])
    if isinstance(value, dict) and value.get("path"):
        return _read_file(value["path"])
    raise BrokenImage(f"{path} holds no image")
