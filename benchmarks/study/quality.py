"""Quality of every prefix of a representation: linear heads, linear probes, neighbours.

Takes plain arrays and searches exactly, so that rotated, shuffled and cut representations are
measured like a model's own. The corpus is the training part, the queries are the validation part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mrl_search.measure.accuracy import outcomes
from mrl_search.search.nearest import nearest_rows
from mrl_search.search.results import BatchHits
from mrl_search.store.collection import Heads
from mrl_search.vectors import prefix

__all__ = [
    "Answers", "Part", "Representation", "head_answers", "neighbours", "probe_answers", "quality",
]  # fmt: skip

VOTERS, RANKS = 20, 10  # neighbours that vote, and ranks of average precision
RIDGE = 1e-3  # of a probe, as a share of the mean variance of its dims


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """Images as a network embeds them.

    Attributes:
        rows: (n, dim) float32, not normalised.
        labels: (n,) str.
        groups: (n,) str, or empty.
    """

    rows: NDArray[np.float32]
    labels: NDArray[np.object_]
    groups: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, dtype=object))


@dataclass(frozen=True, eq=False, slots=True)
class Representation:
    """What is measured.

    Attributes:
        name: of the representation.
        train: the corpus.
        validation: the queries.
        heads: linear heads by prefix length; may be empty.
        classes: the class of each row of a head.
    """

    name: str
    train: Part
    validation: Part
    heads: Heads = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """Answers of a classifier: (n,) whether they are right, and (n,) confidence from 0 to 1."""

    right: NDArray[np.bool_]
    confidence: NDArray[np.float64]


def head_answers(
    representation: Representation, dims: int, part: Part
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """Labels (n,) by the head at `dims`, and their softmax probabilities (n,).

    A head without any bias is a cosine head, which reads the prefix at unit norm.
    """
    weight, bias = representation.heads[dims]
    rows = part.rows[:, :dims] if bias.any() else prefix(part.rows, dims)
    scores = (rows @ weight.T + bias).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    labels = np.array(representation.classes, dtype=object)[scores.argmax(axis=1)]
    return labels, odds.max(axis=1) / odds.sum(axis=1)


def probe_answers(
    representation: Representation, dims: Sequence[int]
) -> dict[int, NDArray[np.object_]]:
    """Labels (n,) of the validation rows by a linear probe of each prefix.

    A probe is fitted to the training rows: least squares on one-hot labels with a ridge, in closed
    form, so that no representation depends on how long it was trained.
    """
    train, held_out = representation.train, representation.validation
    classes, codes = np.unique(train.labels.astype(str), return_inverse=True)
    mean = train.rows.mean(axis=0, dtype=np.float64)
    centred = train.rows.astype(np.float64) - mean
    target = np.eye(len(classes))[codes]
    share = target.mean(axis=0)
    gram, moment = centred.T @ centred, centred.T @ (target - share)
    found = {}
    for d in dims:
        ridge = RIDGE * np.trace(gram[:d, :d]) / d
        weight = np.linalg.solve(gram[:d, :d] + max(ridge, 1e-12) * np.eye(d), moment[:d])
        scores = (held_out.rows[:, :d] - mean[:d]) @ weight + share
        found[d] = classes.astype(object)[scores.argmax(axis=1)]
    return found


def neighbours(corpus: NDArray[np.float32], queries: NDArray[np.float32], k: int) -> BatchHits:
    """The `k` nearest rows of `corpus` (n, d) by the cosine, best first."""
    return nearest_rows([corpus], queries, k)


def quality(
    representation: Representation, dims: int, probe: NDArray[np.object_]
) -> tuple[dict[str, float], dict[str, Answers]]:
    """Measure one prefix on the validation rows.

    Args:
        representation: what is measured.
        dims: length of the prefix.
        probe: answers of its probe.

    Returns:
        shares by name: `probe`, `nn1`, `nn20`, `map10`; with a head also `head` and `head_train`
        (on its training rows); with groups also `group_nn20` and `group_head` (the group of the
        head's class); and the answers behind `nn20` and `head`.
    """
    train, held_out = representation.train, representation.validation
    hits = neighbours(train.rows[:, :dims], held_out.rows[:, :dims], VOTERS)
    found = outcomes(hits, train.labels, held_out.labels, ranks=RANKS)
    answers = {"nn20": Answers(found.vote, found.confidence)}

    def share_right(labels: Sequence[object], truth: NDArray[np.object_]) -> float:
        return float(np.mean(np.array(labels, dtype=object) == truth))

    shares = {
        "probe": share_right(probe, held_out.labels),
        "nn1": float(found.nearest.mean()),
        "nn20": float(found.vote.mean()),
        "map10": float(found.precision.mean()),
    }
    if len(train.groups):
        groups = outcomes(hits, train.groups, held_out.groups)
        shares["group_nn20"] = float(groups.vote.mean())
    if dims in representation.heads:
        labels, confidence = head_answers(representation, dims, held_out)
        answers["head"] = Answers(labels == held_out.labels, confidence)
        shares["head"] = share_right(labels, held_out.labels)
        on_train, _ = head_answers(representation, dims, train)
        shares["head_train"] = share_right(on_train, train.labels)
        if len(train.groups):
            group = dict(zip(train.labels, train.groups, strict=True))
            shares["group_head"] = share_right([group.get(x) for x in labels], held_out.groups)
    return shares, answers
