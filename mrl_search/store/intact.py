"""Whether the files of an index folder are as they were written: sizes and checksums."""

import dataclasses
from pathlib import Path

from mrl_search.errors import FileError, IndexFolderError
from mrl_search.files import checksum, reading
from mrl_search.store.blocks import encoded
from mrl_search.store.manifest import (
    ITEMS,
    MANIFEST,
    VECTORS,
    FileRecord,
    Manifest,
    is_index_file,
    read_manifest,
    way_back,
    write_text_of,
)

__all__ = ["check_file", "damaged", "recorded", "verify", "write_manifest"]

CHECKED_AT_OPEN = 256 << 20  # bytes; of larger vectors a block is checked when it is first read


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Record the index files in `folder` and write `manifest.json`: the folder is then complete.

    Returns:
        the manifest as written, with `files`.
    """
    present = sorted(path.name for path in folder.iterdir())
    names = [name for name in present if is_index_file(name)]
    for name in (VECTORS, ITEMS):
        if name not in names:
            raise IndexFolderError(f"{folder} has no {name}.", manifest.rebuild(folder))
    files = {name: recorded(folder / name) for name in names}
    manifest = dataclasses.replace(manifest, files=files)
    write_text_of(folder / MANIFEST, manifest)
    return manifest


def recorded(path: Path, place: str = "") -> FileRecord:
    """The record of a file as it is now, which will be at `place` in the index folder."""
    size, blocks = path.stat().st_size, list[int]()
    if path.name == VECTORS and size > CHECKED_AT_OPEN:
        return FileRecord(size, checksum(path, blocks), encoded(blocks), place)
    return FileRecord(size, checksum(path), path=place)


def check_file(folder: Path, manifest: Manifest, name: str, *, thorough: bool = False) -> Path:
    """Check that a file of the folder is as it was written, and return its path.

    Its size and its checksum are compared. Vectors of over 256 MB are hashed with `thorough` alone:
    their blocks are checked when they are first read (see `mrl_search.store.blocks`).

    Raises:
        IndexFolderError: the file is not recorded, missing, cut short, or altered; or the index
            was replaced since `manifest` was read.
        FileError: the system does not read it.
    """
    path, record = folder / manifest.place(name), manifest.files.get(name)
    if record is None:
        raise damaged(folder, manifest, f"{path} is missing.", "Copy it again, or")
    try:
        with reading(path):
            size = path.stat().st_size
            small = path.name != VECTORS or size <= CHECKED_AT_OPEN
            hashed = size == record.bytes and (thorough or small)
            altered = hashed and checksum(path) != record.xxh3
    except FileError as error:
        if not error.missing:
            raise
        what = f"{path} is missing."
        raise damaged(folder, manifest, what, "Copy it again, or", path) from error
    if size != record.bytes:
        damage = "is cut short" if size < record.bytes else "was altered"
        what = f"{path} {damage}: {size:,} bytes, not {record.bytes:,}."
        raise damaged(folder, manifest, what, path=path)
    if altered:
        what = f"{path} was altered: its checksum differs."
        raise damaged(folder, manifest, what, path=path)
    return path


def damaged(
    folder: Path, manifest: Manifest, message: str, first: str = "Remove it and",
    path: Path | None = None,
) -> IndexFolderError:  # fmt: skip
    """The error for a file that does not fit `manifest`: damage, or another index by now.

    `first` begins the hint (see `Manifest.rebuild`), if no older generation does without `path`.
    """
    try:
        replaced = read_manifest(folder).files != manifest.files
    except IndexFolderError:
        replaced = True
    if replaced:
        message = f"{folder} was replaced or removed while it was open."
        return IndexFolderError(message, "Open it again.")
    back = way_back(folder, path) if path else ""
    return IndexFolderError(
        message, f"Copy it again, or {back}" if back else manifest.rebuild(folder, first)
    )


def verify(folder: Path) -> Manifest:
    """Check every byte of the folder's files against the manifest, which is returned."""
    manifest = read_manifest(folder)
    for name in sorted(manifest.files):
        check_file(folder, manifest, name, thorough=True)
    return manifest
