"""Files that may be copies of each other, and the rule that says which of them is kept."""

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias

__all__ = ["RULES", "Item", "Keep"]


@dataclass(frozen=True, slots=True)
class Item:
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
        camera: what its EXIF says about the camera, or that it was taken; empty: nothing.
        step: `Traces.step` of its pixels.
        original: pixels of the smallest copy that shows as much detail, if it was enlarged; else 0.
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
    camera: str = ""
    step: float = 1.0
    original: int = 0

    @property
    def pixels(self) -> int:
        """Width times height; of an enlargement, of the picture that it was made from."""
        return self.original or self.width * self.height

    def record(self) -> dict[str, Any]:
        """The file for JSON."""
        when = None if self.modified is None else _when(self.modified)
        return {
            "id": self.id, "path": self.path, "links": list(self.links), "width": self.width,
            "height": self.height, "bytes": self.bytes, "modified": when,
        }  # fmt: skip


Order: TypeAlias = Callable[[Item], Any]
BEST: dict[str, Order] = {
    "most pixels": lambda f: -f.pixels,
    "camera data": lambda f: not f.camera,
    "not enlarged": lambda f: bool(f.original),
    "least compressed": lambda f: f.step,
    "oldest": lambda f: float("inf") if f.modified is None else f.modified,
    "first by name": lambda f: f.path,
}
FIRST: dict[str, Mapping[str, Order]] = {
    "best": {},
    "oldest": {"oldest": BEST["oldest"]},
    "newest": {"newest": lambda f: float("inf") if f.modified is None else -f.modified},
    "largest": {"largest": lambda f: -f.bytes},
}
RULES = tuple(FIRST)


@dataclass(frozen=True, slots=True)
class Keep:
    """Which file of a group is kept: `best`, `oldest`, `newest`, `largest`, or a pattern of paths.

    Files whose path fits the pattern are kept, all of them. Else the best one is: that with most
    pixels, where an enlargement counts as the picture that it was made from; of these, one with
    camera data; of these, one that is not enlarged, and whose pixels were compressed least; of
    these, the oldest.

    Example:
        >>> small, large = Item(0, "a.jpg", "", "", width=8, height=8), Item(1, "b.jpg", "", "")
        >>> Keep("best").why(small, [large])
        'most pixels (8 x 8)'
    """

    rule: str = "best"

    @property
    def pattern(self) -> str:
        """The pattern of paths; empty for another rule."""
        return "" if self.rule in FIRST else self.rule

    def fits(self, *paths: str) -> bool:
        """Whether one of the paths fits the pattern."""
        return bool(self.pattern) and any(fnmatch.fnmatchcase(p, self.pattern) for p in paths)

    def protects(self, file: Item) -> bool:
        """Whether a file is never offered."""
        return self.fits(file.path, *file.links)

    def orders(self) -> dict[str, Order]:
        """Reasons, the first one decides; the lower value is kept."""
        if self.rule in FIRST:
            return {**FIRST[self.rule], **BEST}
        return {f"fits {self.rule}": lambda f: not self.protects(f), **BEST}

    def key(self, file: Item) -> tuple[Any, ...]:
        """Files with a lower key are kept."""
        return tuple(order(file) for order in self.orders().values())

    def why(self, kept: Item, others: Iterable[Item]) -> str:
        """The reasons that tell `kept` from all others: each from those that are left by then."""
        left, reasons = list(others), list[str]()
        for reason, order in self.orders().items():
            equal = [other for other in left if order(other) == order(kept)]
            if len(equal) < len(left):
                enlarged = any(file.original for file in (kept, *left))
                reasons.append(_with_value(reason, kept, enlarged))
            left = equal
        return ", then ".join(reasons) or "first"


def _with_value(reason: str, file: Item, enlarged: bool) -> str:
    """A reason with what it is about; `enlarged`: one of the files is."""
    if reason == "most pixels" and enlarged:
        return f"{reason} before enlargement"
    if reason == "most pixels":
        return f"{reason} ({file.width} x {file.height})"
    if reason == "camera data":
        return f"{reason} ({file.camera})"
    if reason in ("oldest", "newest") and file.modified is not None:
        return f"{reason} ({_when(file.modified)[:10]})"
    return f"{reason} ({file.bytes:,} bytes)" if reason == "largest" else reason


def _when(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # a clock that went wrong
        return str(seconds)
