"""What a search runs over: a collection, an index for each of its prefixes, and the sieve."""

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Mask, PrefixIndex
from mrl_search.engines.build import load_index
from mrl_search.errors import ConfigError, DataError, IndexFolderError
from mrl_search.search.exact.sieve import Sieve
from mrl_search.store.collection import Collection
from mrl_search.store.items import Items
from mrl_search.store.manifest import CODES, Manifest
from mrl_search.store.rows import Ids
from mrl_search.vectors import nearest, rows_of

__all__ = ["Corpus"]


class Corpus:
    """An opened index folder, or its first `rows`. Several threads may search at the same time.

    Attributes:
        place: keeps a temporary folder as long as it is searched.
        ready: plans that were prepared, by plan and k (see `search.run`).
        backgrounds: what scores are by chance, by prefix length; learnt when first used.
    """

    place: object = None

    def __init__(self, folder: Path, collection: Collection, rows: int | None = None) -> None:
        self.folder = folder
        self.collection = collection
        self.dims = tuple(sorted(map(int, collection.manifest.factory)))
        self.ready: dict[Any, Any] = {}
        self.backgrounds: dict[int, Any] = {}
        store = collection.vectors
        self.vectors = store if rows is None else store.between(0, rows)
        indexed = collection.manifest.count if self.manifest.engine else self.manifest.indexed
        self.indexed = min(indexed, len(self.vectors))
        self._indexes: dict[int, PrefixIndex] = {}
        self._remote: Any = None
        self._lock = Lock()

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open an index folder: vectors are mapped, prefix indexes are loaded when first used."""
        return cls(folder, Collection.open(folder))

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def base(self) -> "Corpus":
        """The rows that the prefix indexes have; the corpus itself, if they have all."""
        if self.indexed == len(self):
            return self
        return Corpus(self.folder, self.collection, self.indexed)

    @cached_property
    def alive(self) -> Mask | None:
        """The rows that are not deleted; None: all."""
        alive = self.collection.alive
        return None if alive is None else Mask(alive[: len(self)], ())

    @cached_property
    def live_rows(self) -> Ids:
        """The rows that are not deleted, ascending."""
        return np.arange(len(self)) if self.alive is None else self.alive.ids

    @property
    def manifest(self) -> Manifest:
        """What made the vectors."""
        return self.collection.manifest

    @property
    def items(self) -> Items:
        """What the vectors stand for."""
        return self.collection.items

    @property
    def dim(self) -> int:
        """Dims of a stored vector."""
        return self.manifest.dim

    @property
    def rows_dim(self) -> int:
        """Dims of a raw row, as the encoder or the user gives it."""
        return self.collection.transform.rows_dim

    def prefix_index(self, dims: int) -> PrefixIndex:
        """The index of a prefix, loaded once."""
        found = self._indexes.get(dims)
        if found is not None:
            return found
        self.check_dims(dims)
        with self._lock:
            if dims not in self._indexes:
                self._indexes[dims] = self._load(dims)
            return self._indexes[dims]

    def _load(self, dims: int) -> PrefixIndex:
        if not self.manifest.engine:
            return load_index(self.folder, self.manifest, self.vectors, dims)
        from mrl_search.engines.milvus_note import check_rows, opened
        from mrl_search.engines.remote import RemoteIndex

        if self._remote is None:
            self._remote = opened(self.folder, self.manifest)
        check = partial(check_rows, self.folder, self._remote)
        return RemoteIndex(self._remote, dims, self.items, check)

    @cached_property
    def sieve(self) -> Sieve | None:
        """What exact search knows of every vector without reading it, if it was built."""
        if CODES not in self.manifest.files or self.base is not self:
            return None
        return Sieve.open(self.folder, self.manifest)

    def live_chunks(self, dims: int | None = None) -> Iterator[tuple[slice, NDArray[np.floating]]]:
        """The rows that are not deleted, some at a time (see `VectorStore.chunks`)."""
        return self.vectors.chunks(dims, None if self.alive is None else self.alive.ids)

    def check_neighbours(self) -> None:
        """Raise DataError unless there are two items: one alone has no neighbour."""
        count = len(self.live_rows)
        if count < 2:
            what = "one vector, which has no neighbour" if count else "no vector"
            raise DataError(f"{self.folder} holds {what}.", "Build an index of at least two.")

    def check_dims(self, dims: int) -> None:
        """Raise ConfigError, naming the nearest, unless there is an index of this prefix."""
        if dims in self.dims:
            return
        if not self.dims:
            hint = self.manifest.rebuild(self.folder)
            raise ConfigError(f"{self.folder} has no prefix index.", hint)
        near, known = nearest(self.dims, dims), ", ".join(map(str, self.dims))
        message = f"This index has dims {known}; there is no {dims}. Nearest: {near}."
        more = ",".join(map(str, sorted({*self.dims, dims})))
        raise ConfigError(message, f"Search at {near}, or build an index with --dims {more}.")

    def to_space(self, rows: NDArray[np.floating]) -> NDArray[np.float32]:
        """Raw query rows (n, rows_dim) rotated and cut as the stored ones: (n, dim) float32.

        A single vector becomes one row; norms are not changed to 1.

        Raises:
            DataError: rows of other dims, or not finite.
        """
        rows = rows_of(rows)
        if rows.shape[1] != self.rows_dim:
            own = self.manifest.own_vectors
            maker = "the model that made these vectors" if own else "its own model"
            message = f"The query has {rows.shape[1]} dims; {self.folder} takes {self.rows_dim}."
            raise DataError(message, f"Embed queries with {maker}.")
        return self.collection.transform(rows)

    def check_takes_images(self) -> None:
        """Raise IndexFolderError for own vectors: no model here can embed a picture for them."""
        if self.manifest.own_vectors:
            why = "no model here can embed a picture for it"
            hint = f"Search it with: mrl-search query --vector QUERY.npy --index {self.folder}"
            raise IndexFolderError(f"{self.folder} holds your own vectors: {why}.", hint)

    def check_takes_words(self) -> None:
        """Raise IndexFolderError unless words and pictures keep their cosines in this index."""
        self.check_takes_images()
        if not self.collection.transform.orthogonal:
            message = f"The axes of {self.folder} are fitted to pictures; they do not fit words."
            hint = "To search by words, build the index with --axes pca or --axes none."
            raise IndexFolderError(message, hint)

    def check_encoder(self, fingerprint: str) -> None:
        """Raise IndexFolderError for another model, whose vectors lie in another space."""
        self.check_takes_images()
        own = self.manifest
        if fingerprint != own.fingerprint:
            built = f"{self.folder} was built with the model {own.encoder}"
            hint = "Name the model that built it with --model, or build the index again."
            other = f"this model is {fingerprint[:12]}"
            raise IndexFolderError(f"{built} ({own.fingerprint[:12]}); {other}.", hint)
