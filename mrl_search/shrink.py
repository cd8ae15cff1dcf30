"""A smaller index from a larger one without embedding again: a prefix of the stored vectors becomes all there is.

What that costs is measured first: recall against exact search in the original. Queries of the same model go on working, because
`Index.to_space` cuts them to the new length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mrl_search.engines import Index, add_prefix_indexes, check_factories
from mrl_search.engines.spec import SCAN, IndexSpec
from mrl_search.errors import ConfigError
from mrl_search.files import fresh_folder
from mrl_search.measure.neighbours import Change, changed, drawn, neighbours
from mrl_search.metrics import recall_at_k
from mrl_search.progress import Progress, silent
from mrl_search.search.exact.sieve import coded_dims
from mrl_search.store.items import as_table, write_items
from mrl_search.store.manifest import (
    CODES,
    HEADS,
    ITEMS,
    ROTATION,
    SKIPPED,
    STEPS,
    SUFFIX,
    VECTORS,
    FileRecord,
    Manifest,
    manifest_text,
    prefix_file,
    write_manifest,
)
from mrl_search.store.rows import (
    EmbeddingSet,
    blocks,
    heads_bytes,
    write_heads,
    write_rotation,
    write_rows,
    write_skipped,
)
from mrl_search.vectors import check_dims, nearest, prefix

__all__ = ["Candidate", "best_that_fits", "candidates", "shrink_index"]

K = 10
NPY_HEADER, FLAT_HEADER = 128, 45  # bytes


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an index could be shrunk to.

    Attributes:
        dims: length of the vectors.
        dtype: how they are stored.
        bytes: size of all files of the folder; exact, but for a prefix that the original has no FAISS index of.
        recall: share of the 10 true neighbours in the original that exact search in the smaller one finds.
        queries: rows of the original behind `recall`, each left out of its own answer.
    """

    dims: int
    dtype: str
    bytes: int
    recall: float
    queries: int


def candidates(
    index: Index, dims: Sequence[int], dtypes: Sequence[str], progress: Progress = silent
) -> list[Candidate]:
    """Measure what `index` could be shrunk to: every one of `dims` in every one of `dtypes`, by rising dims.

    Raises:
        ConfigError: a length that is not between 1 and that of the vectors, or another dtype than float16 and float32.
        DataError: the index holds one vector.
    """
    rows = drawn(index)
    queries = index.embeddings.vectors[rows].astype(np.float32)
    truth = neighbours(index, rows, queries, K)
    result = []
    specs = [
        IndexSpec((d,), dtype=dtype) for d, dtype in product(check_dims(dims, index.dim), dtypes)
    ]
    for done, spec in enumerate(specs, 1):
        (d,) = spec.dims
        found = neighbours(changed(index, _rounded(spec.dtype)), rows, queries, K, d)
        result.append(
            Candidate(
                d, spec.dtype, _bytes(index, d, spec.dtype), recall_at_k(found, truth), len(rows)
            )
        )
        progress("measuring", done, len(specs))
    return result


def _rounded(dtype: str) -> Change:
    """Rows as a shrunk index stores them."""
    return lambda rows, dims: prefix(rows, dims).astype(dtype)


def best_that_fits(found: Sequence[Candidate], size: int) -> Candidate:
    """The candidate of at most `size` bytes with the best recall; of equals, the smallest.

    Raises:
        ConfigError: none fits.
    """
    fitting = [c for c in found if c.bytes <= size]
    if not fitting:
        least = min(found, key=lambda c: c.bytes)
        raise ConfigError(
            f"Nothing fits in {size:,} bytes: the smallest, {least.dims} dims in {least.dtype}, takes {least.bytes:,}.",
            f"Allow that much, or see what fewer dims would take with --dims. At {least.dims} dims recall@{K} is {least.recall:.1%}.",
        )
    return max(fitting, key=lambda c: (c.recall, -c.bytes))


def shrink_index(
    index: Index, out: str | Path, dims: int, dtype: str | None = None, progress: Progress = silent
) -> Index:
    """Write the new index folder `out`: the first `dims` numbers of the vectors of `index`, at unit length, as `dtype`.

    Items, heads and FAISS indexes (same factories) of what remains come along; tuned plans do not, as they were measured on longer
    vectors. `dtype` is that of `index` by default.

    Raises:
        ConfigError: `dims` is not between 1 and the length of the vectors, or another dtype than float16 and float32.
        IndexFolderError: `out` exists, or is being built by another process.
    """
    check_dims([dims], index.dim)
    spec = IndexSpec(dtype=dtype or index.manifest.dtype)
    old = index.embeddings
    out = Path(out).expanduser()
    with fresh_folder(out) as building:
        write_rows(
            building / VECTORS,
            (len(index), dims),
            np.dtype(spec.dtype),
            _prefixes(old, dims, progress),
        )
        write_items(building, _items(old, dims))
        write_heads(building, _heads(old, dims))
        write_skipped(building, old.skipped)
        write_rotation(building, _rotation(old, dims))
        write_manifest(building, replace(_manifest(index, dims, spec.dtype), factory={}))
        factories = _factories(index, dims)
        for factory in dict.fromkeys(factories.values()):
            alike = IndexSpec(tuple(d for d in factories if factories[d] == factory), factory)
            add_prefix_indexes(
                building, alike, lambda d, done, total: progress(f"indexing {d} dims", done, total)
            )
    return Index.open(out)


def _prefixes(
    embeddings: EmbeddingSet, dims: int, progress: Progress
) -> Iterator[NDArray[np.float32]]:
    for rows in blocks(len(embeddings), dims):
        yield embeddings.prefix(dims, rows)
        progress("writing vectors", rows.stop, len(embeddings))


def _items(embeddings: EmbeddingSet, dims: int) -> pa.Table:
    """The items, with the length of the raw prefix in place of that of the raw vector."""
    norms = embeddings.norms.copy()
    for rows in blocks(len(embeddings), dims):
        norms[rows] *= np.linalg.norm(embeddings.vectors[rows, :dims].astype(np.float32), axis=1)
    items = as_table(embeddings.items)
    return items.set_column(
        items.schema.get_field_index("norm"), "norm", pa.array(norms, pa.float32())
    )


def _heads(
    embeddings: EmbeddingSet, dims: int
) -> dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]]:
    return {d: head for d, head in embeddings.heads.items() if d <= dims}


def _rotation(embeddings: EmbeddingSet, dims: int) -> NDArray[np.float32] | None:
    return None if embeddings.rotation is None else np.ascontiguousarray(embeddings.rotation[:dims])


def _factories(index: Index, dims: int) -> dict[int, str]:
    """Of every prefix that remains and of `dims` itself: the factory it had, or that of the nearest prefix if FAISS takes it."""
    old = {int(d): factory for d, factory in index.manifest.factory.items()}
    kept = {d: old[d] for d in sorted(old) if d < dims}
    own = old[nearest(list(old), dims)] if old else "Flat"
    try:
        check_factories(IndexSpec((dims,), own), len(index))
    except ConfigError:  # PQ16 wants a multiple of 16 dims
        own = "Flat"
    return {**kept, dims: own}


def _manifest(index: Index, dims: int, dtype: str) -> Manifest:
    factory = {str(d): text for d, text in _factories(index, dims).items()}
    shorter = tuple(d for d in index.manifest.dims if d < dims)
    rows_dim = index.rows_dim if index.rows_dim > dims else 0
    return Manifest(
        encoder=index.manifest.encoder, fingerprint=index.manifest.fingerprint, dim=dims, dims=(*shorter, dims), count=len(index),
        dtype=dtype, source=index.manifest.source, model=index.manifest.model, classes=index.manifest.classes,
        unit_heads=index.manifest.unit_heads, factory=factory,
        rows_dim=rows_dim,
    )  # fmt: skip


def _bytes(index: Index, dims: int, dtype: str) -> int:
    """Size of the folder that `shrink_index` would write."""
    old, files = index.embeddings, index.manifest.files
    rotation, heads = _rotation(old, dims), _heads(old, dims)
    sink = pa.MockOutputStream()
    pq.write_table(_items(old, dims), sink)
    sizes: dict[str, int] = {
        VECTORS: NPY_HEADER + len(index) * dims * np.dtype(dtype).itemsize,
        ITEMS: sink.size(),
    }
    if heads:
        sizes[HEADS] = len(heads_bytes(heads))
    if SKIPPED in files:
        sizes[SKIPPED] = files[SKIPPED].bytes
    if rotation is not None:
        sizes[ROTATION] = NPY_HEADER + rotation.nbytes
    factories = _factories(index, dims)
    sizes[SUFFIX] = NPY_HEADER + 4 * len(index) * len(factories)
    if coded := coded_dims(tuple(factories), dims):
        sizes[CODES], sizes[STEPS] = NPY_HEADER + len(index) * coded, NPY_HEADER + 4 * (coded + 1)
    for d, factory in factories.items():
        if factory == SCAN:
            continue
        like = nearest(index.dims, d) if index.dims else d
        known = files.get(prefix_file(like))
        flat = FLAT_HEADER + 4 * len(index) * d
        sizes[prefix_file(d)] = (
            flat if known is None or factory == "Flat" else known.bytes * d // like
        )
    records = {name: FileRecord(size, "0" * 32) for name, size in sorted(sizes.items())}
    return sum(sizes.values()) + len(
        manifest_text(replace(_manifest(index, dims, dtype), files=records))
    )
