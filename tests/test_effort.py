"""Effort: one number that means what each kind of index takes it for."""

from collections.abc import Callable

import numpy as np
import pytest
from conftest import made_of, energy_first

from mrl_search.engines import Index, build_prefix_index, efforts, search_parameters
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError
from mrl_search.metrics import recall_at_k
from mrl_search.search import exact, search
from mrl_search.search.plan import Plan, Stage


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    x = energy_first(np.random.default_rng(0), 4000, 16)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_effort_becomes_the_parameter_of_its_kind(rows: np.ndarray) -> None:
    ivf, rotated = (
        build_prefix_index(rows, "IVF64,Flat"),
        build_prefix_index(rows, "RR16,IVF64,PQ16x4fs"),
    )
    graph, flat = build_prefix_index(rows, "HNSW8"), build_prefix_index(rows, "Flat")
    assert search_parameters(ivf, 10, 7).nprobe == 7
    assert search_parameters(ivf, 10).nprobe == 1  # a 64th
    assert search_parameters(ivf, 10, 1000).nprobe == 64  # there are no more
    wide = search_parameters(build_prefix_index(rows, "IVF64_HNSW8,Flat"), 10, 40)
    assert wide.nprobe == 40
    assert wide.quantizer_params is not None  # else the graph that finds clusters would look at 16
    assert search_parameters(graph, 10, 300).efSearch == 300
    assert search_parameters(graph, 10).efSearch == 64
    assert search_parameters(graph, 100).efSearch == 200
    assert search_parameters(graph, 100, 16).efSearch == 100  # it must hold what it gives back
    assert search_parameters(graph, 10, 10**11).efSearch == 4000  # all there are
    assert search_parameters(flat, 10, 7) is None
    assert efforts(rotated) == (
        1,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        10,
        12,
        14,
        16,
        20,
        24,
        28,
        32,
        40,
        48,
        56,
        64,
    )
    assert efforts(graph)[0] == 16
    assert efforts(flat) == (0,)


@pytest.mark.parametrize("factory", ["IVF64,Flat", "RR16,IVF64,PQ16x4fs", "HNSW8,SQ8"])
def test_more_effort_finds_more(
    make_index: Callable[..., Index], rows: np.ndarray, factory: str
) -> None:
    index = make_index(made_of(rows, [None] * len(rows)), dims=(8, 16), factory=factory)
    queries = energy_first(np.random.default_rng(1), 200, 16)
    truth = exact(index, queries, 10).ids
    recalls = [
        recall_at_k(search(index, queries, Plan((Stage(16, 10, e),))).ids, truth)
        for e in (1, 8, 64)
    ]
    assert recalls == sorted(recalls)
    assert recalls[-1] - recalls[0] > 0.02


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "Scan"])
def test_an_effort_that_nothing_takes_is_refused(
    make_index: Callable[..., Index], rows: np.ndarray, factory: str
) -> None:
    index = make_index(made_of(rows[:300], [None] * 300), dims=(8, 16), factory=factory)
    for plan in ("16:10@5", "8:20@5,16:10"):
        with pytest.raises(
            ConfigError,
            match=f"Plan {plan} asks for an effort at .* dims, where {factory} takes none.",
        ) as error:
            search(index, rows[:2], Plan.parse(plan, 10))
        assert error.value.hint == "Leave its @ out."


def test_an_index_that_keeps_the_vectors_again_is_refused(rows: np.ndarray) -> None:
    for factory in ("IVF16,Flat,RFlat", "OPQ8,IVF16,PQ8,RFlat", "IVF16,PQ8,Refine(SQ8)"):
        with pytest.raises(ConfigError, match="would keep the vectors a second time"):
            build_prefix_index(rows, factory)


def test_plans_are_written_with_their_effort() -> None:
    plan = Plan.parse("64:200@32,1024", k=10)
    assert plan.stages == (Stage(64, 200, 32), Stage(1024, 10))
    assert str(plan) == "64:200@32,1024:10"
    assert Plan.parse(str(plan), 10) == plan
    for text, message in (
        ("64:200,1024:10@5", "only the first stage"),
        ("64@", "is not a plan"),
        ("64:5@x", "is not a plan"),
    ):
        with pytest.raises(ConfigError, match=message):
            Plan.parse(text, 10)


def test_kinds_follow_from_the_size_of_the_corpus() -> None:
    spec = IndexSpec()
    assert {spec.factory_of(d, 50_000) for d in spec.dims} == {"Flat"}
    assert spec.factory_of(64, 1_000_000) == "RR64,IVF4096,PQ64x4fsr"
    assert spec.factory_of(8, 1_000_000) == "IVF4096,SQ8"
    assert spec.factory_of(128, 10_000_000) == "RR128,IVF16384_HNSW16,PQ128x4fsr"
    assert spec.factory_of(1024, 1_000_000) == "Scan"
    mixed = IndexSpec((8, 64), "Flat", {"64": "HNSW16,SQ8"})
    assert (mixed.factory_of(8, 10**6), mixed.factory_of(64, 10**6)) == ("Flat", "HNSW16,SQ8")
    with pytest.raises(ConfigError, match="A factory is given for 32 dims, which get no index"):
        IndexSpec((8, 64), factories={"32": "Flat"})


def test_a_scanned_prefix_has_no_file_and_exact_answers(
    make_index: Callable[..., Index], rows: np.ndarray
) -> None:
    index = make_index(made_of(rows, [None] * len(rows)), dims=(8, 16), factory="Scan")
    assert index.scans(8)
    assert not list(index.folder.glob("*.faiss"))
    queries = energy_first(np.random.default_rng(1), 5, 16)
    np.testing.assert_array_equal(
        search(index, queries, Plan.single(8, 10)).ids, exact(index, queries, 10, 8).ids
    )
    with pytest.raises(ConfigError, match="has no FAISS index at 8 dims"):
        index.prefix_index(8)
