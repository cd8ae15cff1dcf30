"""A smaller index from a larger one: the first dims of its vectors, without embedding again.

Queries of the same model still work, because the transform of the new index cuts them, too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mrl_search.building import write_indexes
from mrl_search.engines.spec import CLUSTERED_FROM, SCAN, IndexSpec
from mrl_search.engines.trial import check_kinds
from mrl_search.errors import ConfigError
from mrl_search.files import expanded
from mrl_search.index import Index
from mrl_search.metrics import recall_at_k
from mrl_search.progress import Progress, silent
from mrl_search.provenance import now, package_versions
from mrl_search.search.corpus import Corpus
from mrl_search.search.exact.sieve import coded_dims
from mrl_search.search.nearest import row_neighbours
from mrl_search.store.collection import left_out_of, write_left_out
from mrl_search.store.manifest import CODES, DELETED, STEPS, SUFFIX, VECTORS, prefix_file
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import check_dims, nearest, prefix, sample

__all__ = ["Candidate", "best_that_fits", "candidates", "shrink_index"]

K, QUERIES = 10, 200


@dataclass(frozen=True, slots=True)
class Candidate:
    """What an index could be shrunk to.

    Attributes:
        dims: dims of its vectors.
        dtype: of its vectors.
        bytes: estimated size of all files.
        recall: share of the 10 true neighbours that exact search in it finds.
        queries: rows of the index behind `recall`, each left out of its own answer.
    """

    dims: int
    dtype: str
    bytes: int
    recall: float
    queries: int


def candidates(
    index: Index, dims: Sequence[int], dtypes: Sequence[str], progress: Progress = silent
) -> list[Candidate]:
    """Measure what `index` could be shrunk to: each of `dims` in each dtype, by rising dims."""
    corpus = index.corpus
    corpus.check_neighbours()
    live = corpus.live_rows
    rows, k = live[sample(len(live), QUERIES)], min(K, len(live) - 1)
    truth = row_neighbours(corpus.vectors, rows, k, lambda x: x, live)
    specs = [IndexSpec((d,), dtype=t) for d, t in product(check_dims(dims, corpus.dim), dtypes)]
    found = []
    for done, spec in enumerate(specs, 1):
        (d,), dtype = spec.dims, spec.dtype

        def change(x: NDArray[np.floating], d: int = d, dtype: str = dtype) -> NDArray[np.floating]:
            return prefix(x, d).astype(dtype)

        recall = recall_at_k(row_neighbours(corpus.vectors, rows, k, change, live), truth)
        found.append(Candidate(d, dtype, _bytes(corpus, d, dtype), recall, len(rows)))
        progress("measuring", done, len(specs))
    return found


def best_that_fits(found: Sequence[Candidate], size: int) -> Candidate:
    """The candidate of at most `size` bytes with the best recall; of equals, the smallest."""
    fitting = [c for c in found if c.bytes <= size]
    if not fitting:
        least = min(found, key=lambda c: c.bytes)
        smallest = f"The smallest, {least.dims} dims in {least.dtype}, takes about {least.bytes:,}"
        hint = f"{smallest} and keeps {least.recall:.1%} of the neighbours."
        raise ConfigError(f"Nothing fits in {size:,} bytes.", hint)
    return max(fitting, key=lambda c: (c.recall, -c.bytes))


def shrink_index(
    index: Index, out: str | Path, dims: int, dtype: str | None = None, progress: Progress = silent
) -> Index:
    """Write a new index: the first `dims` dims of the vectors of `index`, normalised, as `dtype`.

    Items, heads and kinds of index come along; tuned plans do not.

    Raises:
        ConfigError: dims that are not between 1 and those of the vectors, or another dtype.
        IndexFolderError: `out` exists, or another process builds it.
    """
    corpus = index.corpus
    check_dims([dims], corpus.dim)
    old, manifest, out = corpus.collection, corpus.manifest, expanded(out)
    kinds = _kinds(corpus, dims)
    factories = {str(d): kind for d, kind in kinds.items()}
    spec = IndexSpec(tuple(kinds), "Flat", factories, dtype or manifest.dtype)
    heads = {d: head for d, head in old.heads.items() if d <= dims}
    transform = old.transform.cut(dims)
    with CollectionWriter.open(out, dims, spec.dtype) as writer:
        count = len(corpus.live_rows)
        rows = (prefix(stored, dims) for _, stored in corpus.live_chunks(dims))
        store = writer.write_vectors(count, rows, progress)
        writer.write_items(_items(corpus, dims))
        writer.write_heads(heads)
        writer.write_skipped(old.skipped)
        if left_out := left_out_of(index.folder, manifest):
            write_left_out(writer.folder, left_out)
        writer.write_transform(transform)
        factory = write_indexes(writer, store, spec, progress)
        rows_dim = transform.rows_dim if transform.rows_dim > dims else 0
        writer.publish(replace(
            manifest, dim=dims, count=count, deleted=0, dims=spec.dims,
            dtype=spec.dtype, factory=factory, plans={},
            rows_dim=rows_dim, files={}, created=now(), versions=package_versions(),
            format=1, generation=0, parts=(), trained=0, joined="",
        ))  # fmt: skip
    return Index.open(out)


def _items(corpus: Corpus, dims: int) -> pa.Table:
    """The items, with the norm of the raw prefix in place of that of the raw vector."""
    norms = corpus.collection.norms[corpus.live_rows]
    for rows, stored in corpus.live_chunks(dims):
        norms[rows] *= np.linalg.norm(stored.astype(np.float32), axis=1)
    table = corpus.items.table()
    if corpus.alive is not None:
        table = table.take(pa.array(corpus.live_rows))
    column = table.schema.get_field_index("norm")
    return table.set_column(column, "norm", pa.array(norms, pa.float32()))


def _kinds(corpus: Corpus, dims: int) -> dict[int, str]:
    """The kind of every remaining prefix; `dims` gets that of the nearest, if FAISS takes it."""
    old = {d: corpus.manifest.factory[str(d)] for d in corpus.dims}
    kinds = {d: kind for d, kind in old.items() if d < dims}
    kinds[dims] = old[nearest(corpus.dims, dims)] if old else "Flat"
    fewer = corpus.alive is not None  # too few may be left to train a kind
    for d in kinds if fewer else (dims,):
        try:
            check_kinds(IndexSpec((d,), kinds[d]), len(corpus.live_rows))
        except ConfigError:  # PQ16 takes only multiples of 16 dims
            kinds[d] = "Flat"
    return kinds


def _bytes(corpus: Corpus, dims: int, dtype: str) -> int:
    """Estimated size of the index that `shrink_index` would write."""
    count, files = len(corpus.live_rows), corpus.manifest.files
    kinds = _kinds(corpus, dims)
    derived = {VECTORS, DELETED, SUFFIX, CODES, STEPS, *(prefix_file(d) for d in corpus.dims)}
    size = sum(record.bytes for name, record in files.items() if Path(name).name not in derived)
    size += count * dims * np.dtype(dtype).itemsize
    for d, kind in kinds.items():
        if kind != SCAN:
            like = nearest(corpus.dims, d)
            known = files.get(prefix_file(like))
            size += known.bytes * d // like if known else 4 * count * d
    if count >= CLUSTERED_FROM:
        size += count * (4 * len(kinds) + (coded_dims(tuple(kinds), dims) or 0))
    return size
