"""What the API and the page are told of an index and its items; no path of the machine."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.files import expanded
from mrl_search.index import Index
from mrl_search.measure.records import read_run
from mrl_search.progress import Progress, silent
from mrl_search.report.tables import run_tables
from mrl_search.search.chance import FEWEST_ITEMS
from mrl_search.search.results import BatchHits, hit_records
from mrl_search.search.run import default_plan
from mrl_search.store.items import Items
from mrl_search.text import json_value

__all__ = [
    "LABELS",
    "about",
    "duplicates",
    "hits_of",
    "item",
    "label_numbers",
    "report_of",
    "shown_path",
    "without_folders",
]

SAMPLE = 24  # items that a page shows before anything is asked
NO_LABEL = 65535
LABELS = 100  # labels that a map names
HIDDEN = ("inode",)  # columns that are of no use to people
FOLDERS = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?(?:[/\\][^/\\\s'\",:;]+)+[/\\](?=[^/\\\s])")
VALUES = 50  # different values of a column that are told


def about(index: Index) -> dict[str, Any]:
    """What a page needs to know of an index."""
    manifest, rows = index.manifest, index.corpus.live_rows
    some = (
        rows[np.unique(np.linspace(0, max(0, len(rows) - 1), SAMPLE).astype(np.int64))]
        if len(rows)
        else rows
    )
    return {
        "name": index.folder.name, "items": len(rows), "deleted": manifest.deleted,
        "generation": index.generation, "dim": index.corpus.dim, "dims": list(index.dims),
        "model": manifest.encoder, "plan": str(default_plan(index.corpus, 10)),
        "pictures": not manifest.own_vectors, "has_expected": len(rows) >= FEWEST_ITEMS,
        "columns": list(_columns(index, rows)),
        "sample": index.items.all_ids[some].tolist(),
    }  # fmt: skip


def _columns(index: Index, rows: NDArray[np.int64]) -> Iterable[dict[str, Any]]:
    """The columns that a filter can name, with the values of those that have few."""
    for name in ["label", *shown_columns(index.items)]:
        kind = index.items.schema.field(name).type
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            yield {"name": name, "kind": "number"}
        elif pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            yield {"name": name, "kind": "time"}
        elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
            values = sorted(
                {value for value in index.items.column(name)[rows] if value is not None}
            )
            if values:
                yield {"name": name, "kind": "text", "values": values[:VALUES]}


def shown_columns(items: Items) -> list[str]:
    """The columns that people are told."""
    return [name for name in items.own_columns if name not in HIDDEN]


def item(index: Index, row: int) -> dict[str, Any]:
    """An item with all its columns; pixels are null where there is no picture."""
    items = index.items
    values = {name: items.value(name, row) for name in shown_columns(items)}
    path, label = items["path"][row].as_py(), items["label"][row].as_py()
    told = {name: value for name, value in values.items() if value is not None and value == value}
    return {
        "id": int(items.all_ids[row]), "label": label, "path": shown_path(index, path),
        "name": Path(path).name if path else None,
        "width": items["width"][row].as_py(), "height": items["height"][row].as_py(),
        "columns": {n: _plain(v) for n, v in told.items()},
    }  # fmt: skip


def duplicates(index: Index, level: str, progress: Progress = silent) -> dict[str, Any]:
    """Groups of copies, as `duplicates --json` tells them, each file with its name."""
    found = index.duplicates(level, progress=progress)
    groups = [group.record(number) for number, group in enumerate(found.groups, 1)]
    for group in groups:
        for file in (group["keep"], *group["members"]):
            file |= {"path": shown_path(index, file["path"]), "name": Path(file["path"]).name}
            del file["links"]
    expected = found.expected if found.compared else None
    return {"level": level, "expected": expected, "groups": groups}


def label_numbers(items: Items) -> tuple[list[str], NDArray[np.uint16]]:
    """The most frequent labels, and for each row the place of its label; `NO_LABEL` for others."""
    column = items.column("label")
    counted = Counter(label for label in column if label is not None)
    labels = [label for label, _ in counted.most_common(LABELS)]
    place = {label: number for number, label in enumerate(labels)}
    return labels, np.array([place.get(label, NO_LABEL) for label in column], np.uint16)


def hits_of(index: Index, hits: BatchHits, whole: bool = False) -> list[dict[str, Any]]:
    """The hits of the only query, as `query --json` tells them, each with its name.

    Args:
        index: where they are from.
        hits: of one query.
        whole: tell all, paths of the machine, too.
    """
    own = index.manifest.own_vectors
    records = hit_records(hits[0], hits.explanation, 0, own, look=whole)
    roots, hidden = ([], ()) if whole else (_roots(index), HIDDEN)
    for record in records:
        path = record["path"]
        if not whole and path is None:
            record["name"] = None
        elif not whole:
            record["path"], record["name"] = _below(path, roots), path.rpartition(os.sep)[2]
        if "columns" in record:
            columns = record["columns"].items()
            record["columns"] = {n: _plain(v) for n, v in columns if n not in hidden}
    return records


def _plain(value: object) -> object:
    plain = value is None or isinstance(value, bool | int | float | str)
    return value if plain else json_value(value)


def report_of(path: Path) -> dict[str, Any]:
    """The tables of a benchmark, from its records.

    Raises:
        DataError: no records of `mrl-search bench`.
    """
    tables = run_tables(read_run(path))
    return {
        "tables": [
            {"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note} for t in tables
        ]
    }


def shown_path(index: Index, path: str | None) -> str | None:
    """A path below the source of the index; of any other, its last part."""
    return _below(path, _roots(index))


def _roots(index: Index) -> list[str]:
    """The folders of an index, each with a slash at its end."""
    return _with_slash(tuple(index.manifest.places))


@lru_cache(maxsize=100)
def _with_slash(places: tuple[str, ...]) -> list[str]:
    return [f"{str(expanded(place)).rstrip('/')}/" for place in places if place]


def _below(path: str | None, roots: Sequence[str]) -> str | None:
    if path is None:
        return None
    for root in roots:
        if path.startswith(root):
            return path[len(root) :]
    return path.rpartition(os.sep)[2]


def without_folders(indexes: Sequence[Index]) -> Callable[[str], str]:
    """What takes folders of the machine out of a text, so that paths become names.

    Those of `indexes` are known, whatever their names; others are known by their form.
    """
    places = {str(index.folder) for index in indexes}
    places |= {place for index in indexes for place in index.manifest.places if place}
    known = {str(form) for place in places for form in _forms(place)} - {"", ".", "/"}
    above = {str(Path(name).parent) for name in known} - {".", "/"}
    longest = sorted(known | above, key=len, reverse=True)

    def scrub(text: str) -> str:
        for name in longest:
            text = text.replace(f"{name}{os.sep}", "")
            if name in known:
                text = text.replace(name, Path(name).name)
        return FOLDERS.sub("", text)

    return scrub


def _forms(place: str) -> Iterable[str | Path]:
    """A path as it stands, and as the system may write it."""
    return place, expanded(place), expanded(place).absolute(), expanded(place).resolve()
