"""What may be done to copies: move them, make them links, or write a script that removes them.

Nothing here deletes a picture. The kept file and the copy are read again right before, and must
have the bytes they were compared by; otherwise the copy is passed over. A dry run does all of that
but the change itself. Functions that act raise BrokenImage or FileError to pass a copy over.
"""

import errno
import hashlib
import os
import secrets
import shlex
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mrl_search.duplicates.groups import Copy, Duplicates, Level
from mrl_search.duplicates.keeping import Item
from mrl_search.duplicates.pictures import content_of
from mrl_search.errors import BrokenImage
from mrl_search.files import checksum, expanded, make_folder, reading, recordable

__all__ = ["Linker", "Mover", "done", "script_of"]

MOVED, LINKED, IN_SCRIPT, POSSIBLE = "moved to ", "linked", "in the script", "possible"  # actions
KEPT_FIRST = "the kept file is "  # begins a reason
SCRIPT = r"""#!/bin/sh
# Written by mrl-search duplicates: it removes {count} of pictures that stay.
# A copy goes only if it and the picture that stays have not changed. To run it: sh FILE
removed=0 passed=0
sum() {{
    if command -v sha256sum >/dev/null 2>&1; then sha256sum; else shasum -a 256; fi <"$1" |
        cut -d ' ' -f 1
}}
unchanged() {{ [ -f "$1" ] && [ ! -L "$1" ] && [ "$(sum "$1")" = "$2" ]; }}
copy() {{ # the picture that stays, its SHA-256, the copy, its SHA-256
    if [ ! "$1" -ef "$3" ] && unchanged "$1" "$2" && unchanged "$3" "$4" && rm -f -- "$3"; then
        removed=$((removed + 1))
    else
        passed=$((passed + 1))
        printf 'passed over: %s\n' "$3" >&2
    fi
}}
"""
END = 'echo "$removed removed, $passed passed over"\n'


def done(action: str) -> bool:
    """Whether an action was taken, or could be in a dry run; otherwise it is a reason why not."""
    return action in (LINKED, IN_SCRIPT, POSSIBLE) or action.startswith(MOVED)


@dataclass(frozen=True, slots=True)
class Mover:
    """Moves copies to a folder, below the names that they have in their source."""

    folder: Path
    dry: bool = False

    def __call__(self, keep: Item, copy: Copy) -> str:
        """Move a copy; returns where to."""
        _, places = _checked(keep, copy.file)
        _check_replaceable(places)
        if self.dry:
            return POSSIBLE
        moved = [self._move(place, copy.file.source) for place in places]
        return MOVED + ", ".join(map(recordable, moved))

    def _move(self, place: Path, source: str) -> Path:
        root = expanded(source)
        inside = place.is_relative_to(root) and place != root
        target = self.folder / (place.relative_to(root) if inside else place.name)
        make_folder(target.parent)
        with reading(place, "moved"):
            for free in _names(target):
                try:
                    os.close(os.open(free, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
                except FileExistsError:
                    continue
                try:
                    _rename(place, free)
                except BaseException:
                    free.unlink()
                    raise
                return free
        raise AssertionError("there is always another name")


def _rename(place: Path, free: Path) -> None:
    """Move a file over an empty one, also to another disk."""
    try:
        place.replace(free)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copy2(place, free)
        if checksum(place) != checksum(free):
            raise BrokenImage("changed while it was moved") from error
        place.unlink()


def _names(target: Path) -> Iterator[Path]:
    """A name, then the same with a number."""
    yield target
    number = 2
    while True:
        yield target.with_name(f"{target.stem} ({number}){target.suffix}")
        number += 1


@dataclass(frozen=True, slots=True)
class Linker:
    """Replaces copies that have the same bytes by hard or symbolic links to the kept file."""

    symbolic: bool
    dry: bool = False

    def __call__(self, keep: Item, copy: Copy) -> str:
        """Replace a copy by links."""
        if copy.level is not Level.EXACT:
            raise BrokenImage("not the same bytes")
        kept, places = _checked(keep, copy.file)
        _check_replaceable(places)
        if not self.symbolic and any(place.lstat().st_dev != kept.st_dev for place in places):
            raise BrokenImage("on another disk than the kept file; --link sym can do it")
        if self.dry:
            return POSSIBLE
        for place in places:
            with reading(place, "linked"):
                self._link(expanded(keep.path), place)
        return LINKED

    def _link(self, kept: Path, place: Path) -> None:
        temporary = place.with_name(f".{secrets.token_hex(8)}.writing")
        try:
            if self.symbolic:
                temporary.symlink_to(os.path.relpath(kept.resolve(), place.parent.resolve()))
            else:
                temporary.hardlink_to(kept)
            temporary.replace(place)
        finally:
            temporary.unlink(missing_ok=True)


def _checked(keep: Item, file: Item) -> tuple[os.stat_result, list[Path]]:
    """The state of the kept file and the places of a copy, once both have been read again.

    Raises:
        BrokenImage: one of them is gone, changed, or no regular file; the message is the reason.
    """
    try:
        _, kept = _regular(keep, keep.path)
    except BrokenImage as error:
        raise BrokenImage(KEPT_FIRST + error.message) from error
    places = []
    for path in (file.path, *file.links):
        place, state = _regular(file, path)
        if os.path.samestat(state, kept):
            raise BrokenImage("the same file as the kept one")
        places.append(place)
    return kept, places


def _check_replaceable(places: list[Path]) -> None:
    """Raise BrokenImage for a file that may not be taken out of its folder."""
    for folder in {place.parent for place in places}:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise BrokenImage("in a folder that you may not change")


def _regular(file: Item, path: str) -> tuple[Path, os.stat_result]:
    """The place of a file with unchanged bytes, and its state."""
    place = expanded(path)
    if not os.path.lexists(place):
        raise BrokenImage("a row of a data set" if "#" in path else "gone")
    state = place.lstat()
    if not stat.S_ISREG(state.st_mode):
        raise BrokenImage("not a regular file")
    content_of(replace(file, path=path))
    return place, state


def script_of(found: Duplicates) -> tuple[bytes, Duplicates]:
    """A shell script that removes the copies, and what it says about each of them.

    Names are quoted, whatever characters they have.
    """
    lines = list[bytes]()

    def act(keep: Item, copy: Copy) -> str:
        _, places = _checked(keep, copy.file)
        kept, digest = _sha256(keep), _sha256(copy.file)
        for place in places:
            parts = [_quoted(expanded(keep.path)), kept, _quoted(place), digest]
            lines.append(b"copy " + b" ".join(parts) + b"\n")
        return IN_SCRIPT

    noted = found.each(act)
    count = sum(done(copy.action) for group in noted for copy in group.copies)
    what = f"{count} cop{'y' if count == 1 else 'ies'}"
    return SCRIPT.format(count=what).encode() + b"".join(lines) + END.encode(), noted


def _sha256(file: Item) -> bytes:
    return hashlib.sha256(content_of(file)).hexdigest().encode()


def _quoted(place: Path) -> bytes:
    return os.fsencode(shlex.quote(os.fspath(place.absolute())))
