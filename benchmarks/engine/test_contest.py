"""At full effort every contestant that is installed finds what brute force finds."""

from pathlib import Path

import numpy as np
import pytest
from contest import alone
from contestants import Contestant, Ladder, rising
from corpus import build as build_corpus
from corpus import write
from kinds import intrinsic
from rounds import CONTESTANTS, build, cold, sweep, warm
from sweep import Rungs, choose
from vectors import Kind, some_items
from work import K, Work, hits, prepare

from mrl_search.engines.spec import IndexSpec
from mrl_search.search.corpus import Corpus

CODED = ("SVS LVQ8", "SVS LeanVec 128 dims", "SVS LeanVec 256 dims")  # of Intel's processors
LOSSY = "SVS LVQ8"  # no second pass


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("contest")
    build_corpus(Kind.EASY, 2000, folder / "index", IndexSpec((64, 128, 1024)))
    work = Work(folder / "work", folder / "index")
    prepare(work, None, 1000)
    return work


def test_truth_is_the_nearest_by_inner_product(work: Work) -> None:
    rows, scores = work.truth("fresh")
    every = work.queries("fresh") @ work.rows().T
    nearest = np.argsort(-every, axis=1)[:, :K]  # in float32, where equal scores change places
    assert (rows[:, :K] == nearest).mean() > 0.99
    np.testing.assert_allclose(
        np.take_along_axis(every, rows[:, :K], 1), np.take_along_axis(every, nearest, 1), atol=3e-6
    )
    np.testing.assert_allclose(scores[:, 0], every.max(axis=1), atol=3e-6)
    assert not np.allclose(work.queries("fresh"), work.queries("tuning"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CONTESTANTS)
def test_full_effort_finds_the_true_neighbours(work: Work, name: str) -> None:
    contestant = CONTESTANTS[name]
    if contestant.missing:
        pytest.skip(f"not installed: {contestant.missing}")
    if name in CODED and "GenuineIntel" not in Path("/proc/cpuinfo").read_text():
        pytest.skip("needs a processor of Intel")
    build(work, name, 1)
    contestant.open(work, work.of(name))
    ladders = contestant.ladders(2000)
    contestant.use(ladders[-1].at(-1) if ladders else {})
    contestant.use_threads(1)
    queries, truth = work.queries("fresh")[:100], work.truth("fresh")
    truth = truth[0][:100], truth[1][:100]
    enough = 0.95 if name == LOSSY else 0.995
    assert hits(contestant.search(queries), truth).mean() >= enough
    one = np.concatenate([contestant.search(q[None]) for q in queries[:20]])
    assert hits(one, (truth[0][:20], truth[1][:20])).mean() >= enough - 0.005
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
    for guess in (0, 20, 40, len(rising(K, 2000)) - 1):
        rungs = Rungs(every, work, every.ladders(2000)[0], 1000)
        assert rungs.ladder.at(rungs.lowest(0.5, guess)) == half["setting"]
        assert rungs.lowest(1.1, guess) is None
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


def test_noised_items_do_not_count_themselves(work: Work, tmp_path: Path) -> None:
    index = tmp_path / "index"
    rows = np.asarray(work.rows())
    write("own", len(rows), iter([rows]), "own", index, IndexSpec((128, 1024)))
    noised = Work(tmp_path / "work", index)
    prepare(noised, None, 300)
    assert (noised.about["tuning"], len(noised.truth("tuning")[0])) == (300, 300)
    assert noised.about["wanted"] == K - 1
    own = some_items(Corpus.open(index), 1300)[:1000]
    x, (truth, _) = noised.queries("fresh"), noised.truth("fresh")
    assert not (truth == own[:, None]).any()
    order = np.argsort(-(x @ rows.T), axis=1)
    assert (order[:, 0] == own).mean() > 0.9
    part = slice(0, len(x))
    assert noised.hits("fresh", part, order[:, :K]).min() == 1
    missed = np.column_stack([order[:, :1], order[:, 2 : K + 1]])  # without the nearest other
    assert noised.hits("fresh", part, missed).mean() < 0.95


def test_the_dimension_of_points_in_a_ball_is_found() -> None:
    x = np.random.default_rng(0).standard_normal((4000, 5)).astype(np.float32)
    d = np.sort(np.linalg.norm(x[:200, None] * 0.3 - x[None], axis=2), axis=1)[:, :20]
    assert 4 < intrinsic(d) < 6
