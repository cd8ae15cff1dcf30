"""What the answers of one contestant are worth: right or wrong, precision and recall of every query, ready for a record."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.measure.contestants import Contestant
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import pack
from mrl_search.metrics import average_precision, found_at_k
from mrl_search.search import vote
from mrl_search.search.results import BatchHits

__all__ = ["Outcomes", "answers", "judge", "votes"]

CHUNK = 2048  # queries between two reports of progress


@dataclass(frozen=True, eq=False, slots=True)
class Outcomes:
    """Of each query with a label: is the nearest, and is the vote of all its hits, right, and how precise are they? None without labels.

    Attributes:
        nearest: (labelled,) bool.
        vote: (labelled,) bool.
        precision: (labelled,) float64, average precision (see `mean_average_precision`).
        found: (n,) int64, how many of the true k neighbours are among the first k hits.
    """

    nearest: NDArray[np.bool_] | None
    vote: NDArray[np.bool_] | None
    precision: NDArray[np.float64] | None
    found: NDArray[np.int64]

    def record(self) -> dict[str, object]:
        """As a record holds them: outcomes packed, precision as mean and standard deviation."""
        precision = self.precision
        return {
            "nearest": None if self.nearest is None else pack(self.nearest),
            "vote": None if self.vote is None else pack(self.vote),
            "precision": None
            if precision is None
            else {
                "mean": float(precision.mean()),
                "sd": float(precision.std()),
                "n": len(precision),
            },
            "found": pack(self.found),
        }


def answers(
    index: Index,
    queries: QuerySet,
    contestant: Contestant,
    k: int,
    progress: Callable[[int, int], None] | None = None,
) -> BatchHits:
    """What a contestant answers to all queries, each query's own picture left out: (n, k)."""
    parts = []
    for start in range(0, len(queries), CHUNK):
        some = slice(start, start + CHUNK)
        parts.append(
            contestant.others(index, queries.vectors[some], queries.hashes[some], k).first(k)
        )
        if progress:
            progress(min(start + CHUNK, len(queries)), len(queries))
    read = (
        None
        if parts[0].dims is None
        else np.concatenate([p.dims for p in parts if p.dims is not None])
    )
    return BatchHits(
        np.concatenate([p.ids for p in parts]), np.concatenate([p.scores for p in parts]), dims=read
    )


def votes(
    index: Index, queries: QuerySet, hits: BatchHits
) -> tuple[NDArray[np.object_], NDArray[np.float64]] | None:
    """The label that the hits of each labelled query vote for, and its share of the votes: (labelled,) each.

    None where queries or corpus have no labels.
    """
    labels = index.embeddings.labels
    if not len(queries.labelled) or all(label is None for label in labels):
        return None
    some = queries.labelled
    voted = vote(BatchHits(hits.ids[some], hits.scores[some]), labels)
    return np.array([v.label for v in voted], dtype=object), np.array([v.confidence for v in voted])


def judge(index: Index, queries: QuerySet, hits: BatchHits, truth: NDArray[np.int64]) -> Outcomes:
    """Compare the hits (n, k) with the labels, and with the true neighbours `truth` (n, k)."""
    found = found_at_k(hits.ids[:, : truth.shape[1]], truth)
    voted = votes(index, queries, hits)
    if voted is None:
        return Outcomes(None, None, None, found)
    own = queries.labels[queries.labelled]
    ids = hits.ids[queries.labelled]
    relevant = (index.embeddings.labels[ids] == own[:, None]) & (ids >= 0)
    return Outcomes(relevant[:, 0], voted[0] == own, average_precision(relevant), found)
