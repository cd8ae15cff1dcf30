"""Open .npy files. No other module does.

A header is matched against a grammar of plain arrays and never evaluated: it may be damaged, or
come from anybody.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import DataError
from mrl_search.files import open_regular

__all__ = ["MAGIC", "open_array"]

ARCHIVE, MAGIC = b"PK\x03\x04", b"\x93NUMPY"
COUNT_BYTES = {1: 2, 2: 4, 3: 4}  # version of the format: bytes of the header's length
LONGEST = 10_000  # bytes of a header, as in numpy
ENTRY = (
    r"'descr':'(?P<dtype>[<>|=]?[bifucSUV]\d{1,4})'|'fortran_order':(?P<fortran>True|False)"
    r"|'shape':\((?P<shape>(\d{1,18}L?,){0,31}(\d{1,18}L?)?)\)"
)
HEADER = re.compile(rf"\{{((?:{ENTRY})(,|(?=\}}))){{3}}\}}")
ODD = "damaged, or not an array of numbers"
SAVE = "Save the array again: np.save(PATH, x.astype('float32'))"


def open_array(
    path: Path, dtype: str = "", shape: Sequence[int | None] | None = None
) -> NDArray[Any]:
    """Map a .npy file to memory, read-only.

    Args:
        path: the file.
        dtype: the dtype it must have; empty: any of numbers or text.
        shape: the shape it must have, None for any size of a dimension; default: any shape.

    Raises:
        DataError: not a .npy file, a damaged or unsafe header, another size in bytes than the
            header promises, or another dtype or shape.
        FileError: the system does not open it.
    """
    with open_regular(path) as file:
        magic, version = file.read(len(MAGIC)), file.read(2)
        if magic.startswith(ARCHIVE):
            hint = "Save one of them with np.save, as .npy."
            raise DataError(f"{path} is an archive of arrays.", hint)
        known = magic == MAGIC and len(version) == 2 and version[0] in COUNT_BYTES
        length = int.from_bytes(file.read(COUNT_BYTES[version[0]]), "little") if known else 0
        if not 0 < length <= LONGEST:
            raise _unreadable(path, ODD)
        found, promised, order = _parse(path, file.read(length))
        start, size = file.tell(), os.fstat(file.fileno()).st_size
        wanted = start + found.itemsize * int(np.prod(promised, dtype=object))
        if size != wanted:
            raise _unreadable(path, f"it has {size:,} bytes; its header promises {wanted:,}")
        other = shape is not None and (
            len(promised) != len(shape)
            or any(want not in (None, have) for want, have in zip(shape, promised, strict=True))
        )
        if other or (dtype and found != dtype):
            sizes = promised if shape is None else shape
            expected = f"{dtype or found} of shape {_text(sizes)}"
            raise DataError(f"{path} holds {found} of shape {_text(promised)}, not {expected}.")
        try:
            array: NDArray[Any] = np.memmap(file, found, "r", start, promised, order)
        except (ValueError, OverflowError) as error:  # no bytes, and dimensions beyond 64 bits
            raise _unreadable(path, ODD) from error
    return array


def _parse(path: Path, header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], Literal["C", "F"]]:
    """The dtype, the shape and the order of rows (C) or columns (F) that a header states."""
    text = "".join(header.decode("latin-1").split()).replace('"', "'")
    entries = HEADER.fullmatch(text)
    if entries is None or None in entries.group("dtype", "fortran", "shape"):
        raise _unreadable(path, ODD)
    try:
        dtype = np.dtype(entries["dtype"])
    except TypeError as error:
        raise _unreadable(path, ODD) from error
    shape = tuple(int(size.rstrip("L")) for size in entries["shape"].split(",") if size)
    return dtype, shape, "F" if entries["fortran"] == "True" else "C"


def _unreadable(path: Path, reason: str) -> DataError:
    return DataError(f"{path} cannot be read as .npy: {reason}.", SAVE)


def _text(shape: Sequence[int | None]) -> str:
    """A shape such as `(n, 8)`; `n` stands for any size."""
    sizes = ["n" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)})"
