"""The pictures of a folder: which files are pictures, their labels, and what is passed over."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from mrl_search.errors import ConfigError, DataError
from mrl_search.files import open_regular, reading, recordable
from mrl_search.images.base import FileSource, Source
from mrl_search.images.decode import HEIC_SUFFIXES, suffixes
from mrl_search.images.walk import Walk, is_picture_file

__all__ = [
    "FOLDER", "LABELS", "METADATA", "folder_source", "is_bytes", "label_of", "pictures_in",
]  # fmt: skip

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # as `datasets` names them
FILE_NAME, LABELS, FOLDER = "file_name", ("label", "labels"), "folder"
KINDS, FOLDERS = 8, 5  # endings and folders that are listed
HOW = "--labels is folder, none, metadata, or depth:N with N from 1."


def folder_source(walk: Walk, files: Sequence[Path], labels: str = "") -> Source:
    """The pictures among the `files` of a folder. Those of any ending are known by their content.

    They have a column `folder`, the path from the root to the folder of a picture, "" at the root,
    and the columns of the files `METADATA`.

    Args:
        walk: the folder.
        files: what it found.
        labels: `folder`: the name of the folder a picture lies in; `depth:N`: of the N-th folder
            below the root; `metadata`: the column `label` of the files `METADATA`; `none`.
            Default: `metadata` where there is such a column, else `folder`.

    Raises:
        ConfigError: another value of `labels`.
        DataError: labels from metadata where there are none, or a damaged metadata file.
    """
    root = walk.root.resolve()
    tables = [path for path in files if path.name in METADATA]
    pictures = [path for path in files if path not in tables and is_picture_file(path)]
    left = Counter(p.suffix.lower() for p in set(files) - set(pictures) - set(tables))
    relative = [path.relative_to(walk.root) for path in pictures]
    columns, notes = _metadata(walk.root, tables, pictures)
    named = next((name for name in LABELS if columns and name in columns.column_names), None)
    how = labels or ("metadata" if named else "folder")
    found: list[str | None]
    if how == "metadata":
        if columns is None or named is None:
            wanted = ", ".join(METADATA)
            message = f"{root} has no metadata file with a column {LABELS[0]!r}."
            raise DataError(message, f"Write one of {wanted} with columns file_name and label.")
        found = [label_of(value) for value in columns[named].to_pylist()]
    elif how == "folder":
        found = [label_of(path.parent.name) for path in relative]
    elif how == "none":
        found = [None] * len(relative)
    elif how.startswith("depth:") and how[6:].isdecimal() and int(how[6:]):
        depth = int(how[6:])
        found = [label_of(p.parts[depth - 1] if len(p.parts) > depth else "") for p in relative]
    else:
        raise ConfigError(f"--labels is {labels!r}.", HOW)
    own = {} if columns is None else {n: columns[n] for n in columns.column_names if n != named}
    if FOLDER not in own:
        folders = ["/".join(path.parts[:-1]) for path in relative]
        own[FOLDER] = pa.array([_composed(folder) for folder in folders], pa.string())
    other = Counter(p.suffix.lower() for p in pictures if p.suffix.lower() not in suffixes())
    kinds = Counter(p.suffix.lower() for p in pictures)
    if len(kinds) > 1:
        notes.insert(0, f"pictures: {_counts(kinds)}")
    if other:
        notes.insert(0, f"taken by their content: {_counts(other)}")
    notes = [*_notes(walk, left), *notes]
    paths = [recordable(root / path) for path in relative]
    walked = {"labels": labels, "hidden": "yes" if walk.hidden else ""}
    where = recordable(root)
    return FileSource(where, paths, found, notes, pa.table(own), walked, how == "metadata")


def pictures_in(folder: Path) -> list[Path]:
    """The pictures in a folder and its sub-folders, without hidden ones, by path."""
    return [path for path in Walk(folder).files() if is_picture_file(path)]


def label_of(value: object) -> str | None:
    """A label in Unicode's composed form (NFC), or None for no label: null, NaN, empty text.

    Bytes of a folder name that are not UTF-8 are escaped.
    """
    if value is None or value != value:
        return None
    return _composed(str(value)).strip() or None


def _composed(name: str) -> str:
    text = name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    return unicodedata.normalize("NFC", text)


def _notes(walk: Walk, left: Mapping[str, int]) -> Iterator[str]:
    """What was not looked at."""
    if left:
        yield f"passed over: {_counts(left)}"
        if HEIC_SUFFIXES & set(left):
            yield "HEIC is read with the extra heic: pip install pillow-heif"
    for paths, what in (
        (walk.left_out, "hidden or system files and folders, which --hidden takes"),
        (walk.outside, "links that lead out of the folder; add the folders that they lead to"),
        (walk.odd, "links that lead nowhere, pipes or devices"),
    ):
        if paths:
            names = [os.path.relpath(path, walk.root) for path in sorted(paths)[:FOLDERS]]
            more = ", …" if len(paths) > FOLDERS else ""
            yield f"left out {len(paths)} {what}: {', '.join(names)}{more}"
    for folder, reason in walk.closed.items():
        yield f"cannot be read and was skipped: {folder} ({reason})"


def _counts(endings: Mapping[str, int]) -> str:
    """How many files have each ending, the most frequent first."""
    kinds = sorted(endings.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f"{count} {ending or 'without ending'}" for ending, count in kinds[:KINDS]]
    more = f" and {len(kinds) - KINDS} more kinds" if len(kinds) > KINDS else ""
    return f"{', '.join(shown)}{more}"


def _metadata(
    root: Path, tables: Sequence[Path], pictures: Sequence[Path]
) -> tuple[pa.Table | None, list[str]]:
    """The columns of the metadata files, one row a picture, null where unknown; and notes."""
    read: list[pa.Table] = []
    rows: dict[str, int] = {}
    for path in tables:
        table = _read_table(path)
        if FILE_NAME not in table.column_names:
            hint = f"Name the column with the names of the pictures {FILE_NAME!r}."
            raise DataError(f"{path} has no column {FILE_NAME!r}.", hint)
        before = sum(part.num_rows for part in read)
        for row, name in enumerate(table[FILE_NAME].to_pylist()):
            rows[os.path.normpath(path.parent / str(name))] = before + row
        read.append(table.drop_columns([FILE_NAME]))
    if not read:
        return None, []
    try:
        every = pa.concat_tables(read, promote_options="permissive")
    except pa.ArrowException as error:
        message = f"The metadata files of {root} have columns of other types: {error}."
        raise DataError(message, "Give a column one type.") from error
    plain = [f.name for f in every.schema if not (pa.types.is_nested(f.type) or is_bytes(f.type))]
    at = [rows.get(os.path.normpath(path)) for path in pictures]
    known = sum(row is not None for row in at)
    notes = [f"{', '.join(path.name for path in tables)}: {known} of {len(pictures)} pictures"]
    if known < len(rows):
        notes.append(f"{len(rows) - known} rows of metadata name no picture here")
    return every.select(plain).take(pa.array(at, pa.int64())), notes


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a column of this type holds bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _read_table(path: Path) -> pa.Table:
    try:
        with reading(path), open_regular(path) as file:
            if path.suffix == ".parquet":
                return pq.read_table(file)
            text = dict.fromkeys((FILE_NAME, *LABELS), pa.string())
            if path.suffix == ".csv":
                options = pa.csv.ConvertOptions(column_types=text)
                return pa.csv.read_csv(file, convert_options=options)
            return pa.json.read_json(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}.", "Mend it, or move it away.") from error
