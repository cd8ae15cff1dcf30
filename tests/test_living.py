"""An index of vectors that changes: against a model in plain Python, one change after another."""

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from living_folder import check_folder

from mrl_search import living
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, IndexFolderError, MrlSearchError
from mrl_search.index import Index
from mrl_search.store import generations
from mrl_search.store.generations import store_plan

DIM, DIMS, BASE = 16, (8, 16), {"NSG8": 220}
LABELS = ("ant", "bee", "cow")
EXACT = ("Flat", "Scan", "Panorama")  # find the nearest at every prefix
KINDS = (*EXACT, "IVF4,Flat", "HNSW8", "SQ8", "NSG8")
SMALL = {"FEW": 3, "TAIL": 0.3, "DEAD": 0.4, "GROWN": 2}
KEPT = 3
EXAMPLES = int(os.environ.get("LIVING_EXAMPLES", "6"))
FEWEST = {"IVF4,Flat": 4, "NSG8": 200}  # vectors that can be compacted
NEAR = 2e-6  # of scores
CODED = 0.05  # of scores of 8 bits a number
PHASES = (Phase.explicit, Phase.generate)  # to make an example smaller takes minutes
seeds = st.integers(0, 2**20)


@dataclass(frozen=True)
class Item:
    """An item of the model: its vector of unit norm, and its columns."""

    vector: np.ndarray
    label: str | None = None
    path: str | None = None
    price: int | None = None


Model = dict[int, Item]


@contextmanager
def small_thresholds() -> Iterator[None]:
    """Fold, train again and write together what is tiny."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(living, name, value)
        patch.setattr(generations, "KEPT", KEPT)
        yield


def cosines(model: Model, query: np.ndarray, dims: int) -> dict[int, float]:
    """The cosine of the first `dims` of each item, in float64."""
    ids, rows = list(model), np.array([item.vector for item in model.values()], np.float64)
    rows, query = rows[:, :dims], query[:dims].astype(np.float64)
    norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
    return dict(zip(ids, (rows @ query / norms).tolist(), strict=True))


def check_answer(
    model: Model, query: np.ndarray, ids: np.ndarray, scores: np.ndarray, k: int, dims: int = DIM,
    whole: bool = True, near: float = NEAR,
) -> None:  # fmt: skip
    """Compare an answer with brute force; if not `whole`, it may have missed some."""
    truth = cosines(model, query, dims) if model else {}
    found = ids[ids >= 0].tolist()
    assert len(set(found)) == len(found) <= min(k, len(model))
    assert set(found) <= model.keys()
    assert (ids[len(found) :] == -1).all()
    np.testing.assert_allclose(scores[: len(found)], [truth[i] for i in found], atol=near)
    if whole:
        best = sorted(truth.values(), reverse=True)[:k]
        np.testing.assert_allclose(scores[: len(found)], best, atol=near)


class Living(RuleBasedStateMachine):
    """An index folder and its model. Readers keep the generation that they opened."""

    kind = "Flat"

    def __init__(self) -> None:
        super().__init__()
        self.place = tempfile.TemporaryDirectory(prefix="living-")
        self.folder = Path(self.place.name) / "index"
        self.ever: dict[int, Item] = {}
        self.readers: list[tuple[Index, Model]] = []

    def teardown(self) -> None:
        self.readers.clear()
        self.place.cleanup()

    @initialize(seed=seeds)
    def build(self, seed: int) -> None:
        rows, items = self.made(BASE.get(self.kind, 40), seed, True, False)
        spec = IndexSpec(DIMS, self.kind, dtype="float32")
        self.index = Index.from_vectors(rows, self.folder, items=self.items, spec=spec)
        self.model = dict(enumerate(items))
        self.ever = dict(self.model)
        self.history = {0: dict(self.model)}

    def made(self, count: int, seed: int, described: bool, priced: bool) -> tuple:
        """Vectors, and what the model knows of them; `self.items` describes them."""
        rng = np.random.default_rng(seed)
        rows = rng.standard_normal((count, DIM)).astype(np.float32)
        if self.ever and seed % 5 == 0:  # copies of others
            known = [item.vector for item in self.ever.values()]
            rows[::2] = [known[i] for i in rng.integers(0, len(known), len(rows[::2]))]
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.items = None
        if not described:
            return rows, [Item(row) for row in unit]
        labels = [None, *LABELS]
        columns = {
            "label": [labels[i] for i in rng.integers(0, 4, count)],
            "path": [f"{'abc'[i % 3]}/{seed}-{i}.png" for i in range(count)],
        }
        if priced:
            columns["price"] = rng.integers(0, 9, count).tolist()
        self.items = Path(self.place.name) / "items.parquet"
        pq.write_table(pa.table(columns), self.items)
        names = list(columns)
        listed = zip(*columns.values(), strict=True)
        return rows, [
            Item(row, **dict(zip(names, values, strict=True)))
            for row, values in zip(unit, listed, strict=True)
        ]

    def changed(self) -> None:
        """Note what the newest generation has; others were made on the way to it."""
        for generation in self.index.generations:
            if generation not in self.history or generation == self.index.generation:
                self.history[generation] = dict(self.model)

    @rule(count=st.integers(1, 30), seed=seeds, described=st.booleans(), priced=st.booleans())
    def add(self, count: int, seed: int, described: bool, priced: bool) -> None:
        rows, items = self.made(count, seed, described, priced)
        done = self.index.add(rows, items=self.items)
        assert len(done.added) + len(done.copied) == count
        known = self.index.items.all_ids[self.index.corpus.live_rows].tolist()
        new = sorted(set(known) - self.model.keys())
        assert len(new) == count and min(new) > max(self.ever)  # never one again
        added = dict(zip(new, items, strict=True))
        self.model |= added
        self.ever |= added
        self.changed()

    @precondition(lambda self: self.model)
    @rule(share=st.sampled_from([0.05, 0.3, 0.9, 1.0]), seed=seeds)
    def remove_ids(self, share: float, seed: int) -> None:
        ids = np.array(sorted(self.model))
        chosen = np.random.default_rng(seed).permutation(ids)[: max(1, int(share * len(ids)))]
        assert self.index.remove(ids=chosen) == len(chosen)
        self.without(set(chosen.tolist()))

    @rule(label=st.sampled_from(LABELS))
    def remove_where(self, label: str) -> None:
        gone = {i for i, item in self.model.items() if item.label == label}
        if not gone:
            with pytest.raises(DataError, match="No item"):
                self.index.remove(where=f"label={label}")
            return
        assert self.index.remove(where=f"label={label}") == len(gone)
        self.without(gone)

    @rule(folder=st.sampled_from("abc"))
    def remove_path(self, folder: str) -> None:
        gone = {i for i, item in self.model.items() if (item.path or "").startswith(folder)}
        if not gone:
            with pytest.raises(DataError, match="no item"):
                self.index.remove(folder)
            return
        assert self.index.remove(folder) == len(gone)
        self.without(gone)

    def without(self, gone: set[int]) -> None:
        self.model = {i: item for i, item in self.model.items() if i not in gone}
        self.changed()

    @rule()
    def compact(self) -> None:
        if not self.model:
            with pytest.raises(ConfigError, match="is deleted"):
                self.index.compact()
            return
        try:
            self.index.compact()
            assert self.index.manifest.count == len(self.model)
        except ConfigError:  # too few to train
            assert len(self.model) < FEWEST[self.kind]
        self.changed()

    @rule(seed=seeds)
    def restore(self, seed: int) -> None:
        kept = self.index.generations
        with pytest.raises(IndexFolderError, match="has no generation"):
            self.index.restore(max([*kept, self.index.generation]) + 1)
        if kept:
            chosen = kept[seed % len(kept)]
            self.index.restore(chosen)
            self.model = dict(self.history[chosen])
            self.changed()

    @rule(plan=st.sampled_from(["exact", "8:20,16", "16"]))
    def tune(self, plan: str) -> None:
        store_plan(self.folder, "query", {"plan": plan, "k": 20})
        self.index.refresh()
        self.changed()

    @rule()
    def reopen(self) -> None:
        self.index = Index.open(self.folder)

    @precondition(lambda self: len(self.readers) < 2)
    @rule()
    def read(self) -> None:
        self.readers.append((Index.open(self.folder), dict(self.model)))

    @precondition(lambda self: self.readers)
    @rule(refreshed=st.booleans())
    def let_go(self, refreshed: bool) -> None:
        reader, known = self.readers.pop(0)
        self.search_all(reader, known, 3)
        if refreshed:
            reader.refresh()
            assert reader.generation == self.index.generation
            self.search_all(reader, self.model, 3)
        del reader
        gc.collect()

    @rule(seed=seeds, k=st.sampled_from([1, 5, 500]))
    def search_now(self, seed: int, k: int) -> None:
        self.search_all(self.index, self.model, k, seed)
        for reader, known in self.readers:
            self.search_all(reader, known, k, seed)

    def search_all(self, index: Index, model: Model, k: int, seed: int = 0) -> None:
        """Every way to search, against brute force."""
        rng = np.random.default_rng(seed)
        queries = rng.standard_normal((4, DIM)).astype(np.float32)
        if model:  # find an item itself
            queries[0] = model[sorted(model)[seed % len(model)]].vector
        batch = index.search(queries, k, plan="exact")
        assert batch.ids.shape == (4, min(k, len(model)))
        exact, near = self.kind in EXACT, CODED if self.kind == "SQ8" else NEAR
        for query, hits in zip(queries, batch, strict=True):
            check_answer(model, query, hits.ids, hits.scores, k)
            if model:
                assert hits[0].label == model[hits[0].id].label
                assert hits[0].path == model[hits[0].id].path
        single = index.search(queries[0], k, plan="exact")
        assert single.ids.tolist() == batch[0].ids.tolist()
        for plan, dims in (("8", 8), ("16", 16), (f"8:{max(k, 20)},16", 16)):
            for asked in (queries, queries[:1]):
                found = index.search(asked, k, plan=plan)
                for query, ids, scores in zip(asked, found.ids, found.scores, strict=True):
                    whole = exact and ("," not in plan or k >= len(model))
                    check_answer(model, query, ids, scores, k, dims, whole, near)
        hits = index.search(queries[1], k)  # by a tuned plan
        check_answer(model, queries[1], hits.ids, hits.scores, k, DIM, False, near)
        self.filtered(index, model, queries[2], k, seed)

    def filtered(self, index: Index, model: Model, query: np.ndarray, k: int, seed: int) -> None:
        bees = {i: item for i, item in model.items() if item.label == "bee"}
        some = {i: item for i, item in model.items() if (i * 7 + seed) % 3 == 0}
        for plan in ("exact", "8:500,16"):
            whole = plan == "exact" or self.kind in EXACT
            if bees:
                hits = index.search(query, k, plan=plan, where="label=bee")
                check_answer(bees, query, hits.ids, hits.scores, k, DIM, whole)
            if some:
                hits = index.search(query, k, plan=plan, ids=np.array(sorted(some)))
                check_answer(some, query, hits.ids, hits.scores, k, DIM, whole)
        gone = np.array(sorted(self.ever.keys() - model.keys()))
        if len(gone):
            with pytest.raises(DataError, match="There is no item"):
                index.search(query, k, ids=gone[:1])
        if len([item for item in model.values() if item.label]) > 2:
            vote = index.classify(query, k=1, plan="exact")
            truth = cosines(model, query, DIM)
            nearest = max(truth.values()) - NEAR  # a copy is as near, but may have another label
            assert vote.label in {model[i].label for i, c in truth.items() if c >= nearest}

    @invariant()
    def whole(self) -> None:
        check_folder(self.folder)
        index = Index.open(self.folder)
        assert index.generation == self.index.generation
        assert len(index) == len(self.model)
        ids = index.items.all_ids[index.corpus.live_rows]
        assert sorted(ids.tolist()) == sorted(self.model)
        for row, i in zip(index.corpus.live_rows, ids.tolist(), strict=True):
            np.testing.assert_allclose(
                index.corpus.vectors.rows(np.array([row]))[0], self.model[i].vector, atol=1e-6
            )
        if len(self.readers) == 0:
            assert (
                len(index.generations) <= KEPT + 4
            )  # objects that are not collected yet have leases, too

    @invariant()
    def readers_keep_theirs(self) -> None:
        query = np.ones(DIM, np.float32)
        for reader, known in self.readers:
            hits = reader.search(query, 5, plan="exact")
            check_answer(known, query, hits.ids, hits.scores, 5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sieved", [False, True])
def test_it_answers_as_its_model(kind: str, sieved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if sieved:
        monkeypatch.setattr("mrl_search.building.CLUSTERED_FROM", 10)
        monkeypatch.setattr(living, "CLUSTERED_FROM", 10)
    machine = type(f"Living{kind}", (Living,), {"kind": kind})
    with small_thresholds():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=12, deadline=None, phases=PHASES,
                suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip


def test_a_copy_of_the_nearest_may_vote_in_its_place() -> None:
    machine = Living()
    machine.build(0)
    machine.add(30, 350, True, False)  # cosines .6751902525 and .6751902558: equal in float32
    machine.search_now(7, 500)
    machine.teardown()


def test_a_tuned_effort_is_left_out_where_the_kind_takes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrl_search.engines.spec.FLAT_UP_TO", 30)
    rows = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)
    index = Index.from_vectors(rows, tmp_path / "index", spec=IndexSpec(DIMS))
    assert "IVF" in index.manifest.factory["8"]
    store_plan(index.folder, "query", {"plan": "8:20@9,16", "k": 10})
    index.refresh()
    assert str(index.search(rows, 5).plan) == "8:20@9,16"
    index.remove(ids=np.arange(15))
    index.compact()
    assert index.manifest.factory["8"] == "Flat"
    assert str(index.search(rows, 5).plan) == "8:20,16"
    assert index.search(rows[20], 1)[0].id == 20


def test_what_is_no_path_number_or_condition_is_told_in_a_sentence(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)
    index = Index.from_vectors(rows, tmp_path / "index", spec=IndexSpec(DIMS))
    wrong: list[Callable[[], object]] = [
        lambda: index.remove(5), lambda: index.remove(None), lambda: index.remove(["a", 5]),
        lambda: index.remove(ids=1), lambda: index.remove(ids=["a"]), lambda: index.remove(where=3),
        lambda: index.restore("1"), lambda: index.restore(1.5), lambda: index.restore(None),
        lambda: index.add(rows, items=5), lambda: index.search(rows, where=5),
        lambda: index.search(rows, ids=2.5), lambda: index.search(5), lambda: index.search(None),
        lambda: index.embed(5),
    ]  # fmt: skip
    for call in wrong:
        with pytest.raises(MrlSearchError):
            call()
    assert index.generation == 0
    assert index.remove(ids=range(2)) == index.remove(ids=[2, 3]) == 2
    assert index.remove(ids=np.array([4, 5], np.int32)) == 2
    assert index.search(rows[9], 1, ids=(9, 10))[0].id == 9


def test_compact_takes_other_kinds_where_too_few_rows_are_left(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((300, DIM)).astype(np.float32)
    spec = IndexSpec(DIMS, "auto", {"8": "IVF64,Flat"})
    index = Index.from_vectors(rows, tmp_path / "index", spec=spec)
    index.remove(ids=range(250))
    index.compact()
    assert (index.manifest.count, index.manifest.factory["8"]) == (50, "Flat")
    assert index.search(rows[260], 1, plan="8:5,16")[0].id == 260


def test_only_the_last_generation_of_a_command_is_restored(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((40, DIM)).astype(np.float32)
    index = Index.from_vectors(rows, tmp_path / "index", spec=IndexSpec(DIMS))
    with small_thresholds():
        index.add(rows[:30])  # and folds
    assert index.generation > 1 and index.generations == [0, index.generation]
    index.remove(ids=[1])
    with pytest.raises(IndexFolderError, match=f"generation {index.generation + 1} to restore"):
        index.restore(index.generation + 1)
