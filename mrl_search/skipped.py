"""Pictures that were left out."""

from dataclasses import dataclass

__all__ = ["Skipped"]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that was left out, and why.

    Attributes:
        path: where it is.
        reason: why.
        stamp: size, time and inode of the file, by which a sync knows that it has not changed.
    """

    path: str
    reason: str
    stamp: tuple[int | None, ...] = ()
