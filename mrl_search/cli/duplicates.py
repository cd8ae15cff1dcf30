"""`mrl-search duplicates`: the copies in an index, which one is kept, and what to do about them."""

import shlex
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrl_search.cli import options
from mrl_search.cli.opening import open_index
from mrl_search.cli.options import option
from mrl_search.cli.render import json_line, note, progress_bars, show_table
from mrl_search.errors import ConfigError
from mrl_search.files import expanded, write_atomically

if TYPE_CHECKING:
    from mrl_search.duplicates.groups import Duplicates, Group
    from mrl_search.index import Index

__all__ = ["duplicates"]

NOTHING_FOUND = 3  # exit code, with --against
NOT_OFFERED = {"kept": "kept, too", "in the index itself": "in the index itself"}  # by action
SHOWN = 200  # groups on a sheet


LEVEL_HELP = (
    "Least alike: exact (bytes), pixels (other container or metadata), copy (scaled, cropped, "
    "turned, recoloured), similar (only shown)."
)
FPR_HELP = (
    "Unrelated pairs that get the second look, of all pairs. Default: 1e-6, or five a picture up "
    "to 500 if that is more. For similar, 1e-6."
)
KEEP_HELP = (
    "What is kept: best (most pixels, where an enlargement counts as its original, then camera "
    "data, then least compressed, then oldest), oldest, newest, largest, or all paths that fit a "
    "pattern such as '*/originals/*'; where none fits, the best."
)
AGAINST_HELP = (
    "Which pictures of OTHER (a picture, a folder, an index) are in the index already, themselves "
    "or as copies? Only files of OTHER are moved or linked, and no items. Exit code 0 if at least "
    "one is, 3 if none is."
)
SHEET_HELP = "Save the pictures of the groups, side by side."
SCRIPT_HELP = "Write a shell script that removes the copies. Nothing is removed."
LINK_HELP = (
    "Replace copies of the same bytes by links: hard or sym. Needs --yes. After sync, hard links "
    "are items as before; of a file and symbolic links to it, the file is."
)
YES_HELP = "Do what --move or --link say; without it, they are only shown."
NOT_HELP = (
    "Remember that these pictures of the index are no copies of each other, and stop. Give it "
    "twice or more. They are never shown in one group."
)


def duplicates(
    index: options.IndexArgument = None,
    level: Annotated[str, option("--level", LEVEL_HELP)] = "copy",
    fpr: Annotated[float | None, option("--fpr RATE", FPR_HELP)] = None,
    keep: Annotated[str, option("--keep RULE", KEEP_HELP)] = "best",
    against: Annotated[str | None, option("--against OTHER", AGAINST_HELP)] = None,
    sheet: Annotated[Path | None, option("--sheet PNG", SHEET_HELP)] = None,
    script: Annotated[Path | None, option("--script FILE", SCRIPT_HELP)] = None,
    move: Annotated[
        Path | None, option("--move DIR", "Move the copies to a folder. Needs --yes.")
    ] = None,
    link: Annotated[str | None, option("--link KIND", LINK_HELP)] = None,
    yes: Annotated[bool, option("--yes -y", YES_HELP)] = False,
    not_duplicate: Annotated[list[str] | None, option("--not-duplicate PATH", NOT_HELP)] = None,
    model: options.IndexModel = None,
    device: options.Device = "auto",
    offline: options.Offline = False,
    as_json: options.Json = False,
) -> None:
    """Find copies of the same picture in an index. Nothing is deleted."""
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
    _summary(found, opened, fpr, keep, against)
    if sheet and found.groups:
        note(f"pictures of the groups: {sheet}")
    if against is not None and not found.groups:
        raise typer.Exit(NOTHING_FOUND)


def _decide(index: "Index", names: list[str]) -> None:
    """Store that some pictures are no copies of each other."""
    from mrl_search.duplicates.decisions import not_duplicates
    from mrl_search.duplicates.pictures import Pictures

    pictures = Pictures.of_index(index.corpus)
    new = not_duplicates(index.folder, [pictures.hash_named(name) for name in names])
    note(f"{_count(new, 'pair')} will no longer be shown as duplicates; kept in {index.folder}")


def _check_outside(folder: Path, index: "Index") -> None:
    """Raise ConfigError for a folder whose pictures `sync` would index again."""
    for root in map(expanded, index.manifest.places):
        if root.is_dir() and expanded(folder).resolve().is_relative_to(root.resolve()):
            message = f"{folder} is in {root}: the copies would be found again."
            raise ConfigError(message, "Choose a folder outside.")


def _act(
    found: "Duplicates", script: Path | None, move: Path | None, link: str | None, yes: bool
) -> "Duplicates":
    """Do what the options say, or try it, and note how much was done."""
    from mrl_search.duplicates.acting import Linker, Mover, done, script_of
    from mrl_search.duplicates.groups import may_go

    if script:
        text, found = script_of(found)
        with write_atomically(script) as file:
            file.write(text)
        note(f"read the script, then run: sh {shlex.quote(str(script))}")
    elif move:
        found = found.each(Mover(expanded(move).absolute(), dry=not yes))
    elif link:
        found = found.each(Linker(symbolic=link == "sym", dry=not yes))
    else:
        return found
    actions = [copy.action for group in found for copy in group.copies if may_go(copy)]
    succeeded = _count(sum(map(done, actions)), "copy")
    verb = "move" if move else "link"
    if script:
        note(f"to remove: {succeeded}")
    elif yes:
        note(f"{verb.removesuffix('e')}ed: {succeeded}")
    else:
        note(f"would {verb} {succeeded}; add --yes to do it")
    for reason, count in Counter(a for a in actions if not done(a)).most_common():
        note(f"passed over {_count(count, 'copy')}: {reason}")
    return found


def _show(found: "Duplicates") -> None:
    rows = []
    for number, group in enumerate(found.groups, 1):
        one = group.keep
        rows.append((str(number), "keep", "", *_facts(one), f"{one.path}  ({group.why})"))
        for copy in group.copies:
            remark = NOT_OFFERED.get(copy.action, "")
            name = f"{copy.file.path}  ({remark})" if remark else copy.file.path
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


def _summary(
    found: "Duplicates", index: "Index", fpr: float | None, keep: str, against: str | None
) -> None:
    """Note what was found, the threshold, and what was left out."""
    from mrl_search.duplicates.keeping import Keep

    freed = f", {found.bytes_freed / 1e6:,.1f} MB" if found.bytes_freed else ""
    items = f"{len(index):,} items in {index.folder}"
    groups, copies = _count(len(found.groups), "group"), _count(found.copies, "copy")
    note(f"{items}: {groups}, {copies}{freed}")
    if against is not None:
        there = sum(1 + len(copy.file.links) for group in found for copy in group.copies)
        what = "found similar there" if found.level == "similar" else "found there already"
        note(f"{_count(found.asked, 'picture')} of {against}: {there:,} {what}")
    elif keep_none := sum(
        not any(Keep(keep).protects(file) for file in (g.keep, *(c.file for c in g.copies)))
        for g in found if Keep(keep).pattern
    ):  # fmt: skip
        note(f"--keep {keep} fits no file of {_count(keep_none, 'group')}: the best is kept there")
    _threshold(found, fpr)
    for reason, count in found.left_out.items():
        if count:
            note(f"left out {_count(count, 'picture')} {reason}")


def _threshold(found: "Duplicates", fpr: float | None) -> None:
    """Note which pairs were compared by more than their vectors, and why these."""
    looked = found.level in ("pixels", "copy")
    if found.threshold is None:
        if looked and found.compared:
            unused = "" if fpr is None else "; --fpr is of use from 64 different pictures on"
            note(f"second look at each of {_count(found.compared, 'pair')}{unused}")
        return
    pairs = f"{_count(found.candidates, 'pair')} of {found.compared:,}"
    expected = format(found.expected, ".2g" if found.expected < 10 else ",.0f")
    before = ", before the second look at them, which decides" if looked else ""
    note(
        f"cosine of at least {found.threshold:.3f}: {pairs}; "
        f"expected false pairs here: {expected}{before}"
    )
    if found.expected > 1.01 * found.fpr * found.compared:
        note(
            f"more than --fpr {found.fpr:.2g} means: unrelated pictures are so similar here that "
            f"it would take a cosine above {found.threshold:.2f}, which copies may not reach"
        )


def _save_sheet(found: "Duplicates", sheet: Path, index: "Index") -> None:
    """Save the pictures of the groups: the kept one has a tick."""
    from mrl_search.images.sources import read_recorded
    from mrl_search.report.sheet import Row, Tile, save_sheet

    def row(number: int, group: "Group") -> Row:
        tiles = [Tile(group.keep.path, f"kept: {group.why}", "kept")]
        tiles += [Tile(c.file.path, f"{c.level} {c.score:.3f}") for c in group.copies]
        return Row(f"group {number}, {group.level}", tiles)

    files = [file for g in found.groups for file in (g.keep, *(c.file for c in g.copies))]
    sources = {file.path: file.source for file in files}
    rows = [row(number, group) for number, group in enumerate(found.groups[:SHOWN], 1)]
    title = f"{index.folder.name}, {_count(len(found.groups), 'group')}"
    save_sheet(rows, sheet, title, read=lambda path: read_recorded(path, sources[path]))
    if len(found.groups) > SHOWN:
        note(f"the sheet shows the first {SHOWN} groups")
