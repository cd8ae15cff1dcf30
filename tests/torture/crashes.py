"""Stop a command at every write point, look at what it leaves, and run it again.

    python -m torture.crashes COMMAND… [--full | --quick] [--fault NAME…]

prints a JSON object a command, for each fault. A trial is lost if a file with its final name is
neither as before nor whole, if temporary files remain, if a failed command has no `error:` line
with the reason, or if the same command, run again, does not end with the same files.
"""

import argparse
import errno
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from itertools import product
from pathlib import Path

from mrl_search.errors import REASONS
from mrl_search.files import LEFT
from torture.commands import COMMANDS, LITE, import_everything, make_place, run
from torture.faults import broken_commands
from torture.points import Seam

SHARES = (0.5, 0.0, 1.0)  # of a write that are done before a kill
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
GROWING = (".jsonl", "out.txt")  # files that are appended to


def content(place: Path) -> dict[str, bytes]:
    """All files of a folder, by their path in it."""
    files = (p for p in sorted(place.rglob("*")) if p.is_file())
    return {str(p.relative_to(place)): p.read_bytes() for p in files}


def digest(files: dict[str, bytes]) -> str:
    """A digest of all files; temporary ones, whose names are random, count with their content."""
    named = (
        (str(Path(n).parent) if LEFT.fullmatch(Path(n).name) else n, d) for n, d in files.items()
    )
    state = sha256()
    for name, data in sorted(named):
        state.update(f"{name} {len(data)} ".encode() + data)
    return state.hexdigest()


def damage(
    place: Path, before: dict[str, bytes], after: dict[str, bytes], whole: dict[str, set[str]]
) -> Iterator[str]:
    """What is neither as before nor whole, in a place where a command was stopped."""
    there = content(place)
    for name, data in there.items():
        if ".building/" in name or LEFT.fullmatch(Path(name).name):
            continue
        good = data in (before.get(name), after.get(name))
        grows = name.endswith(GROWING) and after.get(name, b"").startswith(data)
        known = sha256(data).hexdigest() in whole.get(str(place / name), ())
        if not good and not grows and not known:
            yield f"{name} is neither old nor whole"
    for name in before.keys() - there.keys():
        if name in after:
            yield f"{name} is lost"
    for name in there:
        folder = name.partition("/")[0]
        if folder in ("new", "small"):  # are moved to their place as a whole
            missing = [n for n in after if n.startswith(folder + "/") and n not in there]
            if missing:
                yield f"{folder} is there without {missing[0]}"


def trial(
    name: str, base: Path, reference: "Reference", at: int, number: int, share: float
) -> list[str]:
    """Stop a command at a write point, with an errno or (0) by SIGKILL; what is wrong then."""
    place = base / "place"
    refresh(base)
    seam = Seam(place, at, number, share)
    code, shown = run(COMMANDS[name], place, seam)
    bad = list(damage(place, reference.before, reference.after, reference.whole))
    if number:
        kind = reference.points[at - 1][0]
        if code != 1 or "error: " not in shown or REASONS[number][0] not in shown:
            bad.append(f"exit code {code}: {shown[-2000:]}")
        if "Traceback" in shown:
            bad.append(f"a traceback: {shown[-2000:]}")
        left = [n for n in content(place) if LEFT.fullmatch(Path(n).name)]
        if left and kind != "os.remove":
            bad.append(f"{left[0]} is left")
    elif code != -9:
        bad.append(f"exit code {code}, not killed: {shown[-2000:]}")
    state = digest(content(place))
    if state in reference.tried:  # the next run was seen to mend this
        return bad
    reference.tried.add(state)
    code, shown = run(COMMANDS[name], place, Seam(place))
    finished = code == 1 and ("exists already" in shown or "is a finished run" in shown)
    finished |= code == 0 and "joined of these parts before" in shown
    if code and not finished:
        bad.append(f"run again, exit code {code}: {shown[-2000:]}")
    again = content(place)
    ignored = {"out.txt", "run/checkpoint.safetensors"} if finished else set()
    if not number and not finished:  # folders of the user are not cleaned
        ignored |= {n for n in again if re.fullmatch(r"(page/)?" + LEFT.pattern, n)}
    for n in sorted(again.keys() | reference.after.keys()):
        if again.get(n) != reference.after.get(n) and n not in ignored:
            bad.append(f"run again, {n} differs")
    return bad


class Reference:
    """What a command writes when nothing stops it, and its write points."""

    def __init__(self, name: str, base: Path) -> None:
        refresh(base)
        place = base / "place"
        self.before = content(place)
        self.tried: set[str] = set()  # digests of states from which the command was run again
        report = base / "seam.json"
        code, shown = run(COMMANDS[name], place, Seam(place), report)
        assert code == 0, (name, shown)
        self.after = content(place)
        passed, whole = json.loads(report.read_text())
        self.points: list[tuple[str, str]] = [tuple(p) for p in passed]
        self.whole = {path: set(digests) for path, digests in whole.items()}
        seen = {Path(path).name for path in (*self.whole, *(path for _, path in self.points))}
        changed = {n for n, data in self.after.items() if self.before.get(n) != data}
        missed = {n for n in changed if Path(n).name not in seen}
        assert not missed, f"{name} writes {missed} past the seam"


def refresh(base: Path) -> None:
    """Put the place and the file of Milvus Lite back as they were before any command."""
    for kept, name in (("before", "place"), ("lite-before", LITE)):
        shutil.rmtree(base / name, ignore_errors=True)
        shutil.copytree(base / kept, base / name)


def ways(at: int, full: bool, quick: bool) -> list[tuple[int, float]]:
    """How to stop at a write point: errno, or 0 for a kill, and the share of a write done before.

    Usually by a kill and one errno; quick: by one of both in turn; full: by all of them.
    """
    kills = [(0, share) for share in SHARES]
    errors = [(number, 0.5) for number in ERRORS]
    if full:
        return kills + errors
    one = [errors[at // 2 % len(errors)]]
    return (kills[:1] if at % 2 else one) if quick else kills[:1] + one


def torture(name: str, base: Path, full: bool, quick: bool) -> dict[str, object]:
    """Stop a command at every write point: trials by kind, and what was lost."""
    start = time.monotonic()
    reference = Reference(name, base)
    lost, kills, failures = [], 0, 0
    for at in range(1, len(reference.points) + 1):
        for number, share in ways(at, full, quick):
            kills, failures = kills + (not number), failures + bool(number)
            for what in trial(name, base, reference, at, number, share):
                stop = errno.errorcode[number] if number else "SIGKILL"
                kind, path = reference.points[at - 1]
                short = path.removeprefix(str(base / "place"))
                lost.append(f"{stop} at point {at}, {kind} {short}: {what}")
    return {
        "kind": "crashes", "what": name, "points": len(reference.points), "kills": kills,
        "failures": failures, "lost": lost,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def main() -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("commands", nargs="*", default=list(COMMANDS))
    parser.add_argument("--full", action="store_true", help="stop in every way at every point")
    parser.add_argument("--quick", action="store_true", help="in one way at every point")
    parser.add_argument("--fault", nargs="+", help="put in on purpose; see faults.py")
    options = parser.parse_args()
    import_everything()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TORTURE")) as folder:
        base = Path(folder).resolve()
        make_place(base / "place")
        (base / "place").rename(base / "before")
        (base / LITE).rename(base / "lite-before")
        for fault, name in product(options.fault or [None], options.commands or COMMANDS):
            with broken_commands(fault):
                print(json.dumps(torture(name, base, options.full, options.quick)), flush=True)


if __name__ == "__main__":
    main()
