"""Wait for changes below folders, with watchfiles (the extra `watch`)."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

from mrl_search.errors import ConfigError, FileError, errno_of, installed
from mrl_search.files import expanded
from mrl_search.images.walk import is_hidden

__all__ = ["watch"]

QUIET, LONGEST = 1_000, 30_000  # ms: a pause that ends a series of changes; a series is cut there
LOOK, POLL = 1_000, 5_000  # ms between looks at the roots, and at all files where it must poll


def watch(
    roots: Iterable[Path | str], hidden: bool = False, ignored: Iterable[Path] = ()
) -> Iterator[None]:
    """Yield when watching has begun, and then after each series of changes below the roots.

    A series ends with a second of quiet, or after 30 s. Roots may vanish and come back. Where the
    system tells of no changes, or of too few, all files are looked at every 5 s. Network disks may
    tell of none that others make: `WATCHFILES_FORCE_POLLING=1` looks there too.

    Args:
        roots: folders and files.
        hidden: changes of hidden, thumbnail, trash and system files count as well.
        ignored: folders whose changes do not count, as of the index itself.

    Raises:
        ConfigError: the extra is not installed.
        FileError: the system does not let it watch.
    """
    library = installed("watchfiles", "watch", ConfigError)
    places = [expanded(root).absolute() for root in roots]
    without = [folder.absolute() for folder in ignored]

    def counts(path: Path) -> bool:
        if any(path.is_relative_to(folder) for folder in without):
            return False
        below = [path.relative_to(root) for root in places if path.is_relative_to(root)]
        out = [any(map(is_hidden, each.parts)) for each in below]
        return hidden or not below or not all(out)  # macOS may name another way to the same file

    return _series(library, places, counts)


def _series(
    library: ModuleType, roots: Sequence[Path], counts: Callable[[Path], bool]
) -> Iterator[None]:
    polling: bool | None = None  # None: the library decides
    seen: dict[Path, tuple[int, int]] | None = None
    while True:
        there = _there(roots)
        begun = not there
        try:
            for paths in _changed_paths(library, list(there), polling):
                now = _there(roots)
                if not begun or now != seen or any(map(counts, paths)):
                    begun, seen = True, now
                    yield
                if now != there:
                    break  # a watch does not survive its folder
        except FileNotFoundError:  # a root that has just vanished
            time.sleep(LOOK / 1000)
        except OSError as error:
            if polling:
                number = errno_of(error) or 0
                raise FileError.of(number, ", ".join(map(str, roots)), "watched") from error
            polling = True


def _changed_paths(
    library: ModuleType, roots: Sequence[Path], polling: bool | None
) -> Iterator[list[Path]]:
    """The paths of each series of changes, and an empty list at least every `LOOK` ms."""
    if not roots:
        time.sleep(LOOK / 1000)
        yield []
        return
    try:
        for changes in library.watch(
            *roots, watch_filter=None, step=QUIET, debounce=LONGEST, rust_timeout=LOOK,
            yield_on_timeout=True, force_polling=polling, poll_delay_ms=POLL,
            ignore_permission_denied=True,
        ):  # fmt: skip
            yield [Path(path) for _, path in changes]
    except RuntimeError:  # so it ends at a change of a file whose name is not UTF-8
        time.sleep(QUIET / 1000)
        yield [roots[0]]


def _there(roots: Sequence[Path]) -> dict[Path, tuple[int, int]]:
    """The roots that exist, each with the inode and device that it is now."""
    found = {}
    for root in roots:
        try:
            info = root.stat()
        except OSError:
            continue
        found[root] = info.st_ino, info.st_dev
    return found
