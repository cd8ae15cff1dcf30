"""`Index`, the facade, on which all commands and the page are built: open a collection and ask."""

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from mrl_search.changing import Changing
from mrl_search.encoders.words import Words
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import FileError, IndexFolderError, ModelError
from mrl_search.files import TemporaryFolder, expanded
from mrl_search.progress import Progress, silent
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import others_than
from mrl_search.search.plan import Plan
from mrl_search.search.request import Cutoff, SearchRequest
from mrl_search.search.results import BatchHits, Hits, Queries
from mrl_search.search.run import answer, search
from mrl_search.store.generations import store_plan
from mrl_search.store.items import Items
from mrl_search.store.manifest import Manifest
from mrl_search.store.rows import Ids

if TYPE_CHECKING:
    from PIL import Image

    from mrl_search.encoders.base import Access, Encoder
    from mrl_search.images.sources import Source
    from mrl_search.search.classify import Ballot, Learned
    from mrl_search.search.goal import Goal
    from mrl_search.search.tune import Tuned
    from mrl_search.store.vector_files import VectorSource

__all__ = ["Index", "Query"]

SHORTLIST = 200  # of adaptive classification, or 20 times k where that is more
Model: TypeAlias = "str | Encoder | None"
Query: TypeAlias = "str | Path | bytes | Image.Image | Words | NDArray[Any]"
"""A picture as path, file content, PIL image or (h, w, 3) uint8 pixels; `Words`; or a vector."""


class Index(Changing):
    """A collection of pictures or vectors that can be searched, also in several threads.

    Not in a forked child, as FAISS is not: open the index again there.

    Args:
        corpus: the opened index folder.
        model: the model that embeds queries; default: the one that built the index.
        access: what opening the model may do.

    Example:
        >>> import numpy as np
        >>> rows = np.random.default_rng(0).standard_normal((100, 32)).astype("float32")
        >>> index = Index.from_vectors(rows)
        >>> hits = index.search(rows[7], k=3)
        >>> hits[0].id, round(hits[0].score, 3)
        (7, 1.0)
    """

    def __init__(self, corpus: Corpus, model: Model = None, access: "Access | None" = None) -> None:
        self.corpus = corpus
        self._model, self._access, self._lock = model, access, Lock()
        self._opened: Encoder | None = None

    @classmethod
    def open(cls, folder: str | Path, model: Model = None, access: "Access | None" = None) -> Self:
        """Open an index folder.

        Args:
            folder: where it is.
            model: the model that built the index, if it is no longer where it was.
            access: what opening the model may do: download weights, and on which device it runs.

        Raises:
            IndexFolderError: not an index, unfinished, newer, or with a damaged file.
        """
        return cls(Corpus.open(expanded(folder)), model, access)

    @classmethod
    def build(
        cls, source: "Source | str | Path", out: str | Path, *, model: Model = None,
        spec: IndexSpec | None = None, axes: str | None = None, access: "Access | None" = None,
        progress: Progress = silent,
    ) -> Self:  # fmt: skip
        """Embed the pictures of `source` and index every prefix, in the new folder `out`.

        An unfinished build of the same pictures by the same model is continued.

        Args:
            source: a folder of pictures, a data set on disk, `hub:OWNER/NAME`, or an open source.
            out: the new index folder.
            model: its name for `load_encoder`, or an encoder; default: `general` if installed.
            spec: prefixes, kinds of index and dtype; default: all prefixes of the model.
            axes: `none`, `pca`, `views` or `labels` (see `mrl_search.axes`); default: the model's.
            access: what opening the model may do.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: a prefix that the model does not have, or an unknown kind of index.
            DataError: nothing in `source` can be read.
            IndexFolderError: `out` exists, or another process builds it.
            ModelError: there is no such model.
        """
        from mrl_search.building import build_from_pictures
        from mrl_search.encoders.registry import encoder_of
        from mrl_search.images.sources import open_source

        out, encoder = expanded(out), encoder_of(model, access)
        source = open_source(str(source)) if isinstance(source, str | Path) else source
        build_from_pictures(source, out, encoder, spec, axes, progress)
        return cls.open(out, model, access)

    @classmethod
    def from_vectors(
        cls, vectors: "VectorSource | NDArray[np.floating] | str | Path",
        out: str | Path | None = None, *, items: str | Path | None = None,
        rotate: str | None = None, spec: IndexSpec | None = None, progress: Progress = silent,
    ) -> Self:  # fmt: skip
        """Index vectors of your own.

        Args:
            vectors: an (n, dim) array, or where they are on disk (see `open_vectors`).
            out: the new index folder; default: a temporary one, removed with this object.
            items: a Parquet file with one row a vector: path, label, and any other columns.
            rotate: `pca` stores vectors along their principal axes, so that a prefix keeps as much
                as it can; default: as they are.
            spec: prefixes, kinds of index and dtype; default: 8, 16, 32, … dims.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: a prefix longer than the vectors, or an unknown rotation or kind of index.
            DataError: vectors or items that cannot be used.
            IndexFolderError: `out` exists, or another process builds it.
        """
        from mrl_search.building import build_from_vectors

        temporary = tempfile.mkdtemp(prefix="mrl-search-") if out is None else None
        out = Path(temporary or "") / "index" if out is None else expanded(out)
        try:
            build_from_vectors(vectors, out, items, rotate, spec, progress)
            index = cls.open(out)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True) if temporary else None
            raise
        if temporary:
            index.corpus.place = TemporaryFolder(temporary)
        return index

    def __len__(self) -> int:
        return self.manifest.alive

    def __repr__(self) -> str:
        return f"Index({str(self.folder)!r}, {len(self):,} items, dims {self.dims})"

    @property
    def dims(self) -> tuple[int, ...]:
        """Prefix lengths that can begin a plan, ascending."""
        return self.corpus.dims

    @property
    def items(self) -> Items:
        """The items: paths, labels and other columns."""
        return self.corpus.items

    @property
    def manifest(self) -> Manifest:
        """What made the index."""
        return self.corpus.manifest

    @property
    def encoder(self) -> "Encoder":
        """The model that embeds queries, or its exported graph; loaded when first used.

        Raises:
            IndexFolderError: an index of own vectors, or of another model.
            ModelError: the model cannot be opened.
        """
        self.corpus.check_takes_images()
        from mrl_search.encoders.base import Access
        from mrl_search.encoders.registry import encoder_of, recorded_encoder

        with self._lock:
            if self._opened is None:
                access, own = self._access or Access(), self.manifest
                if self._model:
                    encoder = encoder_of(self._model, access)
                else:
                    encoder = recorded_encoder(own.model, own.fingerprint, access)
                self.corpus.check_encoder(encoder.fingerprint)
                self._opened = encoder
            return self._opened

    def warm(self) -> None:
        """Load all prefix indexes now, as a server wants."""
        for dims in self.dims:
            self.corpus.prefix_index(dims)

    def embed(
        self, queries: "Sequence[Query] | NDArray[Any]", *, skip_broken: bool = False
    ) -> Queries:
        """Pictures, words and vectors as queries in the space of the index.

        Args:
            queries: pictures and `Words` to embed, or vectors as the model or the user gives them;
                an (n, dim) array is n vectors.
            skip_broken: leave out pictures that cannot be read, and list them in `skipped`.

        Raises:
            DataError: a picture that cannot be read, or a vector that does not fit.
            IndexFolderError: pictures for an index of own vectors, or of another model; words
                where its axes fit pictures alone.
            ModelError: words for a model that embeds pictures alone.
        """
        from mrl_search.encoders.embed import embed_queries, vectors_of
        from mrl_search.encoders.texts import check_reads_words

        if (vectors := vectors_of(queries)) is not None:
            rows = self.corpus.to_space(vectors)
            return Queries([f"vector {i}" for i in range(len(rows))], rows)
        encoder, start = self.encoder, time.perf_counter()
        if any(isinstance(q, Words) and q.phrases for q in queries):
            check_reads_words(encoder)
            self.corpus.check_takes_words()
        names, rows, skipped, hashes = embed_queries(queries, encoder, skip_broken)
        ms = (time.perf_counter() - start) * 1e3
        return Queries(names, self.corpus.to_space(rows), skipped, ms, hashes)

    @overload
    def search(
        self, query: "str | Path | bytes | Image.Image | Words", k: int = ..., *,
        plan: Plan | str | int = ..., where: str | Sequence[str] = ..., ids: Ids | None = ...,
        cutoff: Cutoff = ..., explain: bool = ..., not_itself: bool = ..., expected: bool = ...,
    ) -> Hits: ...  # fmt: skip

    @overload
    def search(
        self, query: list[Any] | tuple[Any, ...], k: int = ..., *,
        plan: Plan | str | int = ..., where: str | Sequence[str] = ..., ids: Ids | None = ...,
        cutoff: Cutoff = ..., explain: bool = ..., not_itself: bool = ..., expected: bool = ...,
    ) -> BatchHits: ...  # fmt: skip

    @overload
    def search(
        self, query: NDArray[Any], k: int = ..., *,
        plan: Plan | str | int = ..., where: str | Sequence[str] = ..., ids: Ids | None = ...,
        cutoff: Cutoff = ..., explain: bool = ..., not_itself: bool = ..., expected: bool = ...,
    ) -> Any: ...  # noqa: ANN401 # fmt: skip

    def search(
        self, query: "Query | Sequence[Query]", k: int = 10, *, plan: Plan | str | int = Plan.AUTO,
        where: str | Sequence[str] = (), ids: Ids | None = None, cutoff: Cutoff = None,
        explain: bool = False, not_itself: bool = False, expected: bool = False,
    ) -> Hits | BatchHits:  # fmt: skip
        """The `k` items most like a picture, words or a vector.

        Args:
            query: one of them (see `Query`), which gives `Hits`; or a list of them, an
                (n, dim) array, or (n, h, w, 3) pixels, which give `BatchHits`.
            k: answers wanted.
            plan: how to search: a `Plan`, text such as `8:200,64:50,1024`, or one prefix length.
            where: conditions on columns, such as `label=cat`.
            ids: rows that may be answers.
            cutoff: smallest cosine of an answer; `auto`: what unrelated items hardly reach.
            explain: whether `BatchHits.explanation` has rank and score at every prefix.
            not_itself: leave out items with the content of the picture.
            expected: add how many unrelated items would score as high, `Hit.expected`.

        Raises:
            ConfigError: a plan that this index cannot run, or a condition it does not understand.
            DataError: a query that cannot be read, or no item that meets the conditions.
        """
        request = SearchRequest.of(plan, k, where, ids, cutoff, explain, not_itself, expected)
        queries, single = self._queries(query)
        hits = self.answer(queries, request)
        return hits[0] if single else hits

    def answer(self, queries: Queries, request: SearchRequest) -> BatchHits:
        """Answer a request for queries that are embedded already."""
        find = others_than(queries) if request.not_itself else search
        return answer(self.corpus, queries.rows, request, find)

    def classify(
        self, query: "Query | Sequence[Query]", k: int = 20, *, plan: Plan | str | int = Plan.AUTO,
        where: str | Sequence[str] = (), ids: Ids | None = None, ballot: "Ballot | None" = None,
        adaptive: bool = False, cutoff: Cutoff = None,
    ) -> Any:  # noqa: ANN401 # fmt: skip
        """The label that the `k` nearest items vote for: a `Vote`, or a list for several queries.

        Args:
            query: as for `search`.
            k: neighbours that vote.
            plan: as for `search`; `auto` is the plan that was tuned for `class`.
            where: as for `search`.
            ids: as for `search`.
            ballot: how they vote; default: softmax weights.
            adaptive: stop at the prefix where the vote is sure (see `Index.tune`).
            cutoff: as for `search`; the label is None where no neighbour is left.

        Raises:
            ConfigError: as `search`; or `adaptive` without thresholds.
            DataError: as `search`; or no item has a label.
        """
        from mrl_search.search.classify import classify

        request = SearchRequest.of(plan, k, where, ids, cutoff)
        queries, single = self._queries(query)
        votes = classify(self.corpus, queries.rows, request, ballot, adaptive)
        return votes[0] if single else votes

    def tune(
        self, goal: "str | Goal" = "recall", target: float = 0.99, *, k: int | None = None,
        queries: int | None = None, max_ram: int | None = None, progress: Progress = silent,
    ) -> "Tuned":  # fmt: skip
        """Find the cheapest plan that keeps `target` of what exact search gives, and store it.

        `search` and `classify` then use it by default.

        Args:
            goal: `recall` (the nearest neighbours), `class` (the right label), or a `Goal`.
            target: share of what exact search gives.
            k: answers wanted; default: 10, for `class` 20.
            queries: items to search with; default: 1,000, up to 4,000 for a target above .996.
            max_ram: bytes that the first stage may keep in memory.
            progress: called with what is being done, how far, and of how much.

        Raises:
            ConfigError: an unknown goal, or no plan reaches the target.
            DataError: too few items, or no labels.
        """
        from mrl_search.search.goal import USES, Goal, queries_to_tune
        from mrl_search.search.tune import tune

        if isinstance(goal, str):
            goal = Goal.named(goal, self.corpus, queries_to_tune(self.corpus, queries, target), k)
        found = tune(self.corpus, goal, target, max_ram, progress)
        self._store(USES[goal.name], found.record(goal, target))
        return found

    def learn_thresholds(
        self, k: int = 20, give: float | None = None, *, plan: Plan | str | None = None,
        ballot: "Ballot | None" = None,
    ) -> "Learned":  # fmt: skip
        """Learn when adaptive classification may stop, and store it for `classify`.

        Args:
            k: neighbours that vote.
            give: share of all answers that stopping early may lose; default: .01.
            plan: stages to stop after; default: every prefix, with a shortlist of 200 or 20 k.
            ballot: how they vote.

        Raises:
            ConfigError: a plan with one stage.
            DataError: too few labelled items.
        """
        from mrl_search.search.cascade import GIVE
        from mrl_search.search.classify import Ballot, learn_thresholds

        chosen = Plan.of(plan or Plan.ladder(self.dims, max(SHORTLIST, 20 * k)))
        ballot, give = replace(ballot or Ballot(), k=k), GIVE if give is None else give
        learned = learn_thresholds(self.corpus, chosen, ballot, give, self.held_out())
        self._store("adaptive", learned.record(chosen, give, ballot))
        return learned

    def _queries(self, query: "Query | Sequence[Query]") -> tuple[Queries, bool]:
        """The queries, embedded, and whether there is a single one rather than a list."""
        if isinstance(query, np.ndarray):
            if query.ndim == 1:
                return self.embed(query[None]), True
            single = query.ndim == 3 and query.dtype == np.uint8
        else:
            single = isinstance(query, str | bytes) or not isinstance(query, Sequence)
        return self.embed([query] if single else query), single  # type: ignore[list-item,arg-type]

    def held_out(self) -> Ids | None:
        """Rows of items that the model was not trained on, where that is known."""
        from mrl_search.encoders.registry import training_of
        from mrl_search.training.split import digest, held_out_rows

        own, model = self.corpus.collection, self._model or self.manifest.model
        try:
            pictures = digest(own.labels.tolist(), own.hashes.tolist())
            if isinstance(model, str) and training_of(model).get("pictures") != pictures:
                return None  # it need not be loaded for that
            paths, encoder = own.paths.tolist(), self.encoder
        except (IndexFolderError, FileError, ModelError):  # vectors are used without a model, too
            return None
        return held_out_rows(own.labels.tolist(), own.hashes.tolist(), paths, encoder)

    def _store(self, use: str, plan: Mapping[str, object]) -> None:
        manifest = store_plan(self.folder, use, {**plan, "count": len(self)}, self.manifest)
        self.corpus.collection = replace(self.corpus.collection, manifest=manifest)
