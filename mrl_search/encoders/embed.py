"""Embed a source: its pictures in order, in batches of raw vectors.

Writes nothing. An index folder is written, committed and resumed by `store/`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.texts import with_words
from mrl_search.encoders.words import Words
from mrl_search.errors import BrokenImage, DataError, ModelError, Skipped
from mrl_search.images.decode import content_hash, to_rgb
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source, read_path

__all__ = [
    "BATCH", "Batch", "embed", "embed_pictures", "embed_queries", "first_change", "pixels_of",
    "usable", "vectors_of",
]  # fmt: skip

BATCH = 64  # pictures a batch
UNUSABLE = "the model gives it a vector that is not finite"
PICTURES = 256  # queries in memory at once


@dataclass(frozen=True, eq=False, slots=True)
class Batch:
    """Some consecutive images of a source, embedded.

    Attributes:
        rows: (n, dim) float32, one row for each `Picture` in `entries`, not normalised.
        entries: every image of the batch, in the order of the source.
    """

    rows: NDArray[np.float32]
    entries: Sequence[Picture | Skipped]


def embed(source: Source, encoder: Encoder, rows: Sequence[int] | None = None) -> Iterator[Batch]:
    """Yield the images of `source` at some rows (default: all), embedded in batches."""
    pictures = read_pictures(source, encoder.preprocessing.decode, rows)
    while entries := list(islice(pictures, BATCH)):
        pixels = [entry.pixels for entry in entries if isinstance(entry, Picture)]
        vectors = np.empty((0, encoder.dims[-1]), dtype=np.float32)
        if pixels:
            vectors = _encoded(encoder, np.stack(pixels))
            good = usable(vectors)
            marks = iter(good.tolist())
            entries = [
                Skipped(e.path, UNUSABLE) if isinstance(e, Picture) and not next(marks) else e
                for e in entries
            ]
            vectors = vectors[good]
        yield Batch(vectors, entries)


def embed_pictures(encoder: Encoder, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Embed (n, size, size, 3) uint8 pixels in batches: (n, dim) float32, not normalised.

    Raises:
        ModelError: vectors of another shape.
    """
    starts = range(0, len(pictures), BATCH)
    return np.concatenate([_encoded(encoder, pictures[i : i + BATCH]) for i in starts])


def usable(rows: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Which rows (n, dim) are finite, and of a finite norm.

    Returns:
        (n,) bool.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(rows, axis=1)
    found: NDArray[np.bool_] = np.isfinite(norms)
    return found


def _encoded(encoder: Encoder, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the encoder gives for a batch, of the shape that it should have."""
    rows, wanted = encoder.encode(pictures), (len(pictures), encoder.dims[-1])
    if rows.shape != wanted:
        message = f"The model {encoder.name} gives rows of shape {rows.shape}, not {wanted}."
        raise ModelError(message, "Export it so that each picture has its own vector.")
    return rows


def vectors_of(queries: Sequence[Any] | NDArray[Any]) -> NDArray[Any] | None:
    """The queries as an (n, dim) array, if they are vectors; None if they are to be embedded.

    Raises:
        DataError: vectors among other queries, or of different dims, or of no known kind.
    """
    if isinstance(queries, np.ndarray) and queries.ndim == 2:
        return queries
    known = str | Path | bytes | Image.Image | Words | np.ndarray
    if not isinstance(queries, Iterable) or not all(isinstance(q, known) for q in queries):
        raise DataError("A query is a path, bytes, a PIL image, pixels, Words or a vector.")
    vectors = [q for q in queries if isinstance(q, np.ndarray) and q.ndim == 1]
    if 0 < len(vectors) < len(queries):
        raise DataError("Vectors cannot be mixed with pictures or words in one search.")
    if len({len(v) for v in vectors}) > 1:
        raise DataError("The vectors of one search must have the same dims.")
    return np.stack(vectors) if vectors else None


def embed_queries(
    queries: Sequence[Any] | NDArray[Any], encoder: Encoder, skip_broken: bool = False
) -> tuple[list[str], NDArray[np.float32], tuple[Skipped, ...], NDArray[np.object_]]:
    """Embed pictures (see `pixels_of`) and `Words` to search with.

    Returns:
        their names, raw rows (n, dim) float32, what is skipped, and their content hashes, empty
        where pixels are given.

    Raises:
        DataError: a picture that cannot be read, unless `skip_broken`; or words that cancel.
        ModelError: words, for a model that embeds pictures alone.
    """
    names, hashes, kept = list[str](), list[str](), list[int]()
    rows = np.zeros((len(queries), encoder.dims[-1]), np.float32)
    skipped: list[Skipped] = []
    for first in range(0, len(queries), PICTURES):
        pixels, places = [], []
        for number, query in enumerate(queries[first : first + PICTURES], first):
            named = isinstance(query, str | Path | Words)
            name = str(query) if named else f"picture {number}"
            picture = query.picture if isinstance(query, Words) else query
            try:
                content = read_path(str(picture)) if isinstance(picture, str | Path) else picture
                if content is not None:
                    pixels.append(pixels_of(content, encoder))
                    places.append(number)
            except BrokenImage as error:
                if not skip_broken:
                    raise DataError(f"{name}: {error.message}", error.hint) from error
                skipped.append(Skipped(name, error.message))
                continue
            names.append(name)
            hashes.append(content_hash(content) if isinstance(content, bytes) else "")
            kept.append(number)
        if pixels:
            rows[places] = embed_pictures(encoder, np.stack(pixels))
    rows = with_words([queries[i] for i in kept], rows[kept], encoder)
    return names, rows, tuple(skipped), np.array(hashes, dtype=object)


def pixels_of(
    picture: str | Path | bytes | Image.Image | NDArray[Any], encoder: Encoder
) -> NDArray[np.uint8]:
    """A picture as the encoder takes it: from a path, file content, PIL image or uint8 pixels.

    Raises:
        BrokenImage: the picture cannot be decoded.
        DataError: pixels of another shape or dtype.
    """
    if isinstance(picture, str | Path):
        picture = read_path(str(picture))
    if isinstance(picture, bytes):
        return encoder.preprocessing.decode(picture)[0]
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise DataError(f"Pixels are (h, w, 3) uint8, not {picture.shape} {picture.dtype}.")
        picture = Image.fromarray(picture)
    return encoder.preprocessing.pixels(to_rgb(ImageOps.exif_transpose(picture)))


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
