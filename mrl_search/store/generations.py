"""Generations of an index: what a change wrote is named last, and what nobody reads is removed.

A writer puts new files into `parts/NNNNNN/` (built beside it and renamed), then the manifest of the
generation into `generations/`, and at last names it in `manifest.json`. Killed before that, it
leaves the old generation, and files that the next writer removes.
"""

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import IndexFolderError
from mrl_search.files import (
    LEFT,
    claim,
    flush_folder,
    make_folder,
    write_atomically,
    write_text,
    writing,
)
from mrl_search.leases import unused
from mrl_search.provenance import now
from mrl_search.store.command import Command
from mrl_search.store.intact import recorded
from mrl_search.store.manifest import (
    DELETED,
    FORMAT,
    GENERATIONS,
    MANIFEST,
    PARTS,
    Manifest,
    generation_file,
    is_index_file,
    kept_generations,
    lease_file,
    read_manifest,
    restorable,
    write_text_of,
)

__all__ = ["Change", "changing", "store_plan"]

KEPT = 5  # commands whose last generation can be restored
BUILDING = re.compile(r"\.\d+\.building")
WAIT = 30.0  # seconds for another process that changes the index


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an index, by the only process that may change it now.

    Attributes:
        folder: the index folder.
        before: the manifest that is changed.
        command: what changes it, and what it has done so far.
    """

    folder: Path
    before: Manifest
    command: Command

    @property
    def generation(self) -> int:
        """The generation that the change makes."""
        return self.before.generation + 1

    @property
    def part(self) -> str:
        """Name of the part that it may write."""
        return f"{self.generation:06d}"

    @property
    def out(self) -> Path:
        """The folder of this part; it is built beside it, as `CollectionWriter` does."""
        return self.folder / PARTS / self.part

    @property
    def building(self) -> Path:
        """Where the files of the part are written."""
        return self.out.with_name(f".{self.part}.building")

    def after(self, made: Manifest) -> "Change":
        """The next change of the command, while nobody else may change the index."""
        ours = made.command.began == self.command.began
        return replace(self, before=made, command=made.command if ours else self.command)

    def counted(self, **more: int) -> "Change":
        """The same, with so many more items `added`, `removed`, `moved` and `edited`."""
        so_far = {name: getattr(self.command, name) + count for name, count in more.items()}
        return replace(self, command=replace(self.command, **so_far))

    def write_deleted(self, deleted: NDArray[np.bool_]) -> None:
        """Write which rows are deleted, (n,) bool, into the part."""
        with write_atomically(self.building / DELETED) as file:
            file.write(np.packbits(deleted, bitorder="little").tobytes())

    def commit(
        self, manifest: Manifest, new: Mapping[str, str] | None = None, *, quiet: bool = False
    ) -> Manifest:
        """Make a generation of `manifest`, whose `files` stay, and of new files: its manifest.

        Args:
            manifest: what it holds.
            new: name in `files` to the name of the file in the building folder.
            quiet: whether it answers as the one before, in whose place it comes.
        """
        files = dict(manifest.files)
        if new:
            for name, own in new.items():
                files[name] = recorded(self.building / own, f"{PARTS}/{self.part}/{own}")
            with writing(self.out):
                for path in self.building.iterdir():
                    if path.name not in new.values():
                        path.unlink()
                flush_folder(self.building)
                self.building.rename(self.out)
                flush_folder(self.out.parent)
        command = self.before.command if quiet else self.command
        made = replace(
            manifest, files=files, format=FORMAT, generation=self.generation, command=command
        )
        make_folder(self.folder / GENERATIONS)
        if self.before.format == 1:
            write_text_of(generation_file(self.folder, self.before.generation), self.before)
        write_text_of(generation_file(self.folder, self.generation), made)
        named = {"format": FORMAT, "generation": self.generation}
        write_text(self.folder / MANIFEST, json.dumps(named) + "\n")
        with suppress(OSError, IndexFolderError):  # the change is made; the next one removes more
            _remove_unused(self.folder)
        return made


@contextmanager
def changing(folder: Path, command: str = "", wait: float = WAIT) -> Iterator[Change]:
    """Be the only one who changes an index. Without a `command`, that of its last change goes on.

    Raises:
        IndexFolderError: not an index, or another process changes it for longer than `wait` s.
    """
    manifest = read_manifest(folder)
    with claim(folder, wait=wait):
        manifest = read_manifest(folder)
        if manifest.shard:
            message = f"{folder} is part {manifest.shard} of an index; parts are not changed."
            raise IndexFolderError(message, "Join all parts: mrl-search join PART… --out DIR")
        with writing(folder):
            _remove_left(folder, manifest.generation)
        if manifest.format > 1:
            with suppress(OSError, IndexFolderError):  # a writer may have been killed while it did
                _remove_unused(folder)
        about = Command(command, now(), manifest.generation + 1) if command else manifest.command
        yield Change(folder, manifest, about)


def store_plan(
    folder: Path, use: str, plan: Mapping[str, object], measured: Manifest | None = None
) -> Manifest:
    """Keep a tuned plan in the manifest of an index, which is returned; other files stay.

    `measured` is the manifest of the index that the plan was tuned for; default: any.

    Raises:
        IndexFolderError: another index has taken the place of the measured one.
        FileError: the manifest cannot be read or written.
    """
    with changing(folder) as change:
        manifest = change.before
        if measured is not None and manifest.files != measured.files:
            message = f"{folder} was replaced while it was tuned; the plan was not stored."
            raise IndexFolderError(message, f"Tune it again: mrl-search tune {folder}")
        manifest = replace(manifest, plans={**manifest.plans, use: dict(plan)})
        if manifest.format > 1:
            return change.commit(manifest, quiet=True)
        write_text_of(folder / MANIFEST, manifest)
    return manifest


def _remove_left(folder: Path, newest: int) -> None:
    """Remove what a killed writer left: generations after the newest, and unfinished files."""
    for path in (folder / GENERATIONS).glob("*"):
        later = path.suffix == ".json" and path.stem.isdecimal() and int(path.stem) > newest
        if path.is_file() and (later or LEFT.fullmatch(path.name)):
            path.unlink()
    for path in (folder / PARTS).glob("*"):
        later = path.name.isdecimal() and int(path.name) > newest
        if path.is_dir() and (later or BUILDING.fullmatch(path.name)):
            shutil.rmtree(path)


def _remove_unused(folder: Path) -> None:
    """Remove generations that nobody reads or restores, and files that none of the others names."""
    kept = {manifest.generation for manifest in restorable(folder)[-KEPT:]}
    for number in kept_generations(folder):
        if number in kept:
            continue
        with unused(lease_file(folder, read_manifest(folder, number))) as idle:
            if idle:
                generation_file(folder, number).unlink()
    named = set()
    for number in kept_generations(folder):
        manifest = read_manifest(folder, number)
        named |= {manifest.place(name) for name in manifest.files}
    for part in (p for p in (folder / PARTS).glob("*") if p.name.isdecimal() and p.is_dir()):
        for path in part.iterdir():
            if f"{PARTS}/{part.name}/{path.name}" not in named:
                path.unlink()
        if not any(part.iterdir()):
            part.rmdir()
    for path in folder.iterdir():
        if is_index_file(path.name) and path.name not in named:
            path.unlink()
