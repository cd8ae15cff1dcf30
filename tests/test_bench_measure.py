"""The benchmark measures what it says: by hand on pairs of vectors, and on a small index."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import Rows, energy_first, made_of

from mrl_search.engines.scan import scan
from mrl_search.errors import ConfigError, DataError
from mrl_search.index import Index
from mrl_search.measure import bench as module
from mrl_search.measure.accuracy import (
    Copies,
    PrefixAccuracy,
    copies_found,
    prefix_outcomes,
    thumbnail_recall,
)
from mrl_search.measure.bench import measure, measure_copies, measure_training
from mrl_search.measure.contestants import (
    BRUTE,
    Contestant,
    answers,
    contestants,
    memory,
    multiply_adds,
)
from mrl_search.measure.controls import control_answers, projections
from mrl_search.measure.pictures import scatter_record, shown_dims
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Journal, Run
from mrl_search.measure.schema import unpack
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.metrics import average_precision
from mrl_search.progress import silent
from mrl_search.report.values import precision_of, recall_of, share_of
from mrl_search.search import timing as clock
from mrl_search.search.classify import vote
from mrl_search.search.corpus import Corpus
from mrl_search.search.others import search_others
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.store.generations import store_plan
from mrl_search.vectors import prefix

QUICK = BenchSettings(k=5, neighbours=7, timed=12, rounds=2, batch=16)
QUICK_VOTE = BenchSettings(k=1, neighbours=3, timed=4, rounds=1, batch=4)


def bench(
    corpus: Corpus, out: Path, settings: BenchSettings = QUICK, queries: QuerySet | None = None
) -> Run:
    queries = queries or QuerySet.of_corpus(corpus, settings.sample, settings.seed)
    journal = Journal.open(out, about(corpus, queries, settings))
    return measure(corpus, queries, settings, journal, silent)


def others(corpus: Corpus, queries: QuerySet, plan: str | None, k: int = 5) -> np.ndarray:
    """Ids of the answers of a plan, or of brute force."""
    return answers(corpus, queries, None if plan is None else Plan.parse(plan), k).ids


def accuracy(corpus: Corpus, k: int) -> list[PrefixAccuracy]:
    """Accuracy of each prefix of a corpus, searched with its own items."""
    queries = QuerySet.of_corpus(corpus)
    return [
        PrefixAccuracy.of(d, len(queries.labelled), *prefix_outcomes(corpus, queries, d, k))
        for d in corpus.dims
    ]


@pytest.fixture
def small(small_index: Index) -> Corpus:
    return small_index.corpus


@pytest.fixture
def make(make_index: Callable[..., Index]) -> Callable[..., Corpus]:
    return lambda *args, **options: make_index(*args, **options).corpus


@pytest.fixture
def pairs(make: Callable[..., Corpus]) -> Corpus:
    """Two vectors in each of six directions: a pair with two labels, one without, four equal."""
    raw = np.zeros((12, 16), dtype=np.float32)
    raw[np.arange(12), np.arange(12) // 2] = 1
    raw[1::2, 7] = 0.1
    labels = ["cat", "dog", None, None, "cat", "cat", "dog", "dog", "cat", "cat", "dog", "dog"]
    return make(made_of(raw, labels), dims=(8, 16), name="pairs")


def test_pairs_are_measured_as_by_hand(pairs: Corpus, tmp_path: Path) -> None:
    run = bench(
        pairs,
        tmp_path / "pairs.jsonl",
        BenchSettings(k=1, neighbours=1, timed=4, rounds=1, batch=4),
    )
    assert run.about["queries"] == {**run.about["queries"], "n": 12, "labelled": 10, "own": True}
    assert (
        run.about["corpus"]["n"],
        run.about["corpus"]["classes"],
        run.about["corpus"]["vectors"],
    ) == (12, 2, 12 * 16 * 2)
    for d in (8, 16):
        assert unpack(run.one("prefix", dims=d)["vote"]).tolist() == [0, 0] + [1] * 8
        assert run.one("prefix", dims=d)["linear"] is None
    plan = run.one("plan", name="8 dims")
    assert share_of(plan["nearest"]).value == 0.8 and share_of(plan["nearest"]).n == 10
    assert precision_of(plan).value == 0.8
    assert recall_of(plan["found"], 1).value == 1.0
    assert (
        plan["multiply_adds"] == 12 * 8
        and run.one("plan", name="brute force")["multiply_adds"] == 12 * 16
    )
    mislabels = run.one("mislabels")
    assert mislabels["count"] == 2 and not mislabels["rows"]  # there are no such files
    keys = ("id", "label", "says", "against")
    shown = [tuple(item[key] for key in keys) for item in mislabels["shown"]]
    assert shown == [(0, "cat", "dog", 1.0), (1, "dog", "cat", 1.0)]
    assert run.done


def test_nobody_contradicts_where_no_neighbour_has_a_label(
    make: Callable[..., Corpus], tmp_path: Path
) -> None:
    raw = np.repeat(np.eye(16, dtype=np.float32)[:6], 4, axis=0)
    raw[:, 8] = np.linspace(0, 0.1, 24)
    labels: list[str | None] = [
        "cat",
        None,
        None,
        None,
        "dog",
        "cat",
        "cat",
        "cat",
        *["cat"] * 8,
        *["dog"] * 8,
    ]
    run = bench(make(made_of(raw, labels), dims=(8, 16)), tmp_path / "some.jsonl", QUICK_VOTE)
    told = run.one("mislabels")
    assert told["count"] == 1 and [(item["id"], item["says"]) for item in told["shown"]] == [
        (4, "cat")
    ]


def test_controls_find_as_many_as_prefixes_may(small: Corpus, tmp_path: Path) -> None:
    run = bench(
        small,
        tmp_path / "many.jsonl",
        BenchSettings(k=20, neighbours=3, timed=4, rounds=1, batch=4),
    )
    found = {
        name: recall_of(run.one("control", name=name, dims=64)["found"], 20).value
        for name in ("pca", "random")
    }
    assert (
        found["random"] > 0.99 and found["pca"] > 0.8
    )  # all numbers, shuffled, or about their mean; not the 3 that vote


def test_prefixes_are_as_good_as_evaluate_says(small: Corpus, tmp_path: Path) -> None:
    run = bench(small, tmp_path / "small.jsonl")
    labels, hashes = small.collection.labels, small.collection.hashes
    for found in accuracy(small, k=7):
        record = run.one("prefix", dims=found.dims)
        share = share_of(record["vote"])
        assert (share.value, (share.low, share.high)) == (found.knn_top1, found.ci95["knn_top1"])
        assert share_of(record["linear"]).value == found.linear_top1
        hits = search_others(small, small.vectors.prefix(64), hashes, Plan.single(found.dims), 7)
        confidence = [v.confidence for v in vote(hits, labels)]
        assert unpack(record["confidence"]) / 255 == pytest.approx(confidence, abs=0.6 / 255)


def test_average_precision_is_that_of_the_ten_nearest_others_however_few_vote(
    small: Corpus,
) -> None:
    labels = small.collection.labels
    for found in accuracy(small, k=3):
        unit = small.vectors.prefix(found.dims).astype(np.float64)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -2)
        relevant = labels[np.argsort(-cosines, axis=1)[:, :10]] == labels[:, None]
        assert found.map_at_10 == pytest.approx(average_precision(relevant).mean(), abs=1e-6)
        low, high = found.ci95["map_at_10"]
        assert low < found.map_at_10 < high


def test_recall_is_against_brute_force_without_the_query_itself(
    small: Corpus, tmp_path: Path
) -> None:
    run = bench(small, tmp_path / "small.jsonl")
    vectors = small.vectors.prefix(64)
    truth = scan(small.vectors, vectors, 6)[1]
    for name, dims in (("8 dims", 8), ("16 dims", 16), ("exact", 64), ("brute force", 64)):
        found = scan(small.vectors, prefix(vectors, dims), 6)[1]
        expected = [
            len({*f} - {i} & {*t} - {i})
            for i, (f, t) in enumerate(zip(found.tolist(), truth.tolist(), strict=True))
        ]
        same = unpack(run.one("plan", name=name)["found"]) == np.minimum(expected, 5)
        assert same.mean() > 0.98  # the sixth hit matters where the query was not the first
    for name in ("exact", "brute force", "64 dims"):
        plan = run.one("plan", name=name)
        assert plan["exact"] and (unpack(plan["found"]) == 5).all()
    assert run.one("plan", name="adaptive 8→64")["plan"] == "8:200,64"
    assert [p["name"] for p in run.of("plan", exact=True)] == ["brute force", "exact", "64 dims"]


def test_every_way_to_search_takes_part(small: Corpus) -> None:
    named = {c.name: str(c) for c in contestants(small, 10)}
    assert named == {
        "brute force": "every stored vector", "exact": "exact", "64 dims": "64", "16 dims": "16",
        "8 dims": "8", "adaptive 8→64": "8:200,64", "adaptive 16→64": "16:200,64",
        "funnel": "8:200,16:100,32:50,64",
    }  # fmt: skip
    store_plan(small.folder, "query", {"plan": "8:50,64", "k": 10, "recall": 0.99})
    tuned = Corpus.open(small.folder)
    assert contestants(tuned, 10)[-1] == Contestant("tuned for query", Plan.parse("8:50,64"))
    assert contestants(tuned, 11)[-1].name == "funnel"  # it was tuned for ten hits
    assert str(contestants(small, 30)[-1]) == "8:200,16:100,32:50,64"
    assert str(contestants(small, 60)[-1]) == "8:200,16:100,32:60,64"


def test_efforts_are_kept_where_a_query_is_left_out(
    small_set: Rows, make: Callable[..., Corpus]
) -> None:
    corpus = make(small_set, factory="IVF16,Flat", name="ivf")
    queries = QuerySet.of_corpus(corpus)
    truth = others(corpus, queries, None)
    every, one = (others(corpus, queries, plan) for plan in ("64@16", "64@1"))
    assert (every == truth).all() and (one != truth).any()
    plan = Contestant("", Plan.parse("8@2"))
    assert multiply_adds(corpus, plan) == (16 + 63) * 8  # sixteen centroids and two clusters


def test_the_papers_funnel(make: Callable[..., Corpus]) -> None:
    rng = np.random.default_rng(0)
    rows = made_of(energy_first(rng, 300, 256), [None] * 300)
    (funnel,) = [c for c in contestants(make(rows, dims=(8, 256)), 10) if c.name == "funnel"]
    assert str(funnel.plan) == "8:200,16:100,32:50,64:25,128:10,256"


def test_multiply_adds_and_memory(
    small: Corpus, make: Callable[..., Corpus], small_set: Rows
) -> None:
    def adds(corpus: Corpus, plan: str | None) -> float | None:
        return multiply_adds(corpus, Contestant("", None if plan is None else Plan.parse(plan)))

    assert adds(small, "8:20,16:10,64") == 500 * 8 + 20 * 16 + 10 * 64
    assert adds(small, "8:2000,64") == 500 * 8 + 500 * 64  # there are no more
    assert adds(small, None) == 500 * 64
    assert adds(small, "exact") is None
    clustered = make(small_set, factory="IVF4,Flat", name="ivf")
    assert adds(clustered, "8") == (4 + 125) * 8  # four centroids, and the one cluster it visits
    first = Contestant("", Plan.parse("8:20,64"))
    assert memory(small, first) == small.prefix_index(8).ram_bytes
    assert memory(small, Contestant(BRUTE, None)) == 500 * 64 * 2
    exact = [c.name for c in contestants(clustered, 5) if c.exact]
    assert exact == ["brute force", "exact"]  # clusters do not find the exact answer


def test_an_approximate_index_is_judged_by_brute_force(
    small_set: Rows, make: Callable[..., Corpus], tmp_path: Path
) -> None:
    run = bench(make(small_set, factory="IVF16,Flat", name="ivf"), tmp_path / "ivf.jsonl")
    assert recall_of(run.one("plan", name="brute force")["found"], 5).value == 1.0
    assert 0.2 < recall_of(run.one("plan", name="64 dims")["found"], 5).value < 0.999


def test_random_dims_at_full_length_are_exact_and_pca_turns_vectors(small: Corpus) -> None:
    queries = QuerySet.of_corpus(small, 100)
    made = projections(small, 0)
    truth = others(small, queries, None)
    (_, short), (dims, hits) = control_answers(small, queries, made["random"], (8, 64), 5)
    assert dims == 64 and (hits.ids == truth).mean() > 0.99
    assert (short.ids == truth).mean() < 0.3
    centre, axes = made["pca"]
    np.testing.assert_allclose(axes.T @ axes, np.eye(64), atol=1e-5)
    spread = ((small.vectors.prefix(64) - centre) @ axes).var(axis=0)
    assert (np.diff(spread) <= 1e-7).all() and spread[0] == spread.max()


def test_copies_of_one_picture_help_no_other(make: Callable[..., Corpus]) -> None:
    raw = energy_first(np.random.default_rng(1), 300)
    raw[:100] = raw[0]
    hashes = ["same"] * 100 + [f"{i}" for i in range(200)]
    corpus = make(made_of(raw, [None] * 300, hashes))
    queries = QuerySet.of_corpus(corpus)
    ids = others(corpus, queries, "8:20,64")
    wider = search_others(
        corpus, queries.vectors[100:], queries.hashes[100:], Plan.parse("8:20,64"), 5
    )
    np.testing.assert_array_equal(ids[100:], wider.ids)
    assert (ids[:100] >= 100).all()


def test_a_prefix_of_one_dim_has_a_plane(make: Callable[..., Corpus]) -> None:
    rows = made_of(energy_first(np.random.default_rng(1), 40), [None] * 40)
    record = scatter_record(make(rows, dims=(1, 64)), 1, 0)
    assert len(record["x"]) == 40 and set(record["y"]) == {0.0} and record["variance"][1] == 0


def test_the_norm_of_a_query_changes_no_control(small: Corpus) -> None:
    pca = projections(small, 0)["pca"]
    found = []
    for scale in (1, 0.5):
        queries = QuerySet.of_corpus(small, 20)
        queries.vectors[:] *= np.float32(scale)
        found.append([hits.ids for _, hits in control_answers(small, queries, pca, (8, 64), 5)])
    np.testing.assert_array_equal(*found)


def test_a_copy_in_the_corpus_is_left_out_too(make: Callable[..., Corpus]) -> None:
    raw = energy_first(np.random.default_rng(1), 40)
    raw[1] = raw[0]
    hashes = ["same", "same", *(f"{i}" for i in range(38))]
    corpus = make(made_of(raw, [None] * 40, hashes))
    queries = QuerySet.of_corpus(corpus)
    for c in contestants(corpus, 5):
        ids = answers(corpus, queries, c.plan, 5).ids
        assert not np.isin(ids[:2], [0, 1]).any() and (ids >= 0).all(), c.name


def test_copies_are_found_by_their_original(small: Corpus, tmp_path: Path) -> None:
    queries = QuerySet.of_corpus(small)
    journal = Journal.open(tmp_path / "x.jsonl", about(small, queries, QUICK))
    originals = np.array([*small.collection.hashes[:3], "another"], dtype=object)
    measure_copies(small, Copies(small.vectors.prefix(64, slice(0, 4)), originals), journal)
    assert [unpack(r["right"]).tolist() for r in journal.run.of("instance")] == [[1, 1, 1, 0]] * 3


def test_a_copy_is_found_by_the_thumbnail_that_is_nearest() -> None:
    black, grey, white = (np.full((8, 8, 3), value, dtype=np.uint8) for value in (0, 100, 255))
    hashes = np.array(["black", "grey", "white"], dtype=object)
    copies, originals = (
        np.stack([black + 40, grey + 70, white - 60, white]),
        np.array(["black", "grey", "white", "black"], dtype=object),
    )
    assert thumbnail_recall(np.stack([black, grey, white]), hashes, copies, originals) == 0.75


def test_a_copy_that_finds_nothing_does_not_find_the_last_picture(
    small: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(corpus: Corpus, queries: np.ndarray, plan: Plan, k: int) -> BatchHits:
        scores = np.full((len(queries), 1), -np.inf, dtype=np.float32)
        return BatchHits(np.full((len(queries), 1), -1), scores)

    copies = Copies(small.vectors.prefix(64, slice(499, 500)), small.collection.hashes[-1:])
    assert copies_found(small, copies, 8).tolist() == [True]
    monkeypatch.setattr("mrl_search.measure.accuracy.search", nothing)
    assert copies_found(small, copies, 8).tolist() == [False]


def test_without_labels_accuracy_is_absent(make: Callable[..., Corpus], tmp_path: Path) -> None:
    index = make(made_of(energy_first(np.random.default_rng(0), 60), [None] * 60), name="plain")
    run = bench(index, tmp_path / "plain.jsonl")
    assert all(r["vote"] is None and r["linear"] is None for r in run.of("prefix"))
    assert all(r["nearest"] is None and r["precision"] is None for r in run.of("plan"))
    assert not run.of("mislabels") and len(run.of("control")) == 6
    assert recall_of(run.one("plan", name="exact")["found"], 5).value == 1.0


def test_a_benchmark_continues_where_it_stopped(
    small: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen, real = tmp_path / "small.jsonl", [], module.answers

    def stops(*args: object) -> object:
        seen.append(str(args[2]))
        if len(seen) == 6:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "answers", stops)
    monkeypatch.setattr("mrl_search.measure.accuracy.answers", stops)
    with pytest.raises(KeyboardInterrupt):
        bench(small, out)
    assert seen == ["64", "16", "8", "exact", "16", "8"]  # votes, true hits, then plans
    half = out.read_text().splitlines()
    run = bench(small, out)
    lines = out.read_text().splitlines()
    assert lines[: len(half)] == half and run.done
    assert seen[6:8] == ["exact", "8"] and seen.count("16") == 2
    before = out.read_bytes()
    bench(small, out)
    assert out.read_bytes() == before  # nothing is measured twice
    named = [
        tuple(
            str(r.get(key)) for key in ("kind", "name", "dims", "round", "number", "give", "plan")
        )
        for r in run.records
    ]
    assert len(named) == len(set(named))


def test_times_are_samples_of_each_round(small: Corpus, tmp_path: Path) -> None:
    run = bench(small, tmp_path / "small.jsonl")
    for c in contestants(small, 5):
        rounds = run.of("latency", plan=c.name)
        assert [r["round"] for r in rounds] == [1, 2] and {len(r["ms"]) for r in rounds} == {12}
        assert all(ms > 0 for r in rounds for ms in r["ms"]) and all(
            1 <= r["warm_up"] <= 10 for r in rounds
        )
        assert [r["queries"] for r in run.of("batch", plan=c.name)] == [16, 16]


def test_a_slow_searcher_answers_fewer_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 3.0, 0.0, 0.001])
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(ticks))
    rows = np.zeros((200, 8), dtype=np.float32)
    slow, quick = clock.pace_of(len, rows, 2), clock.pace_of(len, rows, 2)
    assert slow == clock.Pace(max(clock.FEWEST, int(clock.BUDGET / 2 / 3)), 1)
    assert quick == clock.Pace(200, 10)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_clock_sets_the_threads(count: int) -> None:
    import faiss

    before = faiss.omp_get_max_threads()
    with clock.threads(count):
        assert faiss.omp_get_max_threads() == count
    assert faiss.omp_get_max_threads() == before


def test_a_query_counts_with_its_median_over_the_rounds() -> None:
    rounds = [[1.0, 9.0, 3.0], [2.0, 4.0, 90.0], [3.0, 5.0, 6.0]]
    assert clock.median_ms(rounds).tolist() == [2.0, 5.0, 6.0]


def test_queries_are_a_seeded_sample(small: Corpus) -> None:
    some, again, other = (QuerySet.of_corpus(small, 50, seed) for seed in (3, 3, 4))
    assert len(some) == 50 and (np.diff(some.rows) > 0).all()
    assert some.fingerprint == again.fingerprint != other.fingerprint
    np.testing.assert_array_equal(some.vectors, small.vectors.rows(some.rows))


def test_too_little_is_refused(small: Corpus, pairs: Corpus) -> None:
    with pytest.raises(DataError, match="3 queries are too few"):
        about(small, QuerySet.of_corpus(small, 3), BenchSettings())
    with pytest.raises(DataError, match="12 items, too few to find 20 others"):
        about(pairs, QuerySet.of_corpus(pairs), BenchSettings())
    with pytest.raises(ConfigError, match="k is 256; it must be 255 or less"):
        BenchSettings(k=256)


def test_dims_that_are_shown_are_dims_of_the_index(small: Corpus) -> None:
    assert shown_dims(small, (8, 64, 512, 1024)) == [8, 64]


def test_queries_that_trained_the_model_are_known_by_their_content(
    small: Corpus, tmp_path: Path
) -> None:
    """Every third item was held out: the others trained the model, and their copies with them."""
    held_out = np.arange(0, len(small), 3)
    index = SimpleNamespace(corpus=small, held_out=lambda: held_out)
    queries = QuerySet.of_corpus(small, 50)
    others = np.delete(small.collection.hashes, held_out)
    wanted = np.isin(queries.hashes, others)
    assert queries.trained(index).tolist() == wanted.tolist()
    journal = Journal.open(tmp_path / "run.jsonl", about(small, queries, BenchSettings()))
    measure_training(SimpleNamespace(corpus=small, held_out=lambda: None), queries, journal)
    assert not journal.has("trained")
    measure_training(index, queries, journal)
    record = journal.run.one("trained")
    assert record["count"] == wanted.sum()
    assert (unpack(record["labelled"]) == wanted[queries.labelled]).all()
