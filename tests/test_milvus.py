"""Milvus behind the seam, by Milvus Lite: the answers of FAISS, changes, filters."""

from pathlib import Path
from typing import Any

import milvus_corpus as shown
import numpy as np
import pytest
from conftest import energy_first
from milvus_corpus import DIM, DIMS, ROWS
from typer.testing import CliRunner

from mrl_search.cli.app import app
from mrl_search.engines.base import Mask
from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.remote import expression_of
from mrl_search.engines.spec import IndexSpec
from mrl_search.index import Index
from mrl_search.store.collection import Collection

pytest.importorskip("milvus_lite")
pymilvus = pytest.importorskip("pymilvus")
pytestmark = pytest.mark.slow

PLANS = ("exact", "8:100,32", "8:200,16:50,32", "16", "8:60,20:20,32")
rows, queries, items = shown.rows, shown.queries, shown.items
flat, place, index = shown.flat, shown.place, shown.index


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    "where",
    [
        (), ("label=cat",), ("label=cat", "width<5"), ("width!=3",), ("width>=100", "share<0.5"),
        ("path=p/1*",), ("taken<1971",),
    ],
)  # fmt: skip
def test_answers_are_those_of_faiss(
    index: Index, flat: Index, queries: np.ndarray, plan: str, where: tuple[str, ...]
) -> None:
    found, known = (one.search(queries, 5, plan=plan, where=where) for one in (index, flat))
    np.testing.assert_array_equal(found.ids, known.ids)
    np.testing.assert_allclose(found.scores, known.scores, atol=1e-5)


def test_ids_and_votes_are_those_of_faiss(index: Index, flat: Index, queries: np.ndarray) -> None:
    some = [3, 700, 701, 9]
    found, known = (one.search(queries, 9, ids=some, plan="8:9,32") for one in (index, flat))
    np.testing.assert_array_equal(found.ids, known.ids)
    assert [v.label for v in index.classify(queries, 7)] == [
        v.label for v in flat.classify(queries, 7)
    ]


@pytest.mark.parametrize("kind", ["HNSW", "IVF_FLAT"])
def test_approximate_kinds_find_as_much(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, flat: Index, place: str, kind: str
) -> None:
    spec = IndexSpec(DIMS, factories={"8": kind, "16": kind}, engine=f"{place}#{kind}")
    index = Index.from_vectors(rows, tmp_path / "index", spec=spec)
    assert index.manifest.factory == {"8": kind, "16": kind, "32": "FLAT"}
    effort = index.corpus.prefix_index(8).efforts[-1]
    many = energy_first(np.random.default_rng(2), 50, DIM)
    found = index.search(many, 10, plan=f"8:100@{effort},32").ids
    known = flat.search(many, 10, plan="8:100,32").ids
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(found, known, strict=True)])
    assert recall >= 0.99


def test_lite_is_asked_once_for_a_plan_and_stores_what_it_gets(
    tmp_path: Path,
    rows: np.ndarray,
    queries: np.ndarray,
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    for name in ("search", "flush"):
        plain = getattr(pymilvus.MilvusClient, name)

        def counted(
            self: Any, *args: Any, name: str = name, plain: Any = plain, **more: Any
        ) -> Any:
            calls.append(name)
            return plain(self, *args, **more)

        monkeypatch.setattr(pymilvus.MilvusClient, name, counted)
    index = Index.from_vectors(
        rows, tmp_path / "index", spec=IndexSpec(DIMS, engine=f"{place}#once")
    )
    assert calls == ["flush"]
    index.search(queries[:3], 5, plan="8:100,32")
    assert calls == ["flush", "search"]  # the rows of the folder are scored
    index.add(rows[:9] + 1)
    assert calls == ["flush", "search"]


def test_changes_are_seen_at_once(
    tmp_path: Path, rows: np.ndarray, queries: np.ndarray, items: Path, place: str
) -> None:
    both = [
        Index.from_vectors(rows, tmp_path / name, items=str(items), spec=spec)
        for name, spec in (
            ("milvus", IndexSpec(DIMS, engine=f"{place}#changes")), ("faiss", IndexSpec(DIMS))
        )
    ]  # fmt: skip

    def same() -> None:
        for plan in PLANS:
            found, known = (one.search(queries, 8, plan=plan) for one in both)
            np.testing.assert_array_equal(found.ids, known.ids)

    for change in (
        lambda one: one.remove(where="width<40"),
        lambda one: one.add(queries * 1.5),
        lambda one: one.remove(ids=[1201, 50]),
        lambda one: one.restore(1),
        lambda one: one.compact(),
    ):
        for one in both:
            change(one)
        same()
    remote = Remote(Place.parse(f"{place}#changes"))
    assert remote.count() == len(both[1])


def test_other_commands_ask_milvus(tmp_path: Path, flat: Index, index: Index) -> None:
    assert CliRunner().invoke(app, ["info", str(index.folder)]).stdout.count("searches ask milvus:")
    assert index.tune("recall", 0.9, queries=40).chosen.plan
    level = "exact"
    assert len(index.duplicates(level)) == len(flat.duplicates(level))


def test_filters_are_those_of_milvus_or_lists(flat: Index) -> None:
    items = Collection.open(flat.folder).items

    def told(*conditions: str, share: float = 0.5) -> str | None:
        allowed = np.arange(ROWS) < share * ROWS
        return expression_of(Mask(allowed, conditions), items)

    assert told() == ""
    assert told("label=cat", "width>=7") == 'item["label"] == "cat" and item["width"] >= 7'
    assert told("share<0.5") == 'item["share"] < 0.5'
    for listed in ("label!=cat", "path=p/*", "taken<1971", "label= cat", "label=Ä", "width=x"):
        assert told(listed, share=3 / ROWS) == "id in [0, 1, 2]"
