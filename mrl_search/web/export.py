"""An index as a page that opens from a file: the page, its data as a script, and small pictures."""

import base64
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import BrokenImage, ConfigError, DataError
from mrl_search.files import building_folder, make_folder, publish, refuse_existing
from mrl_search.index import Index
from mrl_search.progress import Progress, silent
from mrl_search.vectors import nearest
from mrl_search.web.layout import points
from mrl_search.web.thumbs import thumbnail
from mrl_search.web.told import about, duplicates, item, label_numbers, report_of

__all__ = ["MOST", "export_page"]

MOST = 25_000  # items of a page: their vectors take one byte a number
SIDE = 320  # pixels of an exported picture
FAR, NEAR = 8, 64  # dims of the maps


def export_page(
    index: Index, out: Path, bench: Path | None = None, progress: Progress = silent
) -> int:
    """Write the page with the data of `index` into the new folder `out`; returns its items.

    Records of `mrl-search bench` become its report. The page searches in the browser, by vectors
    rounded to 8 bits: scores have two digits.

    Raises:
        ConfigError: more than `MOST` items.
        FileError: it cannot be written, or `out` exists.
    """
    rows = index.corpus.live_rows
    if len(rows) > MOST:
        message = f"{index.folder} has {len(rows):,} items; a page takes {MOST:,}."
        raise ConfigError(message, "Make a smaller index of it, or show it with: mrl-search serve.")
    refuse_existing(out)
    building = building_folder(out)
    make_folder(building / "thumbs")
    ids = index.items.all_ids
    for done, row in enumerate(rows.tolist()):
        progress("picture", done, len(rows))
        try:
            data = thumbnail(index, row, SIDE)
        except BrokenImage:  # the page leaves its tile empty
            continue
        (building / "thumbs" / f"{ids[row]}.jpg").write_bytes(data)
    for file in (files("mrl_search.web") / "page").iterdir():
        (building / file.name).write_bytes(file.read_bytes())
    script = f"const EXPORT = {json.dumps(_data(index, rows, bench, progress))};\n"
    (building / "data.js").write_text(script)
    publish(building, out)
    return len(rows)


def _data(
    index: Index, rows: NDArray[np.int64], bench: Path | None, progress: Progress
) -> dict[str, Any]:
    """What exported.js reads."""
    vectors = index.corpus.vectors.rows(rows).astype(np.float32)
    largest = abs(vectors).max(axis=1, keepdims=True)
    codes = np.rint(vectors * (127 / np.maximum(largest, 1e-12))).astype(np.int8)
    labels, numbers = label_numbers(index.items)
    items = [item(index, row) for row in rows.tolist()]
    maps = {
        d: _text(points(index.corpus, rows, d, numbers))
        for d in {nearest(index.dims, FAR), nearest(index.dims, NEAR)}
    }
    offline = {"embeds": False, "words": False, "write": False}
    return {
        "info": {**about(index), **offline}, "items": items,
        "labels": labels, "vectors": _text(codes.tobytes()), "maps": maps,
        "duplicates": {"copy": _duplicates(index, progress)},
        "report": report_of(bench) if bench else None,
    }  # fmt: skip


def _duplicates(index: Index, progress: Progress) -> dict[str, Any] | None:
    """Groups of changed copies; None where they cannot be looked for."""
    try:
        return duplicates(index, "copy", progress)
    except (ConfigError, DataError):
        return None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
