"""What a prefix keeps, on vectors where it can be told beforehand."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import DataError
from mrl_search.index import Index
from mrl_search.measure.prefixes import PrefixCheck, PrefixShare, advice, check_prefixes
from mrl_search.search.corpus import Corpus
from mrl_search.search.nearest import row_neighbours


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Corpus]:
    names = itertools.count()

    def build(x: np.ndarray, dims: tuple[int, ...], rotation: str | None = None) -> Corpus:
        spec = IndexSpec(dims, dtype="float32")
        index = Index.from_vectors(x, tmp_path / f"i{next(names)}", spec=spec, rotate=rotation)
        return index.corpus

    return build


def test_energy_and_recall_of_vectors_that_live_in_the_last_half(
    make: Callable[..., Corpus],
) -> None:
    x = np.zeros((400, 16))
    x[:, 12:] = np.random.default_rng(0).standard_normal((400, 4))
    x[:, 0] = 1e-6
    check = check_prefixes(make(x, (4, 12)))
    four, twelve, full = check.prefixes
    assert (check.queries, check.corpus, check.k, check.shortlist) == (200, 400, 10, 40)
    assert four.energy == pytest.approx(0, abs=1e-9) and twelve.energy == pytest.approx(0, abs=1e-9)
    assert 0 < four.recall < 0.6  # all prefixes are equal: a shortlist of the first hundred rows
    assert four.pca_energy == pytest.approx(1, abs=1e-6) and four.pca_recall == 1
    assert (full.energy, full.recall, full.pca_recall) == (pytest.approx(1), 1, 1)


def test_recall_is_that_of_a_shortlist_by_hand(small_index: Index) -> None:
    check = check_prefixes(small_index.corpus)
    x, short = (
        small_index.corpus.vectors.prefix(64).astype(np.float64),
        small_index.corpus.vectors.prefix(8).astype(np.float64),
    )
    rows = np.sort(np.random.default_rng(0).choice(500, 200, replace=False))
    found = []
    for row in rows:
        others = np.flatnonzero(np.arange(500) != row)
        truth = others[np.argsort(-(x[others] @ x[row]))[:10]]
        shortlist = others[np.argsort(-(short[others] @ short[row]))[:50]]
        found.append(np.isin(truth, shortlist).mean())
    assert [p.dims for p in check.prefixes] == [8, 16, 64]
    assert check.prefixes[0].recall == pytest.approx(np.mean(found), abs=1e-3)
    energy = (small_index.corpus.vectors.prefix(64)[:, :8] ** 2).sum(axis=1).mean()
    assert check.prefixes[0].energy == pytest.approx(energy, abs=1e-5)


def test_what_the_check_promises_of_a_rotation_is_what_rotating_gives(
    make: Callable[..., Corpus],
) -> None:
    rng = np.random.default_rng(3)
    basis, _ = np.linalg.qr(rng.standard_normal((24, 24)))
    x = rng.standard_normal((600, 24)) * np.geomspace(4, 0.1, 24) @ basis
    promised = check_prefixes(make(x, (4, 8))).prefixes
    kept = check_prefixes(make(x, (4, 8), "pca")).prefixes
    for p, r in zip(promised, kept, strict=True):
        assert r.recall == pytest.approx(p.pca_recall, abs=2e-3) and r.energy == pytest.approx(
            p.pca_energy, abs=1e-5
        )
    assert promised[0].recall < kept[0].recall


def test_neighbours_leave_the_query_out_and_follow_the_change(small_index: Index) -> None:
    store, rows = small_index.corpus.vectors, np.array([3, 77, 499])
    ids = row_neighbours(store, rows, 3, lambda x: x)
    cosines = store.prefix(64) @ store.prefix(64)[rows].T
    cosines[rows, range(3)] = -2
    np.testing.assert_array_equal(ids, np.argsort(-cosines, axis=0)[:3].T)
    other = row_neighbours(store, rows, 3, lambda x: x[:, 60:])
    assert not (other == rows[:, None]).any() and (other != ids).any()


def test_few_vectors(make: Callable[..., Corpus]) -> None:
    check = check_prefixes(make(np.random.default_rng(0).standard_normal((4, 6)), (2,)))
    assert (check.k, check.shortlist, check.queries, [p.recall for p in check.prefixes]) == (
        3,
        3,
        4,
        [1, 1],
    )
    with pytest.raises(DataError, match="holds one vector"):
        check_prefixes(make(np.ones((1, 6)), (2,)))


def test_vectors_too_long_to_rotate(
    make: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.measure.prefixes.LARGEST", 5)
    check = check_prefixes(make(np.random.default_rng(0).standard_normal((30, 6)), (2,)))
    assert (
        {p.pca_recall for p in check.prefixes} == {p.pca_energy for p in check.prefixes} == {None}
    )


FULL = PrefixShare(64, 1, 1, 1, 1)
ADVICE = [
    (
        (PrefixShare(8, 0.2, 0.5, 0.6, 0.99), PrefixShare(32, 0.5, 0.97, 0.9, 1), FULL),
        True,
        False,
        "32 dims keep 97% of the neighbours in a shortlist of 100"
        ". After a PCA rotation, 8 dims would keep 99%: build again with --rotate pca.",
    ),
    (
        (PrefixShare(8, 0.2, 0.5, 0.6, 0.8), FULL),
        True,
        False,
        "8 dims keep 50% of the neighbours in a shortlist of 100"
        ". After a PCA rotation, 8 dims would keep 80%: build again with --rotate pca.",
    ),
    (
        (PrefixShare(8, 0.2, 0.5, 0.6, 0.8), FULL),
        False,
        False,
        "8 dims keep 50% of the neighbours in a shortlist of 100"
        ". After a PCA rotation, 8 dims would keep 80%"
        ": build again with --axes pca.",
    ),
    (
        (PrefixShare(8, 0.2, 0.98, 0.6, 0.98), FULL),
        True,
        False,
        "8 dims keep 98% of the neighbours in a shortlist of 100"
        ". A PCA rotation would change little.",
    ),
    (
        (PrefixShare(8, 0.2, 0.98, 0.6, 0.98), FULL),
        True,
        True,
        "8 dims keep 98% of the neighbours in a shortlist of 100. The vectors are rotated already.",
    ),
    (
        (PrefixShare(8, 0.2, 0.9, None, None), FULL),
        True,
        False,
        "8 dims keep 90% of the neighbours in a shortlist of 100"
        ". Keep more in the shortlist, or index longer prefixes.",
    ),
    ((FULL,), True, False, "There is no shorter prefix: build again with --dims to compare some."),
]


@pytest.mark.parametrize(("prefixes", "own", "rotated", "said"), ADVICE)
def test_advice_in_words(
    prefixes: tuple[PrefixShare, ...], own: bool, rotated: bool, said: str
) -> None:
    assert advice(PrefixCheck(prefixes, 200, 5000, 10, 100), own, rotated) == said


def test_advice_says_when_the_corpus_is_small() -> None:
    check = PrefixCheck((PrefixShare(8, 0.2, 0.98, 0.6, 0.98), FULL), 200, 500, 10, 100)
    assert "of only 499 others: the shares are flattering" in advice(check, True, False)


def test_the_command_shows_a_table_and_json(small_index: Index) -> None:
    shown = CliRunner().invoke(app, ["info", str(small_index.folder), "--check"])
    assert (
        shown.exit_code == 0
        and "PCA recall@10" in shown.stdout
        and "n = 200 of 500 rows" in shown.stderr
    )
    told = CliRunner().invoke(app, ["info", str(small_index.folder), "--check", "--json"])
    lines = [json.loads(line) for line in told.stdout.splitlines()]
    assert [line["dims"] for line in lines] == [8, 16, 64] and told.stderr == ""
    assert lines[-1] == {
        "dims": 64,
        "energy": 1.0,
        "recall": 1.0,
        "pca_energy": 1.0,
        "pca_recall": 1.0,
        "k": 10,
        "shortlist": 50,
        "n": 200,
        "corpus": 500,
    }
