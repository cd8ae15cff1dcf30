"""Adaptive classification: thresholds by hand, their promise, and votes that stop early."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrl_search.engines.base import Mask
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index
from mrl_search.search.cascade import (
    NEVER,
    Cascade,
    fewest_cases,
    learn_cascade,
    run_cascade,
    surely_within,
)  # fmt: skip
from mrl_search.search.classify import (
    Ballot,
    Weighting,
    classify_adaptive,
    learn_thresholds,
    vote,
)  # fmt: skip
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import search_others
from mrl_search.search.plan import Plan
from mrl_search.search.run import search

CONFIDENCE = np.repeat([[0.9, 1.0], [0.8, 0.9], [0.7, 0.6], [0.6, 0.8], [0.5, 0.7]], 200, axis=0)
CORRECT = np.repeat(np.array([[1, 1], [1, 1], [0, 1], [1, 1], [0, 1]], dtype=bool), 200, axis=0)


def test_the_lowest_threshold_that_costs_nothing() -> None:
    """The two surest fifths are right at 8 dims; the third is not, so they alone may stop there."""
    cascade = learn_cascade(CONFIDENCE, CORRECT, (8, 64))
    assert cascade == Cascade((8, 64), (0.8, 0.0))
    point = run_cascade(cascade, CONFIDENCE, CORRECT)
    assert (point.n, point.accuracy, point.expected_dims) == (1000, 1.0, (8 * 2 + 64 * 3) / 5)
    assert point.stopped == (0.4, 0.6)


@pytest.mark.parametrize(
    ("give", "threshold", "accuracy"),
    [(0.003, 0.8, 1.0), (0.224, 0.8, 1.0), (0.225, 0.6, 0.8), (0.431, 0.6, 0.8), (0.432, 0.5, 0.6)],
)
def test_what_may_be_given_up_is_spent(give: float, threshold: float, accuracy: float) -> None:
    """With a fifth lost the bound is 0.2 + 1.85 sqrt(0.2243 * 0.7757 / 1000) = 0.2243."""
    cascade = learn_cascade(CONFIDENCE, CORRECT, (8, 64), give)
    assert cascade.thresholds == (threshold, 0.0)
    assert run_cascade(cascade, CONFIDENCE, CORRECT).accuracy == accuracy


def test_too_few_cases_say_nothing() -> None:
    """Of 298 cases without a loss the chance is 5.002% where one in a hundred is lost."""
    assert fewest_cases() == 299 and fewest_cases(0.05) == 59 and fewest_cases(0.005) == 598
    for n, threshold in ((298, NEVER), (299, 0.9)):
        for dims in ((8, 64), (8, 16, 32, 64, 128, 256, 512, 1024)):
            same = np.full((n, len(dims)), 0.9)
            cascade = learn_cascade(same, np.ones(same.shape, bool), dims)
            assert cascade.thresholds[0] == threshold and cascade.thresholds[-1] == 0


@pytest.mark.parametrize("give", [0.005, 0.01, 0.05])
@pytest.mark.parametrize("paths", [1, 2, 4, 7])
def test_the_exact_level_of_a_step(give: float, paths: int) -> None:
    """The chance to pass where the loss is `give`, summed up over all outcomes of n cases."""
    level, chances = 0.05 / paths, []
    for n in (150, 299, 400, 620, 1000):
        factorials = np.concatenate([[0], np.cumsum(np.log(np.arange(1, n + 1)))])
        for divided in give * np.array([1, 1.02, 1.2, 1.5, 2, 3, 5, 10]):  # share of cases
            m = np.arange(min(n, int(n * divided + 8 * (n * divided) ** 0.5 + 12)) + 1)
            log = factorials[n] - factorials[m] - factorials[n - m] + m * np.log(divided)
            chance = np.exp(log + (n - m) * np.log1p(-divided))[:, None]
            lost, total = np.minimum(m[None, :], m[:, None]), m[:, None]
            share = (divided + give) / (2 * divided)
            log = factorials[total] - factorials[lost] - factorials[total - lost]
            ways = np.exp(log) * share**lost * (1 - share) ** (total - lost)
            passed = surely_within(lost, total - lost, n, give, level) & (m[None, :] <= m[:, None])
            chances.append((chance * ways * passed).sum())
    assert 0.7 * level < max(chances) <= level


def test_a_classifier_that_is_sure_and_wrong_never_stops() -> None:
    wrong = np.repeat(np.array([[0, 1], [1, 1], [1, 1], [1, 1], [1, 1]], dtype=bool), 200, axis=0)
    cascade = learn_cascade(CONFIDENCE, wrong, (8, 64))
    assert cascade.thresholds == (NEVER, 0.0)
    assert run_cascade(cascade, CONFIDENCE, wrong).expected_dims == 64


def test_a_threshold_is_not_lowered_past_a_loss_that_is_made_up_for_later() -> None:
    up_and_down = np.repeat(
        np.array([[1, 1], [0, 1], [1, 0], [1, 1], [1, 1]], dtype=bool), 200, axis=0
    )
    assert learn_cascade(CONFIDENCE, up_and_down, (8, 64), give=0.1).thresholds == (0.9, 0.0)


def test_cases_of_equal_confidence_stop_together() -> None:
    confidence = np.repeat([[0.9, 1], [0.9, 1], [0.5, 1]], 200, axis=0)
    correct = np.repeat(np.array([[1, 1], [0, 1], [1, 1]], dtype=bool), 200, axis=0)
    assert learn_cascade(confidence, correct, (8, 64)).thresholds == (NEVER, 0.0)


def test_a_short_prefix_that_is_better_ends_everything_there() -> None:
    correct = np.repeat(np.array([[1, 0], [1, 1], [0, 0]], dtype=bool), 200, axis=0)
    cascade = learn_cascade(CONFIDENCE[:600], correct, (8, 64), give=0.0)
    assert run_cascade(cascade, CONFIDENCE[:600], correct).expected_dims == 8


def test_one_stage_and_bad_shapes() -> None:
    assert learn_cascade(CONFIDENCE[:, :1], CORRECT[:, :1], (8,)) == Cascade((8,), (0.0,))
    for confidence, correct, dims in (
        (CONFIDENCE, CORRECT[:, :1], (8, 64)),
        (CONFIDENCE, CORRECT, (8,)),
        (CONFIDENCE[:0], CORRECT[:0], (8, 64)),
    ):
        with pytest.raises(DataError, match="Confidences and outcomes have shapes"):
            learn_cascade(confidence, correct, dims)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 400), st.sampled_from([0.0, 0.01, 0.05, 0.2]))
def test_every_step_of_the_path_passes_and_the_next_does_not(
    seed: int, n: int, give: float
) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.integers(0, 6, (n, 4)) / 5
    correct = rng.random((n, 4)) < [0.5, 0.6, 0.7, 0.8]
    dims = (8, 16, 32, 64)

    def passes(first: int, threshold: float, paths: int) -> bool:
        cascade = Cascade(dims, (NEVER,) * first + (threshold,) * (3 - first) + (0.0,))
        right = correct[np.arange(n), cascade.stages(confidence)]
        lost, won = int((correct[:, -1] & ~right).sum()), int((right & ~correct[:, -1]).sum())
        return bool(surely_within(lost, won, n, give, 0.05 / paths))

    paths = max([1, *(k for k in (2, 3) if surely_within(0, 0, n, give, 0.05 / k))])
    best = 64.0
    for first in {1: (0,), 2: (0, 2), 3: (0, 1, 2)}[paths]:
        lowest = NEVER
        for threshold in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0):
            if (confidence[:, first:3] == threshold).any():
                if not passes(first, threshold, paths):
                    break
                lowest = threshold
        cascade = Cascade(dims, (NEVER,) * first + (lowest,) * (3 - first) + (0.0,))
        best = min(best, run_cascade(cascade, confidence, correct).expected_dims)
    learnt = learn_cascade(confidence, correct, dims, give)
    assert run_cascade(learnt, confidence, correct).expected_dims == best


DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)
OFFSETS = {  # of the logit of each prefix
    "equal": np.zeros(8),
    "slowly better": np.linspace(-0.9, 0, 8),
    "steeply better": np.array([-3, -2.2, -1.5, -1, -0.6, -0.3, -0.1, 0]),
}


def cases(kind: str, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Calibrated classifiers; a twentieth of the luck of each prefix is its own."""
    ease = rng.normal(2.5, 1.5, (n, 1)) + 0.2 * rng.normal(size=(n, 8))
    confidence = 1 / (1 + np.exp(-(ease + OFFSETS[kind])))
    luck = 0.95**0.5 * rng.normal(size=(n, 1)) + 0.05**0.5 * rng.normal(size=(n, 8))
    return confidence, luck < normal_quantile(confidence)


QUANTILES = np.linspace(-6, 6, 4001)
CHANCES = np.array([NormalDist().cdf(x) for x in QUANTILES])


def normal_quantile(share: np.ndarray) -> np.ndarray:
    """The quantile of a normal distribution, by interpolation."""
    return np.interp(share, CHANCES, QUANTILES)


@pytest.mark.slow
@pytest.mark.parametrize("n", [300, 1000])
@pytest.mark.parametrize(("kind", "dims"), [("equal", (700, 350)), ("slowly better", (900, 800)),
                                           ("steeply better", (900, 800))])  # fmt: skip
def test_on_other_cases_it_keeps_its_promise(kind: str, dims: tuple[int, int], n: int) -> None:
    """400 seeds, eight stages: at most 5% may lose more than a point; 93% allow for chance."""
    others = cases(kind, np.random.default_rng(10_000), 100_000)
    full, kept, read = others[1][:, -1].mean(), 0, []
    for seed in range(400):
        cascade = learn_cascade(*cases(kind, np.random.default_rng(seed), n), DIMS, 0.01)
        point = run_cascade(cascade, *others)
        kept += point.accuracy >= full - 0.01
        read.append(point.expected_dims)
    assert kept >= 0.93 * 400
    assert np.mean(read) < dims[n == 1000]  # of 1,024


# Votes


PLAN = Plan.parse("8:60,16:60,64")


@pytest.fixture
def corpus(small_index: Index) -> Corpus:
    return small_index.corpus


def test_a_query_stops_where_its_vote_is_sure_enough(corpus: Corpus, queries: np.ndarray) -> None:
    cascade = Cascade((8, 16, 64), (0.9, 0.9, 0.0))
    votes = classify_adaptive(corpus, queries, PLAN, cascade, Ballot(5))
    labels = corpus.collection.labels
    stages = {8: Plan.parse("8"), 16: Plan.parse("8:60,16"), 64: PLAN}
    each = {d: vote(search(corpus, queries, p, 5), labels) for d, p in stages.items()}
    assert len({v.dims for v in votes}) > 1
    for i, v in enumerate(votes):
        assert v.dims is not None
        own = each[v.dims][i]
        assert (v.label, v.confidence, v.shares) == (own.label, own.confidence, own.shares)
        assert all(each[shorter][i].confidence < 0.9 for shorter in stages if shorter < v.dims)
        assert v.dims == 64 or v.confidence >= 0.9


def test_thresholds_at_the_ends(corpus: Corpus, queries: np.ndarray) -> None:
    for thresholds, dims in (
        ((0.0, 0.0, 0.0), 8), ((NEVER, 0.0, 0.0), 16), ((NEVER, NEVER, 0.0), 64),
    ):  # fmt: skip
        cascade = Cascade((8, 16, 64), thresholds)
        votes = classify_adaptive(corpus, queries, PLAN, cascade, Ballot(5))
        assert {v.dims for v in votes} == {dims}
    assert classify_adaptive(corpus, queries[:0], PLAN, cascade, Ballot(5)) == []


def test_thresholds_are_learnt_without_the_item_itself(corpus: Corpus) -> None:
    """As if every item had been searched for among the others, at every stage by its own."""
    plan, ballot = Plan.parse("8:500,64"), Ballot(20, 0.07, Weighting.MAJORITY)
    learned = learn_thresholds(corpus, plan, ballot)
    c = corpus.collection
    confidence, correct = np.empty((500, 2)), np.empty((500, 2), dtype=bool)
    for stage, d in enumerate((8, 64)):
        rows = c.vectors.rows().astype(np.float32)
        votes = vote(search_others(corpus, rows, c.hashes, Plan.single(d), 20), c.labels, ballot)
        confidence[:, stage] = [v.confidence for v in votes]
        correct[:, stage] = [v.label == t for v, t in zip(votes, c.labels, strict=True)]
    assert learned.cascade == learn_cascade(confidence, correct, (8, 64))
    assert learned.point == run_cascade(learned.cascade, confidence, correct)
    assert learned.full_accuracy == correct[:, 1].mean()
    assert learned == learn_thresholds(corpus, plan, ballot)


def test_only_allowed_items_vote(corpus: Corpus, queries: np.ndarray) -> None:
    mask = Mask(np.array([label == "cat" for label in corpus.collection.labels]))
    cascade = Cascade((8, 16, 64), (0.5, 0.5, 0.0))
    votes = classify_adaptive(corpus, queries, PLAN, cascade, Ballot(5), mask)
    assert {(v.label, v.dims, v.confidence) for v in votes} == {("cat", 8, 1.0)}


def test_held_out_items_alone_teach_and_all_vote(corpus: Corpus) -> None:
    """Each of 100 items held out is a neighbour of the others, as are the 400 others."""
    some = np.arange(0, 500, 5)
    learned = learn_thresholds(corpus, PLAN, Ballot(5), 0.05, some)
    whole = learn_thresholds(corpus, PLAN, Ballot(5), 0.05)
    assert (learned.point.n, whole.point.n) == (100, 500)
    assert learned.cascade != whole.cascade


def test_what_cannot_be_learnt(corpus: Corpus, queries: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="has one stage"):
        learn_thresholds(corpus, Plan.single(8), Ballot(5))
    with pytest.raises(
        ConfigError, match=r"Plan 8:60,16:60,64 has a shortlist of 60, fewer than the 80"
    ):
        learn_thresholds(corpus, PLAN, Ballot(80))
    with pytest.raises(ConfigError, match="The thresholds are for 8, 64 dims"):
        classify_adaptive(corpus, queries, PLAN, Cascade((8, 64), (0.5, 0.0)), Ballot(5))
    with pytest.raises(DataError, match="two labelled items; there are 1"):
        learn_thresholds(corpus, PLAN, Ballot(5), held_out=np.array([3]))
