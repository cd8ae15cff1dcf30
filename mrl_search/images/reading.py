"""Read a source in order, on several threads: each image decoded, or skipped with a reason."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import BrokenImage, FileError, Skipped
from mrl_search.images.base import Columns
from mrl_search.images.decode import content_hash
from mrl_search.images.exif import exif_columns
from mrl_search.images.sources import Source

__all__ = ["Decode", "Picture", "read_pictures"]

AHEAD = 64  # images decoded ahead, a thread

# An image file to its pixels and the (width, height) of the original; raises BrokenImage.
Decode: TypeAlias = Callable[[bytes], tuple[NDArray[np.uint8], tuple[int, int]]]


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """Image `row` of a source: its pixels, the size of the original in pixels, further columns."""

    row: int
    path: str
    label: str | None
    hash: str
    width: int
    height: int
    pixels: NDArray[np.uint8]
    columns: Columns = field(default_factory=dict)


def read_pictures(
    source: Source, decode: Decode, rows: Sequence[int] | None = None, min_side: int = 0
) -> Iterator[Picture | Skipped]:
    """Yield the images of `source`, decoded. A broken image is skipped; none raises.

    A shortage that all files share, as of file descriptors, raises `FileError`.

    Args:
        source: the images.
        decode: usually `Preprocessing.decode` of an encoder.
        rows: which images, in which order; default: all.
        min_side: skip images whose width or height is not above this (0: none).
    """

    def read(row: int) -> Picture | Skipped:
        path = source.paths[row]
        try:
            data, columns = source.read_described(row)
            pixels, (width, height) = decode(data)
        except BrokenImage as error:
            return Skipped(path, error.message)
        except FileError:
            raise
        except Exception as error:  # whatever it is, it costs this image alone
            reason = "does not fit in memory" if isinstance(error, MemoryError) else str(error)
            return Skipped(path, reason or type(error).__name__)
        if min(width, height) <= min_side:
            return Skipped(
                path, f"{width} x {height} pixels; both sides must be above {min_side} pixels"
            )
        label, digest = source.labels[row], content_hash(data)
        columns = {**exif_columns(data), **columns}
        return Picture(row, path, label, digest, width, height, pixels, columns)

    threads = os.cpu_count() or 1
    waiting: deque[Future[Picture | Skipped]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for row in range(len(source.paths)) if rows is None else rows:
            waiting.append(pool.submit(read, row))
            if len(waiting) >= AHEAD * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
