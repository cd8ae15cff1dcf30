"""Building, saving and loading prefix indexes; the one place that tells their kinds apart."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import KNOWN, Mask, PrefixIndex, explained
from mrl_search.engines.clustered import (
    SAMPLE,
    ClusteredIndex,
    find_centroids,
    inverted_file,
    steps_of,
)  # fmt: skip
from mrl_search.engines.fill import ListFiller, train_codes
from mrl_search.engines.flat import FAISS, FlatIndex, PanoramaIndex, inner_index
from mrl_search.engines.graph import GraphIndex, NSGIndex
from mrl_search.engines.kernels import spread
from mrl_search.engines.scan import ScanIndex, TailedIndex
from mrl_search.engines.spec import PANORAMA, SCAN, IndexSpec
from mrl_search.engines.trial import ENDLESS
from mrl_search.errors import ConfigError
from mrl_search.files import OpenFile, reading, recordable, write_atomically
from mrl_search.progress import Progress, silent
from mrl_search.store.intact import check_file, damaged
from mrl_search.store.manifest import Manifest, prefix_file
from mrl_search.store.rows import VectorStore
from mrl_search.vectors import l2_normalize, prefix, sample

__all__ = [
    "Pass", "build_indexes", "extend_indexes", "index_of", "load_index", "search_random",
]  # fmt: skip

FEWEST, PER_CLUSTER = 1 << 16, 40  # rows to train with: at least, and for each cluster
CAREFUL = 64  # efSearch of a graph over centroids while building
MANY = 1024  # clusters from which centroids are found in two levels
LEVELS = 32  # of a Panorama index
CACHED = 2048  # rows that a thread normalises before it adds them
FEW = 1000  # random vectors on which a kind is tried
FEWEST_NSG = 200  # FAISS may end the process when it links fewer vectors
CLUSTERED = "IVF"  # in a kind that rows can be added to cheaply
COPIED = "x4fs"  # kinds that FAISS copies into memory; mapping them would take twice the size


Pass: TypeAlias = Callable[[slice, NDArray[np.float32]], None]
"""Takes all rows once, in order: their place, and (rows, dim) float32 of unit norm."""


def build_indexes(
    folder: Path, store: VectorStore, spec: IndexSpec, passes: Sequence[Pass] = (),
    progress: Progress = silent,
) -> dict[str, str]:  # fmt: skip
    """Build the prefix indexes of `spec` and write them to `folder`: the kind of each prefix.

    The store is read once; `passes` are what else takes all rows on the way.
    """
    from threadpoolctl import threadpool_limits  # a search does not need it

    kinds = {d: spec.factory_of(d, len(store)) for d in spec.dims}
    with threadpool_limits(1, "blas"):  # rows are spread over threads here
        indexes = {d: _trained(store, d, kind) for d, kind in kinds.items() if kind != SCAN}
        _fill(indexes, kinds, store, passes, progress)
    for d, index in indexes.items():
        with write_atomically(folder / prefix_file(d)) as file:
            faiss.write_index(index, FAISS.PyCallbackIOWriter(file.write))
    return {str(d): kind for d, kind in kinds.items()}


def _fill(
    indexes: Mapping[int, faiss.Index], kinds: Mapping[int, str], store: VectorStore,
    passes: Sequence[Pass], progress: Progress,
) -> None:  # fmt: skip
    """Add all rows to the indexes, some thousand at a time."""
    count = len(store)
    fillers = {d: ListFiller(one, count) for d, one in indexes.items() if ListFiller.fits(one)}
    for rows, stored in store.chunks():
        unit = np.empty(stored.shape, np.float32)
        spread(len(unit), partial(_take, fillers, rows.start, stored, unit))
        for d in indexes.keys() - fillers.keys():
            with explained(f"FAISS cannot fill an index of kind {kinds[d]!r}", "Leave IDMap out."):
                indexes[d].add(prefix(unit, d))
        for add in passes:
            add(rows, unit)
        progress("indexing", rows.stop, count)
    for filler in fillers.values():
        filler.finish()


def _take(
    fillers: Mapping[int, ListFiller], first: int, stored: NDArray[np.floating],
    unit: NDArray[np.float32], part: slice,
) -> None:  # fmt: skip
    """Normalise a part of the `stored` rows, of which `first` is the first, and fill lists."""
    for start in range(part.start, part.stop, CACHED):
        rows = slice(start, min(start + CACHED, part.stop))
        unit[rows] = l2_normalize(stored[rows])
        place = slice(first + rows.start, first + rows.stop)
        for dims, filler in fillers.items():
            filler.take(place, prefix(unit[rows], dims))


def search_random(dims: int, kind: str, count: int) -> None:
    """Build an index of a kind over some random vectors, at most `count`, and search it.

    Raises:
        ConfigError: FAISS cannot build it or search it, or it has too few vectors.
    """
    index, size = _untrained(dims, kind), min(FEW, count)
    while True:
        rng = np.random.default_rng(0)
        x = l2_normalize(rng.standard_normal((size, dims), dtype=np.float32))
        try:
            _train(index, kind, x, quick=True)
            break
        except ConfigError:
            if size == count or size > FEWEST:
                raise
            index, size = _untrained(dims, kind), min(8 * size, count)  # some need more
    with explained(f"FAISS cannot fill an index of kind {kind!r}", "Leave IDMap out."):
        index.add(x[:FEW])
    with explained(f"FAISS cannot save an index {kind!r} for {dims} dims", KNOWN):
        index = FAISS.deserialize_index(FAISS.serialize_index(index))
    size = min(size, FEW)
    tried = index_of(index, kind, 0, VectorStore(x[:FEW]))
    half = Mask(np.arange(size) % 2 == 0) if tried.filters else None
    for effort in {0, *tried.efforts[:1], *tried.efforts[-1:]}:
        for mask in {None, half}:
            for queries in (x[:1], x[:20]):
                scores, ids = tried.search(queries, min(10, size), effort, mask)
                good = (ids >= -1) & (ids < size) & ~np.isnan(scores)
                if not good.all() or (ids < 0).all():
                    message = f"FAISS finds nothing in an index {kind!r} for {dims} dims."
                    raise ConfigError(message, KNOWN)


def load_index(folder: Path, manifest: Manifest, store: VectorStore, dims: int) -> PrefixIndex:
    """Load the index of one prefix; flat ones are memory-mapped.

    Rows of the store that it does not have are added to clusters in memory, and compared one by
    one beside other kinds.

    Raises:
        IndexFolderError: its file is missing, cut short, altered, or of another index.
    """
    kind = manifest.factory[str(dims)]
    if kind == SCAN:
        return ScanIndex(store, dims)
    path = check_file(folder, manifest, prefix_file(dims))
    file, count = OpenFile(path), min(manifest.indexed, len(store))
    tail = store.between(count, len(store)) if count < len(store) else None
    copied = COPIED in kind or (tail is not None and CLUSTERED in kind)
    index = _read(folder, manifest, file, path, 0 if copied else faiss.IO_FLAG_MMAP_IFC)
    if (index.d, index.ntotal) != (dims, count):
        found = f"{index.ntotal:,} vectors of {index.d} dims"
        message = f"{path} has {found}, not {count:,} of {dims}."
        raise damaged(folder, manifest, message)
    if tail is not None and inverted_file(index) is not None:
        for _, stored in tail.chunks(dims):
            index.add(prefix(stored, dims))
        tail = None
    expected = manifest.files[prefix_file(dims)].bytes

    def check() -> None:
        if file.size < expected:  # reading beyond its end would kill the process
            raise damaged(folder, manifest, f"{path} was cut short while it was open.")

    opened = index_of(index, kind, expected, store if tail is None else store.between(0, count))
    opened.check = check
    return opened if tail is None else TailedIndex(opened, tail.prefix(dims))


def _read(
    folder: Path, manifest: Manifest, file: OpenFile, path: Path, flags: int
) -> faiss.Index:  # fmt: skip
    try:
        with reading(path):
            name = str(path) if str(path) == recordable(path) else f"/dev/fd/{file.handle}"
            return faiss.read_index(name, flags)
    except RuntimeError as error:
        message = f"{path} is not a FAISS index that can be read."
        raise damaged(folder, manifest, message) from error


def extend_indexes(
    folder: Path, manifest: Manifest, tail: VectorStore, out: Path, progress: Progress = silent
) -> list[str]:
    """Write the prefix indexes of a folder to `out` with the rows of `tail` added, not trained.

    Returns:
        the names of the files.

    Raises:
        ConfigError: a kind that takes no more rows.
    """
    names = []
    for done, (key, kind) in enumerate(manifest.factory.items(), 1):
        if kind == SCAN:
            continue
        dims, name = int(key), prefix_file(int(key))
        path = check_file(folder, manifest, name)
        index = _read(folder, manifest, OpenFile(path), path, 0)
        with explained(f"FAISS cannot add to an index of kind {kind!r}", "Build it again."):
            for _, stored in tail.chunks(dims):
                index.add(prefix(stored, dims))
        with write_atomically(out / name) as file:
            faiss.write_index(index, FAISS.PyCallbackIOWriter(file.write))
        names.append(name)
        progress("folding", done, len(manifest.factory))
    return names


def index_of(index: faiss.Index, kind: str, ram_bytes: int, store: VectorStore) -> PrefixIndex:
    """A FAISS index as a `PrefixIndex` of its kind."""
    if inverted_file(index) is not None:
        rows = np.unique(np.linspace(0, len(store) - 1, SAMPLE).astype(np.int64))
        return ClusteredIndex(index, kind, ram_bytes, lambda: store.prefix(index.d, rows))
    if isinstance(inner_index(index), faiss.IndexHNSW):
        return GraphIndex(index, kind, ram_bytes)
    if isinstance(inner_index(index), faiss.IndexNSG):
        return NSGIndex(index, kind, ram_bytes)
    if kind == PANORAMA:
        return PanoramaIndex(index, kind, ram_bytes, store)
    return FlatIndex(index, kind, ram_bytes)


def _untrained(dims: int, kind: str) -> faiss.Index:
    if kind == PANORAMA:
        return FAISS.IndexFlatIPPanorama(dims, min(LEVELS, dims))  # type: ignore[no-any-return]
    message = f"FAISS has no index {kind!r} for {dims} dims"
    with explained(message, KNOWN):
        index = faiss.index_factory(dims, kind, faiss.METRIC_INNER_PRODUCT)
    if isinstance(index, faiss.IndexRefine):
        hint = "Leave the refinement out: plans score candidates from the stored vectors."
        raise ConfigError(f"An index {kind!r} would keep the vectors a second time.", hint)
    return index


def _trained(store: VectorStore, dims: int, kind: str) -> faiss.Index:
    index = _untrained(dims, kind)
    if ENDLESS in kind and len(store) < FEWEST_NSG:
        raise ConfigError(f"{len(store):,} vectors are too few for an index {kind!r}.", KNOWN)
    if not index.is_trained:
        clustered = inverted_file(index)
        wanted = max(FEWEST, PER_CLUSTER * clustered.nlist if clustered else 0)
        rows = slice(None) if len(store) <= wanted else sample(len(store), wanted)
        _train(index, kind, prefix(store.rows(rows, dims), dims))
    return index


def _train(index: faiss.Index, kind: str, x: NDArray[np.float32], *, quick: bool = False) -> None:
    """Train an index on the rows `x`; `quick`: with any of them as centroids."""
    message = f"{len(x):,} vectors cannot train an index {kind!r}"
    with explained(message, "Use fewer clusters, or Flat."):
        _place_centroids(index, x, quick)
        if quick or not train_codes(index, x):
            index.train(x)


def _place_centroids(index: faiss.Index, x: NDArray[np.float32], quick: bool) -> None:
    """Place the centroids of an inverted file with many clusters; FAISS trains all the rest."""
    clustered = inverted_file(index)
    fits = clustered and MANY <= clustered.nlist <= len(x) // (1 if quick else 8)
    if not fits:
        return
    quantizer = faiss.downcast_index(clustered.quantizer)
    if not isinstance(quantizer, faiss.IndexFlat | faiss.IndexHNSWFlat):
        return
    for step in steps_of(index):
        if not step.is_trained:
            step.train(x)
        x = step.apply(x)
    if isinstance(quantizer, faiss.IndexHNSW):
        quantizer.hnsw.efConstruction, quantizer.hnsw.efSearch = CAREFUL, CAREFUL
    quantizer.add(x[: clustered.nlist] if quick else find_centroids(x, clustered.nlist))
