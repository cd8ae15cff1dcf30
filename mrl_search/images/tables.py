"""Pictures in the rows of a data set: which column has them, their labels and their bytes."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from mrl_search.errors import BrokenImage, DataError, MrlSearchError, first_line
from mrl_search.files import recordable
from mrl_search.images.base import Source, read_file
from mrl_search.images.decode import HEAD, is_picture
from mrl_search.images.folders import LABELS, is_bytes, label_of
from mrl_search.parquet import first_rows, open_parquet

__all__ = [
    "HUB", "TABLES", "DatasetSource", "dataset_source", "has_images", "image_named",
    "picture_columns", "row_bytes",
]  # fmt: skip

IMAGE_COLUMNS = ("image", "img", "picture")
HUB = "hub:"
TABLES = (".parquet", ".arrow")
SAMPLE = 16  # rows that tell whether a column holds pictures

Split: TypeAlias = Any  # of `datasets`, which has no types
_opening = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class DatasetSource(Source):
    """The rows of a `datasets` data set, one split after the other."""

    splits: dict[str, Split]
    column: str

    def read(self, i: int) -> bytes:
        split, _, row = self.paths[i].rpartition("#")[2].rpartition("/")
        return row_bytes(self, split, int(row))


def picture_columns(table: Path) -> list[str]:
    """The columns of a Parquet file whose first values are pictures, or names of files.

    Raises:
        DataError: the table is damaged.
        FileError: the system does not read it.
    """
    with open_parquet(table) as file:
        fields = [field for field in file.schema_arrow if _may_hold_images(field)]
        return [field.name for field in fields if _has_picture(file, field.name, table.parent)]


def image_named(column: pa.Field) -> bool:
    """Whether a column is meant for images: by its name, or as structs with bytes."""
    kind = column.type
    packed = pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0
    return packed or column.name in IMAGE_COLUMNS


def _may_hold_images(column: pa.Field) -> bool:
    """Whether a column can hold pictures: bytes, structs with bytes, or names of files."""
    t, kind = pa.types, column.type
    if column.name in IMAGE_COLUMNS and (t.is_string(kind) or t.is_large_string(kind)):
        return True
    return is_bytes(kind) or bool(t.is_struct(kind) and image_named(column))


def _has_picture(file: pq.ParquetFile, column: str, folder: Path) -> bool:
    for value in first_rows(file, column, SAMPLE).to_pylist():
        packed = value if isinstance(value, dict) else {}
        data = packed.get("bytes") or value
        name = packed.get("path") or value
        if isinstance(data, bytes) and is_picture(data[:HEAD]):
            return True
        if isinstance(name, str) and name and (folder / name).is_file():
            return True
    return False


def has_images(table: Path) -> bool:
    """Whether a table has a column of images; true if unreadable: `datasets` will report it."""
    try:
        if table.suffix == ".parquet":
            return bool(picture_columns(table))
        with pa.memory_map(str(table)) as file:
            return any(_may_hold_images(field) for field in pa.ipc.open_stream(file).schema)
    except (pa.ArrowException, OSError, MrlSearchError):
        return True


def dataset_source(
    where: str, label: str | None = None, column: str | None = None, fetch: bool = True
) -> DatasetSource:
    """The pictures of a data set. Of each row, only the picture and the label are ever read.

    Args:
        where: a Parquet or Arrow file, a folder of them, or `hub:OWNER/NAME`.
        label: the column of the labels; default: `label` or `labels`.
        column: the column of the pictures; default: `image`, or the only one.
        fetch: whether the hub may be asked; without, only what was fetched before is opened.

    Raises:
        DataError: it cannot be loaded, has no such column, or several and none called `image`.
    """
    with _opening:  # `datasets` fails where two threads import it, or load the same, at once
        return _source(where, label, column, fetch)


@lru_cache(maxsize=4)
def _source(where: str, label: str | None, column: str | None, fetch: bool) -> DatasetSource:
    import datasets  # slow, and no other source needs it

    splits = _loaded(where, fetch)
    first = next(iter(splits.values()))
    image = column or _image_column(where, first.features)
    for name, split in splits.items():
        if image not in split.column_names:
            message = f"{where} has no image column {image!r} in its split {name!r}."
            raise DataError(message, f"It has: {', '.join(split.column_names)}.")
    if label is not None and label not in first.column_names:
        hint = f"It has: {', '.join(first.column_names)}."
        raise DataError(f"{where} has no column {label!r}.", hint)
    named = label or next((c for c in LABELS if c in first.column_names), None)
    paths: list[str] = []
    labels: list[str | None] = []
    notes: list[str] = []
    for name, split in splits.items():
        paths += [f"{where}#{name}/{i}" for i in range(len(split))]
        found, problem = _labels(split, named)
        if problem and label is not None:
            hint = "Labels are text or numbers; name another column."
            raise DataError(f"Column {named!r} of {where} {problem}.", hint)
        if problem:
            notes.append(f"no labels: column {named!r} {problem}")
        labels += found
    if not paths:
        raise DataError(f"{where} has no rows.", "A data set needs at least one image.")
    undecoded = datasets.Image(decode=False)
    try:
        splits = {
            name: split.select_columns([image]).cast_column(image, undecoded)
            for name, split in splits.items()
        }
    except Exception as error:  # `datasets` raises many kinds
        message = f"The column {image!r} of {where} has {first.features[image]}, not images."
        raise DataError(message, "Name the column of the images with --column.") from error
    others = [c for c in first.column_names if isinstance(first.features[c], datasets.Image)]
    if len(others) > 1:
        notes.insert(0, f"pictures: column {image!r}; there are also {', '.join(others)}")
    return DatasetSource(where, paths, labels, tuple(notes), splits=splits, column=image)


def row_bytes(source: DatasetSource, split: str, row: int) -> bytes:
    """The bytes of the picture of one row. A relative file name is relative to the table.

    Raises:
        BrokenImage: there is none, or its file cannot be read.
    """
    value = source.splits[split][row][source.column]
    if isinstance(value, dict) and value.get("bytes"):
        return bytes(value["bytes"])
    if isinstance(value, dict) and value.get("path"):
        place = Path(source.name)
        folder = place if place.is_dir() else place.parent
        return read_file(str(folder / value["path"]))
    raise BrokenImage(f"{source.name}#{split}/{row} holds no image")


def _image_column(where: str, features: Split) -> str:
    """The column `image`, else the only one of images, else one by its name."""
    import datasets

    found = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    if IMAGE_COLUMNS[0] in features or len(found) == 1:
        return IMAGE_COLUMNS[0] if IMAGE_COLUMNS[0] in features else found[0]
    if found:
        hint = f"Name one: --column {found[0]}"
        raise DataError(f"{where} has several columns of images: {', '.join(found)}.", hint)
    plain = next((name for name in IMAGE_COLUMNS if name in features), None)
    if plain is None:
        hint = f"Name the column {IMAGE_COLUMNS[0]!r}, or choose one with --column."
        raise DataError(f"{where} has no image column; it has {', '.join(features)}.", hint)
    return plain


def _labels(split: Split, column: str | None) -> tuple[list[str | None], str]:
    """The labels of a split, and why there are none, if there should be."""
    import datasets

    none: list[str | None] = [None] * len(split)
    if column not in split.column_names:
        return none, ""
    kind = split.features[column]
    names = getattr(kind, "names", None)
    if not names and not isinstance(kind, datasets.Value):
        return none, f"holds {type(kind).__name__}, not text or numbers"
    values = split.select_columns([column]).with_format("arrow")[:][column]
    if is_bytes(values.type):
        return none, "holds bytes, not text or numbers"
    return [_name(value, names) for value in values.to_pylist()], ""


def _name(value: object, names: Sequence[str] | None) -> str | None:
    """The label that a value stands for; integers beyond the names are names themselves."""
    if names and isinstance(value, int):
        if value < 0:
            return None
        return label_of(names[value]) if value < len(names) else str(value)
    return label_of(value)


def _loaded(where: str, fetch: bool) -> dict[str, Split]:
    """The splits of a data set by name, as rows of Python values."""
    try:
        loaded = _load(where, fetch)
    except DataError:
        raise
    except Exception as error:  # `datasets` raises many kinds
        for cause in _causes(error):
            if isinstance(cause, OSError) and _is_cache(cause):
                message = f"The cache of data sets cannot be written: {cause}."
                hint = "Set HF_HOME to a folder that can be written."
                raise DataError(message, hint) from error
        hint = f"Check that datasets.load_dataset({where!r}) can load it."
        if where.startswith(HUB):
            hint = "Check the network and the name."
        message = f"{where} cannot be loaded as a data set: {first_line(error)}."
        raise DataError(message, hint) from error
    splits = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    return {name: split.with_format(None) for name, split in splits.items()}


def _load(where: str, fetch: bool) -> Split:
    import datasets

    if where.startswith(HUB):
        more = {} if fetch else {
            "download_config": datasets.DownloadConfig(local_files_only=True)
        }  # fmt: skip
        return datasets.load_dataset(where.removeprefix(HUB), **more)
    path = Path(where)
    if recordable(path) != where:
        message = f"{where} is a data set whose name is not UTF-8: `datasets` cannot open it."
        raise DataError(message, "Rename the file, and the folders that it lies in.")
    if path.is_dir():
        if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_from_disk(where)
        return datasets.load_dataset(where)
    if path.suffix not in TABLES:
        hint = "A data set is a Parquet or Arrow file, or a folder of them."
        raise DataError(f"{where} is neither an image nor a data set.", hint)
    return datasets.load_dataset(path.suffix[1:], data_files=where)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _is_cache(error: OSError) -> bool:
    """Whether an error is about the folder that `datasets` keeps its tables in."""
    import datasets

    cache = Path(datasets.config.HF_CACHE_HOME).expanduser()
    named = Path(str(error.filename or "."))
    return named.is_relative_to(cache) or cache.is_relative_to(named.resolve())
