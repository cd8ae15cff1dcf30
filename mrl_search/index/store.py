"""An index folder, opened: vectors, items and manifest at once, the FAISS index of a prefix when it is first asked for."""

from functools import cached_property
from pathlib import Path
from typing import Self

import faiss
import pyarrow as pa

from mrl_search.config import SCAN
from mrl_search.embeddings import EmbeddingSet
from mrl_search.errors import ConfigError, IndexFolderError
from mrl_search.index.sieve import Sieve
from mrl_search.manifest import MANIFEST, Manifest, check_file, prefix_file, read_manifest
from mrl_search.vectors import nearest

__all__ = ["Index", "newest_index"]


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
    def items(self) -> pa.Table:
        return self.embeddings.items

    @property
    def dim(self) -> int:
        """Length of the stored vectors."""
        return self.manifest.dim

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
                raise ConfigError(f"{self.folder} has no FAISS index at {dims} dims: it scans that prefix.")
            self._prefix_indexes[dims] = self._load(dims)
        return self._prefix_indexes[dims]

    @cached_property
    def sieve(self) -> Sieve:
        """What proofs and exact search know of every vector without reading it.

        Raises:
            IndexFolderError: a file is missing, cut short, or altered.
        """
        return Sieve.open(self.folder, self.manifest)

    def scans(self, dims: int) -> bool:
        """Whether a plan that begins at `dims` compares the stored vectors one after another: the prefix has no FAISS index."""
        self.check_dims(dims)
        return self.manifest.factory[str(dims)] == SCAN

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError, naming the nearest, unless there is an index of this prefix length."""
        if dims not in self.dims:
            if not self.dims:
                raise ConfigError(f"{self.folder} has no prefix index yet.", self.manifest.rebuild(self.folder))
            near = nearest(self.dims, dims)
            raise ConfigError(
                f"This index has dims {', '.join(map(str, self.dims))}; there is no {dims}. Nearest: {near}.",
                f"Search at {near}, or build an index with --dims {','.join(map(str, sorted({*self.dims, dims})))}.",
            )

    def check_encoder(self, fingerprint: str) -> None:
        """Refuse queries of another model: their vectors lie in another space, and every answer would be noise.

        Raises:
            IndexFolderError: `fingerprint` is not that of the model which built this index.
        """
        own = self.manifest
        if fingerprint != own.fingerprint:
            raise IndexFolderError(
                f"{self.folder} was built with the model {own.encoder} ({own.fingerprint[:12]}); this is another one ({fingerprint[:12]}).",
                f"Use the model that built it, --model {own.model}, or build an index with this one.",
            )

    def _load(self, dims: int) -> faiss.Index:
        path = check_file(self.folder, self.manifest, prefix_file(dims))
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise IndexFolderError(f"{path} is not a FAISS index that can be read here.", self.manifest.rebuild(self.folder)) from error
        if (index.d, index.ntotal) != (dims, len(self)):
            raise IndexFolderError(
                f"{path} holds {index.ntotal:,} vectors of {index.d} dims, not {len(self):,} of {dims}.", self.manifest.rebuild(self.folder)
            )
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
        raise IndexFolderError(f"There is no index in {root}.", f"Build one with: mrl-search build-index SRC --out {root / 'NAME'}")
    return max(created, key=lambda folder: (created[folder], folder.name))
