"""At full effort every contestant that is installed finds what brute force finds."""

from pathlib import Path

import numpy as np
import pytest
from contest import alone
from contestants import Contestant, Ladder, rising
from corpus import build as build_corpus
from kinds import intrinsic
from rounds import CONTESTANTS, build, cold, sweep, warm
from sweep import choose
from vectors import Kind
from work import K, Work, hits, prepare

from mrl_search.engines.spec import IndexSpec

REFUSES = "SVS LeanVec"  # processors that are not Intel's


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("contest")
    build_corpus(Kind.EASY, 2000, folder / "index", IndexSpec((64, 128, 1024)))
    work = Work(folder / "work", folder / "index")
    prepare(work, None)
    return work


def test_truth_is_the_nearest_by_inner_product(work: Work) -> None:
    rows, scores = work.truth("fresh")
    every = work.queries("fresh") @ work.rows().T
    np.testing.assert_array_equal(rows[:, :K], np.argsort(-every, axis=1)[:, :K])
    np.testing.assert_allclose(scores[:, 0], every.max(axis=1), atol=1e-6)
    assert not np.allclose(work.queries("fresh"), work.queries("tuning"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in CONTESTANTS if n != REFUSES])
def test_full_effort_finds_the_true_neighbours(work: Work, name: str) -> None:
    contestant = CONTESTANTS[name]
    if contestant.missing:
        pytest.skip(f"not installed: {contestant.missing}")
    build(work, name, 1)
    contestant.open(work, work.of(name))
    ladders = contestant.ladders(2000)
    contestant.use(ladders[-1].at(-1) if ladders else {})
    contestant.use_threads(1)
    queries, truth = work.queries("fresh")[:100], work.truth("fresh")
    truth = truth[0][:100], truth[1][:100]
    assert hits(contestant.search(queries), truth).mean() >= 0.995
    one = np.concatenate([contestant.search(q[None]) for q in queries[:20]])
    assert hits(one, (truth[0][:20], truth[1][:20])).mean() >= 0.99
    assert contestant.coarse_bytes > 0


class Every(Contestant):
    """Scores the first `rows` rows."""

    name = "every"

    def build(self, work: Work, folder: Path, cores: int) -> None: ...

    def open(self, work: Work, folder: Path) -> None:
        self.x = work.rows()

    def ladders(self, n: int) -> list[Ladder]:
        return [Ladder({}, "rows", rising(K, n))]

    def use(self, setting: dict[str, int | str]) -> None:
        self.count = int(setting["rows"])

    def search(self, queries: np.ndarray) -> np.ndarray:
        return np.argsort(-(queries @ self.x[: self.count].T), axis=1)[:, :K]


def test_the_sweep_stops_at_the_lowest_rung_that_reaches_the_target(work: Work) -> None:
    every = Every()
    every.open(work, work.folder)
    half, whole = choose(every, work, [0.5, 1.0], 1)
    assert whole["setting"] == {"rows": 2000}
    assert whole["tuning_recall"] == 1
    assert 0.5 <= half["tuning_recall"] < 0.6
    assert 900 < half["setting"]["rows"] < 1200
    (missed,) = choose(every, work, [1.1], 1)
    assert missed["setting"] is None
    assert "1.0000" in missed["reason"]


@pytest.mark.slow
def test_processes_of_their_own_build_sweep_and_answer(work: Work) -> None:
    name = "faiss IVF PQfs 128 dims + refine"
    if not (work.of(name) / "built.json").exists():
        alone(build, work, name, 1)
    chosen = alone(sweep, work, name, [0.9], 1)
    (result,) = alone(warm, work, name, chosen, slice(0, 50), 1)
    assert len(result["ms"]) == len(result["hits"]) == 50
    assert np.mean(result["hits"]) > 0.8
    opened = alone(cold, work, name, chosen[0])
    assert opened["rows_bytes"] == 2000 * 1024 * 4
    assert opened["anonymous_bytes"] > opened["rows_bytes"]


def test_ties_with_the_last_place_count() -> None:
    rows, scores = np.arange(12)[None], np.ones((1, 12), np.float32)
    assert hits(np.arange(2, 12)[None], (rows, scores))[0] == 1
    scores = np.linspace(1, 0.5, 12, dtype=np.float32)[None]
    assert hits(np.arange(2, 12)[None], (rows, scores))[0] == 0.8


def test_the_dimension_of_points_in_a_ball_is_found() -> None:
    x = np.random.default_rng(0).standard_normal((4000, 5)).astype(np.float32)
    d = np.sort(np.linalg.norm(x[:200, None] * 0.3 - x[None], axis=2), axis=1)[:, :20]
    assert 4 < intrinsic(d) < 6
