"""How good each prefix is: linear heads, k-NN vote, average precision, and instance recall, each with n and a 95% interval."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import DataError
from mrl_search.metrics import average_precision, mean_interval, wilson_interval
from mrl_search.search import search, search_others, vote
from mrl_search.search.cascade import TradeOff, trade_off
from mrl_search.search.plan import Plan
from mrl_search.store.rows import EmbeddingSet

__all__ = [
    "Copies",
    "PrefixAccuracy",
    "accuracy_per_prefix",
    "adaptive_accuracy",
    "thumbnail_recall",
]

RANKS = 10  # that average precision looks at


@dataclass(frozen=True, eq=False, slots=True)
class Copies:
    """Changed copies of corpus images: `rows` (n, dim) float32 from the encoder, and the content hash of each one's original."""

    rows: NDArray[np.float32]
    originals: NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class PrefixAccuracy:
    """One prefix: shares between 0 and 1, None where not asked for or not to be had.

    Attributes:
        dims: prefix length.
        n: labelled queries behind the two accuracies.
        linear_top1: the linear head of the prefix is right.
        knn_top1: the vote of the nearest neighbours is right; an image is never its own neighbour.
        map_at_10: how many of the ten nearest have the query's label, and how far in front (`mean_average_precision`).
        instance_recall_at_1: a changed copy finds its original first among the whole corpus.
        n_instance: copies behind it.
        ci95: 95% interval of each share, by its name: Wilson's, for `map_at_10` that of a mean.
    """

    dims: int
    n: int
    linear_top1: float | None
    knn_top1: float | None
    map_at_10: float | None
    instance_recall_at_1: float | None
    n_instance: int
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def accuracy_per_prefix(
    index: Index, queries: EmbeddingSet, k: int = 20, copies: Copies | None = None
) -> list[PrefixAccuracy]:
    """Measure every prefix of `index` with the images of `queries`: the corpus itself, or full-length rows of the same encoder.

    Raises:
        DataError: the queries have no labels, and there are no copies: nothing can be measured.
    """
    labelled = np.flatnonzero([label is not None for label in queries.labels])
    corpus_labelled = any(label is not None for label in index.embeddings.labels)
    if not len(labelled) and copies is None:
        raise DataError(
            f"The images of {queries.manifest.source} have no labels.",
            "Sort them into one folder a class, or add --instance.",
        )
    hashes = queries.hashes[labelled]
    truth = queries.labels[labelled]
    vectors = np.asarray(queries.vectors[labelled], dtype=np.float32)
    if queries is not index.embeddings:
        vectors = index.to_space(vectors)
    copied = None if copies is None else index.to_space(copies.rows)
    results = []
    for d in index.dims:
        right: dict[str, NDArray[np.bool_]] = {}
        precision: NDArray[np.float64] | None = None
        if queries.has_head(d, truth):
            right["linear_top1"] = queries.linear_predictions(d)[labelled] == truth
        if len(labelled) and corpus_labelled:
            hits = search_others(index, vectors, hashes, Plan.single(d, max(k, RANKS)))
            right["knn_top1"] = (
                np.array(
                    [v.label for v in vote(hits.first(k), index.embeddings.labels)], dtype=object
                )
                == truth
            )
            ids = hits.ids[:, :RANKS]
            precision = average_precision(
                (index.embeddings.labels[ids] == truth[:, None]) & (ids >= 0)
            )
        if copies is not None and copied is not None and len(copied):
            first = search(index, copied, Plan.single(d, 1)).ids[:, 0]
            right["instance_recall_at_1"] = (index.embeddings.hashes[first] == copies.originals) & (
                first >= 0
            )
        shares = {name: float(r.mean()) for name, r in right.items()}
        intervals = {name: wilson_interval(int(r.sum()), len(r)) for name, r in right.items()}
        if precision is not None:
            shares["map_at_10"] = float(precision.mean())
            intervals["map_at_10"] = mean_interval(
                shares["map_at_10"], float(precision.std()), len(precision)
            )
        results.append(
            PrefixAccuracy(
                d,
                len(labelled),
                shares.get("linear_top1"),
                shares.get("knn_top1"),
                shares.get("map_at_10"),
                shares.get("instance_recall_at_1"),
                0 if copies is None else len(copies.rows),
                intervals,
            )  # fmt: skip
        )
    return results


def adaptive_accuracy(index: Index, queries: EmbeddingSet, k: int = 20) -> list[TradeOff]:
    """What adaptive classification by the votes of `k` neighbours gains and costs along the prefixes of `index`; queries as above.

    Raises:
        DataError: fewer than two of the queries have labels, or none of the corpus.
    """
    labelled = np.flatnonzero([label is not None for label in queries.labels])
    if len(labelled) < 2 or all(label is None for label in index.embeddings.labels):
        raise DataError(
            "Adaptive classification wants labels, of pictures and of the corpus.",
            "Sort them into one folder a class.",
        )
    vectors = np.asarray(queries.vectors[labelled], dtype=np.float32)
    if queries is not index.embeddings:
        vectors = index.to_space(vectors)
    confidence, correct = (
        np.empty((len(labelled), len(index.dims))),
        np.empty((len(labelled), len(index.dims)), dtype=bool),
    )
    for stage, d in enumerate(index.dims):
        votes = vote(
            search_others(index, vectors, queries.hashes[labelled], Plan.single(d, k)),
            index.embeddings.labels,
        )
        confidence[:, stage] = [v.confidence for v in votes]
        correct[:, stage] = (
            np.array([v.label for v in votes], dtype=object) == queries.labels[labelled]
        )
    return trade_off(confidence, correct, index.dims)


def thumbnail_recall(
    corpus: NDArray[np.uint8],
    hashes: NDArray[np.object_],
    copies: NDArray[np.uint8],
    originals: NDArray[np.object_],
) -> float:
    """Instance recall@1 of comparing 8x8 thumbnails by Euclidean distance: what no training at all reaches.

    Args:
        corpus: (n, 8, 8, 3) thumbnails, `hashes` (n,) their content hashes.
        hashes: see `corpus`.
        copies: (m, 8, 8, 3) thumbnails of changed copies, `originals` (m,) the hashes of what they were made from.
        originals: see `copies`.
    """
    flat = corpus.reshape(len(corpus), -1).astype(np.float32)
    squares = (flat**2).sum(1)
    found = []
    for block in np.array_split(
        copies.reshape(len(copies), -1).astype(np.float32), max(1, len(copies) // 256)
    ):
        found.append((squares - 2 * block @ flat.T).argmin(axis=1))
    return float(np.mean(hashes[np.concatenate(found)] == originals))
