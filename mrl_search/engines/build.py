"""From stored vectors to FAISS indexes: one for each prefix length, its ids the rows of the vectors.

An index is a FAISS factory string; the metric is the inner product of unit vectors, which is the cosine.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.clusters import find_centroids, inverted_file
from mrl_search.engines.spec import SCAN, IndexSpec
from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.files import write_atomically
from mrl_search.store.manifest import MANIFEST, VECTORS, prefix_file, read_manifest, write_manifest
from mrl_search.store.rows import blocks
from mrl_search.vectors import check_dims, prefix

__all__ = ["add_prefix_indexes", "build_prefix_index", "check_factories"]

FEWEST, PER_CLUSTER = (
    1 << 17,
    40,
)  # rows to train with at least, and for each cluster: FAISS wants 39
CAREFUL = (
    64  # centroids that a graph of them looks at: a vector in the wrong cluster is hard to find
)
MANY = 1024  # clusters from which on they are found in two levels

Progress = Callable[[int, int, int], None]


def build_prefix_index(x: NDArray[np.float32], factory: str) -> faiss.Index:
    """Build a FAISS index of `x`, (n, dims) float32 rows of unit length; row i gets id i.

    Raises:
        ConfigError: FAISS does not know `factory`, or cannot use it at this length or with so few rows.
    """
    index = _untrained(x.shape[1], factory)
    _train(index, x, factory)
    _add(index, x, factory)
    return index


def add_prefix_indexes(
    folder: Path, spec: IndexSpec, progress: Progress | None = None
) -> dict[str, str]:
    """Derive the prefix indexes of `spec` from the stored vectors of `folder`, which may still be a building folder.

    Where the folder is complete already, its manifest is written again to include them.

    Args:
        folder: holds `vectors.npy`.
        spec: prefix lengths and factory string; its `dtype` plays no part here.
        progress: is told (dims, rows indexed so far, rows in all).

    Returns:
        prefix length to factory string, as a manifest holds it.

    Raises:
        ConfigError: a prefix longer than the vectors, or a factory string that FAISS cannot use.
        IndexFolderError: there are no vectors.
        MrlSearchError: the disk is full.
    """
    try:
        vectors = np.asarray(np.load(folder / VECTORS, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError) as error:
        raise IndexFolderError(
            f"{folder / VECTORS} cannot be read: {error}", "Build the index again."
        ) from error
    dims = check_dims(spec.dims, full=vectors.shape[1])
    factory = {str(d): spec.factory_of(d, len(vectors)) for d in dims}
    for d in dims:
        if (kind := factory[str(d)]) == SCAN:
            continue
        index = _untrained(d, kind)
        if not index.is_trained:
            _train(index, prefix(vectors[_sample(index, len(vectors)), :d], d), kind)
        for rows in blocks(len(vectors), d):
            _add(index, prefix(vectors[rows, :d], d), kind)
            if progress:
                progress(d, rows.stop, len(vectors))
        _write(index, folder / prefix_file(d))
    from mrl_search.search.exact.sieve import write_sieve

    if not (folder / MANIFEST).exists():
        write_sieve(folder, vectors, dims)
        return factory
    manifest = read_manifest(folder)
    write_sieve(folder, vectors, check_dims({*map(int, manifest.factory), *dims}))
    write_manifest(
        folder,
        replace(
            manifest,
            dims=check_dims({*manifest.dims, *dims}),
            factory={**manifest.factory, **factory},
        ),
    )
    return factory


def check_factories(spec: IndexSpec, count: int) -> None:
    """See that FAISS knows the indexes that `spec` asks for, before `count` vectors are made for them.

    Raises:
        ConfigError: a factory string that it cannot use.
    """
    for d in spec.dims:
        if (kind := spec.factory_of(d, count)) != SCAN:
            _untrained(d, kind)


def _sample(index: faiss.Index, count: int) -> NDArray[np.int64] | slice:
    """Rows to train with: all, or as many as are of use, drawn with a fixed seed."""
    clustered = inverted_file(index)
    wanted = max(FEWEST, PER_CLUSTER * clustered.nlist if clustered else 0)
    if count <= wanted:
        return slice(None)
    return np.sort(np.random.default_rng(0).choice(count, wanted, replace=False))


def _untrained(dims: int, factory: str) -> faiss.Index:
    try:
        index = faiss.index_factory(dims, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise ConfigError(
            f"FAISS makes no index of {dims} dims from {factory!r}: {_reason(error)}.",
            "For example Flat, SQ8, HNSW32, or IVF1024,Flat.",
        ) from error
    if isinstance(index, faiss.IndexRefine):
        raise ConfigError(
            f"{factory!r} would keep the vectors a second time.",
            "Leave the refinement out: candidates are scored from the stored vectors.",
        )
    return index


def _train(index: faiss.Index, x: NDArray[np.float32], factory: str) -> None:
    try:
        _place_clusters(index, x)
        index.train(x)
    except RuntimeError as error:
        raise ConfigError(
            f"{len(x):,} vectors cannot train an index {factory!r}: {_reason(error)}.",
            "Use fewer clusters, or Flat.",
        ) from error


def _place_clusters(index: faiss.Index, x: NDArray[np.float32]) -> None:
    """Give an inverted file of many clusters its centroids; FAISS trains the rest, and few clusters, or other quantizers, altogether."""
    clustered = inverted_file(index)
    if clustered is None or not MANY <= clustered.nlist <= len(x) // 8:
        return
    quantizer = faiss.downcast_index(clustered.quantizer)
    if not isinstance(quantizer, faiss.IndexFlat | faiss.IndexHNSWFlat):
        return
    if isinstance(index, faiss.IndexPreTransform):
        chain: Any = index.chain
        for i in range(chain.size()):
            step = faiss.downcast_VectorTransform(chain.at(i))
            if not step.is_trained:
                step.train(x)
            x = step.apply(x)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efConstruction, quantizer.hnsw.efSearch = CAREFUL, CAREFUL
    quantizer.add(find_centroids(x, clustered.nlist))


def _add(index: faiss.Index, x: NDArray[np.float32], factory: str) -> None:
    try:
        index.add(x)
    except RuntimeError as error:
        raise ConfigError(
            f"FAISS cannot fill an index {factory!r}: {_reason(error)}.",
            "Leave IDMap out: ids are the rows.",
        ) from error


def _write(index: faiss.Index, path: Path) -> None:
    with write_atomically(path) as temporary:
        faiss.write_index(index, str(temporary))


def _reason(error: RuntimeError) -> str:
    """The last words of a FAISS exception, which begins with C++ signatures and paths."""
    return str(error).rpartition(": ")[2].strip()
