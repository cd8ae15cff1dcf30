"""Who made a generation of an index, and what they did to its items."""

from dataclasses import dataclass

__all__ = ["Command"]


@dataclass(frozen=True, slots=True)
class Command:
    """The command that made a generation; it may have made some before, as steps.

    Attributes:
        name: such as `sync`; empty where nobody recorded it.
        when: it began, as `now` writes it.
        began: the first generation that it made.
        added: items that it added, up to this generation.
        removed: items that went.
        moved: items whose picture was renamed.
        edited: items whose picture or columns changed.
    """

    name: str = ""
    when: str = ""
    began: int = 0
    added: int = 0
    removed: int = 0
    moved: int = 0
    edited: int = 0
