"""The records of a study: one JSONL file a job, `PART/KEY.jsonl`, written when the job is done.

Every line has a `kind`: `job` (what was run, where, on how many images), `epoch` (of the training),
`prefix` (shares at one prefix of one representation; `right` has one bit an image, in hex),
`cascade` (adaptive classification), `spectrum` (singular values), `scatter` (points of a principal
plane, with their group or label).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.files import make_folder, write_text
from mrl_search.measure.environment import check_clean

__all__ = ["JobRecords", "bits_of", "outcomes_of", "read_part", "record_file", "write_records"]


@dataclass(frozen=True, slots=True)
class JobRecords:
    """What one job left: its `job` line, and all others."""

    job: Mapping[str, Any]
    lines: Sequence[Mapping[str, Any]]

    def of(self, kind: str) -> list[Mapping[str, Any]]:
        """The lines of one kind, in order."""
        return [line for line in self.lines if line["kind"] == kind]


def record_file(records: Path, part: str, key: str) -> Path:
    """Where the records of a job are, or will be: their presence means that it is done."""
    return records / part / f"{key}.jsonl"


def write_records(file: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write the records of a job, `job` line first; MrlSearchError if that fails."""
    make_folder(file.parent)
    write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_part(records: Path, part: str, order: Sequence[str] = ()) -> list[JobRecords]:
    """The records of all finished jobs of a part, by the place of their run in `order`.

    Raises:
        DataError: a file that is not the records of a job, or of code that no commit holds.
    """
    found = []
    for file in sorted((records / part).glob("*.jsonl")):
        try:
            job, *lines = [
                json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()
            ]
            if job["kind"] != "job" or any("kind" not in line for line in lines):
                raise ValueError("no job line")
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{file} does not hold the records of a job: {error}.",
                "Remove it, and run its part again.",
            ) from error
        check_clean(job.get("commit"), file)
        found.append(JobRecords(job, lines))
    places = {name: i for i, name in enumerate(order)}
    return sorted(found, key=lambda r: places.get(r.job.get("run", ""), len(places)))


def bits_of(right: NDArray[np.bool_]) -> str:
    """(n,) bool as hexadecimal digits, eight outcomes in two of them."""
    return np.packbits(right).tobytes().hex()


def outcomes_of(bits: str, n: int) -> NDArray[np.bool_]:
    """The (n,) bool that `bits_of` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(bits), dtype=np.uint8), count=n).astype(bool)
