"""Copies as values, and groups of them around the file that is kept.

Every member of a group was compared with the kept file and passed. So there are no chains, in which
A is like B, and B like C, but A is nothing like C.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from mrl_search.duplicates.keeping import Item, Keep
from mrl_search.errors import BrokenImage, ConfigError, FileError

__all__ = ["Content", "Copy", "Duplicates", "Edge", "Group", "Level", "may_go", "stars"]

KEPT, PRESENT = "kept", "in the index itself"  # actions; neither file is ever offered


class Level(StrEnum):
    """How alike two files are, the strictest first."""

    EXACT = "exact"  # the same bytes
    PIXELS = "pixels"  # the same pixels, in another container or with other metadata
    COPY = "copy"  # one picture, scaled, cropped, flipped, turned or recoloured
    SIMILAR = "similar"  # similar vectors; nothing is done to such files

    @classmethod
    def named(cls, name: str) -> "Level":
        """The level of this name; ConfigError for another."""
        if name not in set(cls):
            raise ConfigError(f"There is no level {name!r}.", f"Levels: {', '.join(cls)}.")
        return cls(name)

    @property
    def rank(self) -> int:
        """0 for the strictest."""
        return list(Level).index(self)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file that is a copy of the kept one.

    Attributes:
        file: which one.
        level: how alike they are.
        score: cosine of their vectors; 1 for the same bytes.
        likeness: of the second look; None where there was none.
        action: what was done: `none`, `kept`, `in the index itself` (a file of another source
            that is an item), `possible`, `moved to …`, `linked`, or why nothing was.
    """

    file: Item
    level: Level
    score: float
    likeness: float | None = None
    action: str = "none"

    def record(self) -> dict[str, Any]:
        """The copy for JSON."""
        seen = None if self.likeness is None else round(self.likeness, 4)
        return {
            **self.file.record(), "score": round(self.score, 6), "evidence": EVIDENCE[self.level],
            "likeness": seen, "action": self.action,
        }  # fmt: skip


EVIDENCE = {
    Level.EXACT: "hash", Level.PIXELS: "pixels", Level.COPY: "look", Level.SIMILAR: "vector",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Group:
    """A file that is kept, and its copies, the most alike first.

    Attributes:
        keep: the file.
        why: it is kept.
        copies: one or more; each was compared with `keep`.
    """

    keep: Item
    why: str
    copies: tuple[Copy, ...]

    @property
    def level(self) -> Level:
        """The least strict level of its copies."""
        return max((copy.level for copy in self.copies), key=lambda level: level.rank)

    @property
    def bytes_freed(self) -> int:
        """Bytes of the copies that may go."""
        return sum(copy.file.bytes for copy in self.copies if may_go(copy))

    def record(self, number: int) -> dict[str, Any]:
        """The group for JSON."""
        return {
            "group": number, "level": str(self.level),
            "keep": {**self.keep.record(), "why": self.why},
            "members": [copy.record() for copy in self.copies], "bytes_freed": self.bytes_freed,
        }  # fmt: skip


def may_go(copy: Copy) -> bool:
    """Whether something may be done to a copy: it is neither merely similar nor protected."""
    return copy.level is not Level.SIMILAR and copy.action not in (KEPT, PRESENT)


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What was found: a sequence of groups, those with the most files first.

    Attributes:
        groups: the same as a tuple.
        level: the least strict level that was looked for.
        fpr: the rate that was asked for, or chosen: false pairs for each pair of unrelated pictures
            that is compared, by vectors alone.
        threshold: the cosine that a pair must reach; None where all pairs are candidates, or none.
        compared: pairs of vectors.
        candidates: pairs that reach the threshold.
        expected: false pairs to be expected among them; above `fpr` times `compared` where the
            vectors cannot tell these pictures apart as well as that.
        left_out: files that were not compared, by reason.
        asked: pictures of the other source; 0 without one.
    """

    groups: tuple[Group, ...]
    level: Level
    fpr: float
    threshold: float | None = None
    compared: int = 0
    candidates: int = 0
    expected: float = 0.0
    left_out: Mapping[str, int] = field(default_factory=dict)
    asked: int = 0

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.groups)

    @property
    def copies(self) -> int:
        """How many files may go."""
        return sum(may_go(copy) for group in self.groups for copy in group.copies)

    @property
    def bytes_freed(self) -> int:
        """Their bytes."""
        return sum(group.bytes_freed for group in self.groups)

    def each(self, act: Callable[[Item, Copy], str]) -> "Duplicates":
        """Do something to each copy that may go.

        Args:
            act: gets the kept file and the copy, and returns what it did. The reason of a
                BrokenImage or FileError that it raises says why it did nothing.
        """

        def acted(keep: Item, copy: Copy) -> Copy:
            if not may_go(copy):
                return copy
            try:
                return replace(copy, action=act(keep, copy))
            except BrokenImage as error:
                return replace(copy, action=error.message)
            except FileError as error:
                return replace(copy, action=error.reason)

        groups = (replace(g, copies=tuple(acted(g.keep, c) for c in g.copies)) for g in self.groups)
        return replace(self, groups=tuple(groups))


@dataclass(frozen=True, slots=True)
class Edge:
    """Two different contents that are alike, by their numbers."""

    a: int
    b: int
    level: Level
    score: float
    likeness: float | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The files that have the same bytes.

    Attributes:
        keepers: those of which one may be kept.
        offered: those that may be copies; usually the same files.
        present: files of another source that are among the keepers.
    """

    keepers: Sequence[Item]
    offered: Sequence[Item]
    present: Sequence[Item] = ()


def stars(
    contents: Sequence[Content], edges: Iterable[Edge], keep: Keep, shared: bool,
    apart: Collection[frozenset[int]] = (),
) -> list[Group]:  # fmt: skip
    """Groups around the files that are kept; each file is in one group at most.

    Contents are taken in the order of `keep`. One that is free becomes the centre of a group, and
    its neighbours that are free are its copies.

    Args:
        contents: numbered from 0.
        edges: which of them are alike.
        keep: the order.
        shared: whether the files that may be kept and those that may be copies are the same.
        apart: pairs that are never in one group; the one that is more alike to the kept file joins.
    """
    near: dict[int, list[tuple[int, Edge]]] = {}
    for edge in edges:
        near.setdefault(edge.a, []).append((edge.b, edge))
        near.setdefault(edge.b, []).append((edge.a, edge))
    centres = {i: min(c.keepers, key=keep.key) for i, c in enumerate(contents) if c.keepers}
    free, found = {i for i, c in enumerate(contents) if c.offered}, []
    late = set() if shared else set(centres) - free  # those that have no copy of the same bytes
    for i in sorted(centres, key=lambda i: (i in late, keep.key(centres[i]))):
        if shared and i not in free:
            continue
        kept = centres[i]
        same = [f for f in contents[i].offered if f is not kept] if i in free else []
        copies = [Copy(file, Level.EXACT, 1.0) for file in same]
        copies += [Copy(f, Level.EXACT, 1.0, action=PRESENT) for f in contents[i].present]
        free.discard(i)
        joined = list[int]()
        for n, edge in sorted(near.get(i, ()), key=lambda pair: _distance(pair[1])):
            if n in free and not any(frozenset((n, other)) in apart for other in joined):
                joined.append(n)
                files = contents[n].offered
                copies += [Copy(file, edge.level, edge.score, edge.likeness) for file in files]
        if copies:
            free -= set(joined)
            copies = [
                replace(c, action=KEPT) if may_go(c) and keep.protects(c.file) else c
                for c in copies
            ]
            copies.sort(key=lambda c: (*_distance(c), c.file.path))
            why = keep.why(kept, [c.file for c in copies]) if shared else "in the index"
            found.append(Group(kept, why, tuple(copies)))
    return found


def _distance(pair: Edge | Copy) -> tuple[int, float]:
    """How far two files are from being alike: sorts the most alike first."""
    return pair.level.rank, -pair.score
