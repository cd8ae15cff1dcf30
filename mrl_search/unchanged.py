"""Whether the folders of an index are as its last sync left them, by one walk.

A sync notes checksums of what its walks met beside the index, in `walked.json`. Where they are the
same now, there is nothing to do, and nothing else has to be opened. The note is no part of the
index: where it is missing, old or damaged, a sync compares file by file.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mrl_search
from mrl_search.errors import FileError, MrlSearchError, Skipped
from mrl_search.files import expanded, write_text
from mrl_search.images.walk import Walk, digest, files_of
from mrl_search.mapping import read_json
from mrl_search.store.manifest import read_manifest
from mrl_search.synced import Synced

__all__ = ["WALKED", "note_walks", "unchanged"]

WALKED = "walked.json"
DECODERS = ("PIL", "pillow_heif")


def unchanged(folder: Path) -> Synced | None:
    """What a sync would find, if that is nothing; None where it has to look closer.

    Raises:
        IndexFolderError: not an index.
    """
    m = read_manifest(folder)
    try:
        told: Any = read_json(folder / WALKED)
        if (told["generation"], told["readers"]) != (m.generation, _readers()) or not m.roots:
            return None
        if m.engine:  # it may lack what an earlier command could not send
            return None
        for root, how in m.roots.items():
            others = [expanded(each) for each in m.roots]
            walk = Walk(expanded(root).absolute(), bool(how.get("hidden")), others)
            now = digest(walk, files_of(walk))
            if not now or told["roots"].get(str(walk.root)) != now:
                return None
        skipped = tuple(Skipped(path, reason) for path, reason in told["skipped"])
        left_out, outside = int(told["left_out"]), int(told["outside"])
    except (MrlSearchError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return Synced(
        same=m.alive, skipped=skipped, left_out=left_out, outside=outside,
        generation=m.generation, items=m.alive,
    )  # fmt: skip


def note_walks(folder: Path, digests: Mapping[str, str], done: Synced) -> None:
    """Note what a sync met, if all of it can be known again."""
    if not all(digests.values()):
        return
    value = {
        "generation": done.generation, "readers": _readers(), "roots": digests,
        "left_out": done.left_out, "outside": done.outside,
        "skipped": [[entry.path, entry.reason] for entry in done.skipped],
    }  # fmt: skip
    with suppress(FileError):  # the next sync looks closer
        write_text(folder / WALKED, json.dumps(value) + "\n")


def _readers() -> list[object]:
    """What decides which files are pictures: with other decoders, all are looked at again."""
    places = [spec.origin for spec in map(find_spec, DECODERS) if spec and spec.origin]
    return [mrl_search.__version__, *([place, Path(place).stat().st_mtime_ns] for place in places)]
