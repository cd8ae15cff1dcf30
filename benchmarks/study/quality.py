"""How good every prefix of a representation is, with images held out: linear heads, linear probes, neighbours, average precision.

Unlike `accuracy`, which searches an index, this takes plain arrays and exact neighbours, so that rotated, shuffled and cut
representations are measured like a model's own. The corpus is the training part, the queries are the validation part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from mrl_search.search.kernels import best
from numpy.typing import NDArray

from mrl_search.metrics import mean_average_precision, top1
from mrl_search.search import vote
from mrl_search.search.results import BatchHits
from mrl_search.store.rows import Heads
from mrl_search.vectors import l2_normalize, prefix

__all__ = [
    "Answers",
    "Part",
    "Representation",
    "head_answers",
    "neighbour_answers",
    "neighbours",
    "probe_answers",
    "quality",
]

VOTERS, RANKS = 20, 10  # neighbours that vote, and ranks that average precision looks at
RIDGE = 1e-3  # of a probe, as a share of the mean variance of its dims
BLOCK = 256


@dataclass(frozen=True, eq=False, slots=True)
class Part:
    """Images as a network sees them: `rows` (n, dim) float32, not normalised; `labels` and `groups` (n,) str, `groups` may be empty."""

    rows: NDArray[np.float32]
    labels: NDArray[np.object_]
    groups: NDArray[np.object_] = field(default_factory=lambda: np.empty(0, dtype=object))


@dataclass(frozen=True, eq=False, slots=True)
class Representation:
    """What is measured: a name, both parts, the linear heads by prefix length (may be empty), and the class of each of their rows."""

    name: str
    train: Part
    validation: Part
    heads: Heads = field(default_factory=dict)
    classes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Answers:
    """What a classifier said of n images: `labels` (n,) str, and how sure it was, `confidence` (n,) float64 from 0 to 1."""

    labels: NDArray[np.object_]
    confidence: NDArray[np.float64]


def head_answers(representation: Representation, dims: int, part: Part) -> Answers:
    """What the head at `dims` says, and the softmax probability of it.

    A head without any bias is a cosine head: it reads the prefix at unit length. Others read it as it is.
    """
    weight, bias = representation.heads[dims]
    rows = part.rows[:, :dims] if bias.any() else prefix(part.rows, dims)
    scores = (rows @ weight.T + bias).astype(np.float64)
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    return Answers(
        np.array(representation.classes, dtype=object)[scores.argmax(axis=1)],
        odds.max(axis=1) / odds.sum(axis=1),
    )


def probe_answers(
    representation: Representation, dims: Sequence[int]
) -> dict[int, NDArray[np.object_]]:
    """Labels that a linear classifier fitted to each training prefix gives the validation rows: (n,) str by prefix length.

    Least squares on one-hot labels with a ridge, in closed form: nothing is trained by steps, so all representations get the best of it.
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
    """The `k` nearest rows of `corpus` (n, d) by the cosine, best first; all rows where there are fewer."""
    unit, asked = l2_normalize(corpus), l2_normalize(queries)
    k = min(k, len(unit))
    ids, scores = [], []
    for start in range(0, len(asked), BLOCK):
        cosine = asked[start : start + BLOCK] @ unit.T
        some = np.argpartition(-cosine, min(2 * k, len(unit)) - 1, axis=1)[
            :, : 2 * k
        ]  # a few more than k, then in order
        hits = best(some, np.take_along_axis(cosine, some, axis=1), k)
        ids.append(hits.ids)
        scores.append(hits.scores)
    return BatchHits(np.concatenate(ids), np.concatenate(scores))


def neighbour_answers(hits: BatchHits, labels: NDArray[np.object_]) -> Answers:
    """The vote of the first 20 neighbours, weighted as in `vote`."""
    votes = vote(hits.first(VOTERS), labels)
    return Answers(
        np.array([v.label for v in votes], dtype=object), np.array([v.confidence for v in votes])
    )


def quality(
    representation: Representation, dims: int, probe: NDArray[np.object_]
) -> tuple[dict[str, float], dict[str, Answers]]:
    """Measure one prefix on the validation rows.

    Returns:
        shares by name: `head`, `head_train` (the head on its own training rows; both only where there is a head), `probe`, `nn1`, `nn20`,
        `map10` (by label), and, where there are groups, `group_head` (the group of the class that the head says) and `group_nn20`; and the
        answers of `head` and `nn20` behind them.
    """
    train, held_out = representation.train, representation.validation
    hits = neighbours(train.rows[:, :dims], held_out.rows[:, :dims], VOTERS)
    answers = {"nn20": neighbour_answers(hits, train.labels)}
    shares = {
        "probe": top1(probe, held_out.labels),
        "nn1": top1(train.labels[hits.ids[:, 0]], held_out.labels),
        "nn20": top1(answers["nn20"].labels, held_out.labels),
        "map10": mean_average_precision(
            train.labels[hits.ids[:, :RANKS]] == held_out.labels[:, None]
        ),
    }
    if dims in representation.heads:
        answers["head"] = head_answers(representation, dims, held_out)
        shares["head"] = top1(answers["head"].labels, held_out.labels)
        shares["head_train"] = top1(head_answers(representation, dims, train).labels, train.labels)
    if len(train.groups):
        shares["group_nn20"] = top1(neighbour_answers(hits, train.groups).labels, held_out.groups)
        if "head" in answers:
            group = dict(zip(train.labels, train.groups, strict=True))
            shares["group_head"] = top1(
                [group.get(label) for label in answers["head"].labels], held_out.groups
            )
    return shares, answers
