"""Raw records of a benchmark: JSON Lines, one object a line, each with its `format` and `kind`.

They are written line by line, so that an interrupted benchmark continues in its file. Nothing here
measures anything.

    run        what was measured, with which settings, on which machine, when; all other records
               carry its `id` as their `run`
    trained    how many queries trained the model, and which of the labelled, where that is known
    prefix     one prefix: is the linear head, is the vote of the neighbours right for each query?
    plan       one way to search: its answers to each query, its multiply-adds and memory
    control    the same measures for PCA and for random dims
    instance   one prefix: does each changed copy find its original?
    cascade    adaptive classification along the prefixes: dims against accuracy
    latency    milliseconds of single queries in one round
    batch      seconds of a batch of queries in one round
    embedding  milliseconds to embed single pictures
    scatter    a prefix in two dimensions
    ladder     a query and its hits at some prefixes, with thumbnails
    mislabels  pictures whose neighbours contradict their label, with thumbnails
    done       the benchmark is complete
"""

import contextlib
import json
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import xxhash

from mrl_search.errors import DataError, IndexFolderError
from mrl_search.files import append, claim, make_folder, read_bytes, writing
from mrl_search.mapping import parse_json
from mrl_search.measure.schema import ALTERED, Record, check_record, check_run

__all__ = ["FORMAT", "Journal", "Record", "Run", "identity", "read_run", "read_runs"]

FORMAT = 1
DIFFERENCES = {
    "environment": "another machine, or other versions",
    "corpus": "another index",
    "queries": "other queries",
    "settings": "other settings",
}
FOREIGN = "Name a file that mrl-search bench wrote."

LARGEST = 1 << 28  # bytes of a file of records


def identity(value: object) -> str:
    """A short hash of a JSON value; equal values have equal hashes."""
    return xxhash.xxh3_64_hexdigest(json.dumps(value, sort_keys=True, ensure_ascii=False).encode())


@dataclass(frozen=True, eq=False, slots=True)
class Run:
    """All records of one benchmark."""

    about: Record  # its `run` record
    records: Sequence[Record]  # the others, in the order of the file
    file: Path | None = None  # where they were read
    label: str = ""  # its name among other runs, where its own name is not unique

    @property
    def name(self) -> str:
        return self.label or str(self.about["name"])

    @property
    def done(self) -> bool:
        return bool(self.of("done"))

    @property
    def k(self) -> int:
        """Hits of a plan."""
        return int(self.about["settings"]["k"])

    @property
    def voters(self) -> str:
        """Name of the vote of the neighbours: `20-NN`."""
        return f"{self.about['settings']['neighbours']}-NN"

    def of(self, kind: str, **values: object) -> list[Record]:
        """The records of a kind with these values."""
        return [
            r
            for r in self.records
            if r["kind"] == kind and all(r.get(key) == value for key, value in values.items())
        ]

    def one(self, kind: str, **values: object) -> Record | None:
        """The first of these records, or None."""
        return next(iter(self.of(kind, **values)), None)

    def by_dims(self, kind: str, **values: object) -> list[Record]:
        """These records, shortest prefix first."""
        return sorted(self.of(kind, **values), key=lambda r: int(r["dims"]))


def read_run(path: Path) -> Run:
    """The benchmark in a file of records; half a last line is ignored.

    DataError for a file that has no records, is damaged, or of another format; FileError for one
    that the system does not read.
    """
    about, *others = _read(path)
    if about["kind"] != "run" or any(r.get("run") != about["id"] for r in others):
        hint = "Use the file as mrl-search bench wrote it."
        raise DataError(f"{path} does not hold the records of one benchmark.", hint)
    check_run(about, others, str(path))
    return Run(about, others, path)


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The benchmarks in some files, in order; one that is in two files is kept once.

    Runs with the same name are named after their files.
    """
    runs = list({str(run.about["id"]): run for run in map(read_run, paths)}.values())
    names = [[run.name, path.stem, str(path)] for run in runs if (path := run.file)]
    distinct = next(some for some in zip(*names, strict=True) if len(set(some)) == len(some))
    return [replace(run, label=name) for run, name in zip(runs, distinct, strict=True)]


class Journal:
    """The file that a benchmark writes: `add` appends a record, `run` holds all of them.

    A journal from `open` locks its file until it is closed or garbage-collected.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.path = path
        self.close: Callable[[], object] = lambda: None
        self._about = run.about
        self._records = list(run.records)

    @classmethod
    def open(cls, path: Path, about: Record) -> Self:
        """Begin a file with the `run` record `about`, or continue one whose run has the same id.

        DataError if the file holds another benchmark, or another process writes it.
        """
        about = {"format": FORMAT, "kind": "run", **about}
        make_folder(path.parent)
        append(path, b"")
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(claim(path))
            except IndexFolderError as error:
                raise DataError(f"Another process writes {path}.", error.hint) from error
            journal = cls(path, _continued(path, about))
            journal.close = weakref.finalize(journal, stack.pop_all().close)
        return journal

    @property
    def run(self) -> Run:
        return Run(self._about, tuple(self._records))

    def has(self, kind: str, **values: object) -> bool:
        """Whether there is a record of this kind with these values."""
        return self.run.one(kind, **values) is not None

    def add(self, kind: str, **values: object) -> None:
        """Append a record and flush it to disk."""
        record = {"format": FORMAT, "kind": kind, "run": self._about["id"], **values}
        append(self.path, _line(record))
        self._records.append(record)


def _continued(path: Path, about: Record) -> Run:
    """The run of a file, without half a last record; or a new run, written to an empty file."""
    data = read_bytes(path, LARGEST)
    if _line(about).startswith(data):  # empty, or half of this line
        with writing(path):
            os.truncate(path, 0)
        append(path, _line(about))
        return Run(about, [])
    first, *others = _read(path)
    if first["kind"] != "run" or first["id"] != about["id"]:
        parts = [words for part, words in DIFFERENCES.items() if first.get(part) != about[part]]
        message = f"{path} holds another benchmark: {', '.join(parts) or 'another tuned plan'}."
        raise DataError(message, "Choose another file with --out, or remove this one.")
    with writing(path):
        os.truncate(path, data.rfind(b"\n") + 1)
    return Run(first, others)


def _line(record: Record) -> bytes:
    return (json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def _read(path: Path) -> list[Record]:
    """The records of a file; half a last line is left out."""
    lines = read_bytes(path, LARGEST).splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    if not whole:
        raise DataError(f"{path} holds no record.", FOREIGN)
    return [_checked(line, f"{path}, line {number}") for number, line in enumerate(whole, 1)]


def _checked(line: bytes, where: str) -> Record:
    try:
        record = parse_json(line, where)
    except DataError as error:
        raise DataError(error.message, ALTERED) from error
    known = isinstance(record, dict) and isinstance(record.get("format"), int) and "kind" in record
    if not known:
        raise DataError(f"{where} is not a record of mrl-search bench.", FOREIGN)
    if record["format"] != FORMAT:
        message = f"{where} has format {record['format']}; this mrl-search reads format {FORMAT}."
        hint = "Upgrade mrl-search." if record["format"] > FORMAT else "Measure again."
        raise DataError(message, hint)
    check_record(record, where)
    return dict(record)
