"""Classification by a vote of neighbours, and adaptive classification that stops when it is sure.

Adaptive classification (Matryoshka Representation Learning, arXiv 2205.13147, section 4.2.1) votes
after every stage of a plan and stops once the confidence reaches a threshold. Thresholds are learnt
from labelled items of the index, each left out of its own answer.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mrl_search.engines.base import Mask
from mrl_search.errors import ConfigError, DataError, require
from mrl_search.metrics import wilson_interval
from mrl_search.search.cascade import GIVE, Cascade, CascadePoint, learn_cascade, run_cascade
from mrl_search.search.corpus import Corpus
from mrl_search.search.filters import mask_of
from mrl_search.search.others import by_copies, leave_out
from mrl_search.search.plan import Plan, Stage
from mrl_search.search.request import SearchRequest
from mrl_search.search.results import BatchHits
from mrl_search.search.run import answer, default_plan, search
from mrl_search.store.rows import Ids
from mrl_search.vectors import l2_normalize, sample

__all__ = [
    "Ballot", "Learned", "Vote", "Weighting", "classify", "classify_adaptive", "label_doubt",
    "learn_thresholds", "vote",
]  # fmt: skip

TEMPERATURE = 0.07  # DINO's
SAMPLE = 4000  # labelled items that thresholds are learnt from, at most
FEWEST, VOTERS = 20, 20  # labelled items from which labels are judged, and neighbours that vote
SAMPLED = (100, 1000)  # labelled items that are compared with one another: at least, at most
LABELS = -2  # in place of a prefix length: what is kept with the corpus
CHANCE = 0.1  # Cohen's kappa that the accuracy of classes may reach


class Weighting(StrEnum):
    """The weight of a neighbour's vote: by its cosine, or the same for all."""

    SOFTMAX = "softmax"
    MAJORITY = "majority"


@dataclass(frozen=True, slots=True)
class Ballot:
    """How neighbours vote.

    Softmax weights are those of DINO's k-NN classifier (arXiv 2104.14294, `eval_knn.py`).

    Attributes:
        k: neighbours that vote.
        temperature: of the softmax; the lower, the more the nearest decide.
        weighting: the weight of a vote; a majority vote has no temperature.

    Raises:
        ConfigError: a temperature that is not positive.

    Example:
        >>> Ballot(k=5, weighting=Weighting.MAJORITY).k
        5
    """

    k: int = 20
    temperature: float = TEMPERATURE
    weighting: Weighting = Weighting.SOFTMAX

    def __post_init__(self) -> None:
        message = f"The temperature is {self.temperature}; it must be positive."
        require(self.temperature > 0, message, f"The default is {TEMPERATURE}.")


@dataclass(frozen=True, slots=True)
class Vote:
    """The outcome of a vote.

    Attributes:
        label: the winner; None if no neighbour has a label, or none passes the cut-off.
        confidence: its share of the votes.
        shares: the share of every label, largest first; they add up to 1.
        dims: prefix length at which the vote was taken, in adaptive classification.

    Example:
        >>> import numpy as np
        >>> hits = BatchHits(np.array([[0, 1]]), np.array([[0.9, 0.8]], dtype=np.float32))
        >>> vote(hits, np.array(["cat", "dog"], dtype=object))[0].label
        'cat'
    """

    label: str | None
    confidence: float
    shares: Mapping[str, float]
    dims: int | None = None


def vote(hits: BatchHits, labels: NDArray[np.object_], ballot: Ballot | None = None) -> list[Vote]:
    """Let the hits of each query vote for its label.

    A softmax vote weighs exp(cosine / temperature), divided by the sum. Hits without a label do not
    vote. Of labels with equal shares, the larger sum of cosines wins, then the alphabet.

    Args:
        hits: answers with cosines as scores; ids of -1 do not vote.
        labels: (corpus,) str, or None where unknown.
        ballot: how they vote.

    Raises:
        DataError: no item of the corpus has a label.
    """
    ballot = ballot or Ballot()
    if all(label is None for label in labels):
        hint = "Build it from a folder with one sub-folder a class, or from a data set with labels."
        raise DataError("The items of this index have no labels.", hint)
    named = labels[hits.rows]
    counts = (hits.rows >= 0) & np.not_equal(named, np.array(None))
    if ballot.weighting is Weighting.SOFTMAX:
        weights = _softmax_weights(hits.scores, counts, ballot.temperature)
    else:
        weights = counts.astype(np.float64)
    rows = zip(named, weights, hits.scores, counts, strict=True)
    return [_winner(n[c], w[c], s[c]) for n, w, s, c in rows]


def _softmax_weights(
    scores: NDArray[np.float32], counts: NDArray[np.bool_], temperature: float
) -> NDArray[np.float64]:
    """Weights relative to the largest in each row, so that no exponential overflows."""
    cosine = np.where(counts, scores.astype(np.float64), -np.inf)
    largest = cosine.max(axis=1, keepdims=True, initial=-np.inf)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    return np.exp((cosine - largest) / temperature)


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
    shares = {label: weight[label] / total for label in order}
    return Vote(order[0], shares[order[0]], shares)


@dataclass(frozen=True, slots=True)
class Learned:
    """Thresholds, their effect on the items they were learnt from, and accuracy at full length."""

    cascade: Cascade
    point: CascadePoint
    full_accuracy: float

    def record(self, plan: Plan, give: float, ballot: Ballot) -> dict[str, object]:
        """The thresholds as a manifest keeps them (see `stored_cascade`)."""
        return {
            "plan": str(plan), "give": give, "thresholds": list(self.cascade.thresholds),
            **asdict(ballot), **asdict(self.point), "full_accuracy": self.full_accuracy,
        }  # fmt: skip


def learn_thresholds(
    corpus: Corpus, plan: Plan, ballot: Ballot, give: float = GIVE, held_out: Ids | None = None
) -> Learned:
    """Learn when to stop along `plan` from up to 4,000 labelled items of the corpus.

    Stopping early may lose a share `give` of all answers (see `learn_cascade`). Only `held_out` is
    learnt from, items that the model was not trained on, if they are known.

    Raises:
        ConfigError: a plan with one stage, or with a shortlist below `ballot.k`.
        DataError: fewer than two labelled items.
    """
    _check_stages(plan)
    require(
        (plan.shortest or 0) >= ballot.k,
        f"Plan {plan} has a shortlist of {plan.shortest}, fewer than the {ballot.k} that vote.",
        f"Keep at least {ballot.k} in every stage.",
    )
    labels, hashes = corpus.collection.labels, corpus.collection.hashes
    rows = corpus.live_rows if held_out is None else held_out
    rows = rows[corpus.collection.labelled[rows]]
    if len(rows) < 2:
        hint = "Label them by sub-folders."
        raise DataError(f"Thresholds need two labelled items; there are {len(rows)}.", hint)
    rows = rows[sample(len(rows), SAMPLE)]
    queries = corpus.vectors.rows(rows).astype(np.float32)
    shape = (len(rows), len(plan.stages))
    confidence, correct = np.empty(shape), np.empty(shape, dtype=bool)
    for group, extra in by_copies(corpus, hashes[rows]):

        def count(number: int, hits: BatchHits, at: Ids, group: Ids = group) -> None:
            places = group[at]
            own = hashes[hits.rows] == hashes[rows[places], None]
            votes = vote(leave_out(hits, own, ballot.k), labels, ballot)
            confidence[places, number] = [v.confidence for v in votes]
            truth = zip(votes, labels[rows[places]], strict=True)
            correct[places, number] = [v.label == label for v, label in truth]

        def watch(number: int, stage: Stage, hits: BatchHits, at: Ids) -> NDArray[np.bool_]:
            count(number, hits, at)
            return np.zeros(len(at), dtype=bool)

        wide = plan.widened(extra)
        last = search(corpus, queries[group], wide, ballot.k + extra, stop=watch)
        count(len(plan.stages) - 1, last, np.arange(len(group)))
    cascade = learn_cascade(confidence, correct, plan.dims, give)
    point = run_cascade(cascade, confidence, correct)
    return Learned(cascade, point, float(correct[:, -1].mean()))


def classify_adaptive(
    corpus: Corpus, queries: NDArray[np.floating], plan: Plan, cascade: Cascade, ballot: Ballot,
    mask: Mask | None = None,
) -> list[Vote]:  # fmt: skip
    """Vote after every stage of `plan`; a query stops once its confidence reaches the threshold."""
    _check_stages(plan)
    if plan.dims != cascade.dims:
        known = ", ".join(map(str, cascade.dims))
        raise ConfigError(f"The thresholds are for {known} dims, not for the plan {plan}.")
    labels = corpus.collection.labels

    def sure(number: int, stage: Stage, hits: BatchHits, at: Ids) -> NDArray[np.bool_]:
        votes = vote(hits.first(ballot.k), labels, ballot)
        return np.array([v.confidence >= cascade.thresholds[number] for v in votes], dtype=bool)

    hits = search(corpus, queries, plan, ballot.k, mask, stop=sure)
    dims = [plan.dims[-1]] * len(hits) if hits.dims is None else hits.dims.tolist()
    votes = zip(vote(hits, labels, ballot), dims, strict=True)
    return [replace(v, dims=d) for v, d in votes]


def classify(
    corpus: Corpus, queries: NDArray[np.floating], request: SearchRequest,
    ballot: Ballot | None = None, adaptive: bool = False,
) -> list[Vote]:  # fmt: skip
    """Answer a request for `queries` (n, dim) by a vote of the `request.k` nearest.

    The plan `auto` is the one that was tuned for this. `adaptive` votes by the stored thresholds.
    Neighbours below the cut-off do not vote.

    Raises:
        ConfigError: `adaptive` with a cut-off, or without thresholds.
    """
    ballot = replace(ballot or Ballot(), k=request.k)
    if adaptive:
        message = "A cut-off is given for adaptive classification, which has no last stage."
        require(request.cutoff is None, message, "Leave one of them out.")
        plan, cascade = stored_cascade(corpus, request.plan, ballot)
        mask = mask_of(corpus.items, request.where, request.ids, corpus.alive)
        return classify_adaptive(corpus, queries, plan, cascade, ballot, mask)
    if request.plan == Plan.AUTO:
        request = replace(request, plan=default_plan(corpus, request.k, "classify"))
    return vote(answer(corpus, queries, request), corpus.collection.labels, ballot)


def stored_cascade(corpus: Corpus, plan: Plan, ballot: Ballot) -> tuple[Plan, Cascade]:
    """The plan and thresholds that `tune` stored for adaptive classification.

    Raises:
        ConfigError: there are none, or they are for another plan than `plan`, or another ballot.
    """
    stored: Any = corpus.manifest.plans.get("adaptive")
    learn = f"mrl-search tune {corpus.folder} --objective adaptive -k {ballot.k}"
    if not isinstance(stored, Mapping) or "thresholds" not in stored:
        raise ConfigError(f"{corpus.folder} has no thresholds.", f"Learn them with: {learn}")
    learnt = Plan.parse(stored["plan"])
    wanted = {**asdict(ballot), "plan": str(learnt if plan == Plan.AUTO else plan)}
    for name, value in wanted.items():
        if stored.get(name) != value:
            known = f"{name} {stored.get(name)}, not {value}"
            message = f"The thresholds of {corpus.folder} are for {known}."
            raise ConfigError(message, f"Learn others with: {learn}")
    return learnt, Cascade(learnt.dims, tuple(map(float, stored["thresholds"])))


def _check_stages(plan: Plan) -> None:
    if len(plan.stages) < 2:
        hint = "For example 8:200,64:200,1024."
        raise ConfigError(f"Plan {plan} has one stage: there is nothing to stop before.", hint)


def label_doubt(corpus: Corpus) -> str:
    """Return why the labels of `corpus` are plainly no classes, as a sentence; "" otherwise.

    Folder names may be dates, or one name a picture.

    That is: most labels stand on one item alone, or a leave-one-out vote of the 20 nearest among
    a sample is not significantly better than chance, and at most a little better (Cohen's kappa,
    1960).
    """
    if LABELS not in corpus.backgrounds:
        corpus.backgrounds[LABELS] = _doubt(corpus)
    return str(corpus.backgrounds[LABELS])


def _doubt(corpus: Corpus) -> str:
    collection = corpus.collection
    rows = np.flatnonzero(collection.labelled)
    if len(rows) < FEWEST:
        return ""
    counts = Counter(collection.labels[rows])
    single = sum(count == 1 for count in counts.values())
    if 2 * single > len(rows):
        return f"The labels are no classes: {single:,} of {len(rows):,} stand on one item alone."
    if len(rows) < SAMPLED[0]:
        return ""
    rows = rows[sample(len(rows), SAMPLED[1])]
    labels, hashes = collection.labels[rows], collection.hashes[rows]
    unit = l2_normalize(corpus.vectors.rows(rows))
    cosines = unit @ unit.T
    cosines[hashes[:, None] == hashes] = -np.inf
    ids = (-cosines).argsort(axis=1, kind="stable")[:, :VOTERS]
    scores = np.take_along_axis(cosines, ids, axis=1)
    ids[np.isneginf(scores)] = -1
    votes = [v.label for v in vote(BatchHits(ids, scores), labels, Ballot(VOTERS))]
    n = len(rows)
    right = sum(a == b for a, b in zip(votes, labels, strict=True))
    voted, true = Counter(votes), Counter(labels)
    chance = sum(voted[label] * count for label, count in true.items()) / n**2
    low, high = wilson_interval(right, n)
    if low > chance or high - chance > CHANCE * (1 - chance):
        return ""
    share = f"a vote of the nearest is right for {right / n:.1%} of {n:,}, by chance {chance:.1%}"
    return f"The labels are no classes to this model: {share}."
