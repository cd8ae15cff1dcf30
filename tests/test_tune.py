"""Tuning: goals by hand, and plans that keep their promise on fresh queries."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLASSES, Rows, energy_first, made_of
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.errors import ConfigError, DataError, IndexFolderError
from mrl_search.index import Index
from mrl_search.metrics import share_interval
from mrl_search.search import run
from mrl_search.search import tune as tuning
from mrl_search.search.corpus import Corpus
from mrl_search.search.goal import Goal, queries_to_tune
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.search.run import search
from mrl_search.search.scoring import Known
from mrl_search.search.tune import Trial, front, tune
from mrl_search.store.generations import store_plan
from mrl_search.store.manifest import read_manifest


@pytest.fixture
def corpus(small_index: Index) -> Corpus:
    return small_index.corpus


@pytest.fixture
def make_corpus(make_index: Callable[..., Index]) -> Callable[..., Corpus]:
    return lambda *args, **options: make_index(*args, **options).corpus


@pytest.fixture
def clusters(make_corpus: Callable[..., Corpus]) -> Callable[[str], Corpus]:
    """4,000 vectors in 200 clusters, under one kind of index."""
    rng = np.random.default_rng(0)
    centres = energy_first(rng, 200)
    rows = centres[rng.integers(0, 200, 4000)] + energy_first(rng, 4000) * np.float32(0.6)
    labels = [CLASSES[i % 3] for i in range(4000)]
    return lambda factory: make_corpus(made_of(rows, labels), factory=factory)


def answers(ids: np.ndarray, scores: Sequence[float] = (0.5,)) -> BatchHits:
    return BatchHits(ids, np.broadcast_to(np.array(scores, dtype=np.float32), ids.shape))


def test_a_goal_counts_the_neighbours_that_are_found(corpus: Corpus) -> None:
    rows = np.array([3, 77])
    goal = Goal.recall(corpus, rows, 4)
    truth = search(corpus, goal.queries, Plan.EXACT, 5).ids
    assert truth[:, 0].tolist() == [3, 77]  # each is its own nearest, and left out
    both = np.arange(2)
    assert goal.score(both, answers(truth[:, 1:])).tolist() == [1.0, 1.0]
    wrong = np.stack([truth[0, [1, 2, 0, 0]], truth[1, [4, 3, 2, 1]]])
    wrong[0, 3] = -1
    assert goal.score(both, answers(wrong)).tolist() == [0.5, 1.0]
    assert goal.score(both[1:], answers(truth[1:, :1])).tolist() == [0.0]


def test_a_vote_is_right_or_wrong(make_corpus: Callable[..., Corpus]) -> None:
    raw = np.eye(8, dtype=np.float32)[[0, 0, 0, 1, 1, 1]] + np.float32(0.01)
    corpus = make_corpus(made_of(raw, ["cat", "cat", "dog", "dog", "dog", None]), dims=(8,))
    goal = Goal.votes(corpus, np.arange(6), k=2)
    assert len(goal.queries) == 5  # one has no label
    neighbours = np.array([[1, 2], [0, 1], [0, 1], [4, 5], [3, 5]])
    assert goal.score(np.arange(5), answers(neighbours, [0.9, 0.5])).tolist() == [
        1.0,
        1.0,
        0.0,
        1.0,
        1.0,
    ]
    with pytest.raises(DataError, match="have no labels"):
        Goal.votes(make_corpus(made_of(raw, [None] * 6), dims=(8,), name="bare"), np.arange(6))


@pytest.mark.parametrize("factory", ["Flat", "IVF32,SQ8", "HNSW16", "IVF32,PQ8x4fs"])
def test_a_tuned_plan_keeps_its_promise_on_fresh_queries(
    clusters: Callable[[str], Corpus], factory: str
) -> None:
    corpus = clusters(factory)
    goal = Goal.recall(corpus, queries_to_tune(corpus, 600), 10)
    found = tune(corpus, goal, 0.95)
    assert found.chosen.value >= 0.95
    assert 0.95 <= found.interval[0] <= found.held_out <= found.interval[1]
    assert found.exact == 1.0
    fresh = Goal.recall(
        corpus, np.setdiff1d(np.arange(4000), queries_to_tune(corpus, 600))[:1000], 10
    )
    every = np.arange(1000)
    marks = fresh.score(every, tuning._answers(corpus, fresh, every, found.chosen.plan))
    assert marks.mean() >= 0.95


@pytest.fixture
def fair_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan takes a millisecond for each value it reads: no choice depends on the machine."""

    def timed(
        corpus: Corpus, goal: Goal, trials: list[Trial], progress: object
    ) -> tuple[list[Trial], float]:
        def cost(plan: Plan) -> float:
            counts = (len(corpus), *(s.keep or goal.k for s in plan.stages))
            return float(sum(d * n for d, n in zip(plan.dims, counts, strict=False)))

        return [replace(t, ms=cost(t.plan)) for t in trials], float(len(corpus) * corpus.dim)

    monkeypatch.setattr(tuning, "_timed", timed)


@pytest.mark.usefixtures("fair_clock")
def test_a_higher_target_costs_more(clusters: Callable[[str], Corpus]) -> None:
    corpus = clusters("IVF32,SQ8")
    goal = Goal.recall(corpus, queries_to_tune(corpus, 400), 10)
    low, high = tune(corpus, goal, 0.5), tune(corpus, goal, 0.99)
    assert low.chosen.value < high.chosen.value
    assert low.chosen.ms < high.chosen.ms


@pytest.mark.parametrize("factory", ["HNSW16", "HNSW16,SQ8"])
def test_a_plan_is_worth_what_its_own_search_finds(
    clusters: Callable[[str], Corpus], factory: str
) -> None:
    corpus = clusters(factory)
    goal = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)
    known = Known(corpus.vectors, goal.queries)
    judge = tuning._Judge(goal, np.arange(200), np.full(200, 0.9), known)
    for effort in (16, 64, 128):
        trials = [t for t in tuning._trials(corpus, judge, 16, effort) if len(t.plan.stages) < 3]
        assert len(trials) > 1 or effort == 16
        for trial in trials:
            found = goal.score(
                np.arange(200), tuning._answers(corpus, goal, np.arange(200), trial.plan)
            ).mean()
            assert trial.value == pytest.approx(found, abs=0.002), trial.plan


def test_the_check_may_ask_for_shortlists_four_times_as_long(
    clusters: Callable[[str], Corpus],
) -> None:
    corpus = clusters("IVF32,SQ8")
    goal = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)
    judge = tuning._Judge(
        goal, np.arange(200), np.full(200, 0.5), Known(corpus.vectors, goal.queries)
    )
    trials = [t for t in tuning._trials(corpus, judge, 16, 16) if len(t.plan.stages) == 2]
    kept = [t.plan.stages[0].keep or 0 for t in trials if t.reached]
    assert len(kept) == len(tuning.LONGER)
    assert kept[-1] >= 4 * kept[0]


@pytest.mark.parametrize(("needed", "reached"), [(0.5, True), (0.6, False), (0.75, False)])
def test_a_plan_must_beat_the_target_by_more_than_chance_gives(
    corpus: Corpus, needed: float, reached: bool
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
    known = Known(corpus.vectors, goal.queries)
    judge = tuning._Judge(goal, np.arange(4), np.full(4, needed), known)
    trial = judge.trial(Plan.single(8), none, 99)
    assert trial == Trial(Plan.single(8), 0.75, reached, 99)


@pytest.mark.usefixtures("fair_clock")
def test_a_plan_that_its_check_turns_down_gives_way_to_the_next_cheapest(
    clusters: Callable[[str], Corpus],
) -> None:
    corpus, check = clusters("Flat"), np.arange(66, 200)
    goal = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)
    first = tune(corpus, goal, 0.95)
    cheapest = tuning._answers(corpus, goal, check, first.chosen.plan)

    def score(asked: np.ndarray, hits: BatchHits) -> np.ndarray:
        return goal.score(asked, hits) * (not np.array_equal(hits.ids, cheapest.ids))

    second = tune(corpus, replace(goal, score=score), 0.95)
    good = [t.ms for t in front(tuple(t for t in first.trials if t.reached))]
    at = good.index(first.chosen.ms)
    assert second.chosen.ms == good[at + 1] > good[at]
    assert (
        second.held_out
        == goal.score(check, tuning._answers(corpus, goal, check, second.chosen.plan)).mean()
    )


def test_plans_that_their_check_turns_down_are_not_chosen(
    clusters: Callable[[str], Corpus],
) -> None:
    corpus = clusters("Flat")
    whole = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)

    def score(
        asked: np.ndarray, hits: BatchHits
    ) -> np.ndarray:  # no plan is right on the queries that check, exact search is
        return (
            np.ones(len(asked))
            if hits is whole.exact
            else np.where(asked < 66, whole.score(asked, hits), 0.0)
        )

    assert tune(corpus, replace(whole, score=score), 0.95).chosen.plan == Plan.EXACT
    with pytest.raises(
        ConfigError,
        match=r"No plan surely reaches 95.0% of exact search on the queries that check it; .* 0.0%",
    ):
        tune(corpus, replace(whole, score=score), 0.95, max_ram=corpus.vectors.nbytes - 1)


def test_exact_search_is_timed_as_query_runs_it(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower exact search in `query` is slower exact search in tuning, and nothing else is."""
    goal = Goal.recall(corpus, np.arange(30), 5)
    plan = [Trial(Plan.single(8), 0.5, True, 0)]
    _, before = tuning._timed(corpus, goal, plan, lambda *_: None)
    quick = run.exact_search

    def slow(*args: object) -> object:
        time.sleep(0.03)
        return quick(*args)

    monkeypatch.setattr(run, "exact_search", slow)
    (trial,), after = tuning._timed(corpus, goal, plan, lambda *_: None)
    assert before < 30 <= after and trial.ms < 30


@pytest.mark.usefixtures("fair_clock")
def test_the_cheapest_plan_that_reaches_the_goal_is_chosen(
    clusters: Callable[[str], Corpus],
) -> None:
    corpus = clusters("Flat")
    goal = Goal.recall(corpus, queries_to_tune(corpus, 600), 10)
    found = tune(corpus, goal, 0.95)
    cheaper = [t for t in found.trials if t.reached and t.ms < found.chosen.ms]
    for trial in [t for t in cheaper if t.value == max(u.value for u in cheaper)]:
        check = np.arange(200, 600)
        marks = goal.score(check, tuning._answers(corpus, goal, check, trial.plan))
        assert share_interval(marks, 10)[0] < 0.95 <= found.interval[0]
    assert found.exact_ms == 64 * 4000
    assert found.chosen.ms < found.exact_ms


@pytest.mark.usefixtures("fair_clock")
def test_who_classifies_needs_fewer_dims_than_who_searches(
    make_corpus: Callable[..., Corpus], small_set: Rows
) -> None:
    corpus = make_corpus(small_set)
    rows = queries_to_tune(corpus, 400)
    labels = tune(corpus, Goal.votes(corpus, rows, 5), 0.9).chosen.plan
    neighbours = tune(corpus, Goal.recall(corpus, rows, 5), 0.9).chosen.plan
    assert labels.dims[-1] == 8
    assert neighbours.dims[-1] == 64


@pytest.mark.usefixtures("fair_clock")
def test_memory_can_be_limited(make_corpus: Callable[..., Corpus], small_set: Rows) -> None:
    corpus = make_corpus(small_set)
    goal = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)
    found = tune(corpus, goal, 0.99, max_ram=corpus.prefix_index(16).ram_bytes)
    assert found.chosen.plan.dims[0] <= 16
    assert found.chosen.ram <= corpus.prefix_index(16).ram_bytes
    with pytest.raises(ConfigError, match=r"No prefix index fits in 100 bytes"):
        tune(corpus, goal, 0.99, max_ram=100)


def test_what_cannot_be_tuned(corpus: Corpus) -> None:
    goal = Goal.recall(corpus, np.arange(30), 5)
    for target in (0.0, 1.5):
        with pytest.raises(ConfigError, match="it must be over 0 and at most 1"):
            tune(corpus, goal, target)
    with pytest.raises(DataError, match="Tuning needs at least 20 queries; there are 10"):
        tune(corpus, Goal.recall(corpus, np.arange(10), 5), 0.9)


@pytest.mark.usefixtures("fair_clock")
def test_every_stage_of_a_plan_is_a_prefix_of_the_index(
    make_corpus: Callable[..., Corpus], small_set: Rows
) -> None:
    corpus = make_corpus(small_set, dims=(8, 64), name="two")
    found = tune(corpus, Goal.recall(corpus, queries_to_tune(corpus, 300), 10), 0.999)
    assert {d for trial in found.trials for d in trial.plan.dims} == {8, 64}


@pytest.mark.parametrize("target", [0.95, 0.99])
def test_a_plan_below_the_target_passes_the_check_in_one_of_twenty_runs(target: float) -> None:
    """Plans whose order is luck: some reach the target, some miss it by a little."""
    goal = Goal("recall", 10, *[np.empty(0)] * 2, BatchHits(*[np.empty((0, 10))] * 2), None)  # type: ignore[arg-type]
    true = np.concatenate([np.full(3, (1 + target) / 2), np.full(9, target - 1e-9)])
    wrong = chosen = 0
    for seed in range(800):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(true))
        trials = [Trial(Plan.single(8), float(true[i]), True, 0, float(i)) for i in order]

        def marks_of(trial: Trial, rng: Any = rng) -> np.ndarray:  # some queries are harder
            mean = trial.value
            return rng.binomial(10, rng.beta(20 * mean, 20 * (1 - mean), 600)) / 10

        found, _ = tuning._checked(
            trials, marks_of, lambda marks: tuning._keeps(marks, np.ones(600), target, goal)
        )
        chosen += found is not None
        wrong += found is not None and found.value < target
    assert chosen > 100  # it can choose
    assert wrong <= 800 * 0.05 + 2 * (800 * 0.05 * 0.95) ** 0.5


def test_a_target_near_one_takes_as_many_queries_as_can_prove_it(
    clusters: Callable[[str], Corpus],
) -> None:
    corpus = clusters("Flat")
    counts = [len(queries_to_tune(corpus, target=t)) for t in (0.5, 0.99, 0.998, 0.999, 1.0)]
    assert counts == [1000, 1000, 2000, 4000, 4000]
    check = len(queries_to_tune(corpus, target=0.999)) * 2 // 3
    marks = np.ones(check)
    marks[: int(check * 10 * 0.0005)] = 0.9  # half of the misses that the target allows
    goal = Goal.recall(corpus, np.arange(20), 10)
    assert tuning._keeps(marks, np.ones(check), 0.999, goal)
    assert not tuning._keeps(marks[: check // 3], np.ones(check // 3), 0.999, goal)


@pytest.mark.usefixtures("fair_clock")
def test_an_index_that_only_scans_can_be_tuned(
    make_corpus: Callable[..., Corpus], small_set: Rows
) -> None:
    plans = []
    for factory in ("Scan", "Flat"):
        corpus = make_corpus(small_set, factory=factory, name=factory)
        goal = Goal.recall(corpus, queries_to_tune(corpus, 300), 10)
        plans.append(tune(corpus, goal, 0.95).chosen.plan)
    assert plans[0] == plans[1]


def test_the_front_is_what_no_other_beats() -> None:
    def trial(ms: float, value: float) -> Trial:
        return Trial(Plan.single(8), value, True, 0, ms)

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
        lambda index, rows, k, progress: replace(
            Goal.recall(index.corpus, rows, k), name="instance"
        ),
    )

    def last_line(*args: str) -> str:
        command = ["tune", str(small_index.folder), "--recall", "0.9", *args]
        result = CliRunner().invoke(app, command)
        assert result.exit_code == 0, result.output
        return result.stderr.splitlines()[-1]

    query = f"next: mrl-search query IMAGE --index {small_index.folder}"
    assert last_line() == query
    before = read_manifest(small_index.folder).plans["query"]
    line = last_line("--objective", "instance")
    plans = read_manifest(small_index.folder).plans
    assert plans["query"] == before and plans["instance"]["k"] == 1  # type: ignore[index]
    assert line == f"{query} --plan {plans['instance']['plan']} -k 1"  # type: ignore[index]


def test_an_index_that_is_not_tuned_answers_exactly(
    make_index: Callable[..., Index], small_set: Rows, tmp_path: Path
) -> None:
    index = make_index(small_set, factory="IVF16,Flat", name="ivf")
    row = energy_first(np.random.default_rng(8), 1)
    np.save(tmp_path / "row.npy", row)
    place = ["--vector", str(tmp_path / "row.npy"), "--index", str(index.folder), "-k", "40"]

    def answer(command: str, *args: str) -> tuple[dict, str]:
        result = CliRunner().invoke(app, [command, *place, "--json", *args])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout), result.stderr

    line, note = answer("query")
    expected = search(index.corpus, row, Plan.EXACT, 40).ids[0].tolist()
    assert (line["plan"], [h["id"] for h in line["hits"]], note) == ("exact", expected, "")
    assert answer("classify")[0]["plan"] == "exact"
    line, note = answer("query", "--dims", "64")
    assert line["plan"] == "64" and len(line["hits"]) < 40
    found = len(line["hits"])
    assert note == f"Only {found} of the 40 asked for were found. --exact finds more.\n"
    store_plan(index.folder, "query", {"plan": "8:200@16,64:40"})
    assert answer("query")[0]["plan"] == "8:200@16,64"


def test_exact_search_is_kept_where_nothing_is_faster(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def timed(
        corpus: Corpus, goal: Goal, trials: list[Trial], progress: object
    ) -> tuple[list[Trial], float]:
        return [replace(t, ms=2.0) for t in trials], 1.0

    monkeypatch.setattr(tuning, "_timed", timed)
    goal = Goal.recall(corpus, queries_to_tune(corpus, 200), 10)
    found = tune(corpus, goal, 0.9)
    assert (found.chosen.plan, found.held_out) == (Plan.EXACT, 1.0)
    assert tune(corpus, goal, 0.9, max_ram=corpus.vectors.nbytes - 1).chosen.ms == 2.0


def test_plans_stored_at_once_are_all_kept(small_index: Index) -> None:
    def store(number: int) -> None:
        store_plan(small_index.folder, f"use{number}", {"plan": f"8:{number},64"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(store, range(40)))
    plans = read_manifest(small_index.folder).plans
    assert all(plans[f"use{n}"] == {"plan": f"8:{n},64"} for n in range(40))


def test_a_plan_is_stored_only_into_the_index_that_was_measured(
    small_index: Index, tmp_path: Path
) -> None:
    measured = small_index.manifest
    shutil.rmtree(small_index.folder)
    Index.from_vectors(np.eye(64, dtype=np.float32), small_index.folder)
    with pytest.raises(IndexFolderError, match="was replaced while it was tuned; the plan was"):
        store_plan(small_index.folder, "query", {"plan": "8:20,64"}, measured)
    assert not read_manifest(small_index.folder).plans
