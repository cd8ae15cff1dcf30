"""Pictures that a user removed from an index: a sync does not take them, by whatever name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mrl_search.errors import IndexFolderError
from mrl_search.files import write_text
from mrl_search.mapping import read_json
from mrl_search.store.collection import load_checked
from mrl_search.store.manifest import LEFT_OUT, Manifest

__all__ = ["LeftOut", "left_out_of", "write_left_out"]


class LeftOut(NamedTuple):
    """The content of a picture that was removed.

    Attributes:
        hash: of its bytes; empty where nobody recorded it.
        bytes: their number; None where nobody recorded it.
    """

    hash: str = ""
    bytes: int | None = None


def left_out_of(folder: Path, manifest: Manifest) -> dict[str, LeftOut]:
    """What was removed by hand, by path.

    Raises:
        IndexFolderError: the file is damaged.
    """
    if LEFT_OUT not in manifest.files:
        return {}
    values: Any = load_checked(folder, manifest, LEFT_OUT, read_json)
    if isinstance(values, list):  # of earlier versions, which knew the paths alone
        return {str(path): LeftOut() for path in values}
    try:
        return {path: LeftOut(str(one["hash"]), one["bytes"]) for path, one in values.items()}
    except (AttributeError, KeyError, TypeError) as error:
        message = f"{folder / manifest.place(LEFT_OUT)} is no list of removed pictures."
        raise IndexFolderError(message, "Restore an older generation.") from error


def write_left_out(folder: Path, left_out: Mapping[str, LeftOut]) -> None:
    """Write what was removed by hand."""
    values = {path: left_out[path]._asdict() for path in sorted(left_out)}
    text = json.dumps(values, ensure_ascii=False) + "\n"
    write_text(folder / LEFT_OUT, text, errors="backslashreplace")
