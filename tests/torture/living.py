"""Stop commands that change an index at every write point: no change is half made, none is lost.

    python -m torture.living CHANGE… [--full | --quick] [--fault NAME…]

prints a JSON object a change, for each fault. A trial is lost if the index afterwards is in no
state that the undisturbed change passes, if it does not verify, if a reader opened before answers
otherwise, if the same change, made again, does not end as it should, or if files are left then.
"""

import argparse
import errno
import json
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from command_line import write_pictures
from living_folder import check_folder

from mrl_search import living, sync
from mrl_search.errors import REASONS
from mrl_search.index import Index
from mrl_search.store import generations
from torture.commands import import_everything, run
from torture.points import Seam

FORMAT1 = Path(__file__).parents[1] / "data" / "format1" / "vectors"
QUERIES = np.random.default_rng(5).standard_normal((3, 16)).astype(np.float32)
NEVER = {"FEW": 10_000, "TAIL": 0.05, "DEAD": 0.2, "GROWN": 2}
SHARES = (0.5, 0.0, 1.0)  # of a write that are done before a kill
ERRORS = (errno.ENOSPC, errno.EIO)


@dataclass(frozen=True)
class Case:
    """A command that changes the index `folder`.

    Attributes:
        grows: how many items it adds whenever it is run; None: run twice, it ends as run once.
        thresholds: of `mrl_search.living`.
    """

    folder: str
    command: str
    grows: int | None = None
    thresholds: tuple[tuple[str, float], ...] = ()


CASES = {
    "add": Case("flat", "add flat more.npy --items more.parquet", 8),
    "add, format 1": Case("one", "add one more.npy --items more.parquet", 8),
    "remove": Case("flat", "remove flat --where label=a"),
    "remove, format 1": Case("one", "remove one --where label=a"),
    "compact": Case("flat", "compact flat"),
    "compact, sieve": Case("sieve", "compact sieve"),
    "restore": Case("flat", "restore flat 1"),
    "fold": Case("flat", "add flat more.npy", 8, (("FEW", 0), ("TAIL", 0.0), ("DEAD", 0.9))),
    "fold, sieve": Case("sieve", "add sieve more.npy", 8, (("FEW", 0), ("DEAD", 0.9))),
    "train": Case("flat", "add flat more.npy", 8, (("FEW", 0), ("GROWN", 0.5))),
    "tune": Case("flat", "tune flat --queries 20 -k 3"),
    "sync": Case("index", "sync index"),
    "sync, fold": Case("index", "sync index", None, (("FEW", 0), ("TAIL", 0.0))),
    "add pictures": Case("index", "add index fresh"),
    "remove pictures": Case("index", "remove index pictures/cat"),
}


def make_place(place: Path) -> None:
    """Indexes of format 1 and 2, and what the commands read."""
    shutil.rmtree(place, ignore_errors=True)
    rng = np.random.default_rng(0)
    write_pictures(place / "pictures", 6)
    write_pictures(place / "fresh", 2, seed=9)
    for name, count in (("vectors", 60), ("later", 6), ("more", 8)):
        np.save(place / f"{name}.npy", rng.standard_normal((count, 16), np.float32))
        labels = pa.table({"label": ["a", "b", "c", "d"] * (count // 4) + ["a"] * (count % 4)})
        pq.write_table(labels, place / f"{name}.parquet")
    shutil.copytree(FORMAT1, place / "one")
    build = "build-index vectors.npy --items vectors.parquet --dims 8,16 --out"
    for command in (
        "build-index pictures --out index",
        f"{build} flat --factory 8=IVF4,Flat",
        f"{build} sieve --factory 8=SQ8",
        *(
            f"{command} {more}"
            for command in ("add flat", "add sieve")
            for more in ("later.npy --items later.parquet", "more.npy --items more.parquet")
        ),
        "remove flat --where label=b", "remove sieve --where label=b", "remove one --where id=3",
        "add index fresh/cat/cat-0000.png", "remove index pictures/dog/dog-0005.png",
    ):  # fmt: skip
        if command.startswith(("remove one",)):
            continue
        code, shown = run(command, place, Seam(place))
        assert code == 0, (command, shown)
    rng = np.random.default_rng(1)
    one, two = (place / "pictures" / "cat" / f"cat-000{i}.png" for i in range(2))
    one.rename(place / "pictures" / "dog" / "moved.png")
    shutil.copyfile(two, place / "pictures" / "copy.png")
    shutil.copyfile(place / "fresh" / "cat" / "cat-0001.png", two)  # edited
    (place / "pictures" / "dog" / "dog-0000.png").unlink()
    (place / "pictures" / "broken.png").write_bytes(b"not a picture")
    write_pictures(place / "pictures" / "new", 1, seed=3)


def state(folder: Path) -> str:
    """A digest of everything that an index says of its items, and of its answers."""
    index = Index.open(folder)
    rows, told = index.corpus.live_rows, []
    names = [n for n in index.items.column_names if n not in ("modified", "inode")]
    columns = [index.items[name].to_pylist() for name in names]
    vectors = index.corpus.vectors.rows(rows)
    for row, vector in zip(rows.tolist(), vectors, strict=True):
        told.append([*(column[row] for column in columns), vector.tolist()])
    return sha256(repr((names, sorted(told, key=repr))).encode()).hexdigest()[:16]


def answers(index: Index) -> list[Any]:
    """What a reader finds, exactly and by a prefix."""
    queries = np.zeros((3, index.corpus.rows_dim), np.float32)
    queries[:, :16] = QUERIES
    exact = index.search(queries, 5, plan="exact")
    by_prefix = index.search(queries, 5, plan=f"8:20,{index.manifest.dim}")
    return [exact.ids.tolist(), exact.scores.tolist(), by_prefix.ids.tolist(), len(index)]


def refresh(base: Path) -> None:
    """Put the place back as it was before any command."""
    shutil.rmtree(base / "place", ignore_errors=True)
    shutil.copytree(base / "before", base / "place")


class Reference:
    """What a change does when nothing stops it, its write points, and the states it passes."""

    def __init__(self, case: Case, base: Path) -> None:
        refresh(base)
        self.case, self.base, self.place = case, base, base / "place"
        self.folder = self.place / case.folder
        seen, report = base / "states.txt", base / "seam.json"
        self.before = state(self.folder)
        self.count = len(Index.open(self.folder))
        with watched(seen):
            code, shown = run(case.command, self.place, Seam(self.place), report)
        assert code == 0, (case.command, shown)
        self.states = [self.before, *seen.read_text().split()]
        self.after = state(self.folder)
        assert self.states[-1] == self.after
        self.points: list[tuple[str, str]] = [tuple(p) for p in json.loads(report.read_text())[0]]
        check_folder(self.folder)
        if case.grows is None:
            code, shown = run(case.command, self.place, Seam(self.place))
            assert state(self.folder) == self.after, shown


class watched:  # noqa: N801 - a context manager
    """Write the state after each generation to a file, in child processes."""

    def __init__(self, seen: Path) -> None:
        seen.write_text("")
        self.seen, self.plain = seen, generations.Change.commit

    def __enter__(self) -> None:
        plain, seen = self.plain, self.seen

        def commit(change: generations.Change, *args: Any, **how: Any) -> Any:
            made = plain(change, *args, **how)
            with seen.open("a") as file:
                file.write(state(change.folder) + "\n")
            return made

        generations.Change.commit = commit  # type: ignore[method-assign]

    def __exit__(self, *_: object) -> None:
        generations.Change.commit = self.plain  # type: ignore[method-assign]


def trial(reference: Reference, at: int, number: int, share: float) -> list[str]:
    """Stop the change at a write point, with an errno or (0) by SIGKILL; what is wrong then."""
    case, place, folder = reference.case, reference.place, reference.folder
    refresh(reference.base)
    reader = Index.open(folder)
    reader_answers = Index.open(folder)  # another, whose prefix indexes are loaded
    told = answers(reader_answers)
    code, shown = run(case.command, place, Seam(place, at, number, share))
    bad = []
    try:
        now = state(folder)
    except Exception as error:
        return [f"it does not open: {error}"]
    cleaning = reference.points[at - 1][0] in ("os.remove", "os.rmdir") and now == reference.after
    if number and cleaning and code == 0:
        pass  # the next change removes what is left
    elif number and (code != 1 or "error: " not in shown or REASONS[number][0] not in shown):
        bad.append(f"exit code {code}: {shown[-2000:]}")
    elif not number and code != -9:
        bad.append(f"exit code {code}, not killed: {shown[-2000:]}")
    if "Traceback" in shown:
        bad.append(f"a traceback: {shown[-2000:]}")
    if now not in reference.states:
        bad.append(f"a state that the change does not pass: {Index.open(folder)!r}")
    if (place / "out.txt").read_text().endswith("\n") and "out.txt" not in case.command:
        said = (place / "out.txt").read_text() != (reference.base / "before/out.txt").read_text()
        if said and now != reference.after:
            bad.append("it said that it was done")
    count = len(Index.open(folder))
    code, shown = run(case.command, place, Seam(place))
    if case.grows is None:
        done = now == reference.after and "No item" in shown
        if code and not done:
            bad.append(f"run again, exit code {code}: {shown[-2000:]}")
        if state(folder) != reference.after:
            bad.append("run again, it ends in another state")
    elif code or len(Index.open(folder)) != count + case.grows:
        bad.append(f"run again, exit code {code}, {len(Index.open(folder))} items: {shown[-2000:]}")
    if code == 0:
        try:
            check_folder(folder)
        except AssertionError as error:
            bad.append(f"run again, {error}")
    for name, each in (("a reader", reader_answers), ("a reader that had not searched", reader)):
        try:
            if answers(each) != told:
                bad.append(f"{name} answers otherwise")
        except Exception as error:
            bad.append(f"{name} fails: {error}")
    return bad


def ways(at: int, full: bool, quick: bool) -> list[tuple[int, float]]:
    """How to stop at a write point: errno, or 0 for a kill; and the share of a write before."""
    kills, errors = [(0, share) for share in SHARES], [(number, 0.5) for number in ERRORS]
    if full:
        return kills + errors
    return (kills[:1] if at % 2 else [errors[at // 2 % 2]]) if quick else [kills[0], errors[at % 2]]


def torture(name: str, base: Path, full: bool, quick: bool, skip: int = 1) -> dict[str, object]:
    """Stop a change at every write point: trials by kind, and what was lost."""
    start, case = time.monotonic(), CASES[name]
    for key, value in {**NEVER, **dict(case.thresholds)}.items():
        setattr(living, key, value)
    reference = Reference(case, base)
    lost, kills, failures = [], 0, 0
    for at in range(1, len(reference.points) + 1, skip):
        for number, share in ways(at, full, quick):
            kills, failures = kills + (not number), failures + bool(number)
            for what in trial(reference, at, number, share):
                stop = errno.errorcode[number] if number else "SIGKILL"
                kind, path = reference.points[at - 1]
                short = path.removeprefix(str(base / "place"))
                lost.append(f"{stop} at point {at}, {kind} {short}: {what}")
    return {
        "kind": "living", "what": name, "points": len(reference.points), "kills": kills,
        "failures": failures, "states": len(reference.states), "lost": lost,
        "seconds": round(time.monotonic() - start, 1),
    }  # fmt: skip


def prepared(base: Path) -> None:
    """Import everything, and make the place."""
    import_everything()
    living.CLUSTERED_FROM = 50
    sync.CHUNK = 2
    for key, value in NEVER.items():
        setattr(living, key, value)
    make_place(base / "place")
    (base / "place").rename(base / "before")
    (base / "before" / "out.txt").write_text("")


def _named_first(path: Path, manifest: Any, write: Any = generations.write_text_of) -> None:
    """The newest generation is named before its manifest is written."""
    folder = path.parents[1]
    if path.parent.name == "generations" and (folder / "manifest.json").exists():
        text = json.dumps({"format": 2, "generation": manifest.generation})
        (folder / "manifest.json").write_text(text)
    write(path, manifest)


FAULTS: dict[str, dict[str, Any]] = {  # what replaces names of `generations`
    "named first": {"write_text_of": _named_first},
    "leases ignored": {"unused": lambda path: nullcontext(True), "KEPT": 1},
    "nothing removed": {
        "_remove_left": lambda folder, newest: None, "_remove_unused": lambda folder: None,
    },
}  # fmt: skip


def main(args: Sequence[str] | None = None) -> None:
    """Run what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("changes", nargs="*", default=list(CASES))
    parser.add_argument("--full", action="store_true", help="stop in every way at every point")
    parser.add_argument("--quick", action="store_true", help="in one way at every point")
    parser.add_argument("--skip", type=int, default=1, help="only at every so-manieth point")
    parser.add_argument("--fault", nargs="+", help=f"put in on purpose: {', '.join(FAULTS)}")
    options = parser.parse_args(args)
    with tempfile.TemporaryDirectory(dir=os.environ.get("TORTURE")) as folder:
        base = Path(folder).resolve()
        prepared(base)
        for fault, name in product(options.fault or [None], options.changes or CASES):
            with patch.multiple(generations, **FAULTS[fault]) if fault else nullcontext():
                found = torture(name, base, options.full, options.quick, options.skip)
                print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
