"""What a sync found and did; and whether there is anything to do, by one walk of the folders.

A sync notes checksums of what its walks met beside the index, in `walked.json`. Where they are the
same now, there is nothing to do, and nothing else has to be opened. The note is no part of the
index: where it is missing, old or damaged, a sync compares file by file.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mrl_search
from mrl_search.errors import FileError, MrlSearchError, Skipped
from mrl_search.files import expanded, write_text
from mrl_search.images.walk import Walk, digest, files_of
from mrl_search.mapping import read_json
from mrl_search.store.manifest import read_manifest

__all__ = ["WALKED", "Synced", "note_walks", "unchanged"]

WALKED = "walked.json"
DECODERS = ("PIL", "pillow_heif")


@dataclass(frozen=True, slots=True, repr=False)
class Synced:
    """What a sync found, and did unless it was dry.

    Attributes:
        added: paths that are new.
        removed: paths that are gone.
        moved: old path and new path of pictures that were renamed; they keep id and vector.
        edited: paths whose content is another; they keep their id.
        described: paths whose columns are others, by a table beside them.
        copied: paths of further copies; they took over a vector.
        same: number of pictures that are as they were.
        skipped: pictures that cannot be read.
        new_skipped: those of them that no sync before had skipped.
        unread: path and reason of files that changed meanwhile, or cannot be reached now.
        lost: root to reason: all of its pictures are gone, which has to be meant.
        left_out: number of pictures that were removed by hand.
        outside: number of links that lead out of all roots; they are not followed.
        generation: of the index afterwards.
        items: of the index afterwards.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    edited: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    same: int = 0
    skipped: tuple[Skipped, ...] = ()
    new_skipped: tuple[Skipped, ...] = ()
    unread: tuple[tuple[str, str], ...] = ()
    lost: Mapping[str, str] = field(default_factory=dict)
    left_out: int = 0
    outside: int = 0
    generation: int = 0
    items: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything is other than it was."""
        edited = self.edited or self.described
        return bool(self.added or self.removed or self.moved or edited or self.copied)

    def __str__(self) -> str:
        added, moved = len(self.added) + len(self.copied), len(self.moved)
        edited = len(self.edited) + len(self.described)
        return f"+{added:,} −{len(self.removed):,} →{moved:,} ~{edited:,}"

    def __repr__(self) -> str:
        return f"<Synced {self}, generation {self.generation}>"


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
