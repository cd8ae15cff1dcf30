"""What a sync did, in words; needs nothing that is slow to import."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePath

from mrl_search.synced import Synced

__all__ = ["listed", "told"]

SHOWN = 20  # paths of a kind
TOGETHER = 3  # pictures of a renamed folder that are one line


def told(done: Synced, dry_run: bool = False) -> tuple[str, list[str]]:
    """A line about what a sync did, or would do; and notes, where what is known is only counted."""
    would = " (nothing was done)" if dry_run else ""
    kinds = {
        "+": [*done.added, *done.copied], "−": done.removed, "→": _renamed(done.moved),
        "~": done.edited, "~ columns of": done.described,
        "skipped": [f"{entry.path}: {entry.reason}" for entry in done.new_skipped],
        "not looked at": [f"{path}: {why}" for path, why in done.unread],
    }  # fmt: skip
    notes = [note for sign, paths in kinds.items() for note in listed(sign, paths)]
    if before := len(done.skipped) - len(done.new_skipped):
        notes.append(f"  {before:,} skipped as before; info lists them")
    if done.left_out:
        notes.append(f"  {done.left_out:,} were removed by hand and stay out; add takes them again")
    if done.outside:
        notes.append(
            f"  {done.outside:,} links lead out of the folders and are not followed; add what they "
            "lead to"
        )
    return f"{done}  {done.items:,} items, generation {done.generation}{would}", notes


def listed(sign: str, paths: Sequence[str | None]) -> Iterator[str]:
    """The first of some paths, a line each."""
    yield from (f"  {sign} {path}" for path in paths[:SHOWN] if path)
    if len(paths) > SHOWN and any(paths):
        yield f"  {sign} and {len(paths) - SHOWN:,} more"


def _renamed(moved: Sequence[tuple[str, str]]) -> list[str]:
    """Old and new paths; pictures that keep their names in a renamed folder are one line."""
    pairs = [(PurePath(old), PurePath(new)) for old, new in moved]
    folders = Counter((old.parent, new.parent) for old, new in pairs if old.name == new.name)
    whole = {pair: count for pair, count in folders.items() if count >= TOGETHER}
    lines = [f"{old}/ → {new}/  ({count:,} pictures)" for (old, new), count in whole.items()]
    for old, new in pairs:
        if old.name != new.name or (old.parent, new.parent) not in whole:
            lines.append(f"{old} → {new}")
    return lines
