"""What an index folder notes of its collections in Milvus: whose they are, and what they have.

A token in the folder and on each collection tells which index a collection belongs to. For each
place the folder notes what was sent there, so that a command that was killed goes on, and an index
that moves keeps answering from the place that it leaves.
"""

import json
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Damaged, Foreign, Place
from mrl_search.errors import EngineError
from mrl_search.files import is_claimed, write_text
from mrl_search.mapping import from_mapping, read_json, to_mapping
from mrl_search.store.manifest import DELETED, ITEMS, VECTORS, Manifest, read_manifest

__all__ = [
    "NOTED", "Note", "check_rows", "check_sent", "check_stamp", "forget", "ids_file", "note_of",
    "opened", "sending", "state_of", "token_of", "write_note",
]  # fmt: skip

NOTED = "milvus.json"
WAITS = (0.0, 0.2, 0.8)  # seconds: a command has committed a change, and sends it next


@dataclass(frozen=True, slots=True)
class Note:
    """What a collection has.

    Attributes:
        made: whether it was made for this index.
        rows: how many rows it has at least; fewer are a loss.
        parts: checksums of the parts whose rows it has.
        again: ids of rows that are sent again.
        begun: checksum of the part that is being sent.
        sent: rows of this part that were sent.
        state: of the rows that it has (`state_of`), if it has all, and nothing else.
        stamp: of the last change; the collection has it in its manifest.
        older: stamps of changes before, the last first.
    """

    made: bool = False
    rows: int = 0
    parts: tuple[str, ...] = ()
    again: tuple[int, ...] = ()
    begun: str = ""
    sent: int = 0
    state: str = ""
    stamp: str = ""
    older: tuple[str, ...] = ()


def _read(folder: Path) -> dict[str, Any]:
    path = folder / NOTED
    return read_json(path) if path.exists() else {"token": "", "places": {}}


def _write(folder: Path, notes: Mapping[str, object]) -> None:
    write_text(folder / NOTED, json.dumps(notes))


def token_of(folder: Path, new: str = "") -> str:
    """The token of an index; without one it becomes `new`."""
    notes = _read(folder)
    if not notes["token"] and new:
        _write(folder, {**notes, "token": new})
        return new
    return str(notes["token"])


def note_of(folder: Path, place: Place) -> Note | None:
    """What is noted of a place; None if nothing is."""
    notes = _read(folder)["places"].get(str(place))
    return None if notes is None else from_mapping(Note, notes, str(folder / NOTED))


def write_note(folder: Path, place: Place, note: Note) -> None:
    """Note something of a place."""
    notes = _read(folder)
    _write(folder, {**notes, "places": {**notes["places"], str(place): to_mapping(note)}})


def ids_file(folder: Path, place: Place) -> Path:
    """The file of the ids that a collection may have."""
    return folder / f"milvus-{xxhash.xxh3_64_hexdigest(str(place).encode())}.npy"


def forget(folder: Path, kept: Place) -> None:
    """Drop the notes of all places but one."""
    notes = _read(folder)
    others = {place for place in notes["places"] if place != str(kept)}
    if others:
        known = {place: note for place, note in notes["places"].items() if place not in others}
        _write(folder, {**notes, "places": known})
    for place in others:
        ids_file(folder, Place.parse(place)).unlink(missing_ok=True)


def opened(folder: Path, m: Manifest) -> Remote:
    """The collection that answers for an index.

    Raises:
        EngineError: it does not answer, belongs to another index, or lost rows.
    """
    remote = Remote(Place.parse(m.engine))
    remote.check(token_of(folder), m.factory)
    check_sent(folder, remote.place)
    check_stamp(folder, remote)
    check_rows(folder, remote)
    return remote


def state_of(m: Manifest) -> str:
    """A checksum of which rows an index has."""
    names = [part.file(name) for part in m.all_parts for name in (VECTORS, ITEMS)]
    known = [m.files[name].xxh3 for name in (*names, DELETED) if name in m.files]
    return str(xxhash.xxh3_64_hexdigest(" ".join(map(str, known)).encode()))


def check_sent(folder: Path, place: Place) -> None:
    """Check that the last change of an index was sent, unless another process sends it now.

    Raises:
        EngineError: the command was stopped before.
    """
    for wait in WAITS:
        time.sleep(wait)
        note, m = note_of(folder, place), read_manifest(folder)
        if (note and note.state == state_of(m)) or m.engine != str(place) or is_claimed(folder):
            return
    message = f"The last change of {folder} was not sent to {place}: its command was stopped."
    raise EngineError(message, f"Send it: {sending(place, folder)}")


def check_stamp(folder: Path, remote: Remote) -> None:
    """Check that nobody else changed a collection, such as a copy of its index folder.

    Raises:
        Damaged: a file of Milvus Lite is an older one of this folder, as from a backup.
        Foreign: somebody did.
    """
    while True:
        note = note_of(folder, remote.place)
        stamp = json.loads(remote.manifest()).get("stamp", "")
        if note is None or not note.state or stamp == note.stamp:
            return
        if note_of(folder, remote.place) == note:  # otherwise another process has changed both
            if remote.place.is_file and stamp in note.older:
                message = f"{remote.place} is older than {folder}, as if from a backup."
                raise Damaged(message, f"Send it again: {sending(remote.place, folder)}")
            message = f"The collection {remote.place} is not as {folder} left it: a copy of the "
            message += "folder changed it, or it was restored from a backup."
            hint = f"Give this one its own: mrl-search copy {shlex.quote(str(folder))} --to PLACE"
            raise Foreign(message, hint)


def check_rows(folder: Path, remote: Remote) -> None:
    """Check that a collection has the rows that its index knows it to have.

    Raises:
        Damaged: it lost some.
    """
    while True:
        note = note_of(folder, remote.place)
        found = min(remote.counts())
        if note is None or found >= note.rows:
            return
        if note_of(folder, remote.place) == note:  # otherwise another process removes rows
            message = f"The collection {remote.place} lost rows: it has {found:,} of {note.rows:,}."
            raise Damaged(message, f"Send the rows again: {sending(remote.place, folder)}")


def sending(place: Place, folder: Path) -> str:
    """The command that sends what a collection lacks."""
    return f"mrl-search copy {shlex.quote(str(folder))} --to '{place}'"
