"""Files below the folders of an index, and nothing that a link leads to outside of them."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from mrl_search.errors import BrokenImage
from mrl_search.files import NO_LINK, NO_WAIT, expanded

__all__ = ["read_inside"]

LARGEST = 1_000_000_000  # bytes
FOLDER = getattr(os, "O_DIRECTORY", 0)
BY_FOLDER = os.open in os.supports_dir_fd  # not on Windows
BINARY = getattr(os, "O_BINARY", 0)


def read_inside(file: Path, places: Iterable[str]) -> bytes:
    """The bytes of a file that lies below one of `places`, also behind all links.

    The links are resolved once; then every folder is opened from the one above it, and none may be
    a link: so no change meanwhile leads outside.

    Raises:
        BrokenImage: it lies outside, is no file, or cannot be read.
    """
    try:
        real = file.resolve(strict=True)
        roots = [expanded(place).resolve() for place in places if place]
        root = next((root for root in roots if real.is_relative_to(root)), None)
        if root is None:
            raise BrokenImage("The picture lies outside of the folders of the index.")
        if root == real:  # a picture that was added by itself
            root = real.parent
        with os.fdopen(_open_below(root, real.relative_to(root).parts), "rb") as opened:
            about = os.fstat(opened.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
                raise BrokenImage("The picture is not a file that can be read.")
            return opened.read(LARGEST)
    except (OSError, RuntimeError, ValueError) as error:  # such as a circle of links, a zero byte
        raise BrokenImage("The picture cannot be read.") from error


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """A descriptor of a file below `root`; no part of its path is a link."""
    flags = os.O_RDONLY | NO_LINK | NO_WAIT | BINARY
    if not BY_FOLDER:
        return os.open(root.joinpath(*parts), flags)
    folder = os.open(root, os.O_RDONLY | FOLDER)
    for left, part in zip(range(len(parts) - 1, -1, -1), parts, strict=True):
        try:
            found = os.open(part, flags | (FOLDER if left else 0), dir_fd=folder)
        finally:
            os.close(folder)
        folder = found
    return folder
