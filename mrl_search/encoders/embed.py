"""Embedding a corpus: an encoder and a source of images become the files of an `EmbeddingSet`.

Rows are appended to `vectors.npy` and `items.jsonl` in the order of the source, and `progress.json` says how far both are whole. A run
that was killed continues from there, or from the first image whose bytes or label are others by now: nothing half-written is read,
nothing outdated is kept, and little is embedded twice.
"""

import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from mrl_search.encoders.encoder import Encoder
from mrl_search.errors import BrokenImage, DataError, IndexFolderError, Skipped
from mrl_search.files import PROGRESS, write_atomically, writing
from mrl_search.images.decode import content_hash
from mrl_search.images.reading import Picture, read_pictures
from mrl_search.images.sources import Source
from mrl_search.store.items import ITEMS_SCHEMA, write_items
from mrl_search.store.manifest import VECTORS
from mrl_search.store.rows import write_heads, write_skipped
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
    return np.concatenate(
        [encoder.encode(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    )


def embed(
    source: Source,
    encoder: Encoder,
    folder: Path,
    dtype: str = "float16",
    progress: Callable[[int, int], None] | None = None,
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
    job = xxhash.xxh3_128_hexdigest(
        "\n".join([encoder.fingerprint, dtype, source.name, *source.paths]).encode(
            errors="surrogateescape"
        )
    )
    folder.mkdir(parents=True, exist_ok=True)
    row_bytes, header = dim * np.dtype(dtype).itemsize, _header_bytes(dim, dtype)
    state = _read_progress(folder, job)
    if state.read:
        state = _still_true(source, encoder, folder, state, progress)
    if (
        not (folder / VECTORS).exists()
        or (folder / VECTORS).stat().st_size < header + state.kept * row_bytes
    ):
        state = Progress(job)
    _commit(folder, state)  # before anything is cut off
    for left in folder.iterdir():  # by a run that was stopped, and may have had another spec
        if left.name not in {VECTORS, LOG, PROGRESS}:
            left.unlink()
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
                state = replace(
                    state,
                    read=state.read + len(batch),
                    kept=state.kept + len(good),
                    log_bytes=log.tell(),
                )
                if number % COMMIT == 0 or state.read == total:
                    _commit(folder, state, vectors, log)
            if progress:
                progress(state.read, total)
        vectors.seek(0)
        _write_header(vectors, state.kept, dim, dtype)
    entries = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    skipped = [Skipped(**entry) for entry in entries if "reason" in entry]
    if not state.kept:
        shutil.rmtree(folder)
        raise DataError(
            f"No image of {source.name} can be read; the first: {skipped[0].path}: {skipped[0].reason}.",
            "Look at the files.",
        )
    items = [
        {"id": i, **entry}
        for i, entry in enumerate(entry for entry in entries if "reason" not in entry)
    ]
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
            f"{folder} holds an unfinished run of other images, another model, or another --dtype.",
            f"Remove {folder}, or choose another --out.",
        )
    return state


def _still_true(
    source: Source,
    encoder: Encoder,
    folder: Path,
    state: Progress,
    progress: Callable[[int, int], None] | None,
) -> Progress:
    """`state` up to the first image of which the log does not tell what there is now: its bytes, its label, or why it was skipped."""
    lines = (folder / LOG).read_bytes()[: state.log_bytes].splitlines(keepends=True)
    entries = [json.loads(line) for line in lines]
    broken = [i for i, entry in enumerate(entries) if "reason" in entry]
    again = zip(broken, read_pictures(source, encoder.size, rows=broken), strict=True)
    mended = {
        i for i, picture in again if isinstance(picture, Picture) or asdict(picture) != entries[i]
    }

    def same(row: int) -> bool:
        if "reason" in (entry := entries[row]):
            return row not in mended
        try:
            return bool(
                entry["label"] == source.labels[row]
                and entry["hash"] == content_hash(source.read(row))
            )
        except BrokenImage:
            return False

    first = 0
    with ThreadPoolExecutor() as pool:
        while first < len(entries):
            block = list(pool.map(same, range(first, min(first + BATCH, len(entries)))))
            first += (*block, False).index(False)
            if not all(block):
                break
            if progress:
                progress(first, len(source.paths))
    lines = lines[:first]
    return Progress(
        state.job,
        first,
        sum("reason" not in entry for entry in entries[:first]),
        sum(map(len, lines)),
    )


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
    description = {
        "descr": np.lib.format.dtype_to_descr(np.dtype(dtype)),
        "fortran_order": False,
        "shape": (rows, dim),
    }
    np.lib.format.write_array_header_1_0(file, description)


def _header_bytes(dim: int, dtype: str) -> int:
    buffer = io.BytesIO()
    _write_header(buffer, 0, dim, dtype)
    return buffer.tell()
