"""Classification by neighbours: the labelled answers to a query vote for its label."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from mrl_search.errors import ConfigError, DataError
from mrl_search.search.results import BatchHits

__all__ = ["TEMPERATURE", "Vote", "Weighting", "vote"]

TEMPERATURE = 0.07  # of the softmax weights, unless another is asked for


class Weighting(StrEnum):
    """What a neighbour's vote weighs: `softmax` exp(cosine / temperature), `majority` one each."""

    SOFTMAX = "softmax"
    MAJORITY = "majority"


@dataclass(frozen=True, slots=True)
class Vote:
    """The label with the largest share of the votes, that share as `confidence`, and all `shares`, largest first; they add up to 1.

    A query of which no neighbour has a label gets None, 0 and no shares.
    """

    label: str | None
    confidence: float
    shares: Mapping[str, float]


def vote(
    hits: BatchHits,
    labels: NDArray[np.object_],
    temperature: float = TEMPERATURE,
    weighting: Weighting = Weighting.SOFTMAX,
) -> list[Vote]:
    """Let the hits of each query vote for its label.

    Softmax weights are those of DINO's k-NN classifier (arXiv 2104.14294, `eval_knn.py`): exp(cosine / temperature), here divided by
    their sum. Hits without a label do not vote. Of labels with equal shares the one with the greater sum of cosines wins, then
    the first in the alphabet.

    Args:
        hits: answers with cosines as scores; ids of -1 are passed over.
        labels: (corpus,) str, or None where unknown.
        temperature: of the softmax; the lower, the more the nearest decide. Plays no part in a majority vote.
        weighting: what a neighbour's vote weighs.

    Returns:
        one `Vote` for each query.

    Raises:
        ConfigError: temperature is not positive.
        DataError: no item of the corpus has a label.
    """
    if not temperature > 0:
        raise ConfigError(
            f"The temperature of a vote is positive, not {temperature}.",
            f"The usual one is {TEMPERATURE}.",
        )
    if all(label is None for label in labels):
        raise DataError(
            "The images of this index have no labels, so there is nothing to vote for.",
            "Build an index from a folder whose sub-folders are named after the labels, or from a data set with labels.",
        )
    named = labels[hits.ids]
    counts = (hits.ids >= 0) & np.vectorize(_is_label, otypes=[bool])(named)
    weights = (
        _weights(hits.scores, counts, temperature)
        if weighting is Weighting.SOFTMAX
        else counts.astype(np.float64)
    )
    return [
        _winner(n[c], w[c], s[c])
        for n, w, s, c in zip(named, weights, hits.scores, counts, strict=True)
    ]


def _is_label(label: object) -> bool:
    return label is not None


def _weights(
    scores: NDArray[np.float32], counts: NDArray[np.bool_], temperature: float
) -> NDArray[np.float64]:
    """Of every vote relative to the strongest in its row, so that no exponential overflows."""
    cosine = np.where(counts, scores.astype(np.float64), -np.inf)
    strongest = cosine.max(axis=1, keepdims=True, initial=-np.inf)
    weights: NDArray[np.float64] = np.exp(
        (cosine - np.where(np.isfinite(strongest), strongest, 0.0)) / temperature
    )
    return weights


def _winner(
    labels: NDArray[np.object_], weights: NDArray[np.float64], cosines: NDArray[np.float32]
) -> Vote:
    if not len(labels):
        return Vote(None, 0.0, {})
    weight: dict[str, float] = defaultdict(float)
    cosine: dict[str, float] = defaultdict(float)
    for label, w, c in zip(labels, weights.tolist(), cosines.tolist(), strict=True):
        weight[label] += w
        cosine[label] += c
    total = sum(weight.values())
    order = sorted(weight, key=lambda label: (-weight[label], -cosine[label], label))
    return Vote(
        order[0], weight[order[0]] / total, {label: weight[label] / total for label in order}
    )
