"""A probe: as many clusters as a query needs."""

from typing import Any

import numpy as np
import pytest
from conftest import energy_first
from vectors import Kind, Tree

from mrl_search.engines import build_prefix_index, search_parameters
from mrl_search.engines.clusters import inverted_file
from mrl_search.engines.probe import Probe
from mrl_search.metrics import recall_at_k
from mrl_search.vectors import prefix


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return prefix(energy_first(np.random.default_rng(0), 4000, 16), 16)


@pytest.fixture(scope="module")
def clustered(rows: np.ndarray) -> tuple[Any, Probe]:
    index = build_prefix_index(rows, "RR16,IVF64,Flat")
    return index, Probe(index, rows)


def test_a_probe_visits_as_many_clusters_as_asked_on_average(
    clustered: tuple[Any, Probe], rows: np.ndarray
) -> None:
    index, probe = clustered
    sizes = np.array([inverted_file(index).invlists.list_size(i) for i in range(64)])
    read = (probe.search(rows, len(rows), 8)[1] >= 0).sum(
        axis=1
    )  # every vector of a visited cluster is answered
    assert read.mean() == pytest.approx(
        8 / 64 * sizes.sum(), rel=0.5
    )  # fuller clusters are visited more often
    assert read.min() < 0.5 * read.mean()
    assert read.max() <= np.sort(sizes)[-32:].sum()
    fixed = index.search(rows, len(rows), params=search_parameters(index, len(rows), 8))[1]
    assert (fixed >= 0).sum(axis=1).min() > read.min()


def test_a_probe_gives_a_batch_what_it_gives_single_queries(
    clustered: tuple[Any, Probe], rows: np.ndarray
) -> None:
    _, probe = clustered
    scores, ids = probe.search(rows[:40], 5, 6)
    for i in range(40):
        score, own = probe.search(rows[i : i + 1], 5, 6)
        np.testing.assert_array_equal(own[0], ids[i])
        np.testing.assert_allclose(score[0], scores[i], rtol=1e-5)
    assert probe.search(rows[:0], 5, 6)[1].shape == (0, 5)


def test_a_probe_of_all_clusters_is_exact(clustered: tuple[Any, Probe], rows: np.ndarray) -> None:
    _, probe = clustered
    truth = np.argsort(-rows @ rows.T, axis=1, kind="stable")[:, :5]
    assert (probe.search(rows, 5, 1000)[1] == truth).mean() > 0.99
    np.testing.assert_array_equal(
        probe.search(rows, 1, 1)[1], probe.search(rows, 1, 0)[1]
    )  # a 64th is one


def test_a_probe_finds_more_than_as_many_clusters_for_every_query() -> None:
    tree = Tree.of(Kind.EASY)
    x, queries = (prefix(tree.rows(n, seed), 64) for n, seed in ((20_000, 100), (300, 1)))
    index = build_prefix_index(x, "IVF256,Flat")
    truth = np.argsort(-queries @ x.T, axis=1)[:, :10]
    probe = Probe(index, x[::80])
    for effort in (8, 16, 32):
        as_needed = recall_at_k(probe.search(queries, 10, effort)[1], truth)
        always = recall_at_k(
            index.search(queries, 10, params=search_parameters(index, 10, effort))[1], truth
        )
        assert as_needed > always


def test_a_probe_where_all_vectors_are_the_same(rows: np.ndarray) -> None:
    same = np.repeat(rows[:1], 400, axis=0)
    index = build_prefix_index(same, "IVF8,Flat")
    probe = Probe(index, same)
    assert (probe.search(same[:20], 3, 2)[1] >= 0).all()
    assert probe.search(rows[:20], 3, 2)[1].shape == (20, 3)  # most clusters hold nothing


def test_graphs_are_searched_in_their_own_way(rows: np.ndarray) -> None:
    assert Probe.fits(build_prefix_index(rows, "RR16,IVF64,Flat"))
    assert not Probe.fits(build_prefix_index(rows, "IVF64_HNSW8,Flat"))
    assert not Probe.fits(build_prefix_index(rows, "HNSW8"))
