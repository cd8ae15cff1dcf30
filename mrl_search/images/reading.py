"""Reading a whole source in order, on several threads: pictures that could be decoded, and the others with their reason."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import BrokenImage, Skipped
from mrl_search.images.decode import content_hash, decode, square
from mrl_search.images.sources import Source

__all__ = ["Picture", "read_pictures"]


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """Image `row` of a source: `pixels` (side, side, 3) uint8, and the width and height of the original in pixels."""

    row: int
    path: str
    label: str | None
    hash: str
    width: int
    height: int
    pixels: NDArray[np.uint8]


def read_pictures(
    source: Source, side: int, rows: Sequence[int] | None = None, min_side: int = 0
) -> Iterator[Picture | Skipped]:
    """Decode the images of `source` at `rows` (default: all), squashed to `side` pixels, in that order.

    Images of which a side is not over `min_side` pixels are skipped (0: none are). A broken image is skipped; it never raises.
    """

    def read(row: int) -> Picture | Skipped:
        path = source.paths[row]
        if not path.isprintable() and path != (
            shown := path.encode(errors="surrogateescape").decode(errors="backslashreplace")
        ):
            return Skipped(shown, "its name is not UTF-8")
        try:
            data = source.read(row)
            image, (width, height) = decode(data, side)
        except BrokenImage as error:
            return Skipped(path, error.message)
        if min(width, height) <= min_side:
            return Skipped(path, f"{width} x {height} pixels is not over {min_side} on both sides")
        return Picture(
            row, path, source.labels[row], content_hash(data), width, height, square(image, side)
        )

    threads = os.cpu_count() or 1
    waiting: deque[Future[Picture | Skipped]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        for row in range(len(source.paths)) if rows is None else rows:
            waiting.append(pool.submit(read, row))
            if len(waiting) >= 64 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
