"""A walk over a folder: every file once, with size, time and inode; and which are pictures."""

import errno
import os
import stat
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import xxhash

from mrl_search.images.base import SETTLED, FileStamp

__all__ = [
    "NOWHERE", "File", "Walk", "digest", "files_of", "identity", "is_hidden", "is_picture_file",
]  # fmt: skip

SYSTEM = frozenset({
    "@eadir", "@__thumb", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "__macosx",
    "lost+found", "recycler", "system volume information",
})  # fmt: skip
RAW = frozenset({  # of cameras: TIFF files that hold a small preview
    ".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".nef",
    ".nrw", ".orf", ".pef", ".raf", ".rw2", ".sr2", ".srf", ".srw", ".x3f",
})  # fmt: skip
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_stat = os.stat if sys.platform == "win32" else os.DirEntry.stat  # there an entry has no inode


class File(NamedTuple):
    """A regular file, and what tells whether it may have changed.

    Attributes:
        path: where it is.
        size: in bytes.
        modified: in ns since 1970. None: within 2 s of the walk, or later. A further change could
            leave such a time as it is, so it proves nothing.
        inode: of the file, or of the file that a link leads to.
        device: the file system of the inode.
    """

    path: str
    size: int
    modified: int | None
    inode: int
    device: int

    @classmethod
    def of(cls, path: str, info: os.stat_result, now: int) -> "File":
        """The file at `path` with this `stat`, seen at the time `now` in ns since 1970."""
        size, modified, inode = FileStamp.values(info)
        settled = modified if modified < now - SETTLED else None
        return tuple.__new__(cls, (path, size, settled, inode, info.st_dev))  # that of File is slow


@dataclass(eq=False)
class Walk:
    """All files under a folder, by path, each reached once.

    Symbolic links are followed within the folder and `roots`, nowhere else. Several names
    of a file (hard links) are files of their own.

    Attributes:
        root: the folder.
        hidden: also enter hidden, thumbnail, trash and system folders, and take hidden files.
        roots: other folders and files that links may lead to.
        left_out: hidden files and folders that were not looked at.
        outside: links that lead out of the folder and `roots`; they are not followed.
        closed: folders and files that the system does not show, with the reason.
        odd: links that lead nowhere, pipes and devices.
        vanished: files and folders that were gone when the walk came to them.
    """

    root: Path
    hidden: bool = False
    roots: Sequence[Path | str] = ()
    left_out: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    closed: dict[str, str] = field(default_factory=dict)
    odd: list[str] = field(default_factory=list)
    vanished: list[str] = field(default_factory=list)

    def files(self) -> list[Path]:
        """The regular files, sorted by path; see `stats`."""
        return [Path(file.path) for file in self.stats()]

    def stats(self) -> list[File]:
        """The regular files, sorted by path, after one `stat` of each.

        Of a file and symbolic links to it, the file; of links to a file elsewhere, the first.
        """
        now = time.time_ns()
        found: list[File] = []
        links: list[File] = []
        folders_seen: set[object] = set()
        allowed = [os.path.realpath(root) for root in (self.root, *self.roots)]
        waiting = deque([os.fspath(self.root)])  # the root, then links to folders
        while waiting:
            stack = [waiting.popleft()]
            while stack:
                folder = stack.pop()
                folders, linked = [], []
                for entry in self._entries(folder, folders_seen):
                    name, path = entry.name, entry.path
                    if not self.hidden and is_hidden(name):
                        self.left_out.append(path)
                        continue
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                            continue
                        info = _stat(entry)
                    except OSError as error:
                        self._cannot_stat(folder, entry, error)
                        continue
                    linking = entry.is_symlink()
                    if linking and not _within(os.path.realpath(path), allowed):
                        self.outside.append(path)
                    elif stat.S_ISREG(info.st_mode):
                        to = links if linking else found
                        to.append(File.of(path, info, now))
                    elif stat.S_ISDIR(info.st_mode):
                        linked.append(path)
                    else:
                        self.odd.append(path)
                stack += sorted(folders, reverse=True)
                waiting += sorted(linked)
        if links:
            files = {identity(file.path, file.inode, file.device) for file in found}
            for file in sorted(links, key=_order):
                if (which := identity(file.path, file.inode, file.device)) not in files:
                    files.add(which)
                    found.append(file)
        found.sort(key=_order)
        return found

    def _entries(self, folder: str, seen: set[object]) -> list["os.DirEntry[str]"]:
        """The entries of a folder; none if it was `seen` before, or cannot be listed."""
        try:
            info = Path(folder).stat()
            if (which := identity(folder, info.st_ino, info.st_dev)) in seen:
                return []
            seen.add(which)
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self.cannot_look(folder, error)
            return []

    def _cannot_stat(self, folder: str, entry: "os.DirEntry[str]", error: OSError) -> None:
        linking = entry.is_symlink()
        if linking and error.errno in NOWHERE:
            self.odd.append(entry.path)
        else:  # a folder without rights can be listed, not entered
            closed = isinstance(error, PermissionError) and not linking
            self.cannot_look(folder if closed else entry.path, error)

    def cannot_look(self, path: str, error: OSError) -> None:
        """Note a file or folder that has vanished or that the system does not show."""
        if error.errno in NOWHERE:
            self.vanished.append(path)
        else:
            self.closed[path] = error.strerror or str(error)


def files_of(walk: Walk) -> list[File]:
    """The files below the root of a walk, as `Walk.stats`; or the root, if it is a file."""
    place, now = os.fspath(walk.root), time.time_ns()
    try:
        info = Path(place).stat()
    except OSError as error:
        walk.cannot_look(place, error)
        return []
    return [File.of(place, info, now)] if stat.S_ISREG(info.st_mode) else walk.stats()


def digest(walk: Walk, files: Sequence[File]) -> str:
    """A checksum of what a walk met; equal ones mean that no file is new, gone or changed.

    Empty where that cannot be told: something was not looked at, or a time proves nothing.
    """
    if walk.closed or walk.vanished or not files:
        return ""
    paths, sizes, times, inodes, _ = zip(*files, strict=True)
    if None in times:
        return ""
    names = "\0".join([*walk.odd, "", *walk.outside, "", *paths])
    state = xxhash.xxh3_128(names.encode(errors="surrogateescape"))
    for column in (sizes, times, inodes):
        state.update(array("q", column).tobytes())
    return state.hexdigest()


def _within(path: str, folders: Sequence[str]) -> bool:
    """Whether a resolved path is one of some resolved folders, or below one."""
    return any(path == each or path.startswith(each.rstrip(os.sep) + os.sep) for each in folders)


def identity(path: str, inode: int, device: int) -> object:
    """What tells files and folders apart; a few file systems give them no inodes."""
    return (inode, device) if inode else os.path.realpath(path)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is left out: hidden, thumbnails, trash, system."""
    return name.startswith(".") or name.lower() in SYSTEM


def ending(path: str) -> str:
    """The ending of a file's name in small letters, as `.jpg`; empty if there is none."""
    name = path[path.rfind(os.sep) + 1 :]
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""


def is_picture_file(path: Path | str, chosen: bool = False) -> bool:
    """Whether a file is a picture by its ending, or else its content; False if it is unreadable.

    Args:
        path: the file.
        chosen: somebody named this very file; then even raw files of cameras may be pictures.
    """
    from mrl_search.images.decode import HEAD, is_picture, suffixes  # Pillow, for new files alone

    end = ending(os.fspath(path))
    known = suffixes()
    if end in known or (end in RAW and not chosen):
        return end in known
    try:
        with Path(path).open("rb") as file:
            return is_picture(file.read(HEAD))
    except OSError:
        return False


def _order(file: File) -> str:
    """A key that sorts as paths do, by their parts."""
    return file.path.replace(os.sep, "\0")
