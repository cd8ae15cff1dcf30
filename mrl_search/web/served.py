"""Indexes that a server keeps warm: one for each name, with the queries it has embedded."""

import contextlib
import copy
import secrets
import threading
from collections import OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mrl_search.duplicates.decisions import read_decisions
from mrl_search.encoders.base import Encoder, TextEncoder
from mrl_search.encoders.words import Words
from mrl_search.errors import BrokenImage, DataError, IndexFolderError, ModelError, MrlSearchError
from mrl_search.images.decode import opened
from mrl_search.index import Index
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.request import SearchRequest
from mrl_search.search.run import answer
from mrl_search.store.manifest import MANIFEST
from mrl_search.vectors import nearest
from mrl_search.web.layout import points
from mrl_search.web.told import duplicates, label_numbers

__all__ = ["Busy", "Sent", "Served", "check_pixels", "rows_of", "serve_folders"]

KEPT = 2_000  # embedded queries that are remembered
PIXELS = 50_000_000  # of a picture that is sent
WAITING = 16  # pictures that may wait for the model


class Busy(MrlSearchError):
    """Too many pictures wait for the model."""


class Sent(NamedTuple):
    """A picture that a request brought: the content of a file, and what errors call it."""

    content: bytes
    name: str = "The picture"


class Served:
    """An index that answers many requests.

    Args:
        folder: where it is; the model loads when the first picture comes.
        name: how requests call it.
        model: as for `Index.open`.
    """

    def __init__(self, folder: Path, name: str, model: str | Encoder | None = None) -> None:
        self.name, self.index = name, Index.open(folder, model)
        self._manifest = self.index.folder / MANIFEST
        self._seen = self._signature()
        self._lock = threading.Lock()
        self._model = threading.Lock()
        self._waiting = threading.Semaphore(WAITING)
        self._queries: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._reads: tuple[bool, bool] | None = None
        self._maps: dict[tuple[int, int], bytes] = {}
        self._looking: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._copies: dict[str, tuple[Any, dict[str, Any]]] = {}

    def _signature(self) -> tuple[int, int, int]:
        stat = self._manifest.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def now(self) -> Index:
        """The index in its newest generation; what is returned stays in it.

        Raises:
            IndexFolderError: the folder is gone.
        """
        try:
            newest = self._signature()
        except OSError as error:
            message = f"The folder of the index {self.name} is gone."
            raise IndexFolderError(message, "Build it again, and restart the server.") from error
        if newest != self._seen:
            with self._lock:
                if newest != self._seen:
                    index = copy.copy(self.index)
                    index.refresh()
                    self.index, self._seen = index, newest
        return self.index

    def warm(self) -> None:
        """Load prefixes, kernels, ids and the model, and learn what scores arise by chance."""
        self.index.warm()
        rows_of(self.index, [])
        corpus = self.index.corpus
        if len(corpus):
            row = corpus.vectors.rows(corpus.live_rows[:1])
            for dims in reversed(corpus.dims):
                with contextlib.suppress(DataError):  # most score alike
                    answer(corpus, row, SearchRequest.of(dims, 1, expected=True))
        self.reads()

    def reads(self) -> tuple[bool, bool]:
        """Whether its model embeds pictures here, and words; it is loaded for that."""
        if self.index.manifest.own_vectors:
            return False, False
        with self._model:
            if self._reads is None:
                try:
                    words = isinstance(self.index.encoder, TextEncoder)
                except (IndexFolderError, ModelError):  # what is there can be searched without it
                    self._reads = False, False
                else:
                    self._reads = True, words and self.index.corpus.collection.transform.orthogonal
            return self._reads

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        """One of the places in which requests wait for the model.

        Raises:
            Busy: there is none.
        """
        if not self._waiting.acquire(blocking=False):
            raise Busy("Too many pictures wait for the model.", "Try again in a moment.")
        try:
            yield
        finally:
            self._waiting.release()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the model for oneself; the others wait.

        Raises:
            Busy: too many wait already.
        """
        with self._place(), self._model:
            yield

    def embed(self, query: Sent | Words) -> NDArray[np.float32]:
        """A picture or words in the space of the index: (dim,) float32; one at a time.

        Raises:
            Busy: too many wait already.
            DataError: a picture that cannot be decoded, or of more than 50 megapixels.
        """
        if isinstance(query, Words):
            with self.turn():
                row: NDArray[np.float32] = self.now().embed([query]).rows[0]
                return row
        from mrl_search.encoders.embed import embed_pictures

        check_pixels(query.content)
        with self._place():
            index = self.now()
            try:  # a slow file keeps nobody else from the model
                pixels, _ = index.encoder.preprocessing.decode(query.content)
            except BrokenImage as error:
                raise DataError(f"{query.name}: {error.message}.", error.hint) from error
            with self._model:
                raw = embed_pictures(index.encoder, pixels[None])
            found: NDArray[np.float32] = index.corpus.to_space(raw)[0]
            return found

    def remember(self, row: NDArray[np.float32]) -> str:
        """Keep an embedded query; returns its name."""
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._queries[name] = row
            if len(self._queries) > KEPT:
                self._queries.popitem(last=False)
        return name

    def recall(self, name: str) -> NDArray[np.float32]:
        """An embedded query.

        Raises:
            DataError: it is forgotten.
        """
        with self._lock:
            row = self._queries.get(name)
            if row is None:
                raise DataError("This server does not know the picture any more.", "Give it again.")
            self._queries.move_to_end(name)
        return row

    def map(self, dims: int, ids: Sequence[int] | None = None) -> tuple[bytes, list[str]]:
        """The points of `GET …/map` as bytes (see the API), and the labels they name."""
        index = self.now()
        corpus = index.corpus
        dims = nearest(sorted({*corpus.dims, corpus.dim}), dims)
        labels, numbers = label_numbers(corpus.items)
        if ids is not None:
            return points(corpus, rows_of(index, ids), dims, numbers), labels
        key = (corpus.manifest.generation, dims)
        if key not in self._maps:
            self._maps = {k: v for k, v in self._maps.items() if k[0] == key[0]}
            self._maps[key] = points(corpus, corpus.live_rows, dims, numbers)
        return self._maps[key], labels

    def duplicates(self, level: str, progress: Progress = silent) -> dict[str, Any]:
        """Groups of copies; looked for once a generation and after decisions."""
        with self._looking[level]:
            index = self.now()
            key = (index.generation, read_decisions(index.folder))
            known = self._copies.get(level)
            if known is None or known[0] != key:
                known = self._copies[level] = (key, duplicates(index, level, progress))
            return known[1]


def rows_of(index: Index, ids: Sequence[int]) -> NDArray[np.int64]:
    """Rows of the living items with these ids.

    Raises:
        DataError: there is no such item.
    """
    corpus = index.corpus
    known, order = _sorted_ids(corpus)
    wanted = np.asarray(ids, np.int64)
    at = np.searchsorted(known, wanted)
    found = at < len(known)
    found[found] = known[at[found]] == wanted[found]
    if not found.all():
        missing = int(wanted[~found][0])
        raise DataError(f"There is no item {missing}.", "It may have been removed: search again.")
    return order[at]


def check_pixels(picture: bytes) -> None:
    """Raise DataError for a picture that is too large to be decoded for a stranger."""
    try:
        with opened(picture) as image:
            many, told = image.width * image.height, f"{image.width:,} x {image.height:,} pixels"
    except Image.DecompressionBombError:
        many, told = PIXELS + 1, "far too many pixels"
    except Exception:  # decoding says what is wrong with it
        return
    if many > PIXELS:
        raise DataError(f"The picture has {told}.", "At most 50 megapixels are taken.")


def _sorted_ids(corpus: Corpus) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ids of living items, ascending, and the row of each; kept with the corpus."""
    kept: Any = corpus.backgrounds.get(-1)
    if kept is None:
        rows = corpus.live_rows
        ids = corpus.items.all_ids[rows]
        order = np.argsort(ids)
        kept = corpus.backgrounds[-1] = (ids[order], rows[order])
    known: NDArray[np.int64]
    known, places = kept
    return known, places


def serve_folders(folders: Sequence[Path]) -> dict[str, Served]:
    """Open indexes; each is called as its folder, or `NAME-2` where two are called alike."""
    served: dict[str, Served] = {}
    for folder in folders:
        plain = Path(folder).resolve().name
        name, number = plain, 1
        while name in served:
            number += 1
            name = f"{plain}-{number}"
        served[name] = Served(folder, name)
    return served
