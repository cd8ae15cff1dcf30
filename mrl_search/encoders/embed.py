"""Embed a source: its pictures in order, in batches of raw vectors.

Writes nothing. An index folder is written, committed and resumed by `store/`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder
from mrl_search.errors import BrokenImage, Skipped
from mrl_search.images.decode import content_hash
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source

__all__ = ["Batch", "embed", "embed_pictures", "first_change"]

BATCH = 64  # pictures a batch


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Some consecutive images of a source, embedded.

    Attributes:
        rows: (n, dim) float32, one row for each `Picture` in `entries`, not normalised.
        entries: every image of the batch, in the order of the source.
    """

    rows: NDArray[np.float32]
    entries: Sequence[Picture | Skipped]


def embed(source: Source, encoder: Encoder, start: int = 0) -> Iterator[Batch]:
    """Yield the images of `source` from row `start` on, embedded in batches."""
    pictures = read_pictures(
        source, encoder.preprocessing.decode, rows=range(start, len(source.paths))
    )
    while entries := list(islice(pictures, BATCH)):
        pixels = [entry.pixels for entry in entries if isinstance(entry, Picture)]
        none = np.empty((0, encoder.dims[-1]), dtype=np.float32)
        yield Batch(encoder.encode(np.stack(pixels)) if pixels else none, entries)


def embed_pictures(encoder: Encoder, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed (n, size, size, 3) uint8 pixels in batches: (n, dim) float32, not normalised."""
    starts = range(0, len(pictures), BATCH)
    return np.concatenate([encoder.encode(pictures[i : i + BATCH]) for i in starts])


def first_change(
    source: Source,
    encoder: Encoder,
    entries: Sequence[Mapping[str, Any]],
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """The first row of `source` that differs from its entry in the log of an earlier run.

    Args:
        source: the images.
        encoder: decides which pixels an image has.
        entries: the log, from row 0 on. An embedded image has `label` and `hash`; a skipped one
            has `path` and `reason`.
        progress: called with the number of rows checked and of all rows.

    Returns:
        The first row whose bytes, label, or reason to skip it changed; else `len(entries)`.
    """

    def unchanged(row: int) -> bool:
        entry = entries[row]
        if "reason" in entry:
            (again,) = read_pictures(source, encoder.preprocessing.decode, rows=[row])
            return isinstance(again, Skipped) and again.reason == entry["reason"]
        try:
            same_bytes = entry["hash"] == content_hash(source.read(row))
        except BrokenImage:
            return False
        return bool(same_bytes and entry["label"] == source.labels[row])

    with ThreadPoolExecutor() as pool:
        for start in range(0, len(entries), BATCH):
            stop = min(start + BATCH, len(entries))
            results = list(pool.map(unchanged, range(start, stop)))
            if not all(results):
                return start + results.index(False)
            if progress:
                progress(stop, len(source.paths))
    return len(entries)
