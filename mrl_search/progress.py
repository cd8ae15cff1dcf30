"""The callback that long work reports its progress to."""

from collections.abc import Callable

__all__ = ["Progress", "silent"]

Progress = Callable[[str, int, int], None]  # what is being done, how far, of how much


def silent(what: str, done: int, total: int) -> None:
    """A callback that does nothing."""
