"""Accuracy of answers and of prefixes: linear heads, votes, average precision, changed copies."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.contestants import Contestant, answers
from mrl_search.measure.queries import QuerySet
from mrl_search.metrics import Share, average_precision
from mrl_search.search.cascade import TradeOff, trade_off
from mrl_search.search.classify import vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search

__all__ = [
    "Copies", "Outcomes", "PrefixAccuracy", "PrefixOutcomes", "copies_found", "finds_original",
    "outcomes", "prefix_outcomes", "thumbnail_recall", "trade_offs",
]  # fmt: skip

RANKS = 10  # of average precision


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """What the hits of labelled queries are worth.

    Attributes:
        nearest: (n,) bool, the first hit has the query's label.
        vote: (n,) bool, the label that the hits vote for is the query's.
        confidence: (n,) float64, the winner's share of the votes.
        precision: (n,) float64, average precision (see `metrics.average_precision`).
    """

    nearest: NDArray[np.bool_]
    vote: NDArray[np.bool_]
    confidence: NDArray[np.float64]
    precision: NDArray[np.float64]


def outcomes(
    hits: BatchHits,
    corpus_labels: NDArray[np.object_],
    labels: NDArray[np.object_],
    voters: int | None = None,
    ranks: int | None = None,
) -> Outcomes:
    """Compare the hits of labelled queries with their labels.

    Args:
        hits: (n, k), best first.
        corpus_labels: label of each item of the corpus, or None.
        labels: (n,) labels of the queries.
        voters: hits that vote; all by default.
        ranks: hits that average precision looks at; all by default.
    """
    votes = vote(hits.first(voters or hits.ids.shape[1]), corpus_labels)
    winners = np.array([v.label for v in votes], dtype=object)
    relevant = (corpus_labels[hits.ids] == labels[:, None]) & (hits.ids >= 0)
    return Outcomes(
        relevant[:, 0],
        winners == labels,
        np.array([v.confidence for v in votes]),
        average_precision(relevant[:, :ranks]),
    )


@dataclass(frozen=True, eq=False, slots=True)
class PrefixOutcomes:
    """One prefix with labelled queries; None where there is no head, or no label in the corpus."""

    linear: NDArray[np.bool_] | None
    hits: Outcomes | None


def prefix_outcomes(
    corpus: Corpus,
    queries: QuerySet,
    dims: int,
    voters: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PrefixOutcomes:
    """Is the linear head, is the vote of the nearest `voters` right for each labelled query?"""
    rows, collection = queries.labelled, queries.collection
    own = queries.labels[rows]
    linear = None
    if collection.has_head(dims, own):
        linear = collection.linear_predictions(dims)[queries.rows[rows]] == own
    if not len(rows) or not corpus.collection.labelled.any():
        return PrefixOutcomes(linear, None)
    k = max(voters, RANKS)
    hits = answers(corpus, queries, Contestant(f"{dims} dims", Plan.single(dims)), k, progress)
    some = BatchHits(hits.ids[rows], hits.scores[rows])
    return PrefixOutcomes(linear, outcomes(some, corpus.collection.labels, own, voters, RANKS))


def trade_offs(
    dims: Sequence[int],
    votes: Sequence[NDArray[np.bool_]],
    confidence: Sequence[NDArray[np.floating]],
) -> list[TradeOff]:
    """Accuracy against dims of adaptive classification by votes along the prefixes `dims`.

    Empty with fewer than two queries or prefixes, or with no votes.

    Args:
        dims: lengths of the prefixes, ascending.
        votes: of each prefix, (n,) whether the vote is right.
        confidence: of each prefix, (n,) the winner's share of the votes.
    """
    if len(dims) < 2 or len(votes) < len(dims) or len(votes[0]) < 2:
        return []
    return trade_off(np.stack(confidence, axis=1), np.stack(votes, axis=1), dims)


@dataclass(frozen=True, eq=False, slots=True)
class Copies:
    """Changed copies of corpus pictures.

    Attributes:
        rows: (n, dim) float32 as the encoder gives them.
        originals: (n,) content hash of each one's original.
    """

    rows: NDArray[np.float32]
    originals: NDArray[np.object_]


def copies_found(corpus: Corpus, copies: Copies, dims: int) -> NDArray[np.bool_]:
    """Whether each changed copy finds its original first by a prefix: (n,) bool."""
    hits = search(corpus, corpus.to_space(copies.rows), Plan.single(dims), 1)
    return finds_original(hits, corpus.collection.hashes, copies.originals)


def finds_original(
    hits: BatchHits, hashes: NDArray[np.object_], originals: NDArray[np.object_]
) -> NDArray[np.bool_]:
    """Whether the first hit of each query has the content hash `originals` (n,): (n,) bool."""
    first = hits.ids[:, 0]
    right: NDArray[np.bool_] = (hashes[first] == originals) & (first >= 0)
    return right


@dataclass(frozen=True, slots=True)
class PrefixAccuracy:
    """One prefix; shares from 0 to 1, None where they were not measured.

    Attributes:
        dims: length of the prefix.
        n: labelled queries.
        linear_top1: the linear head is right.
        knn_top1: the vote of the nearest is right; a query is never its own neighbour.
        map_at_10: mean average precision of the ten nearest.
        instance_recall_at_1: a changed copy finds its original first in the whole corpus.
        n_instance: changed copies.
        ci95: 95% interval of each share, by its name.
    """

    dims: int
    n: int
    linear_top1: float | None
    knn_top1: float | None
    map_at_10: float | None
    instance_recall_at_1: float | None
    n_instance: int
    ci95: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, dims: int, n: int, found: PrefixOutcomes, copies: NDArray[np.bool_] | None
    ) -> "PrefixAccuracy":
        """The shares of a prefix, from outcomes with `n` labelled queries and with `copies`."""
        shares: dict[str, Share] = {}
        if found.linear is not None:
            shares["linear_top1"] = Share.of(found.linear)
        if found.hits is not None:
            shares["knn_top1"] = Share.of(found.hits.vote)
            shares["map_at_10"] = Share.mean_of(found.hits.precision)
        if copies is not None:
            shares["instance_recall_at_1"] = Share.of(copies)
        values = {name: share.value for name, share in shares.items()}
        return cls(
            dims,
            n,
            values.get("linear_top1"),
            values.get("knn_top1"),
            values.get("map_at_10"),
            values.get("instance_recall_at_1"),
            0 if copies is None else len(copies),
            {name: (share.low, share.high) for name, share in shares.items()},
        )


def thumbnail_recall(
    corpus: NDArray[np.uint8],
    hashes: NDArray[np.object_],
    copies: NDArray[np.uint8],
    originals: Sequence[str] | NDArray[np.object_],
) -> float:
    """Instance recall@1 of comparing 8x8 thumbnails by Euclidean distance, without any model.

    Args:
        corpus: (n, 8, 8, 3) thumbnails of the corpus.
        hashes: (n,) their content hashes.
        copies: (m, 8, 8, 3) thumbnails of changed copies.
        originals: (m,) content hashes of the originals.
    """
    flat = corpus.reshape(len(corpus), -1).astype(np.float32)
    squares = (flat**2).sum(axis=1)
    blocks = np.array_split(
        copies.reshape(len(copies), -1).astype(np.float32), max(1, len(copies) // 256)
    )
    nearest = [(squares - 2 * block @ flat.T).argmin(axis=1) for block in blocks]
    return float(np.mean(hashes[np.concatenate(nearest)] == originals))
