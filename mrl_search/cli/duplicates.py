"""`mrl-search duplicates`: the copies in an index, which one is kept, and what to do about them."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli import options
from mrl_search.cli.options import open_index, option
from mrl_search.errors import ConfigError

if TYPE_CHECKING:
    from mrl_search.duplicates.groups import Duplicates, Group
    from mrl_search.index import Index

__all__ = ["duplicates"]

NOTHING_FOUND = 3  # exit code, with --against
SHOWN = 200  # groups on a sheet


def duplicates(
    index: options.IndexArgument = None,
    level: Annotated[
        str,
        option(
            "--level",
            "Least alike: exact (bytes), pixels (other container or metadata), copy (scaled, "
            "cropped, turned, recoloured), similar (only shown).",
        ),
    ] = "copy",
    fpr: Annotated[
        float,
        option(
            "--fpr", "False pairs for each pair compared, before the second look, such as 1e-6."
        ),
    ] = 1e-6,
    keep: Annotated[
        str,
        option(
            "--keep RULE",
            "What is kept: best (most pixels, then least compressed, then oldest), oldest, newest, "
            "largest, or all paths that fit a pattern such as '*/originals/*'.",
        ),
    ] = "best",
    against: Annotated[
        str | None,
        option(
            "--against OTHER",
            "Which pictures of OTHER (a picture, a folder, an index) are in the index already? "
            "Only those of OTHER count as copies. Exit code 3 if there is none.",
        ),
    ] = None,
    sheet: Annotated[
        Path | None, option("--sheet PNG", "Save the pictures of the groups, side by side.")
    ] = None,
    script: Annotated[
        Path | None,
        option(
            "--script FILE", "Write a shell script that removes the copies. Nothing is removed."
        ),
    ] = None,
    move: Annotated[
        Path | None, option("--move DIR", "Move the copies to a folder. Needs --yes.")
    ] = None,
    link: Annotated[
        str | None,
        option(
            "--link KIND", "Replace copies of the same bytes by links: hard or sym. Needs --yes."
        ),
    ] = None,
    yes: Annotated[
        bool, option("--yes -y", "Do what --move or --link say; without it, they are only shown.")
    ] = False,
    not_duplicate: Annotated[
        list[str] | None,
        option(
            "--not-duplicate PATH",
            "Remember that these pictures are no copies of each other, and stop. "
            "Give it twice or more.",
        ),
    ] = None,
    model: options.IndexModel = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Find copies of the same picture in an index. Nothing is deleted."""
    from mrl_search.cli.render import json_line, note, progress_bars

    if sum(choice is not None for choice in (script, move, link)) > 1:
        raise ConfigError("--script, --move and --link exclude each other.", "Choose one.")
    if link not in (None, "hard", "sym"):
        raise ConfigError(f"--link is {link!r}; it must be hard or sym.")
    if sheet:
        from mrl_search.report.sheet import format_of

        format_of(sheet)
    opened = open_index(index, model, options.access_of(device, offline))
    if not_duplicate:
        _decide(opened, not_duplicate)
        return
    acts = script or move or link
    if acts and opened.manifest.own_vectors:
        message = f"{opened.folder} holds your own vectors; it knows no files."
        raise ConfigError(message, "Leave --script, --move and --link out.")
    if move:
        _check_outside(move, opened)
    with progress_bars(not as_json) as progress:
        found = opened.duplicates(level, fpr=fpr, keep=keep, against=against, progress=progress)
    if sheet and found.groups:
        _save_sheet(found, sheet, opened)
    found = _act(found, script, move, link, yes)
    for number, group in enumerate(found.groups, 1):
        if as_json:
            json_line(group.record(number))
    if not as_json and found.groups:
        _show(found)
    _summary(found, opened)
    if sheet and found.groups:
        note(f"pictures of the groups: {sheet}")
    if against is not None and not found.groups:
        raise typer.Exit(NOTHING_FOUND)


def _decide(index: "Index", names: list[str]) -> None:
    """Store that some pictures are no copies of each other."""
    from mrl_search.cli.render import note
    from mrl_search.duplicates.decisions import not_duplicates
    from mrl_search.duplicates.pictures import Pictures

    pictures = Pictures.of_index(index.corpus)
    new = not_duplicates(index.folder, [pictures.hash_named(name) for name in names])
    pairs = "1 pair" if new == 1 else f"{new} pairs"
    note(f"{pairs} will no longer be shown as duplicates; kept in {index.folder}")


def _check_outside(folder: Path, index: "Index") -> None:
    """Raise ConfigError for a folder whose pictures `sync` would index again."""
    from mrl_search.files import expanded

    for root in map(expanded, index.manifest.places):
        if root.is_dir() and expanded(folder).resolve().is_relative_to(root.resolve()):
            message = f"{folder} is in {root}: the copies would be found again."
            raise ConfigError(message, "Choose a folder outside.")


def _act(
    found: "Duplicates", script: Path | None, move: Path | None, link: str | None, yes: bool
) -> "Duplicates":
    """Do what the options say, and note how much was done."""
    from mrl_search.cli.render import note
    from mrl_search.duplicates.acting import IN_SCRIPT, Linker, Mover, done, script_of
    from mrl_search.files import expanded, write_atomically

    if script:
        text, found = script_of(found)
        with write_atomically(script) as file:
            file.write(text)
        note(f"read the script, then run: sh {shlex.quote(str(script))}")
    elif (move or link) and not yes:
        what = "move" if move else "replace by links"
        note(f"would {what} {_count(found.copies, 'copy')}; add --yes to do it")
        return found
    elif move:
        found = found.each(Mover(expanded(move).absolute()))
    elif link:
        found = found.each(Linker(symbolic=link == "sym"))
    else:
        return found
    actions = [copy.action for group in found.groups for copy in group.copies]
    succeeded = sum(done(action) or action == IN_SCRIPT for action in actions)
    verb = "to remove" if script else "moved" if move else "linked"
    note(f"{verb}: {_count(succeeded, 'copy')}")
    reasons = Counter(a for a in actions if not done(a) and a not in (IN_SCRIPT, "none", "kept"))
    for reason, count in reasons.most_common():
        note(f"passed over {_count(count, 'copy')}: {reason}")
    return found


def _show(found: "Duplicates") -> None:
    """Print a table of the groups."""
    from mrl_search.cli.render import show_table

    rows = []
    for number, group in enumerate(found.groups, 1):
        one = group.keep
        rows.append((str(number), "keep", "", *_facts(one), f"{one.path}  ({group.why})"))
        for copy in group.copies:
            name = f"{copy.file.path}  (kept, too)" if copy.action == "kept" else copy.file.path
            score = f"{copy.score:.3f}"
            rows.append(("", str(copy.level), score, *_facts(copy.file), name))
    show_table(("group", "", "cosine", "pixels", "kB", "path"), rows)


def _facts(file: object) -> tuple[str, str]:
    """Size in pixels and in bytes of a file."""
    width, height, size = (getattr(file, name) for name in ("width", "height", "bytes"))
    return (f"{width} x {height}" if width else "", f"{size / 1e3:,.1f}" if size else "")


def _count(count: int, what: str) -> str:
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count:,} {what if count == 1 else plural}"


def _summary(found: "Duplicates", index: "Index") -> None:
    """Note what was found, the threshold, and what was left out."""
    from mrl_search.cli.render import note

    freed = f", {found.bytes_freed / 1e6:,.1f} MB" if found.bytes_freed else ""
    items = f"{len(index):,} items in {index.folder}"
    groups, copies = _count(len(found.groups), "group"), _count(found.copies, "copy")
    note(f"{items}: {groups}, {copies}{freed}")
    if found.threshold is not None:
        note(
            f"cosine of at least {found.threshold:.3f}: {_count(found.candidates, 'pair')} of "
            f"{found.compared:,}; expected false pairs here: {found.expected:.2g}"
        )
        if str(found.level) in ("pixels", "copy"):
            note("the second look at both pictures decides")
    for reason, count in found.left_out.items():
        if count:
            note(f"left out {_count(count, 'picture')} {reason}")


def _save_sheet(found: "Duplicates", sheet: Path, index: "Index") -> None:
    """Save the pictures of the groups: the kept one has a tick."""
    from mrl_search.cli.render import note
    from mrl_search.images.sources import read_recorded
    from mrl_search.report.sheet import Row, Tile, save_sheet

    def row(number: int, group: "Group") -> Row:
        tiles = [Tile(group.keep.path, f"keep: {group.why}", "right")]
        tiles += [Tile(c.file.path, f"{c.level} {c.score:.3f}") for c in group.copies]
        return Row(f"group {number}, {group.level}", tiles)

    files = [file for g in found.groups for file in (g.keep, *(c.file for c in g.copies))]
    sources = {file.path: file.source for file in files}
    rows = [row(number, group) for number, group in enumerate(found.groups[:SHOWN], 1)]
    title = f"{index.folder.name}, {_count(len(found.groups), 'group')}"
    save_sheet(rows, sheet, title, read=lambda path: read_recorded(path, sources[path]))
    if len(found.groups) > SHOWN:
        note(f"the sheet shows the first {SHOWN} groups")
