"""`mrl-search sync`, `add`, `remove`, `compact` and `restore`: an index that lives."""

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli.options import (
    Device,
    Hidden,
    Ids,
    IndexArgument,
    IndexModel,
    Json,
    Labels,
    Offline,
    Where,
    Yes,
    access_of,
    argument,
    open_index,
    option,
)
from mrl_search.cli.told import listed, told
from mrl_search.errors import ConfigError
from mrl_search.text import plain

if TYPE_CHECKING:
    from mrl_search.index import Index
    from mrl_search.synced import Synced

__all__ = ["add", "compact", "remove", "restore", "sync"]

Folder = Annotated[Path, argument("INDEX", "The index folder.")]
STORED = "Index folder, or milvus:URI#NAME: a collection that mrl-search made, as a whole."
WHOLE = "Remove a collection of Milvus without asking."
MEANT = "Also remove the pictures of a folder that is gone as a whole, and download a model."


def sync(
    folder: IndexArgument = None,
    dry_run: Annotated[bool, option("--dry-run", "Only show what would be done.")] = False,
    watch: Annotated[bool, option("--watch", "Go on whenever something changes.")] = False,
    yes: Annotated[bool, option("--yes -y", MEANT)] = False,
    model: IndexModel = None,
    device: Device = "auto",
    offline: Offline = False,
    as_json: Json = False,
) -> None:
    """Bring an index up to date with its folders.

    New pictures are embedded, renamed ones keep their vector. Nothing else is touched.
    """
    if watch and dry_run:
        raise ConfigError("--watch changes the index; --dry-run does not.", "Leave one out.")
    from mrl_search.files import expanded
    from mrl_search.store.manifest import newest_index
    from mrl_search.synced import unchanged

    folder = folder or newest_index()
    if not watch and (same := unchanged(expanded(folder))):
        _show(same, as_json, dry_run)
        return
    index = open_index(folder, model, access_of(device, offline, yes))
    if not watch:
        _sync(index, dry_run, yes, as_json)
        return
    from mrl_search.cli.render import note
    from mrl_search.images.watch import watch as changes
    from mrl_search.sync import roots_of

    roots = roots_of(index.folder, index.manifest)
    hidden = any(how.get("hidden") for how in roots.values())
    for number, _ in enumerate(changes(roots, hidden, [index.folder])):
        _sync(index, dry_run, yes, as_json, quiet=number > 0)
        if not number:
            note(f"watching {', '.join(roots)}; Ctrl-C ends it")


def add(
    folder: Folder,
    sources: Annotated[list[str], argument("SRC…", "Folders, pictures, or files of vectors.")],
    items: Annotated[
        Path | None, option("--items PARQUET", "For vectors: a file or folder, one row a vector.")
    ] = None,
    labels: Labels = "",
    hidden: Hidden = False,
    model: IndexModel = None,
    device: Device = "auto",
    offline: Offline = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Add pictures or vectors to an index.

    A later sync walks an added folder, too.
    """
    index = open_index(folder, model, access_of(device, offline, yes))
    from mrl_search.cli.render import note, progress_bars

    if items is not None and len(sources) > 1:
        raise ConfigError("--items belongs to one file of vectors.", "Add them one by one.")
    for source in sources:
        before = index.generation
        with progress_bars(not as_json) as progress:
            done = index.add(source, items=items, labels=labels, hidden=hidden, progress=progress)
        _show(done, as_json)
        if done.copied and index.manifest.own_vectors:
            where = shlex.quote(str(folder))
            note(
                f"  {len(done.copied):,} were there already, by their path or else their vector: "
                f"now they are there twice. To undo: mrl-search restore {where} {before}"
            )


def remove(
    place: Annotated[str, argument("INDEX", STORED)],
    paths: Annotated[list[str] | None, argument("[PATH…]", "Items, or folders of items.")] = None,
    where: Where = None,
    ids: Ids = None,
    dry_run: Annotated[bool, option("--dry-run", "Only show what would go.")] = False,
    yes: Annotated[bool, option("--yes -y", WHOLE)] = False,
    as_json: Json = False,
) -> None:
    """Remove items from an index, not from the disk.

    A later sync leaves their pictures out; restore and add bring them back.
    """
    from mrl_search.engines.milvus_client import Place

    if Place.is_one(place):
        _remove_collection(place, yes)
        return
    index = open_index(Path(place))
    import numpy as np

    from mrl_search.cli.render import json_line, note, progress_bars
    from mrl_search.search.filters import read_ids

    numbers = read_ids(ids) if ids else None
    chosen = index.chosen(*(paths or ()), where=where or (), ids=numbers)
    rows = np.flatnonzero(np.isin(index.items.all_ids, chosen))
    names = [index.items["path"][row].as_py() for row in rows.tolist()]
    count = len(chosen)
    if not dry_run:
        with progress_bars(not as_json) as progress:
            count = index.remove(ids=chosen, progress=progress)
    left = len(index) - (count if dry_run else 0)
    if as_json:
        about = {"items": left, "generation": index.generation, "dry_run": dry_run}
        json_line({"removed": count, "paths": names, **about})
        return
    did = "would remove" if dry_run else "removed"
    typer.echo(f"{did} {count:,}; {left:,} items, generation {index.generation}")
    for text in listed("−", names):
        note(text)


def _remove_collection(place: str, yes: bool) -> None:
    """Remove a collection of Milvus; the folder of its index can fill it again."""
    from mrl_search.cli.render import note
    from mrl_search.mirror import drop

    asked = f"Remove {place}? If an index asks it, its searches fail until it is filled again."
    if not yes and not (sys.stdin.isatty() and typer.confirm(asked, err=True)):
        raise ConfigError(f"{place} was not removed.", "To remove it without a question: --yes")
    drop(place)
    note(f"removed {place}")


def compact(folder: IndexArgument = None) -> None:
    """Write an index anew, without removed items.

    Its prefix indexes are trained again.
    """
    index = open_index(folder)
    from mrl_search.cli.render import note, progress_bars

    before = index.manifest
    with progress_bars() as progress:
        index.compact(progress)
    after = index.manifest
    note(
        f"{after.alive:,} items without {before.deleted:,} removed ones, "
        f"{after.nbytes / 1e6:,.1f} MB after {before.nbytes / 1e6:,.1f}; "
        f"generation {after.generation}"
    )
    changed = [d for d, kind in after.factory.items() if before.factory.get(d) != kind]
    if changed:
        kinds = ", ".join(f"{d} {before.factory.get(d)} → {after.factory[d]}" for d in changed)
        note(f"prefixes of another kind, by the number of items: {kinds}")
    note("files of older generations go when newer ones have taken their place")


def restore(
    folder: Folder,
    generation: Annotated[int, argument("GENERATION", "Which; info shows those that are kept.")],
) -> None:
    """Bring back an older state of an index."""
    index = open_index(folder)
    from mrl_search.cli.render import note, note_left

    left = index.manifest.engine
    index.restore(generation)
    note(
        f"generation {index.generation} is what {generation} was: {len(index):,} items; "
        "the next sync makes it as its folders are"
    )
    if left != index.manifest.engine:
        note(f"searches ask {index.manifest.engine or 'FAISS'} now")
    note_left(index.folder, left)


def _sync(index: "Index", dry_run: bool, meant: bool, as_json: bool, quiet: bool = False) -> None:
    from mrl_search.cli.render import note, progress_bars

    with progress_bars(not as_json) as progress:
        done = index.sync(dry_run=dry_run, meant=meant, progress=progress)
    if done.changed or done.lost or not quiet:
        _show(done, as_json, dry_run)
    if not done.lost or meant:
        return
    for root, why in done.lost.items():
        note(f"All pictures of {root} are gone: {why}. They stay in the index.")
    if (
        not dry_run
        and not as_json
        and sys.stdin.isatty()
        and typer.confirm("Remove them?", err=True)
    ):
        with progress_bars() as progress:
            _show(index.sync(meant=True, progress=progress), as_json)
    else:
        note(f"If that is meant: mrl-search sync {shlex.quote(str(index.folder))} --yes")


def _show(done: "Synced", as_json: bool, dry_run: bool = False) -> None:
    """Print what a sync did, or would do; what was skipped before is only counted."""
    from mrl_search.cli.render import json_line, note

    if as_json:
        skipped = {
            name: [{"path": entry.path, "reason": entry.reason} for entry in entries]
            for name, entries in (("skipped", done.skipped), ("new_skipped", done.new_skipped))
        }
        json_line({**asdict(done), **skipped, "dry_run": dry_run})
        return
    line, notes = told(done, dry_run)
    typer.echo(plain(line))
    for text in notes:
        note(text)
