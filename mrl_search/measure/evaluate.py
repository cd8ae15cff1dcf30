"""Accuracy of every prefix on the pictures of a source."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mrl_search.encoders.base import Encoder
from mrl_search.encoders.registry import load_encoder
from mrl_search.errors import DataError, Skipped
from mrl_search.images.sources import Source, open_source
from mrl_search.index import Index
from mrl_search.measure.accuracy import (
    PrefixAccuracy,
    copies_found,
    prefix_outcomes,
    thumbnail_recall,
)  # fmt: skip
from mrl_search.measure.copies import CopyProtocol, changed_copies, thumbnails
from mrl_search.measure.queries import QuerySet, temporary_index
from mrl_search.progress import Progress, silent
from mrl_search.search.cascade import TradeOff, trade_off

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model is worth on some pictures.

    Attributes:
        prefixes: accuracy of each prefix.
        thumbnail_recall_at_1: instance recall@1 of comparing 8x8 thumbnails; None where it was not
            asked for, or pictures of the corpus are gone.
        skipped: pictures that could not be read.
        adaptive: accuracy against dims of adaptive classification; empty without labels.
        doubt: why the labels are no classes; accuracy is then not measured.
    """

    prefixes: list[PrefixAccuracy]
    thumbnail_recall_at_1: float | None
    skipped: Sequence[Skipped] = ()
    adaptive: Sequence[TradeOff] = ()
    doubt: str = ""


def evaluate(
    index: Index | None,
    source: Source | str | Path,
    encoder: Encoder | None = None,
    *,
    k: int = 20,
    instance: CopyProtocol | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Measure every prefix by searching the pictures of `source` in `index`.

    A picture is left out of its own answer.

    Args:
        index: what is searched; None: the pictures themselves.
        source: pictures with labels, as for `Index.build`.
        encoder: the model; default: that of the index, or the bundled one.
        k: neighbours that vote.
        instance: also search with copies of the pictures, changed like this: is the original of
            each found first?
        progress: called with what is being done, how far, and of how much.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: no labels and no `instance`, or no picture of `source` is in the index.
    """
    source = open_source(str(source)) if isinstance(source, str | Path) else source
    if index is None:
        encoder = encoder or load_encoder("bundled")
        dims: tuple[int, ...] = ()
    else:
        encoder = encoder or index.encoder
        index.corpus.check_encoder(encoder.fingerprint)
        dims = encoder.dims[-1:]
    with temporary_index(source, encoder, dims, progress) as own:
        corpus = (index or own).corpus
        queries = QuerySet.of_corpus(own.corpus)
        if index is not None:
            queries = QuerySet.of_collection(own.corpus.collection, source.name, corpus)
        n = len(queries.labelled)
        if not n and instance is None:
            raise DataError(
                queries.doubt or f"The pictures of {source.name} have no labels.",
                "Sort them into one folder a class, name others with --labels, or add --instance.",
            )
        copies = recall = None
        if instance is not None:
            wanted = queries.paths_in(corpus)
            copies, small = changed_copies(source, encoder, set(wanted), instance, progress)
            every, hashes = thumbnails(corpus, progress)
            if len(every) == len(corpus.live_rows):
                recall = thumbnail_recall(every, hashes, small, copies.originals)
        found = {d: prefix_outcomes(corpus, queries, d, k) for d in corpus.dims}
        prefixes = [
            PrefixAccuracy.of(
                d, n, linear, hits, None if copies is None else copies_found(corpus, copies, d)
            )
            for d, (linear, hits) in found.items()
        ]
        trades: list[TradeOff] = []
        if votes := [hits for _, hits in found.values() if hits is not None]:
            confidence = np.column_stack([hits.confidence for hits in votes])
            right = np.column_stack([hits.vote for hits in votes])
            trades = trade_off(confidence, right, corpus.dims)
        return Evaluation(prefixes, recall, own.corpus.collection.skipped, trades, queries.doubt)
