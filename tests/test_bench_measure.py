"""The bench measures what it says: by hand on pairs of vectors, and against the functions that others call, on a small index."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from conftest import made_of, energy_first

from mrl_search.engines import Index
from mrl_search.errors import ConfigError, DataError
from mrl_search.measure import bench as module
from mrl_search.measure import timing as latency
from mrl_search.measure.accuracy import Copies, accuracy_per_prefix, thumbnail_recall
from mrl_search.measure.bench import measure, measure_instances
from mrl_search.measure.contestants import Contestant, How, contestants, memory, multiply_adds
from mrl_search.measure.controls import control_answers, projections
from mrl_search.measure.pictures import scatter_record, shown_dims
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.records import Journal, Run, unpack
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.measure.timing import BUDGET, FEWEST, latency_per_plan, rehearse
from mrl_search.measure.values import precision_of, recall_of, share_of
from mrl_search.metrics import mean_average_precision
from mrl_search.search import copies_of, exact, leave_out, search, search_others, vote
from mrl_search.search.plan import Plan
from mrl_search.search.results import BatchHits
from mrl_search.store.manifest import store_plan
from mrl_search.store.rows import EmbeddingSet

QUICK = BenchSettings(k=5, neighbours=7, timed=12, rounds=2, batch=16)
QUICK_VOTE = BenchSettings(k=1, neighbours=3, timed=4, rounds=1, batch=4)


def silent(what: str, done: int, total: int) -> None:
    pass


def bench(
    index: Index, out: Path, settings: BenchSettings = QUICK, queries: QuerySet | None = None
) -> Run:
    queries = queries or QuerySet.of_index(index, settings.sample, settings.seed)
    return measure(
        index, queries, settings, Journal.open(out, about(index, queries, settings)), silent
    )


@pytest.fixture
def pairs(make_index: Callable[..., Index]) -> Index:
    """Twelve vectors, two in each of six directions; the first pair has two labels, the second none, all others agree."""
    raw = np.zeros((12, 16), dtype=np.float32)
    raw[np.arange(12), np.arange(12) // 2] = 1
    raw[1::2, 7] = 0.1
    labels = ["cat", "dog", None, None, "cat", "cat", "dog", "dog", "cat", "cat", "dog", "dog"]
    return make_index(made_of(raw, labels), dims=(8, 16), name="pairs")


def test_pairs_are_measured_as_by_hand(pairs: Index, tmp_path: Path) -> None:
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
    assert mislabels["count"] == 2 and mislabels["sheet"] is None  # there are no such files
    assert [(item["id"], item["label"], item["says"], item["against"]) for item in mislabels["shown"]] == [
        (0, "cat", "dog", 1.0), (1, "dog", "cat", 1.0),
    ]  # fmt: skip
    assert run.done


def test_nobody_contradicts_where_no_neighbour_has_a_label(
    make_index: Callable[..., Index], tmp_path: Path
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
    run = bench(
        make_index(made_of(raw, labels), dims=(8, 16)), tmp_path / "some.jsonl", QUICK_VOTE
    )
    told = run.one("mislabels")
    assert told["count"] == 1 and [(item["id"], item["says"]) for item in told["shown"]] == [
        (4, "cat")
    ]


def test_controls_find_as_many_as_prefixes_may(small_index: Index, tmp_path: Path) -> None:
    run = bench(
        small_index,
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


def test_prefixes_are_as_good_as_evaluate_says(small_index: Index, tmp_path: Path) -> None:
    run = bench(small_index, tmp_path / "small.jsonl")
    for told in accuracy_per_prefix(small_index, small_index.embeddings, k=7):
        record = run.one("prefix", dims=told.dims)
        assert share_of(record["vote"]).value == told.knn_top1
        assert share_of(record["linear"]).value == told.linear_top1
        assert (share_of(record["vote"]).low, share_of(record["vote"]).high) == told.ci95[
            "knn_top1"
        ]
        hits = search_others(
            small_index,
            small_index.embeddings.prefix(64),
            small_index.embeddings.hashes,
            Plan.single(told.dims, 7),
        )
        confidence = [v.confidence for v in vote(hits.first(7), small_index.embeddings.labels)]
        assert unpack(record["confidence"]) / 255 == pytest.approx(confidence, abs=0.6 / 255)


def test_average_precision_is_that_of_the_ten_nearest_others_however_few_vote(
    small_index: Index,
) -> None:
    labels = small_index.embeddings.labels
    for told in accuracy_per_prefix(small_index, small_index.embeddings, k=3):
        unit = small_index.embeddings.prefix(told.dims).astype(np.float64)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -2)
        relevant = labels[np.argsort(-cosines, axis=1)[:, :10]] == labels[:, None]
        assert told.map_at_10 == pytest.approx(mean_average_precision(relevant), abs=1e-6)
        low, high = told.ci95["map_at_10"]
        assert low < told.map_at_10 < high


def test_recall_is_told_against_brute_force_without_the_query_itself(
    small_index: Index, tmp_path: Path
) -> None:
    run = bench(small_index, tmp_path / "small.jsonl")
    vectors = small_index.embeddings.prefix(64)
    for name, dims in (("8 dims", 8), ("16 dims", 16), ("exact", 64), ("brute force", 64)):
        found = exact(small_index, vectors, 6, dims).ids
        truth = exact(small_index, vectors, 6).ids
        expected = [
            len({*f} - {i} & {*t} - {i})
            for i, (f, t) in enumerate(zip(found.tolist(), truth.tolist(), strict=True))
        ]
        got = unpack(run.one("plan", name=name)["found"])
        assert (
            got == np.minimum(expected, 5)
        ).mean() > 0.98  # the sixth hit plays a part where the query was not the first
    assert (unpack(run.one("plan", name="exact")["found"]) == 5).all()
    assert (unpack(run.one("plan", name="pruned")["found"]) == 5).all()
    assert run.one("plan", name="adaptive 8→64")["plan"] == "8:200,64:5"
    assert (
        16 < run.one("plan", name="early stop")["dims_read"] <= 64
        and run.one("plan", name="funnel")["dims_read"] is None
    )


def test_everyone_takes_part(small_index: Index, tmp_path: Path) -> None:
    named = {c.name: str(c) for c in contestants(small_index, 10)}
    assert named == {
        "brute force": "every stored vector", "pruned": "what may still be an answer", "exact": "64:10", "16 dims": "16:10",
        "8 dims": "8:10", "adaptive 8→64": "8:200,64:10", "adaptive 16→64": "16:200,64:10", "funnel": "8:200,16:100,32:50,64:10",
        "early stop": "16:200,64:10",
    }  # fmt: skip
    store_plan(small_index.folder, "query", {"plan": "8:50,64:10", "recall": 0.99})
    tuned = Index.open(small_index.folder)
    assert contestants(tuned, 10)[-1] == Contestant("tuned for query", Plan.parse("8:50,64", 10))
    assert (
        contestants(tuned, 11)[-1].name == "early stop"
    )  # a plan that keeps ten has no eleventh answer


def test_efforts_are_kept_where_a_query_is_left_out(
    small_set: EmbeddingSet, make_index: Callable[..., Index]
) -> None:
    index = make_index(small_set, factory="IVF16,Flat", name="ivf")
    queries = QuerySet.of_index(index, 500, 0)
    truth = Contestant("", None, How.BRUTE).others(index, queries.vectors, queries.hashes, 5).ids
    every, one = (
        Contestant("", Plan.parse(plan, 5)).others(index, queries.vectors, queries.hashes, 5).ids
        for plan in ("64:5@16", "64:5@1")
    )
    assert (every == truth).all() and (one != truth).any()
    plan = Contestant("", Plan.parse("8:5@2", 5))
    assert multiply_adds(index, plan) == (16 + 63) * 8  # sixteen centres, and two of the clusters


def test_the_papers_funnel(make_index: Callable[..., Index]) -> None:
    rng = np.random.default_rng(0)
    index = make_index(
        made_of(energy_first(rng, 300, 256), [None] * 300), dims=(8, 256), name="long"
    )
    (funnel,) = [c for c in contestants(index, 10) if c.name == "funnel"]
    assert str(funnel.plan) == "8:200,16:100,32:50,64:25,128:10,256:10"


def test_multiply_adds_and_memory(
    small_index: Index, make_index: Callable[..., Index], small_set: EmbeddingSet
) -> None:
    plan = Plan.parse("8:20,16:10,64:5", 5)
    assert multiply_adds(small_index, Contestant("", plan)) == 500 * 8 + 20 * 16 + 10 * 64
    assert (
        multiply_adds(small_index, Contestant("", Plan.parse("8:2000,64:5", 5)))
        == 500 * 8 + 500 * 64
    )  # there are no more
    assert multiply_adds(small_index, Contestant("", None, How.BRUTE)) == 500 * 64
    assert multiply_adds(small_index, Contestant("", plan, How.EARLY)) is None
    clustered = make_index(small_set, factory="IVF4,Flat", name="ivf")
    assert (
        multiply_adds(clustered, Contestant("", Plan.single(8, 5))) == (4 + 125) * 8
    )  # four centres, and the one cluster that is visited
    graph = make_index(small_set, factory="HNSW8", name="hnsw")
    assert multiply_adds(graph, Contestant("", Plan.parse("8:20,64:5", 5))) is None
    assert (
        memory(small_index, Plan.parse("8:20,64", 5))
        == small_index.manifest.files["prefix-0008.faiss"].bytes
    )
    assert memory(small_index, None) == 500 * 64 * 2
    assert [c.name for c in contestants(clustered, 5)][:3] == [
        "brute force",
        "pruned",
        "64 dims",
    ]  # clusters do not find the exact answer


def test_an_approximate_index_is_judged_by_brute_force(
    small_set: EmbeddingSet, make_index: Callable[..., Index], tmp_path: Path
) -> None:
    run = bench(make_index(small_set, factory="IVF16,Flat", name="ivf"), tmp_path / "ivf.jsonl")
    assert recall_of(run.one("plan", name="brute force")["found"], 5).value == 1.0
    assert 0.2 < recall_of(run.one("plan", name="64 dims")["found"], 5).value < 0.999


def test_random_dims_at_full_length_are_exact_and_pca_turns_vectors(small_index: Index) -> None:
    queries = QuerySet.of_index(small_index, 100, 0)
    made = projections(small_index, 0)
    truth = Contestant("exact", None, How.BRUTE).others(
        small_index, queries.vectors, queries.hashes, 5
    )
    (_, short), (dims, hits) = control_answers(small_index, queries, made["random"], (8, 64), 5)
    assert dims == 64 and (hits.ids == truth.ids).mean() > 0.99
    assert (short.ids == truth.ids).mean() < 0.3
    centre, axes = made["pca"]
    np.testing.assert_allclose(axes.T @ axes, np.eye(64), atol=1e-5)
    spread = ((small_index.embeddings.prefix(64) - centre) @ axes).var(axis=0)
    assert (np.diff(spread) <= 1e-7).all() and spread[0] == spread.max()


def test_copies_of_one_picture_help_no_other(make_index: Callable[..., Index]) -> None:
    raw = energy_first(np.random.default_rng(1), 300)
    raw[:100] = raw[0]
    index = make_index(
        made_of(raw, [None] * 300, ["same"] * 100 + [f"{i}" for i in range(200)]),
        name="placeholder",
    )
    queries, plan = QuerySet.of_index(index, 300, 0), Plan.parse("8:20,64:5", 5)
    hits = Contestant("a plan", plan).others(index, queries.vectors, queries.hashes, 5)
    wider = search(
        index, queries.vectors[100:], Plan.parse("8:21,64:6", 6)
    )  # itself is one of them
    np.testing.assert_array_equal(
        hits.ids[100:], leave_out(wider, index.embeddings.hashes, queries.hashes[100:], 5).ids
    )
    assert (hits.ids[:100] >= 100).all()


def test_a_prefix_of_one_number_has_a_plane(make_index: Callable[..., Index]) -> None:
    index = make_index(
        made_of(energy_first(np.random.default_rng(1), 40), [None] * 40),
        dims=(1, 64),
        name="thin",
    )
    told = scatter_record(index, 1, 0)
    assert len(told["x"]) == 40 and set(told["y"]) == {0.0} and told["variance"][1] == 0


def test_the_length_of_a_query_changes_no_control(small_index: Index) -> None:
    some = QuerySet.of_set(small_index.embeddings, 20, 0, "some")
    pca = projections(small_index, 0)["pca"]
    asked = [
        replace(small_index.embeddings, vectors=np.float16(scale) * small_index.embeddings.vectors)
        for scale in (1, 0.5)
    ]
    one, other = (
        [hits.ids for _, hits in control_answers(small_index, replace(some, embeddings=e), pca, (8, 64), 5)] for e in asked
    )  # fmt: skip
    np.testing.assert_array_equal(one, other)


def test_a_copy_in_the_corpus_is_left_out_too(make_index: Callable[..., Index]) -> None:
    raw = energy_first(np.random.default_rng(1), 40)
    raw[1] = raw[0]
    hashes = ["same", "same", *(f"{i}" for i in range(38))]
    index = make_index(made_of(raw, [None] * 40, hashes), name="copies")
    queries = QuerySet.of_index(index, 40, 0)
    assert copies_of(index, queries.hashes).tolist() == [2, 2] + [1] * 38
    for c in contestants(index, 5):
        ids = c.others(index, queries.vectors, queries.hashes, 5).ids[:, :5]
        assert not np.isin(ids[:2], [0, 1]).any() and (ids >= 0).all(), c.name


def test_instances_are_found_by_what_they_were_made_of(small_index: Index, tmp_path: Path) -> None:
    queries = QuerySet.of_index(small_index, 500, 0)
    journal = Journal.open(tmp_path / "x.jsonl", about(small_index, queries, QUICK))
    hashes = small_index.embeddings.hashes
    copies = Copies(
        small_index.embeddings.prefix(64, slice(0, 4)),
        np.array([*hashes[:3], "another"], dtype=object),
    )
    measure_instances(small_index, copies, journal)
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
    small_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(
        index: Index, queries: np.ndarray, plan: Plan
    ) -> BatchHits:  # as of an index whose cluster there is empty
        return BatchHits(
            np.full((len(queries), 1), -1), np.full((len(queries), 1), -np.inf, dtype=np.float32)
        )

    copies = Copies(
        small_index.embeddings.prefix(64, slice(499, 500)), small_index.embeddings.hashes[-1:]
    )
    monkeypatch.setattr("mrl_search.measure.bench.search", nothing)
    monkeypatch.setattr("mrl_search.measure.accuracy.search", nothing)
    journal = Journal.open(
        tmp_path / "x.jsonl", about(small_index, QuerySet.of_index(small_index, 500, 0), QUICK)
    )
    measure_instances(small_index, copies, journal)
    assert [unpack(r["right"]).tolist() for r in journal.run.of("instance")] == [[0]] * 3
    told = accuracy_per_prefix(small_index, small_index.embeddings, copies=copies)
    assert [t.instance_recall_at_1 for t in told] == [0.0] * 3


def test_without_labels_accuracy_is_absent(
    make_index: Callable[..., Index], tmp_path: Path
) -> None:
    index = make_index(
        made_of(energy_first(np.random.default_rng(0), 60), [None] * 60), name="plain"
    )
    run = bench(index, tmp_path / "plain.jsonl")
    assert all(r["vote"] is None and r["linear"] is None for r in run.of("prefix"))
    assert all(r["nearest"] is None and r["precision"] is None for r in run.of("plan"))
    assert not run.of("mislabels") and len(run.of("control")) == 6
    assert recall_of(run.one("plan", name="exact")["found"], 5).value == 1.0


def test_a_bench_goes_on_where_it_was(
    small_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen, real = tmp_path / "small.jsonl", [], module.answers

    def stops(*args) -> object:
        seen.append(args[2].name)
        if len(seen) == 7:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(module, "answers", stops)
    with pytest.raises(KeyboardInterrupt):
        bench(small_index, out)
    half = out.read_text().splitlines()
    run = bench(small_index, out)
    lines = out.read_text().splitlines()
    assert lines[: len(half)] == half and run.done
    assert (seen.count("64 dims"), seen.count("16 dims"), seen.count("8 dims")) == (
        1,
        2,
        3,
    )  # prefix, plan, and the one that was stopped
    before = out.read_bytes()
    bench(small_index, out)
    assert out.read_bytes() == before  # nothing is measured twice
    named = [
        tuple(r.get(key) for key in ("kind", "name", "dims", "round", "number"))
        + (str(r.get("plan")),)
        for r in run.records
    ]
    assert len(named) == len(set(named))


def test_times_are_samples_of_each_round(small_index: Index, tmp_path: Path) -> None:
    run = bench(small_index, tmp_path / "small.jsonl")
    for c in contestants(small_index, 5):
        rounds = run.of("latency", plan=c.name)
        assert [r["round"] for r in rounds] == [1, 2] and {len(r["ms"]) for r in rounds} == {12}
        assert all(ms > 0 for r in rounds for ms in r["ms"]) and all(
            1 <= r["warm_up"] <= 10 for r in rounds
        )
        assert [r["queries"] for r in run.of("batch", plan=c.name)] == [16, 16]


def test_what_is_slow_is_asked_less(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 3.0, 0.0, 0.001])
    monkeypatch.setattr("mrl_search.measure.timing.time.perf_counter", lambda: next(clock))
    rows = np.zeros((200, 8), dtype=np.float32)
    slow, quick = rehearse(len, rows, 2), rehearse(len, rows, 2)
    assert (slow.count, slow.warm_up) == (max(FEWEST, int(BUDGET / 2 / 3)), 1)
    assert (quick.count, quick.warm_up) == (200, 10)


@pytest.mark.parametrize("threads", [2, 3])
def test_whoever_is_timed_has_the_threads_asked_for(
    small_index: Index,
    queries: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: int,
) -> None:
    seen, real, before = [], latency.search, faiss.omp_get_max_threads()

    def search_watched(index: Index, rows: np.ndarray, plan: Plan) -> object:
        if len(rows) == 1:
            seen.append(faiss.omp_get_max_threads())
        return real(index, rows, plan)

    monkeypatch.setattr(latency, "search", search_watched)
    (told,) = latency_per_plan(
        small_index, queries, {"one": Plan.single(8, 5)}, rounds=1, threads=threads
    )
    assert told.threads == threads and set(seen) == {threads}
    assert faiss.omp_get_max_threads() == before


def test_queries_are_a_fixed_sample(small_set: EmbeddingSet) -> None:
    some = QuerySet.of_set(small_set, 50, 3, "pictures")
    assert len(some) == 50 and (np.diff(some.rows) > 0).all()
    assert some.fingerprint == QuerySet.of_set(small_set, 50, 3, "pictures").fingerprint
    assert some.fingerprint != QuerySet.of_set(small_set, 50, 4, "pictures").fingerprint
    assert (some.timed(7, 0) == some.timed(7, 0)).all() and some.timed(7, 0).shape == (7, 64)


def test_too_little_is_refused(
    small_set: EmbeddingSet, make_index: Callable[..., Index], pairs: Index
) -> None:
    with pytest.raises(DataError, match="3 queries are too few"):
        QuerySet.of_set(small_set, 3, 0, "pictures")
    with pytest.raises(DataError, match="12 items, too few to find 20 others"):
        about(pairs, QuerySet.of_index(pairs, 100, 0), BenchSettings())
    for change in ({"k": 0}, {"k": 256}, {"rounds": 0}, {"threads": 0}, {"copies": -1}):
        with pytest.raises(ConfigError, match="cannot have"):
            BenchSettings(**change)


def test_dims_that_are_shown_are_dims_of_the_index(small_index: Index) -> None:
    assert shown_dims(small_index, (8, 64, 512, 1024)) == [8, 64]
