"""What changed on disk since an index recorded its pictures; it neither reads nor writes an index.

A picture is who its bytes are. Path, size, time and inode only decide whether they are read: where
all four are as recorded, the file is the same. An edit in place that keeps the size and sets the
old time again is not seen; record no times, and every file is read.
"""

import os
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mrl_search.errors import FileError, MrlSearchError
from mrl_search.files import expanded
from mrl_search.images.scan import Scan, hash_file
from mrl_search.images.walk import File, identity
from mrl_search.progress import Progress, silent

__all__ = ["Changes", "Recorded", "compare"]

THREADS, GROUP = 8, 16  # that read files, so many at a time
MISSING, EMPTY = "it does not exist", "it has no pictures any more"
OUTSIDE = "it is outside of the folders looked at"


@dataclass(frozen=True)
class Recorded:
    """What an index recorded of its pictures: columns of one length, a picture each.

    Attributes:
        paths: where they were, as `recordable` writes them.
        hashes: XXH3-128 of their bytes.
        facts: size, time and inode of each, as `File` has them; None where not recorded.
        rows: the numbers that stand for them in `Changes`; default: 0, 1, 2 …
    """

    paths: Sequence[str]
    hashes: Sequence[str]
    facts: Sequence[tuple[int | None, ...]]
    rows: Sequence[int] = ()


@dataclass(frozen=True)
class Changes:
    """What became of every recorded row, and of every picture on disk. All lists are sorted.

    A row is in one of `same`, `touched`, `edited`, `moved`, `gone`, `kept`. A picture on disk is
    that of a row of the first four, or in one of `copied`, `new`, `unread`.

    Attributes:
        same: rows.
        touched: (row, file): the same bytes at the same path; other size, time or inode recorded.
        edited: (row, file): other bytes at the same path.
        moved: (row, file): the same bytes at another path.
        copied: (row, file): a further file with the bytes of a row that stays.
        new: files.
        gone: rows.
        kept: (row, why): nothing can be said of it now, as below a folder that cannot be listed.
        unread: (path, why): a file that cannot be read, or changes meanwhile.
        lost_roots: root to why: all its pictures are gone. Its rows are in `kept`.
    """

    same: list[int]
    touched: list[tuple[int, File]]
    edited: list[tuple[int, File]]
    moved: list[tuple[int, File]]
    copied: list[tuple[int, File]]
    new: list[File]
    gone: list[int]
    kept: list[tuple[int, str]]
    unread: list[tuple[str, str]]
    lost_roots: dict[str, str]


def compare(
    known: Recorded, scans: Sequence[Scan], hash_of: Callable[[File], str] = hash_file,
    meant: Collection[str] = (), progress: Progress = silent,
) -> Changes:  # fmt: skip
    """What changed between what an index recorded and what is on disk.

    Args:
        known: what the index recorded.
        scans: of all its roots. A file that several reach is that of the first.
        hash_of: the hash of a file, called from several threads; an `MrlSearchError` says why there
            is none.
        meant: roots that are lost on purpose: their rows may be gone or moved.
        progress: called while files are read.

    Raises:
        FileError: a shortage that all files share, as of file descriptors.
    """
    found, facts = _found(scans), known.facts
    same: list[int] = []  # positions in the columns, as all below
    differ: list[int] = []
    missing: list[int] = []
    for i, (path, fact) in enumerate(zip(known.paths, facts, strict=True)):
        if (file := found.get(path)) is None:
            missing.append(i)
        elif file[1:4] == fact and file.modified is not None:
            same.append(i)
        else:
            differ.append(i)

    taken, sizes = {known.paths[i] for i in same}, {size for size, *_ in facts}
    files = [file for path, file in found.items() if path not in taken]
    if None in sizes:
        hashes, unread = _hash(files, hash_of, progress)
    else:  # a file of another size than all recorded has other bytes than all
        alike = [file for file in files if file.size in sizes]
        hashes, unread = _hash(alike, hash_of, progress)

    lost, kept = _kept(known, missing, scans, meant)
    kept |= {i: unread[known.paths[i]] for i in differ if known.paths[i] in unread}
    free = [file for file in files if file.path not in unread]
    without = sorted(i for i in (*missing, *differ) if i not in kept)
    paired, copied = _by_hash(known, without, free, hashes)
    placed = {file.path for file in (*paired.values(), *(file for _, file in copied))}
    edited: dict[int, File] = {}
    for i in without:
        there = found.get(known.paths[i])
        if there and i not in paired and there.path not in placed:
            edited[i] = there
            placed.add(there.path)

    rows = known.rows or range(len(known.paths))

    def of(chosen: Mapping[int, File]) -> list[tuple[int, File]]:
        return sorted((rows[i], file) for i, file in chosen.items())

    stay = {i: file for i, file in paired.items() if file.path == known.paths[i]}
    as_before = {i for i, file in stay.items() if file[1:4] == facts[i]}
    return Changes(
        same=sorted(rows[i] for i in (*same, *as_before)),
        touched=of({i: file for i, file in stay.items() if i not in as_before}),
        edited=of(edited),
        moved=of({i: file for i, file in paired.items() if i not in stay}),
        copied=[(rows[i], file) for i, file in copied],
        new=[file for file in free if file.path not in placed],
        gone=sorted(rows[i] for i in without if i not in paired and i not in edited),
        kept=sorted((rows[i], why) for i, why in kept.items()),
        unread=sorted(unread.items()),
        lost_roots=lost,
    )


def _by_hash(
    known: Recorded, rows: Sequence[int], files: Sequence[File], hashes: Mapping[str, str]
) -> tuple[dict[int, File], list[tuple[int, File]]]:
    """Rows paired with files of their bytes; then (row that stays, file) for further such files."""
    owners: dict[str, list[int]] = {digest: [] for digest in hashes.values()}
    for i, digest in enumerate(known.hashes):
        if digest in owners:
            owners[digest].append(i)
    alike = defaultdict[str, list[File]](list)
    for file in files:
        if file.path in hashes and owners[hashes[file.path]]:
            alike[hashes[file.path]].append(file)
    without = set(rows)  # their bytes are not where they were
    paired: dict[int, File] = {}
    copied: dict[str, int] = {}
    for digest, those in alike.items():
        pairs = dict(_pairs(known, [i for i in owners[digest] if i in without], those))
        paired |= pairs
        used = {file.path for file in pairs.values()}
        first = owners[digest][0]  # it stays: where files are left over, every row has one
        copied |= {file.path: first for file in those if file.path not in used}
    return paired, [(copied[file.path], file) for file in files if file.path in copied]


def _pairs(
    known: Recorded, rows: Sequence[int], files: Sequence[File]
) -> Iterator[tuple[int, File]]:
    """Rows with files, all of the same bytes: of the same path, else inode, else name, else any."""
    paths, facts = known.paths, known.facts
    name = os.path.basename
    steps: list[tuple[Callable[[int], object], Callable[[File], object]]] = [
        (lambda i: paths[i], lambda file: file.path),
        (lambda i: facts[i][2], lambda file: file.inode or -1),
        (lambda i: name(paths[i]), lambda file: name(file.path)),
        (lambda i: "any", lambda file: "any"),
    ]
    for of_row, of_file in steps:
        if not (rows and files):
            return
        waiting = defaultdict[object, deque[File]](deque)
        for file in files:
            waiting[of_file(file)].append(file)
        left, used = [], set[str]()
        for i in rows:
            if those := waiting[of_row(i)]:
                used.add(those[0].path)
                yield i, those.popleft()
            else:
                left.append(i)
        rows = left
        files = [file for file in files if file.path not in used]


def _found(scans: Sequence[Scan]) -> dict[str, File]:
    """The pictures of all roots, by path, each once; hard links are pictures of their own."""
    if len(scans) == 1:
        return {file.path: file for file in scans[0].pictures}
    alike = defaultdict[object, list[File]](list)
    for each in scans:
        for file in each.pictures:
            alike[identity(file.path, file.inode, file.device)].append(file)
    found: dict[str, File] = {}
    for files in alike.values():
        places = dict[str, File]()
        for file in files:
            real = os.path.realpath(expanded(file.path)) if len(files) > 1 else file.path
            places.setdefault(real, file)
        found |= {file.path: file for file in places.values()}
    return found


def _hash(
    files: Sequence[File], hash_of: Callable[[File], str], progress: Progress
) -> tuple[dict[str, str], dict[str, str]]:
    """By path, the hashes of files, and why others have none."""

    def attempt(file: File) -> tuple[str | None, str]:
        try:
            return hash_of(file), ""
        except MrlSearchError as error:
            if not isinstance(error, FileError):
                return None, error.message
            if error.passing:  # it would befall all others as well
                raise
            return None, error.reason

    hashes: dict[str, str] = {}
    unread: dict[str, str] = {}
    groups = [files[start : start + GROUP] for start in range(0, len(files), GROUP)]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        results = pool.map(lambda group: [attempt(file) for file in group], groups)
        for group, answers in zip(groups, results, strict=True):
            for file, (digest, reason) in zip(group, answers, strict=True):
                if digest is None:
                    unread[file.path] = reason
                else:
                    hashes[file.path] = digest
            progress("reading changed files", len(hashes) + len(unread), len(files))
    return hashes, unread


def _kept(
    known: Recorded, missing: Sequence[int], scans: Sequence[Scan], meant: Collection[str]
) -> tuple[dict[str, str], dict[int, str]]:
    """The lost roots; and which of the rows that were not found are kept. Both with the reason.

    Kept are those below a place that the system did not show, in a lost root, or in no root at all.
    """
    lost: dict[str, str] = {}
    empty: dict[str, str] = {}
    unseen: dict[str, str] = {}
    recorded = set(known.paths)
    for each in scans:
        root, walk = each.root, each.walk
        unseen |= {place: f"{place} cannot be read: {why}" for place, why in walk.closed.items()}
        unseen |= {place: f"{place} vanished" for place in walk.vanished if place != root}
        unseen |= {place: f"{place} leads nowhere" for place in walk.odd}
        if root in walk.vanished and root not in meant:
            if root not in recorded or not Path(root).parent.is_dir():
                empty[root] = MISSING  # else it is a picture that was deleted, not a lost disk
        elif not each.pictures and root not in meant:
            empty[root] = EMPTY
    roots = {each.root for each in scans}

    @cache
    def reason_below(folder: str) -> str:
        above = [folder, *map(str, Path(folder).parents)]
        if shut := next((place for place in above if place in unseen), None):
            return unseen[shut]
        if root := next((place for place in above if place in empty), None):
            lost[root] = empty[root]
            return f"{root}: {empty[root]}"
        return "" if roots.intersection(above) else OUTSIDE

    kept: dict[int, str] = {}
    for i in missing:
        place = os.fspath(expanded(known.paths[i]))
        whole = place in unseen or place in roots
        if why := reason_below(place if whole else os.path.dirname(place)):  # noqa: PTH120
            kept[i] = why
    return lost, kept
