"""An index folder, opened: vectors, items and manifest at once, the FAISS index of a prefix when it is first asked for."""

from functools import cached_property
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.clusters import inverted_file
from mrl_search.engines.effort import search_parameters
from mrl_search.engines.probe import SAMPLE, Probe
from mrl_search.engines.spec import SCAN
from mrl_search.errors import ConfigError, DataError, IndexFolderError
from mrl_search.store.items import Items
from mrl_search.store.manifest import MANIFEST, Manifest, check_file, prefix_file, read_manifest
from mrl_search.store.rows import EmbeddingSet
from mrl_search.store.transform import rotate
from mrl_search.vectors import nearest, rows_of

__all__ = ["Index", "newest_index"]

COPIED = "x4fs"  # in the factory of what FAISS copies into memory anyway: mapped, too, it would take twice its size
RESERVOIR = 11  # FAISS's way to keep a shortlist that single queries are answered fastest with


class Index:
    """What is searched: an `EmbeddingSet` on disk and the FAISS indexes of its prefixes.

    Args:
        folder: the index folder.
        embeddings: what is in it.
    """

    def __init__(self, folder: Path, embeddings: EmbeddingSet) -> None:
        self.folder = folder
        self.embeddings = embeddings
        self._prefix_indexes: dict[int, faiss.Index] = {}
        self._probes: dict[int, Probe] = {}
        self._parameters: dict[tuple[int, int, int], Any] = {}

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an index folder. Vectors are memory-mapped, prefix indexes are loaded when first used.

        Raises:
            IndexFolderError: not an index, unfinished, newer, or with a file missing, cut short or altered.
        """
        return cls(folder, EmbeddingSet.open(folder))

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def manifest(self) -> Manifest:
        return self.embeddings.manifest

    @property
    def items(self) -> Items:
        return self.embeddings.items

    @property
    def dim(self) -> int:
        """Length of the stored vectors."""
        return self.manifest.dim

    @property
    def rows_dim(self) -> int:
        """Length of the rows that queries come with, as the encoder or the user gives them; at least `dim`."""
        return self.manifest.rows_dim or self.dim

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefix lengths that can begin a plan, ascending."""
        return tuple(sorted(map(int, self.manifest.factory)))

    def prefix_index(self, dims: int) -> faiss.Index:
        """The FAISS index of a prefix, loaded once; flat ones are memory-mapped. Only search it: `add` on a mapped index aborts.

        Raises:
            ConfigError: this index has no such prefix, or scans it.
            IndexFolderError: its file is missing, cut short, altered, or of another index.
        """
        if dims not in self._prefix_indexes:
            if self.scans(dims):
                raise ConfigError(
                    f"{self.folder} has no FAISS index at {dims} dims: it scans that prefix."
                )
            self._prefix_indexes[dims] = index = self._load(dims)
            if Probe.fits(index):
                some = np.unique(np.linspace(0, len(self) - 1, SAMPLE).astype(np.int64))
                self._probes[dims] = Probe(index, self.embeddings.prefix(dims, some))
        return self._prefix_indexes[dims]

    def ask(
        self,
        x: NDArray[np.float32],
        k: int,
        effort: int = 0,
        allowed: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """What the FAISS index of a prefix says: scores and ids, each (n, k), in its own order.

        Args:
            x: (n, dims) float32 rows of unit length; `dims` is a prefix that has an index.
            k: how many answers; a row ends with id -1 where there are fewer.
            effort: how hard an approximate index looks, as a `Stage` has it; 0: as hard as is usual.
            allowed: ids that may be answers; for flat indexes.
        """
        dims = x.shape[1]
        coarse: Any = self.prefix_index(dims)
        if dims in self._probes:
            return self._probes[dims].search(x, k, effort)
        if allowed is not None:
            return coarse.search(x, k, params=search_parameters(coarse, k, effort, allowed))  # type: ignore[no-any-return]
        key = (dims, k, effort)
        if key not in self._parameters:  # making them takes a tenth of a search
            self._parameters[key] = search_parameters(coarse, k, effort)
        return coarse.search(x, k, params=self._parameters[key])  # type: ignore[no-any-return]

    @cached_property
    def sieve(self) -> Any:  # noqa: ANN401
        """What proofs and exact search know of every vector without reading it.

        Raises:
            IndexFolderError: a file is missing, cut short, or altered.
        """
        from mrl_search.search.exact.sieve import Sieve

        return Sieve.open(self.folder, self.manifest)

    def scans(self, dims: int) -> bool:
        """Whether a plan that begins at `dims` compares the stored vectors one after another: the prefix has no FAISS index."""
        self.check_dims(dims)
        return self.manifest.factory[str(dims)] == SCAN

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError, naming the nearest, unless there is an index of this prefix length."""
        if dims not in self.dims:
            if not self.dims:
                raise ConfigError(
                    f"{self.folder} has no prefix index yet.", self.manifest.rebuild(self.folder)
                )
            near = nearest(self.dims, dims)
            raise ConfigError(
                f"This index has dims {', '.join(map(str, self.dims))}; there is no {dims}. Nearest: {near}.",
                f"Search at {near}, or build an index with --dims {','.join(map(str, sorted({*self.dims, dims})))}.",
            )

    def to_space(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Bring query rows as the encoder or the user gives them into the space of the stored vectors: rotated where those are, and cut.

        Args:
            rows: (n, rows_dim) numbers; a single vector becomes one row.

        Returns:
            (n, dim) float32, of any length: what `search` takes.

        Raises:
            DataError: rows of another length, or not finite.
        """
        rows = rows_of(rows)
        if rows.shape[1] != self.rows_dim:
            maker = (
                "Queries must come from what made these vectors"
                if self.manifest.own_vectors
                else "Embed the query with the index's model"
            )
            raise DataError(
                f"The query has {rows.shape[1]} numbers; {self.folder} takes {self.rows_dim}.",
                f"{maker}.",
            )
        if self.embeddings.rotation is not None:
            return rotate(rows, self.embeddings.rotation)
        return np.ascontiguousarray(rows[:, : self.dim])

    def check_takes_images(self) -> None:
        """Raise IndexFolderError for an index of own vectors: no model here makes a query for it from an image."""
        if self.manifest.own_vectors:
            raise IndexFolderError(
                f"{self.folder} holds vectors of your own: no model here can embed an image for it.",
                "Search it with: mrl-search query --vector QUERY.npy",
            )

    def check_encoder(self, fingerprint: str) -> None:
        """Refuse queries of another model: their vectors lie in another space, and every answer would be noise.

        Raises:
            IndexFolderError: `fingerprint` is not that of the model which built this index.
        """
        self.check_takes_images()
        own = self.manifest
        if fingerprint != own.fingerprint:
            raise IndexFolderError(
                f"{self.folder} was built with the model {own.encoder} ({own.fingerprint[:12]}); this is another one ({fingerprint[:12]}).",
                "Use the model that built it, with --model where it lies elsewhere now, or build the index again with this one.",
            )

    def _load(self, dims: int) -> faiss.Index:
        path = check_file(self.folder, self.manifest, prefix_file(dims))
        try:
            index = faiss.read_index(
                str(path),
                0 if COPIED in self.manifest.factory[str(dims)] else faiss.IO_FLAG_MMAP_IFC,
            )
        except RuntimeError as error:
            raise IndexFolderError(
                f"{path} is not a FAISS index that can be read here.",
                self.manifest.rebuild(self.folder),
            ) from error
        if (index.d, index.ntotal) != (dims, len(self)):
            raise IndexFolderError(
                f"{path} holds {index.ntotal:,} vectors of {index.d} dims, not {len(self):,} of {dims}.",
                self.manifest.rebuild(self.folder),
            )
        clustered = inverted_file(index)
        if isinstance(clustered, faiss.IndexIVFFastScan):
            clustered.implem = RESERVOIR
        return index


def newest_index(root: Path = Path("indexes")) -> Path:
    """The index folder in `root` that was created last; folders whose manifest cannot be read are passed over.

    Raises:
        IndexFolderError: there is none.
    """
    created = {}
    for path in root.glob(f"*/{MANIFEST}"):
        if not path.parent.name.startswith("."):
            try:
                created[path.parent] = read_manifest(path.parent).created
            except IndexFolderError:
                continue
    if not created:
        raise IndexFolderError(
            f"There is no index in {root}.",
            f"Build one with: mrl-search build-index SRC --out {root / 'NAME'}",
        )
    return max(created, key=lambda folder: (created[folder], folder.name))
