"""Classification by neighbours that reads only as many dims as a picture needs: the votes of a plan's stages, and when to stop.

The thresholds are learnt from the index itself, anew for every call: a fixed sample of its labelled items is classified at every
stage, each left out of its own answer. So nothing has to be prepared or stored, they fit the plan, the neighbours and the filter that
the call asks for, and the same index gives the same thresholds. Where the model was trained on these very pictures, neighbours look
surer than they are for others, so the sample should be of those that it was not trained on.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.search.cascade import GIVE, Cascade, CascadePoint, learn_cascade, run_cascade
from mrl_search.search.others import by_copies, leave_out, widened
from mrl_search.search.plan import Plan
from mrl_search.search.run import check_queries, query_blocks, stages
from mrl_search.search.scoring import Rows, opening, rescore
from mrl_search.search.vote import TEMPERATURE, Vote, Weighting, vote

__all__ = ["Ballot", "Learned", "classify_adaptive", "learn_thresholds"]

SAMPLE = 1000  # labelled items that thresholds are learnt from


@dataclass(frozen=True, slots=True)
class Ballot:
    """How neighbours vote: how many, and what each vote weighs; see `vote`."""

    k: int = 20
    temperature: float = TEMPERATURE
    weighting: Weighting = Weighting.SOFTMAX


@dataclass(frozen=True, slots=True)
class Learned:
    """Thresholds, what the cascade does on the items it was learnt from, and the accuracy of the last stage alone on them."""

    cascade: Cascade
    point: CascadePoint
    full_accuracy: float


def learn_thresholds(
    index: Index,
    plan: Plan,
    ballot: Ballot,
    allowed: Rows | None = None,
    give: float = GIVE,
    held_out: Rows | None = None,
) -> Learned:
    """Learn when to stop along `plan`, from up to 1,000 labelled items of `index`, each without itself and its copies as neighbours.

    Args:
        index: with labels.
        plan: two stages at least, every one of which keeps `ballot.k`.
        ballot: how neighbours vote.
        allowed: as in `search`; only these are learnt from.
        give: as in `learn_cascade`.
        held_out: ids that the model was not trained on, if they are known; only these are learnt from, though all are neighbours.

    Raises:
        ConfigError: a plan with one stage, or one that keeps fewer than k.
        DataError: fewer than two labelled items.
    """
    _check(plan, ballot)
    labels, hashes = index.embeddings.labels, index.embeddings.hashes
    rows = np.arange(len(index)) if allowed is None else allowed
    rows = rows if held_out is None else np.intersect1d(rows, held_out)
    rows = rows[[labels[i] is not None for i in rows]]
    if len(rows) < 2:
        raise DataError(
            f"Thresholds are learnt from labelled items, and there are {len(rows)} of them.",
            "Leave --adaptive out.",
        )
    if len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    queries = check_queries(index, index.embeddings.vectors[rows], plan)
    confidence, correct = (
        np.empty((len(rows), len(plan.stages))),
        np.empty((len(rows), len(plan.stages)), dtype=bool),
    )
    for alike, extra in by_copies(index, hashes[rows]):
        wider = widened(plan, extra)
        for block in query_blocks(alike, wider):
            some = alike[block]
            for stage, (_, hits) in enumerate(stages(index, queries[some], wider, allowed)):
                votes = vote(
                    leave_out(hits, hashes, hashes[rows[some]], ballot.k),
                    labels,
                    ballot.temperature,
                    ballot.weighting,
                )
                confidence[some, stage] = [v.confidence for v in votes]
                correct[some, stage] = [
                    v.label == truth for v, truth in zip(votes, labels[rows[some]], strict=True)
                ]
    cascade = learn_cascade(confidence, correct, plan.dims, give)
    return Learned(cascade, run_cascade(cascade, confidence, correct), float(correct[:, -1].mean()))


def classify_adaptive(
    index: Index,
    queries: NDArray[np.floating],
    plan: Plan,
    cascade: Cascade,
    ballot: Ballot,
    allowed: Rows | None = None,
) -> tuple[list[Vote], NDArray[np.int64]]:
    """Let neighbours vote stage by stage along `plan`, and stop for each query when they are sure enough.

    Returns:
        the `Vote` of each query, and the prefix length (n,) at which it was given.

    Raises:
        ConfigError: plan and cascade have other dims, or as `learn_thresholds`.
    """
    _check(plan, ballot)
    if plan.dims != cascade.dims:
        raise ConfigError(
            f"Plan {plan} has other dims than the thresholds, which are for {', '.join(map(str, cascade.dims))}."
        )
    queries = check_queries(index, queries, plan)
    votes: dict[int, Vote] = {}
    read = np.zeros(len(queries), dtype=np.int64)
    for block in query_blocks(queries, plan):
        going = np.arange(len(queries))[block]
        ids: Rows | None = None
        for stage, threshold in zip(plan.stages, cascade.thresholds, strict=True):
            some = queries[going]
            hits = (
                opening(index, some, plan, allowed)
                if ids is None
                else rescore(index, some, ids, stage.dims, stage.keep)
            )
            given = vote(
                hits.first(ballot.k), index.embeddings.labels, ballot.temperature, ballot.weighting
            )
            votes |= dict(zip(going.tolist(), given, strict=True))
            read[going] = stage.dims
            unsure = np.array([v.confidence < threshold for v in given], dtype=bool)
            going, ids = going[unsure], hits.ids[unsure]
            if not len(going):
                break
    return [votes[i] for i in range(len(queries))], read


def _check(plan: Plan, ballot: Ballot) -> None:
    if len(plan.stages) < 2:
        raise ConfigError(
            f"Plan {plan} has one stage: there is nothing to stop before.",
            "For example 8:200,64:200,1024.",
        )
    if plan.keep < ballot.k:
        raise ConfigError(
            f"Plan {plan} keeps {plan.keep} at the end, fewer than the {ballot.k} that vote."
        )
