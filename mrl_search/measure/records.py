"""Raw records of a bench: JSON Lines, one object a line, each with its `format` and `kind`.

They are written line by line, so that a bench that was stopped goes on in its file, and read whole. Nothing here measures anything.

    run        what was measured, with which settings, on which machine, when; its `id` is on every record that belongs to it
    prefix     one prefix: linear head and vote of the neighbours, right or wrong for each query
    plan       one way to search: its answers to each query, and what it computes and holds in memory
    control    the same measures for PCA and for random choices of dims
    instance   one prefix: does each changed copy find its original?
    latency    milliseconds of single queries in one round     ·  batch      seconds of a batch of queries
    embedding  milliseconds to embed single pictures           ·  scatter    a prefix in two dimensions
    ladder     a query and its hits at some prefixes           ·  mislabels  pictures whose neighbours contradict their label
    done       the bench is complete
"""

import base64
import binascii
import contextlib
import json
import os
import platform
import subprocess
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import xxhash
from numpy.typing import NDArray

from mrl_search.errors import DataError, IndexFolderError
from mrl_search.files import claim, writing
from mrl_search.store.manifest import package_versions

__all__ = [
    "BRUTE",
    "EXACT",
    "FORMAT",
    "Journal",
    "Record",
    "Run",
    "environment",
    "identity",
    "pack",
    "read_runs",
    "same_machine",
    "unpack",
]

FORMAT = 1
BRUTE, EXACT = "brute force", "exact"  # names of the two contestants that find the true neighbours
REQUIRED = {
    "run": ("id", "name", "corpus", "queries", "settings", "environment", "when"),
    "prefix": ("run", "dims", "linear", "vote"),
    "plan": (
        "run",
        "name",
        "plan",
        "dims",
        "multiply_adds",
        "ram",
        "dims_read",
        "nearest",
        "vote",
        "precision",
        "found",
    ),
    "control": ("run", "name", "dims", "vote", "found"),
    "instance": ("run", "dims", "right"),
    "latency": ("run", "plan", "round", "warm_up", "ms"),
    "batch": ("run", "plan", "round", "queries", "seconds"),
    "embedding": ("run", "ms"),
    "scatter": ("run", "dims", "x", "y", "labels", "names", "variance"),
    "ladder": ("run", "number", "sheet", "why", "title"),
    "mislabels": ("run", "count", "shown", "sheet"),
    "done": ("run",),
}
MACHINE = (
    "machine",
    "cpu",
    "cores",
    "os",
)  # two environments that agree on these are taken for one machine

Record = Mapping[str, Any]


def environment() -> dict[str, Any]:
    """Where and with what something was measured: processor, system, versions, and the commit of this package where it has one."""
    system = platform.uname()
    return {
        "machine": system.machine, "cpu": _cpu() or system.processor or system.machine, "cores": os.cpu_count(),
        "os": f"{system.system} {system.release}", "python": platform.python_version(), "versions": package_versions(), "commit": _commit(),
    }  # fmt: skip


def same_machine(a: Record, b: Record) -> bool:
    """Whether two `environment`s name one machine, as far as can be told."""
    return all(a.get(name) == b.get(name) for name in MACHINE)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), ""
    )


def _commit() -> str | None:
    """Short hash of the commit, with `-dirty` where files were changed since; None outside of a clone of this project."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=10",
        "--exclude=*",
    ]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def identity(value: object) -> str:
    """A short hash of a value that JSON can hold: equal values, equal hash."""
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


def pack(values: NDArray[np.integer] | NDArray[np.bool_]) -> str:
    """One small number for each query (0 or 1 for wrong and right, or a count up to 255), (n,), as text: zlib in base64."""
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> NDArray[np.uint8]:
    """What `pack` made into text: (n,) uint8.

    Raises:
        DataError: the text was altered.
    """
    try:
        return np.frombuffer(zlib.decompress(base64.b64decode(text, validate=True)), dtype=np.uint8)
    except (binascii.Error, zlib.error, ValueError) as error:
        raise DataError(
            f"A record holds outcomes that cannot be read: {error}.",
            "Measure again: the file was altered.",
        ) from error


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """All records of one bench: `about` is its `run` record, `records` the others, in the order of the file.

    Of a bench that was read, `file` is where it was, and `called` what it is called among others, if not by its own name.
    """

    about: Record
    records: Sequence[Record]
    file: Path | None = None
    called: str = ""

    @property
    def name(self) -> str:
        return self.called or str(self.about["name"])

    @property
    def done(self) -> bool:
        return bool(self.of("done"))

    def of(self, kind: str, **where: object) -> list[Record]:
        """The records of a kind that have these values."""
        return [
            r
            for r in self.records
            if r["kind"] == kind and all(r.get(key) == value for key, value in where.items())
        ]

    def one(self, kind: str, **where: object) -> Record | None:
        """The first of these, or None."""
        found = self.of(kind, **where)
        return found[0] if found else None


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The benches that some files of records hold, in their order. The same bench in two files is read once; half a last line is dropped.

    Where two have one name, all are named after their files.

    Raises:
        DataError: a file that cannot be read, holds no records, is damaged, or of another format.
    """
    about: dict[str, Record] = {}
    files: dict[str, Path] = {}
    records: dict[str, dict[str, Record]] = {}
    for path in paths:
        found = [record for record, _ in _read(path)]
        for number, record in enumerate(found, 1):
            if record["kind"] == "run":
                about.setdefault(str(record["id"]), record)
                files.setdefault(str(record["id"]), path)
            elif record["run"] in about:
                records.setdefault(str(record["run"]), {}).setdefault(
                    json.dumps(record, sort_keys=True), record
                )
            else:
                raise DataError(
                    f"{path}, record {number} belongs to a bench that is not in the file.",
                    "Give the file as bench wrote it.",
                )
    names = [
        [str(record["name"]) for record in about.values()],
        [file.stem for file in files.values()],
        [f"{file}, {number}" for number, file in enumerate(files.values(), 1)],
    ]
    distinct = next(some for some in names if len(set(some)) == len(some))
    return [
        Run(about[key], list(records.get(key, {}).values()), files[key], name)
        for key, name in zip(about, distinct, strict=True)
    ]


class Journal:
    """The file that a bench writes: `add` appends a record at once, `run` has what is there already.

    One from `open` holds its file for this process until it is closed, or not used any more.

    Args:
        path: the file.
        run: its records.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.close: Callable[[], object] = lambda: None
        self._about = run.about
        self._records = list(run.records)

    @classmethod
    def open(cls, path: Path, about: Record) -> Self:
        """Begin a file with the `run` record `about`, or go on in one whose run has the same id.

        Raises:
            DataError: the file holds another bench, or no records, or another process writes it.
            MrlSearchError: the place cannot be written.
        """
        about = {"format": FORMAT, "kind": "run", **about}
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("ab").close()
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(claim(path))
            except IndexFolderError as error:
                raise DataError(f"Another process writes {path}.", error.hint) from error
            journal = cls(path, _begun(path, about))
            journal.close = weakref.finalize(journal, held.pop_all().close)
        return journal

    @property
    def run(self) -> Run:
        return Run(self._about, tuple(self._records))

    def has(self, kind: str, **where: object) -> bool:
        """Whether there is a record of this kind with these values."""
        return self.run.one(kind, **where) is not None

    def add(self, kind: str, **values: object) -> None:
        """Append a record, and have it written to the disk.

        Raises:
            MrlSearchError: the disk is full, or the file cannot be written.
        """
        record = {"format": FORMAT, "kind": kind, "run": self._about["id"], **values}
        _append(self.path, record)
        self._records.append(record)


def _begun(path: Path, about: Record) -> Run:
    """The run of a file that goes on, without the half of a record that it may end with, or the new one that begins it."""
    if _line(about).encode().startswith(path.read_bytes()):  # nothing yet, or half of this line
        with writing(path):
            os.truncate(path, 0)
        _append(path, about)
        return Run(about, [])
    found = _read(path)
    first = found[0][0]
    if first["kind"] != "run" or first["id"] != about["id"]:
        raise DataError(
            f"{path} holds another bench: {_difference(first, about)}.",
            "Choose another file with --out, or remove this one.",
        )
    with writing(path):
        os.truncate(path, found[-1][1])
    return Run(first, [record for record, _ in found[1:]])


def _append(path: Path, record: Record) -> None:
    with writing(path), path.open("a", encoding="utf-8") as file:
        file.write(_line(record))
        file.flush()
        os.fsync(file.fileno())


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"


def _read(path: Path) -> list[tuple[Record, int]]:
    """The records of a file, each with the number of bytes up to its end; what follows the last line break is half a record."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}.", "Name a file that mrl-search bench wrote."
        ) from error
    found, end = [], 0
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        if line.endswith(b"\n"):
            end += len(line)
            found.append((_checked(line, path, number), end))
    if not found:
        raise DataError(
            f"{path} holds no record.", "Measure one with: mrl-search bench DIR --out FILE.jsonl"
        )
    return found


def _checked(line: bytes, path: Path, number: int) -> Record:
    where = f"{path}, line {number}"
    try:
        record = json.loads(line)
    except ValueError as error:
        raise DataError(
            f"{where} is not a record: {error}.", "The file was altered; measure again."
        ) from error
    if (
        not isinstance(record, dict)
        or not isinstance(record.get("format"), int)
        or "kind" not in record
    ):
        raise DataError(
            f"{where} is not a record of mrl-search bench.",
            "Name a file that mrl-search bench wrote.",
        )
    if record["format"] != FORMAT:
        raise DataError(
            f"{where} has format {record['format']}; this version of mrl-search reads format {FORMAT}.",
            "Upgrade mrl-search." if record["format"] > FORMAT else "Measure again.",
        )
    missing = [name for name in REQUIRED.get(record["kind"], ("run",)) if name not in record]
    if missing:
        raise DataError(
            f"{where}: the {record['kind']} record does not say {missing[0]!r}.",
            "The file was altered; measure again.",
        )
    return record


def _difference(there: Record, wanted: Record) -> str:
    """In which part two runs differ, for an error."""
    names = {
        "environment": "another machine, or other versions", "corpus": "another index", "queries": "other queries",
        "settings": "other settings",
    }  # fmt: skip
    parts = [words for part, words in names.items() if there.get(part) != wanted[part]]
    return ", ".join(parts) or "another tuned plan"
