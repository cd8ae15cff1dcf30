"""What a sync found, and did."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mrl_search.errors import Skipped

__all__ = ["Synced"]


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
