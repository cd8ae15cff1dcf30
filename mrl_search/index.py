"""Building an index of pictures, and searching it with pictures."""

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.embed import embed, embed_pictures, first_change
from mrl_search.engines import Index, add_prefix_indexes, check_factories
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import BrokenImage, DataError, IndexFolderError, Skipped
from mrl_search.files import PROGRESS, building_folder, claim, publish, write_atomically, writing
from mrl_search.images.sources import Source, open_source, read_path
from mrl_search.progress import Progress, silent
from mrl_search.search import search
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits, Queries
from mrl_search.store.items import ITEMS_SCHEMA, write_items
from mrl_search.store.manifest import VECTORS, Manifest, write_manifest
from mrl_search.store.rows import write_heads, write_skipped
from mrl_search.vectors import check_dims, l2_normalize

__all__ = ["Answers", "build_index", "embed_queries", "search_images"]

COPIED = 256  # pictures in memory at once
COMMIT = 16  # batches between two commits of the progress
LOG = "items.jsonl"


def build_index(
    source: Source | str,
    encoder: Encoder,
    out: str | Path,
    spec: IndexSpec | None = None,
    progress: Progress = silent,
) -> Index:
    """Embed the images of `source` and build the prefix indexes of `spec` over them, in the new folder `out`.

    An unfinished build of the same images by the same encoder is continued. `spec` defaults to the encoder's dims, each with the kind of
    index that suits so many images.

    Raises:
        IndexFolderError: `out` exists, or is being built by another process.
        ConfigError: a dim that the encoder does not have.
        DataError: there is nothing in `source` that can be read.
    """
    if isinstance(source, str):
        source = open_source(source)
    out = Path(out).expanduser()
    spec = spec or IndexSpec(dims=encoder.dims)
    dim = encoder.dims[-1]
    spec = replace(spec, dims=check_dims({*spec.dims, dim}, dim))
    check_factories(spec, len(source.paths))
    building = building_folder(out)
    with claim(building):
        count = _embed_into(
            source,
            encoder,
            building,
            spec.dtype,
            lambda done, total: progress("embedding", done, total),
        )
        factory = add_prefix_indexes(
            building, spec, lambda d, done, total: progress(f"indexing {d} dims", done, total)
        )
        manifest = Manifest(
            encoder=encoder.name, fingerprint=encoder.fingerprint, dim=dim, dims=spec.dims, count=count, dtype=spec.dtype,
            source=source.name, model=encoder.model, classes=encoder.heads.classes, unit_heads=encoder.heads.unit, factory=factory,
        )  # fmt: skip
        write_manifest(building, manifest)
        publish(building, out)
        for name in (LOG, PROGRESS):  # only an unfinished build needs them
            (out / name).unlink(missing_ok=True)
    return Index.open(out)


def embed_queries(index: Index, encoder: Encoder, paths: Sequence[str | Path]) -> Queries:
    """Embed image files to search `index` with; one that cannot be read is skipped.

    Raises:
        IndexFolderError: the index was built with another model.
    """
    index.check_encoder(encoder.fingerprint)
    start = time.perf_counter()
    rows, good, skipped = [np.empty((0, index.dim), dtype=np.float32)], [], []
    names = [str(path) for path in paths]
    for first in range(0, len(names), COPIED):
        pictures = []
        for path in names[first : first + COPIED]:
            try:
                pixels, _ = encoder.preprocessing.decode(read_path(path))
            except BrokenImage as error:
                skipped.append(Skipped(path, error.message))
                continue
            pictures.append(pixels)
            good.append(path)
        if pictures:
            rows.append(index.to_space(embed_pictures(encoder, np.stack(pictures))))
    return Queries(good, np.concatenate(rows), tuple(skipped), (time.perf_counter() - start) * 1e3)


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What a search with image files gave: `hits[i]` belongs to `paths[i]`; times in milliseconds for all of them together."""

    paths: list[str]
    hits: BatchHits
    skipped: Sequence[Skipped]
    embed_ms: float
    search_ms: float


def search_images(
    index: Index,
    encoder: Encoder,
    paths: Sequence[str | Path],
    plan: Plan,
    allowed: NDArray[np.int64] | None = None,
) -> Answers:
    """Search `index` with image files; one that cannot be read is skipped. Only the ids `allowed` may be answers, if they are given.

    Raises:
        IndexFolderError: the index was built with another model.
        ConfigError: the plan names a dim that the index does not have.
    """
    for d in plan.dims:
        index.check_dims(d)
    queries = embed_queries(index, encoder, paths)
    start = time.perf_counter()
    hits = search(index, queries.rows, plan, allowed)
    return Answers(
        queries.names,
        hits,
        queries.skipped,
        queries.embed_ms or 0.0,
        (time.perf_counter() - start) * 1e3,
    )


# Temporary: store/writer.py replaces everything below.


def _embed_into(
    source: Source, encoder: Encoder, folder: Path, dtype: str, progress: Callable[[int, int], None]
) -> int:
    """Embed `source` into the building folder `folder`, or continue there; return the row count."""
    dim, total = encoder.dims[-1], len(source.paths)
    job_text = "\n".join([encoder.fingerprint, dtype, source.name, *source.paths])
    job = xxhash.xxh3_128_hexdigest(job_text.encode(errors="surrogateescape"))
    header = _npy_header(0, dim, dtype)
    row_bytes = dim * np.dtype(dtype).itemsize
    log, vectors = folder / LOG, folder / VECTORS
    lines: list[bytes] = []
    if (folder / PROGRESS).exists():
        state = json.loads((folder / PROGRESS).read_text())
        if state["job"] != job:
            raise IndexFolderError(
                f"{folder} holds an unfinished run of other images, another model, or another"
                " --dtype.",
                f"Remove {folder}, or choose another --out.",
            )
        if state["read"]:
            lines = log.read_bytes()[: state["log_bytes"]].splitlines(keepends=True)
            entries = [json.loads(line) for line in lines]
            lines = lines[: first_change(source, encoder, entries, progress)]
    kept = sum("reason" not in json.loads(line) for line in lines)
    if not vectors.exists() or vectors.stat().st_size < len(header) + kept * row_bytes:
        lines, kept = [], 0
    for left in folder.iterdir():  # of a stopped run, which may have had another spec
        if left.name not in {VECTORS, LOG, PROGRESS}:
            left.unlink()

    def commit() -> None:
        state = {"job": job, "read": read, "kept": kept, "log_bytes": log_bytes}
        with write_atomically(folder / PROGRESS) as part:
            part.write_text(json.dumps(state))

    read, log_bytes = len(lines), sum(map(len, lines))
    commit()  # before the files are truncated
    vectors.touch()
    log.touch()
    with vectors.open("r+b") as vectors_file, log.open("r+b") as log_file:
        vectors_file.write(header)
        for file, size in ((vectors_file, len(header) + kept * row_bytes), (log_file, log_bytes)):
            file.truncate(size)
            file.seek(size)
        for number, batch in enumerate(embed(source, encoder, read), 1):
            norms = iter(np.linalg.norm(batch.rows, axis=1).tolist())
            new = [
                asdict(e)
                if isinstance(e, Skipped)
                else {
                    name: getattr(e, name) for name in ("path", "label", "hash", "width", "height")
                }
                | {"norm": next(norms)}
                for e in batch.entries
            ]
            with writing(vectors):
                vectors_file.write(l2_normalize(batch.rows).astype(dtype).tobytes())
                log_file.write("".join(json.dumps(entry) + "\n" for entry in new).encode())
                read, kept = read + len(new), kept + len(batch.rows)
                if number % COMMIT == 0 or read == total:
                    for file in (vectors_file, log_file):
                        file.flush()
                        os.fsync(file.fileno())
                    log_bytes = log_file.tell()
                    commit()
            progress(read, total)
        vectors_file.seek(0)
        vectors_file.write(_npy_header(kept, dim, dtype))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    skipped = tuple(Skipped(**entry) for entry in entries if "reason" in entry)
    if not kept:
        shutil.rmtree(folder)
        raise DataError(
            f"No image of {source.name} can be read; the first: {skipped[0].path}:"
            f" {skipped[0].reason}.",
            "Look at the files.",
        )
    good = [entry for entry in entries if "reason" not in entry]
    items = [{"id": i, **entry} for i, entry in enumerate(good)]
    write_items(folder, pa.Table.from_pylist(items, ITEMS_SCHEMA))
    write_heads(folder, encoder.heads.weights)
    write_skipped(folder, skipped)
    return kept


def _npy_header(rows: int, dim: int, dtype: str) -> bytes:
    """The .npy header; numpy pads it, so that its size is the same for any number of rows."""
    buffer = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
    values = {"descr": descr, "fortran_order": False, "shape": (rows, dim)}
    np.lib.format.write_array_header_1_0(buffer, values)
    return buffer.getvalue()
