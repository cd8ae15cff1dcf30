"""The pictures below a root, with what tells whether they have changed; and the hash of a file."""

import stat
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from mrl_search.errors import BrokenImage
from mrl_search.files import checksum, expanded, reading, recordable
from mrl_search.images.folders import METADATA
from mrl_search.images.walk import File, Walk, digest, files_of, is_picture_file

__all__ = ["Scan", "hash_file", "scan"]


@dataclass(frozen=True)
class Scan:
    """The pictures below a root, sorted by path.

    Attributes:
        root: a folder or a file.
        pictures: their paths are as `recordable` writes them.
        walk: what could not be looked at: `closed`, `vanished`, `odd`, `left_out`, `outside`.
        tables: files with columns of the pictures, see `METADATA`.
        digest: of all files, see `mrl_search.images.walk.digest`.
    """

    root: str
    pictures: Sequence[File]
    walk: Walk
    tables: Sequence[Path] = ()
    digest: str = ""


def scan(
    root: Path | str, hidden: bool = False, known: Container[str] = frozenset(),
    roots: Sequence[Path | str] = (),
) -> Scan:  # fmt: skip
    """The pictures below a root; what cannot be looked at is collected, nothing raises.

    Args:
        root: a folder, or a file that was chosen. A link is followed, and keeps its name: resolve
            a root once, when it is first recorded.
        hidden: also take hidden files, and thumbnail, trash and system folders.
        known: recorded paths; they are taken without a look at their content.
        roots: other roots, which links may lead to.
    """
    place = expanded(root).absolute()
    walk = Walk(place, hidden, [expanded(each) for each in roots])
    pictures: list[File] = []
    tables: list[Path] = []
    files = files_of(walk)
    chosen = len(files) == 1 and files[0].path == str(place)
    for file in files:
        if file.path in known:
            pictures.append(file)
        elif not chosen and file.path.endswith(METADATA):
            tables.append(Path(file.path))
        elif (path := recordable(file.path)) in known or is_picture_file(file.path, chosen):
            pictures.append(file if path == file.path else file._replace(path=path))
    return Scan(str(place), pictures, walk, tables, digest(walk, files))


def hash_file(file: File) -> str:
    """XXH3-128 of a file's bytes, in hex.

    Raises:
        BrokenImage: it changes while it is read, or is no regular file.
        FileError: the system does not read it.
    """
    place = expanded(file.path)
    with reading(file.path):
        before = place.stat()
        if not stat.S_ISREG(before.st_mode):
            raise BrokenImage("not a regular file")
        digest = checksum(place)
        after = place.stat()
    facts = [(info.st_size, info.st_mtime_ns, info.st_ino) for info in (before, after)]
    if facts[0] != facts[1]:
        raise BrokenImage("it changed while it was read")
    return digest
