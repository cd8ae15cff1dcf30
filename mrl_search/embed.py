"""Embedding a corpus: an encoder and a source of images become the files of an `EmbeddingSet`.

Rows are appended to `vectors.npy` and `items.jsonl` in the order of the source, and `progress.json` says how far both are whole. A run
that was killed continues from there, or from the first image whose file was written since: nothing half-written is read, nothing
outdated is kept, and little is embedded twice.
"""

import contextlib
import io
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from mrl_search.data.reading import Picture, read_pictures
from mrl_search.data.sources import Source
from mrl_search.embeddings import write_heads, write_skipped
from mrl_search.errors import DataError, IndexFolderError, Skipped
from mrl_search.items import ITEMS_SCHEMA, write_items
from mrl_search.manifest import VECTORS
from mrl_search.models.encoder import Encoder
from mrl_search.storage import PROGRESS, empty_folder, write_atomically, writing
from mrl_search.vectors import l2_normalize

__all__ = ["embed", "embed_pictures"]

BATCH = 64
COMMIT = 16  # batches between two commits of the progress
LOG = "items.jsonl"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the files are whole: images read of the source, rows kept, bytes of the log; `job` says what is being embedded by what."""

    job: str
    read: int = 0
    kept: int = 0
    log_bytes: int = 0


def embed_pictures(encoder: Encoder, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(n, size, size, 3) uint8 to (n, dim) float32 rows as the encoder gives them, in batches."""
    return np.concatenate([encoder.encode(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])


def embed(
    source: Source, encoder: Encoder, folder: Path, dtype: str = "float16", progress: Callable[[int, int], None] | None = None
) -> int:
    """Embed all images of `source` into `folder`: vectors at unit length, items, heads. Returns how many could be.

    Args:
        source: the images.
        encoder: turns them into rows.
        folder: where the files go; an unfinished run of the same source and encoder in it is continued.
        dtype: of the stored vectors, `float16` or `float32`.
        progress: called with images done and in all.

    Raises:
        DataError: not one image can be read.
        IndexFolderError: `folder` holds an unfinished run of another source or encoder.
    """
    dim, total = encoder.dims[-1], len(source.paths)
    job = xxhash.xxh3_128_hexdigest("\n".join([encoder.fingerprint, dtype, source.name, *source.paths]).encode(errors="surrogateescape"))
    state = _without_changed(source, folder, _read_progress(folder, job))
    folder.mkdir(parents=True, exist_ok=True)
    if not state.read:
        empty_folder(folder)
    row_bytes = dim * np.dtype(dtype).itemsize
    header = _header_bytes(dim, dtype)
    with (
        _open_at(folder / VECTORS, header + state.kept * row_bytes if state.read else 0) as vectors,
        _open_at(folder / LOG, state.log_bytes) as log,
    ):
        if not state.read:
            _write_header(vectors, 0, dim, dtype)
        pictures = read_pictures(source, encoder.size, rows=range(state.read, total))
        for number, batch in enumerate(_batches(pictures), 1):
            good = [p for p in batch if isinstance(p, Picture)]
            if good:
                raw = encoder.encode(np.stack([p.pixels for p in good]))
                norms = iter(np.linalg.norm(raw, axis=1).tolist())
            lines = [asdict(p) if isinstance(p, Skipped) else _item(p, next(norms)) for p in batch]
            with writing(folder / VECTORS):
                if good:
                    vectors.write(l2_normalize(raw).astype(dtype).tobytes())
                log.write("".join(json.dumps(line) + "\n" for line in lines).encode())
                state = replace(state, read=state.read + len(batch), kept=state.kept + len(good), log_bytes=log.tell())
                if number % COMMIT == 0 or state.read == total:
                    _commit(folder, state, vectors, log)
            if progress:
                progress(state.read, total)
        entries = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
        skipped = [Skipped(**entry) for entry in entries if "reason" in entry]
        if not state.kept:
            clear_progress(folder)
            raise DataError(
                f"No image of {source.name} can be read; the first: {skipped[0].path}: {skipped[0].reason}.", "Look at the files."
            )
        vectors.seek(0)
        _write_header(vectors, state.kept, dim, dtype)
    items = [{"id": i, **entry} for i, entry in enumerate(entry for entry in entries if "reason" not in entry)]
    write_items(folder, pa.Table.from_pylist(items, ITEMS_SCHEMA))
    write_heads(folder, encoder.heads)
    write_skipped(folder, tuple(skipped))
    return state.kept


def clear_progress(folder: Path) -> None:
    """Remove what only an unfinished run needs; for the moment when the set is whole."""
    for name in (LOG, PROGRESS):
        (folder / name).unlink(missing_ok=True)


def _item(picture: Picture, norm: float) -> dict[str, object]:
    return {
        "path": picture.path, "label": picture.label, "hash": picture.hash, "width": picture.width, "height": picture.height, "norm": norm,
    }  # fmt: skip


def _batches(pictures: Iterator[Picture | Skipped]) -> Iterator[list[Picture | Skipped]]:
    while batch := list(islice(pictures, BATCH)):
        yield batch


def _read_progress(folder: Path, job: str) -> Progress:
    file = folder / PROGRESS
    if not file.exists():
        return Progress(job)
    state = Progress(**json.loads(file.read_text()))
    if state.job != job:
        raise IndexFolderError(
            f"{folder} holds an unfinished run of other images or another model.", f"Remove {folder}, or choose another --out."
        )
    return state


def _without_changed(source: Source, folder: Path, state: Progress) -> Progress:
    """`state` up to the first image whose file was written, or went, after its last commit."""
    if not state.read:
        return state
    since = (folder / PROGRESS).stat().st_mtime
    first = next((i for i in range(state.read) if _written(source.paths[i]) > since), state.read)
    if first == state.read:
        return state
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)[:first]
    return Progress(state.job, first, sum("reason" not in json.loads(line) for line in lines), sum(map(len, lines)))


def _written(path: str) -> float:
    """When the file of an image was written, or the data set that holds it, in seconds; 0 where there is none to ask, as on the hub."""
    for place in (path, path.rpartition("#")[0]):
        with contextlib.suppress(OSError, ValueError):  # the latter: names that no file can have
            return Path(place).stat().st_mtime if place else 0.0
    return 0.0 if "#" in path else math.inf


def _commit(folder: Path, state: Progress, *files: BinaryIO) -> None:
    for file in files:
        file.flush()
        os.fsync(file.fileno())
    with write_atomically(folder / PROGRESS) as part:
        part.write_text(json.dumps(asdict(state)))


def _open_at(path: Path, size: int) -> BinaryIO:
    """Open for writing behind the first `size` bytes, and forget what follows them."""
    path.touch()
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file


def _write_header(file: BinaryIO, rows: int, dim: int, dtype: str) -> None:
    """The .npy header; numpy pads it so that it has the same length for any number of rows."""
    description = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(file, description)


def _header_bytes(dim: int, dtype: str) -> int:
    buffer = io.BytesIO()
    _write_header(buffer, 0, dim, dtype)
    return buffer.tell()
