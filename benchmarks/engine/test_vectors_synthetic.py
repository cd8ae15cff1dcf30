"""The generated vectors have the statistics that their kind promises."""

import numpy as np
import pytest
from kinds import measured
from vectors import DIM, Kind, Tree, blocks_of_rows

ENERGY = {
    Kind.EASY: (0.61, 0.71, 0.79, 0.84, 0.88),
    Kind.HARD: (0.24, 0.33, 0.43, 0.54, 0.64),
    Kind.SPREAD: tuple(d / 1024 for d in (8, 16, 32, 64, 128)),
}


@pytest.mark.parametrize("kind", list(Kind))
def test_each_prefix_holds_its_share_of_the_energy(kind: Kind) -> None:
    x = Tree.of(kind).rows(4000, 100)
    assert x.shape == (4000, DIM)
    assert x.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    energy = [(x[:, :d] ** 2).sum(axis=1).mean() for d in (8, 16, 32, 64, 128)]
    np.testing.assert_allclose(energy, ENERGY[kind], atol=0.02)


def test_rows_follow_from_their_seed_and_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tree = Tree.of(Kind.EASY)
    np.testing.assert_array_equal(tree.rows(5, 1), Tree.of(Kind.EASY).rows(5, 1))
    assert not np.array_equal(tree.rows(5, 1), tree.rows(5, 2))
    monkeypatch.setattr("vectors.BLOCK", 4)
    blocks = list(blocks_of_rows(tree, 10, 7))
    assert [len(b) for b in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(blocks[1], tree.rows(4, 8))


@pytest.mark.slow
def test_spread_vectors_are_hard_for_clusters() -> None:
    spread, easy = (measured(kind, 10_000, lists=400) for kind in (Kind.SPREAD, Kind.EASY))
    assert spread["own_topic"] < easy["own_topic"] / 2
    assert spread["dimension"] > 20 > easy["dimension"]
    assert spread["gap"] < 1.003 < easy["gap"]
    assert spread["clusters_recall"] < 0.8 < 0.95 < easy["clusters_recall"]
