"""Accuracy of every prefix on a source of pictures."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrl_search.encoders.base import Encoder
from mrl_search.engines import Index
from mrl_search.engines.spec import FLAT_UP_TO, SCAN, IndexSpec
from mrl_search.errors import DataError, Skipped
from mrl_search.images.sources import Source, open_source
from mrl_search.index import build_index
from mrl_search.measure.accuracy import (
    PrefixAccuracy,
    accuracy_per_prefix,
    adaptive_accuracy,
    thumbnail_recall,
)
from mrl_search.measure.copies import CopyProtocol, changed_copies, thumbnails
from mrl_search.progress import Progress, silent
from mrl_search.search.cascade import TradeOff

__all__ = ["Evaluation", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy of each prefix, and images that could not be read.

    Instance recall@1 of 8x8 thumbnails is None where not asked for, or where pictures of the corpus are gone; `adaptive` is empty where not
    asked for.
    """

    prefixes: list[PrefixAccuracy]
    thumbnail_recall_at_1: float | None
    skipped: Sequence[Skipped] = ()
    adaptive: Sequence[TradeOff] = ()


def evaluate(
    source: Source | str,
    encoder: Encoder,
    index: Index | None = None,
    *,
    k: int = 20,
    instance: CopyProtocol | None = None,
    adaptive: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy per prefix of searching the images of `source` in `index`, or in themselves, each left out of its own answer.

    With `instance`, changed copies of those images that are in the corpus are searched, too, and must find their original first. With
    `adaptive`, what it gains and costs to read longer prefixes only where the vote is not sure.

    Raises:
        IndexFolderError: the index was built with another model.
        DataError: no labels and no `instance`, or no image of `source` is in the corpus.
    """
    if isinstance(source, str):
        source = open_source(source)
    if index:
        index.check_encoder(encoder.fingerprint)
    with tempfile.TemporaryDirectory(prefix="mrl-search-") as folder:
        exact = "auto" if len(source.paths) <= FLAT_UP_TO else SCAN
        spec = IndexSpec((encoder.dims[-1],) if index else encoder.dims, exact)
        own = build_index(source, encoder, Path(folder) / "queries", spec, progress)
        corpus = index or own
        trades = adaptive_accuracy(corpus, own.embeddings, k) if adaptive else ()
        if instance is None:
            return Evaluation(
                accuracy_per_prefix(corpus, own.embeddings, k), None, own.embeddings.skipped, trades
            )
        known = set(corpus.embeddings.hashes)
        wanted = [
            path
            for path, h in zip(own.embeddings.paths, own.embeddings.hashes, strict=True)
            if h in known
        ]
        if not wanted:
            raise DataError(
                f"No image of {source.name} is in {corpus.folder}, so no copy can find its original.",
                "Evaluate images that are in the index.",
            )
        copies, copied = changed_copies(source, encoder, set(wanted), instance, progress)
        prefixes = accuracy_per_prefix(corpus, own.embeddings, k, copies)
        small, hashes = thumbnails(corpus, progress)
        whole = len(small) == len(corpus)
        thumbnail = thumbnail_recall(small, hashes, copied, copies.originals) if whole else None
        return Evaluation(prefixes, thumbnail, own.embeddings.skipped, trades)
