"""Accuracy of answers and of prefixes: linear heads, votes, average precision, changed copies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.contestants import answers
from mrl_search.measure.queries import QuerySet
from mrl_search.metrics import Share, average_precision
from mrl_search.search.classify import vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.vectors import blocks

__all__ = [
    "Copies", "Outcomes", "PrefixAccuracy", "copies_found", "finds_original", "outcomes",
    "prefix_outcomes", "thumbnail_recall",
]  # fmt: skip

RANKS = 10  # of average precision


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What the hits of n labelled queries are worth, (n,) each."""

    nearest: NDArray[np.bool_]  # the first hit has the query's label
    vote: NDArray[np.bool_]  # the label that the hits vote for is the query's
    confidence: NDArray[np.float64]  # the winner's share of the votes
    precision: NDArray[np.float64]  # see `metrics.average_precision`


def outcomes(
    hits: BatchHits,
    corpus_labels: NDArray[np.object_],
    labels: NDArray[np.object_],
    voters: int | None = None,
    ranks: int | None = None,
) -> Outcomes:
    """Compare hits with the labels (n,) of their queries.

    The first `voters` hits vote, and average precision looks at the first `ranks`; default: all.
    """
    votes = vote(hits.first(voters or hits.rows.shape[1]), corpus_labels)
    winners = np.array([v.label for v in votes], dtype=object)
    relevant = (corpus_labels[hits.rows] == labels[:, None]) & (hits.rows >= 0)
    return Outcomes(
        relevant[:, 0],
        winners == labels,
        np.array([v.confidence for v in votes]),
        average_precision(relevant[:, :ranks]),
    )


def prefix_outcomes(
    corpus: Corpus,
    queries: QuerySet,
    dims: int,
    voters: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[NDArray[np.bool_] | None, Outcomes | None]:
    """Outcomes of the labelled queries by one prefix: of the linear head, and of the hits.

    The first is None without a head, the second without labels.
    """
    rows, collection = queries.labelled, queries.collection
    labels = queries.labels[rows]
    linear = None
    if collection.has_head(dims, labels):
        linear = collection.linear_predictions(dims)[queries.rows[rows]] == labels
    if not len(rows) or not corpus.collection.labelled.any():
        return linear, None
    hits = answers(corpus, queries, Plan.single(dims), max(voters, RANKS), progress)
    labelled = BatchHits(hits.rows[rows], hits.scores[rows])
    return linear, outcomes(labelled, corpus.collection.labels, labels, voters, RANKS)


@dataclass(frozen=True, eq=False, slots=True)
class Copies:
    """Changed copies of corpus pictures."""

    rows: NDArray[np.float32]  # (n, dim) as the encoder gives them
    originals: NDArray[np.object_]  # (n,) content hash of each one's original


def copies_found(corpus: Corpus, copies: Copies, dims: int) -> NDArray[np.bool_]:
    """Whether each changed copy finds its original first by a prefix: (n,) bool."""
    hits = search(corpus, corpus.to_space(copies.rows), Plan.single(dims), 1)
    return finds_original(hits, corpus.collection.hashes, copies.originals)


def finds_original(
    hits: BatchHits, hashes: NDArray[np.object_], originals: NDArray[np.object_]
) -> NDArray[np.bool_]:
    """Whether the first hit of each query has the content hash `originals` (n,): (n,) bool."""
    first = hits.rows[:, 0]
    right: NDArray[np.bool_] = (hashes[first] == originals) & (first >= 0)
    return right


@dataclass(frozen=True, slots=True)
class PrefixAccuracy:
    """One prefix; shares from 0 to 1, None where they were not measured.

    Attributes:
        dims: length of the prefix.
        n: labelled queries.
        linear_top1: the linear head is right.
        nearest_top1: the label of the nearest is right; a query is never its own neighbour.
        knn_top1: the vote of the nearest is right.
        map_at_10: mean average precision of the ten nearest.
        instance_recall_at_1: a changed copy finds its original first in the whole corpus.
        n_instance: changed copies.
        ci95: 95% interval of each share, by its name.
    """

    dims: int
    n: int
    linear_top1: float | None = None
    nearest_top1: float | None = None
    knn_top1: float | None = None
    map_at_10: float | None = None
    instance_recall_at_1: float | None = None
    n_instance: int = 0
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, dims: int, n: int, linear: NDArray[np.bool_] | None, hits: Outcomes | None,
        copies: NDArray[np.bool_] | None = None,
    ) -> "PrefixAccuracy":  # fmt: skip
        """The shares of a prefix: outcomes of `n` labelled queries, and of changed copies."""
        shares: dict[str, Share] = {}
        if linear is not None:
            shares["linear_top1"] = Share.of(linear)
        if hits is not None:
            shares["nearest_top1"] = Share.of(hits.nearest)
            shares["knn_top1"] = Share.of(hits.vote)
            shares["map_at_10"] = Share.mean_of(hits.precision)
        if copies is not None:
            shares["instance_recall_at_1"] = Share.of(copies)
        return cls(
            dims,
            n,
            **{name: share.value for name, share in shares.items()},
            n_instance=0 if copies is None else len(copies),
            ci95={name: (share.low, share.high) for name, share in shares.items()},
        )


def thumbnail_recall(
    corpus: NDArray[np.uint8],
    hashes: NDArray[np.object_],
    copies: NDArray[np.uint8],
    originals: NDArray[np.object_],
) -> float:
    """Instance recall@1 of comparing thumbnails by Euclidean distance, without any model.

    The corpus has n thumbnails (n, 8, 8, 3) with content hashes (n,); the m changed copies have
    thumbnails (m, 8, 8, 3) and the content hashes of their originals, (m,).
    """
    flat = corpus.reshape(len(corpus), -1).astype(np.float32)
    squares = (flat**2).sum(axis=1)
    found = []
    for rows in blocks(len(copies), len(flat)):
        queries = copies[rows].reshape(-1, flat.shape[1]).astype(np.float32)
        found.append((squares - 2 * queries @ flat.T).argmin(axis=1))
    return float(np.mean(hashes[np.concatenate(found)] == originals))
