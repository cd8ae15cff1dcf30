"""Files that may be copies of each other, and the rule that says which of them is kept."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

__all__ = ["File", "Keep"]


@dataclass(frozen=True, slots=True)
class File:
    """A file of a collection, or a row of a data set.

    Attributes:
        id: the item; None if it is in no index.
        path: as recorded.
        hash: of its bytes.
        source: the place that its path may not leave.
        links: other paths of the same file, hard links of one inode.
        width: in pixels; 0 where unknown.
        height: in pixels.
        bytes: its size.
        modified: seconds since 1970; None for a row of a data set.
    """

    id: int | None
    path: str
    hash: str
    source: str
    links: tuple[str, ...] = ()
    width: int = 0
    height: int = 0
    bytes: int = 0
    modified: float | None = None

    @property
    def pixels(self) -> int:
        """Width times height."""
        return self.width * self.height

    def record(self) -> dict[str, Any]:
        """The file for JSON."""
        when = None if self.modified is None else _when(self.modified)
        return {
            "id": self.id, "path": self.path, "links": list(self.links), "width": self.width,
            "height": self.height, "bytes": self.bytes, "modified": when,
        }  # fmt: skip


Order: TypeAlias = Callable[[File], Any]
BEST: dict[str, Order] = {
    "most pixels": lambda f: -f.pixels,
    "least compressed": lambda f: -f.bytes / max(1, f.pixels),
    "oldest": lambda f: float("inf") if f.modified is None else f.modified,
    "first by name": lambda f: f.path,
}
FIRST: dict[str, Mapping[str, Order]] = {
    "best": {},
    "oldest": {"oldest": BEST["oldest"]},
    "newest": {"newest": lambda f: float("inf") if f.modified is None else -f.modified},
    "largest": {"largest": lambda f: -f.bytes},
}


@dataclass(frozen=True, slots=True)
class Keep:
    """Which file of a group is kept: `best`, `oldest`, `newest`, `largest`, or a pattern of paths.

    Files whose path fits the pattern are kept, all of them. Else the best one is: that with most
    pixels; of these, with most bytes a pixel (the least compressed); of these, the oldest.

    Example:
        >>> small, large = File(0, "a.jpg", "", "", width=8, height=8), File(1, "b.jpg", "", "")
        >>> Keep("best").why(small, [large])
        'most pixels (8 x 8)'
    """

    rule: str = "best"

    def protects(self, file: File) -> bool:
        """Whether a file is never offered."""
        if self.rule in FIRST:
            return False
        return any(fnmatch.fnmatchcase(path, self.rule) for path in (file.path, *file.links))

    def orders(self) -> dict[str, Order]:
        """Reasons, the first one decides; the lower value is kept."""
        if self.rule in FIRST:
            return {**FIRST[self.rule], **BEST}
        return {f"fits {self.rule}": lambda f: not self.protects(f), **BEST}

    def key(self, file: File) -> tuple[Any, ...]:
        """Files with a lower key are kept."""
        return tuple(order(file) for order in self.orders().values())

    def why(self, kept: File, others: Iterable[File]) -> str:
        """The first reason that tells `kept` from all others."""
        left = list(others)
        for reason, order in self.orders().items():
            left = [other for other in left if order(other) == order(kept)]
            if not left:
                return _with_value(reason, kept)
        return "first"


def _with_value(reason: str, file: File) -> str:
    """A reason with what it is about."""
    if reason == "most pixels":
        return f"{reason} ({file.width} x {file.height})"
    if reason == "least compressed":
        return f"{reason} ({file.bytes / max(1, file.pixels):.2f} bytes a pixel)"
    if reason in ("oldest", "newest") and file.modified is not None:
        return f"{reason} ({_when(file.modified)[:10]})"
    return f"{reason} ({file.bytes:,} bytes)" if reason == "largest" else reason


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # a clock that went wrong
        return str(seconds)
