"""What people decided: pictures that are no copies of each other, by the hashes of their bytes.

They are lines of `decisions.jsonl` in the index folder; none is ever removed. So a decision holds
for files that are renamed or moved.
"""

import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from mrl_search.errors import ConfigError, DataError, FileError
from mrl_search.files import claim, read_bytes, write_atomically
from mrl_search.mapping import parse_json
from mrl_search.provenance import now

__all__ = ["DECISIONS", "not_duplicates", "read_decisions"]

DECISIONS = "decisions.jsonl"
KEY = "not_duplicates"
LARGEST = 64 << 20  # bytes
WAIT = 30.0  # seconds for another process that decides


def read_decisions(folder: Path) -> set[frozenset[str]]:
    """The pairs of hashes that are no copies of each other.

    Raises:
        DataError: a line that is no decision, or a file of over 64 MB.
        FileError: the system does not read it.
    """
    path, decided = folder / DECISIONS, set()
    for number, line in enumerate(_text(path).splitlines(), 1):
        value = parse_json(line, f"{path}, line {number},")
        pair = value.get(KEY) if isinstance(value, dict) else None
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(h, str) for h in pair)
        ):
            message = f"{path}, line {number}, is no decision about two pictures."
            raise DataError(message, "Remove the line, or move the file away.")
        decided.add(frozenset(pair))
    return decided


def not_duplicates(folder: Path, hashes: Sequence[str]) -> int:
    """Record that any two of these contents are no copies; returns how many pairs are new.

    Raises:
        ConfigError: fewer than two different contents.
        DataError: as `read_decisions`.
        IndexFolderError: another process keeps the folder for long.
        FileError: it cannot be written.
    """
    if len(set(hashes)) < max(2, len(hashes)):
        message = "Two of these pictures have the same bytes, or there is only one."
        raise ConfigError(message, "Name two or more different pictures.")
    with claim(folder, wait=WAIT):
        known, path = read_decisions(folder), folder / DECISIONS
        pairs = [p for p in combinations(sorted(hashes), 2) if frozenset(p) not in known]
        if pairs:
            lines = [json.dumps({KEY: list(pair), "when": now()}) for pair in pairs]
            with write_atomically(path) as file:
                file.write("".join(f"{x}\n" for x in [*_text(path).splitlines(), *lines]).encode())
    return len(pairs)


def _text(path: Path) -> str:
    try:
        return read_bytes(path, LARGEST).decode(errors="replace")
    except FileError as error:
        if error.missing:
            return ""
        raise
