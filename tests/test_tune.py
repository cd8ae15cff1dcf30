"""Tuning: goals by hand, plans that keep their promise on fresh queries, and what `query` does with them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, energy_first
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.search import exact
from mrl_search.search import tune as tuning
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.tune import Goal, Trial, default_plan, front, ram_of, sample, tune
from mrl_search.store.manifest import read_manifest, store_plan, verify
from mrl_search.store.rows import EmbeddingSet


@pytest.fixture
def clusters(make_index: Callable[..., Index]) -> Callable[[str], Index]:
    """4,000 vectors in 200 clusters, under one kind of index."""
    rng = np.random.default_rng(0)
    centres = energy_first(rng, 200)
    rows = centres[rng.integers(0, 200, 4000)] + energy_first(rng, 4000) * np.float32(0.6)
    return lambda factory: make_index(
        made_of(rows, [CLASSES[i % 3] for i in range(4000)]), factory=factory
    )


def answers(ids: np.ndarray, scores: Sequence[float] = (0.5,)) -> BatchHits:
    return BatchHits(ids, np.broadcast_to(np.array(scores, dtype=np.float32), ids.shape))


def test_a_goal_counts_the_neighbours_that_are_found(small_index: Index) -> None:
    rows = np.array([3, 77])
    goal = Goal.recall(small_index, rows, 4)
    truth = exact(small_index, goal.queries, 5).ids
    assert truth[:, 0].tolist() == [3, 77]  # each is its own nearest, and left out
    both = np.arange(2)
    assert goal.score(both, answers(truth[:, 1:])).tolist() == [1.0, 1.0]
    wrong = np.stack([truth[0, [1, 2, 0, 0]], truth[1, [4, 3, 2, 1]]])
    wrong[0, 3] = -1
    assert goal.score(both, answers(wrong)).tolist() == [0.5, 1.0]
    assert goal.score(both[1:], answers(truth[1:, :1])).tolist() == [0.0]


def test_a_vote_is_right_or_wrong(make_index: Callable[..., Index]) -> None:
    raw = np.eye(8, dtype=np.float32)[[0, 0, 0, 1, 1, 1]] + np.float32(0.01)
    index = make_index(made_of(raw, ["cat", "cat", "dog", "dog", "dog", None]), dims=(8,))
    goal = Goal.votes(index, np.arange(6), k=2)
    assert len(goal.queries) == 5  # one has no label
    neighbours = np.array([[1, 2], [0, 1], [0, 1], [4, 5], [3, 5]])
    assert goal.score(np.arange(5), answers(neighbours, [0.9, 0.5])).tolist() == [
        1.0,
        1.0,
        0.0,
        1.0,
        1.0,
    ]
    with pytest.raises(DataError, match="have no labels to tune by"):
        Goal.votes(make_index(made_of(raw, [None] * 6), dims=(8,), name="bare"), np.arange(6))


@pytest.mark.parametrize("factory", ["Flat", "IVF32,SQ8", "HNSW16", "IVF32,PQ8x4fs"])
def test_a_tuned_plan_keeps_its_promise_on_fresh_queries(
    clusters: Callable[[str], Index], factory: str
) -> None:
    index = clusters(factory)
    goal = Goal.recall(index, sample(index, 600), 10)
    found = tune(index, goal, 0.95)
    assert found.chosen.value >= 0.95
    assert found.held_out >= 0.945
    assert found.exact == 1.0
    fresh = Goal.recall(index, np.setdiff1d(np.arange(4000), sample(index, 600))[:1000], 10)
    every = np.arange(1000)
    assert (
        fresh.score(every, tuning._answers(index, fresh, every, found.chosen.plan)).mean() >= 0.945
    )


@pytest.fixture
def fair_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan takes as many milliseconds as its stages read numbers: the choice does not depend on the machine."""

    def timed(
        index: Index, goal: Goal, trials: list[Trial], progress: object
    ) -> tuple[list[Trial], float]:
        costs = [
            sum(
                d * n
                for d, n in zip(
                    t.plan.dims, (len(index), *(s.keep for s in t.plan.stages)), strict=False
                )
            )
            for t in trials
        ]
        return [replace(t, ms=float(cost)) for t, cost in zip(trials, costs, strict=True)], float(
            len(index) * index.dim
        )

    monkeypatch.setattr(tuning, "_timed", timed)


@pytest.mark.usefixtures("fair_clock")
def test_a_higher_target_costs_more(clusters: Callable[[str], Index]) -> None:
    index = clusters("IVF32,SQ8")
    goal = Goal.recall(index, sample(index, 400), 10)
    low, high = tune(index, goal, 0.5), tune(index, goal, 0.99)
    assert low.chosen.value < high.chosen.value
    assert low.chosen.ms < high.chosen.ms


@pytest.mark.parametrize("factory", ["HNSW16", "HNSW16,SQ8"])
def test_a_plan_is_worth_what_its_own_search_finds(
    clusters: Callable[[str], Index], factory: str
) -> None:
    index = clusters(factory)
    goal = Goal.recall(index, sample(index, 200), 10)
    judge = tuning._Judge(goal, np.arange(200), np.full(200, 0.9))
    for effort in (16, 64, 128):
        trials = [t for t in tuning._trials(index, judge, 16, effort) if len(t.plan.stages) < 3]
        assert len(trials) > 1 or effort == 16
        for trial in trials:
            found = goal.score(
                np.arange(200), tuning._answers(index, goal, np.arange(200), trial.plan)
            ).mean()
            assert trial.value == pytest.approx(found, abs=0.002), trial.plan


@pytest.mark.parametrize(("needed", "reached"), [(0.5, True), (0.6, False), (0.75, False)])
def test_a_plan_must_beat_the_target_by_more_than_chance_gives(
    needed: float, reached: bool
) -> None:
    """Of four marks three are 1, so their mean is .75, with a standard error of .217."""
    marks, none = np.array([1.0, 1, 1, 0]), answers(np.zeros((4, 1), dtype=np.int64))
    goal = Goal(
        "recall",
        1,
        np.zeros((4, 8), np.float32),
        np.full(4, -1),
        none,
        lambda asked, hits: marks[asked],
    )
    trial = tuning._Judge(goal, np.arange(4), np.full(4, needed)).trial(Plan.single(8, 1), none, 99)
    assert trial == Trial(Plan.single(8, 1), 0.75, reached, 99)


@pytest.mark.usefixtures("fair_clock")
def test_a_plan_that_its_check_turns_down_gives_way_to_the_next_cheapest(
    clusters: Callable[[str], Index],
) -> None:
    index, check = clusters("Flat"), np.arange(100, 200)
    goal = Goal.recall(index, sample(index, 200), 10)
    first = tune(index, goal, 0.95)
    cheapest = tuning._answers(index, goal, check, first.chosen.plan)

    def score(asked: np.ndarray, hits: BatchHits) -> np.ndarray:
        return goal.score(asked, hits) * (not np.array_equal(hits.ids, cheapest.ids))

    second = tune(index, replace(goal, score=score), 0.95)
    good = sorted(t.ms for t in first.trials if t.reached)
    assert [first.chosen.ms, second.chosen.ms] == good[:2] and good[0] < good[1]
    assert (
        second.held_out
        == goal.score(check, tuning._answers(index, goal, check, second.chosen.plan)).mean()
    )


def test_plans_that_their_check_turns_down_are_not_chosen(clusters: Callable[[str], Index]) -> None:
    index = clusters("Flat")
    whole = Goal.recall(index, sample(index, 200), 10)

    def score(
        asked: np.ndarray, hits: BatchHits
    ) -> np.ndarray:  # no plan is right on the half that checks, exact search is
        return (
            np.ones(len(asked))
            if hits is whole.exact
            else np.where(asked < 100, whole.score(asked, hits), 0.0)
        )

    with pytest.raises(
        ConfigError,
        match=r"No plan reaches 95.0% of exact search on the queries that check it; .* has 0.0%",
    ):
        tune(index, replace(whole, score=score), 0.95)


@pytest.mark.usefixtures("fair_clock")
def test_the_cheapest_plan_that_reaches_the_goal_is_chosen(
    clusters: Callable[[str], Index],
) -> None:
    index = clusters("Flat")
    found = tune(index, Goal.recall(index, sample(index, 600), 10), 0.95)
    good = [t.ms for t in found.trials if t.reached]
    assert found.chosen.ms == min(ms for ms in good if ms)
    assert found.exact_ms == 64 * 4000
    assert found.chosen.ms < found.exact_ms


@pytest.mark.usefixtures("fair_clock")
def test_who_classifies_needs_fewer_dims_than_who_searches(
    make_index: Callable[..., Index], small_set: EmbeddingSet
) -> None:
    index = make_index(small_set)
    rows = sample(index, 400)
    labels = tune(index, Goal.votes(index, rows, 5), 0.9).chosen.plan
    neighbours = tune(index, Goal.recall(index, rows, 5), 0.9).chosen.plan
    assert labels.dims[-1] == 8
    assert neighbours.dims[-1] == 64


@pytest.mark.usefixtures("fair_clock")
def test_memory_can_be_limited(make_index: Callable[..., Index], small_set: EmbeddingSet) -> None:
    index = make_index(small_set)
    goal = Goal.recall(index, sample(index, 200), 10)
    found = tune(index, goal, 0.99, max_ram=ram_of(index, 16))
    assert found.chosen.plan.dims[0] <= 16
    assert found.chosen.ram <= ram_of(index, 16)
    with pytest.raises(ConfigError, match=r"No prefix index fits in 100 bytes"):
        tune(index, goal, 0.99, max_ram=100)


def test_what_cannot_be_tuned(small_index: Index) -> None:
    goal = Goal.recall(small_index, np.arange(30), 5)
    for target in (0.0, 1.5):
        with pytest.raises(ConfigError, match="The target is a share up to 1"):
            tune(small_index, goal, target)
    with pytest.raises(DataError, match="10 queries are too few"):
        tune(small_index, Goal.recall(small_index, np.arange(10), 5), 0.9)


@pytest.mark.usefixtures("fair_clock")
def test_every_stage_of_a_plan_is_a_prefix_of_the_index(
    make_index: Callable[..., Index], small_set: EmbeddingSet
) -> None:
    index = make_index(small_set, dims=(8, 64), name="two")
    found = tune(index, Goal.recall(index, sample(index, 300), 10), 0.999)
    assert {d for trial in found.trials for d in trial.plan.dims} == {8, 64}


@pytest.mark.usefixtures("fair_clock")
def test_an_index_that_only_scans_can_be_tuned(
    make_index: Callable[..., Index], small_set: EmbeddingSet
) -> None:
    scanned, flat = (
        make_index(small_set, factory="Scan", name="scanned"),
        make_index(small_set, name="flat"),
    )
    plans = [
        tune(index, Goal.recall(index, sample(index, 300), 10), 0.95).chosen.plan
        for index in (scanned, flat)
    ]
    assert plans[0] == plans[1]


def test_the_front_is_what_no_other_beats() -> None:
    def trial(ms: float, value: float) -> Trial:
        return Trial(Plan.single(8, 1), value, True, 0, ms)

    trials = (
        trial(3, 0.9),
        trial(1, 0.5),
        trial(2, 0.4),
        trial(4, 0.9),
        trial(5, 1.0),
        trial(1, 0.3),
    )
    assert [(t.ms, t.value) for t in front(trials)] == [(1, 0.5), (3, 0.9), (5, 1.0)]


def test_a_plan_for_changed_copies_leaves_that_of_query_alone(
    small_index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "mrl_search.measure.copies.instance_goal",
        lambda index, rows, k, progress: Goal.recall(index, rows, k),
    )

    def told(*args: str) -> str:
        result = CliRunner().invoke(
            app, ["tune", str(small_index.folder), "--recall", "0.9", *args]
        )
        assert result.exit_code == 0, result.output
        return result.stderr.splitlines()[-1]

    assert told() == f"next: mrl-search query IMAGE --index {small_index.folder}"
    before = read_manifest(small_index.folder).plans["query"]
    said = told("--objective", "instance")
    plans = read_manifest(small_index.folder).plans
    assert plans["query"] == before and plans["instance"]["k"] == 1
    assert (
        said
        == f"next: mrl-search query IMAGE --index {small_index.folder} --plan {plans['instance']['plan']} -k 1"
    )


def test_who_did_not_tune_is_answered_exactly(
    make_index: Callable[..., Index], small_set: EmbeddingSet, tmp_path: Path
) -> None:
    index = make_index(small_set, factory="IVF16,Flat", name="ivf")
    row = energy_first(np.random.default_rng(8), 1)
    np.save(tmp_path / "row.npy", row)

    def told(command: str, *args: str) -> tuple[dict, str]:
        asked = [
            command,
            "--vector",
            str(tmp_path / "row.npy"),
            "--index",
            str(index.folder),
            "-k",
            "40",
            "--json",
            *args,
        ]
        result = CliRunner().invoke(app, asked)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    answer, said = told("query")
    assert (answer["plan"], [h["id"] for h in answer["hits"]], said) == (
        "exact",
        exact(index, row, 40).ids[0].tolist(),
        "",
    )
    assert told("classify")[0]["plan"] == "exact"
    answer, said = told("query", "--dims", "64")
    assert answer["plan"] == "64:40" and len(answer["hits"]) < 40
    assert said == f"{len(answer['hits'])} of the 40 asked for were found; --exact finds all.\n"
    store_plan(index.folder, "query", {"plan": "8:200@16,64:40"})
    assert told("query")[0]["plan"] == "8:200@16,64:40"


def test_a_stored_plan_is_used_where_it_fits(small_index: Index) -> None:
    assert default_plan(small_index, 10) == Plan.single(64, 10)
    store_plan(small_index.folder, "query", {"plan": "8:200@4,64:10", "value": 0.99})
    again = Index.open(small_index.folder)
    verify(small_index.folder)
    assert default_plan(again, 10) == Plan.parse("8:200@4,64:10", 10)
    assert default_plan(again, 3) == Plan.parse("8:200@4,64:3", 3)
    assert default_plan(again, 11) == Plan.single(64, 11)  # it was not tuned for so many
    assert default_plan(again, 10, "classify") == Plan.single(64, 10)
    store_plan(small_index.folder, "classify", {"plan": "8:200,32:50,64:10"})
    assert default_plan(Index.open(small_index.folder), 10, "classify") == Plan.single(
        64, 10
    )  # the index has no 32 dims
    store_plan(small_index.folder, "classify", {"plan": "8:20"})
    assert set(read_manifest(small_index.folder).plans) == {"query", "classify"}
    assert default_plan(Index.open(small_index.folder), 20, "classify") == Plan.single(8, 20)
