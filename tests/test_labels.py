"""Labels that are no classes: one name a picture, or no better than chance."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mrl_search.index import Index
from mrl_search.measure.queries import QuerySet
from mrl_search.measure.settings import BenchSettings, about
from mrl_search.search.classify import label_doubt


def doubt(folder: Path, rows: np.ndarray, labels: list[str | None]) -> str:
    items = folder / "items.parquet"
    pq.write_table(pa.table({"label": pa.array(labels, pa.string())}), items)
    index = Index.from_vectors(rows.astype(np.float32), folder / "index", items=items)
    return label_doubt(index.corpus)


def rows_of(labels: list[str], apart: float) -> np.ndarray:
    """Random rows of 8 dims, those of a label around their own centre."""
    rng = np.random.default_rng(0)
    centres = {label: rng.standard_normal(8) for label in sorted(set(labels))}
    noise = rng.standard_normal((len(labels), 8))
    return noise + apart * np.array([centres[label] for label in labels])


def test_one_label_a_picture(tmp_path: Path) -> None:
    labels = [f"item {i}" for i in range(25)] + ["rest"] * 20
    assert doubt(tmp_path, rows_of(labels, 1), labels) == (
        "The labels are no classes: 25 of 45 stand on one item alone."
    )


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_at_chance(tmp_path: Path, classes: int) -> None:
    labels = [str(i % classes) for i in range(600)]
    found = doubt(tmp_path, rows_of(labels, 0), labels)
    assert (
        "a vote of the nearest is right for" in found and f"chance {1 / classes:.0%}"[:8] in found
    )


@pytest.mark.parametrize(
    ("labels", "apart"),
    [
        ([str(i % 2) for i in range(600)], 1.0),
        ([str(i % 100) for i in range(600)], 1.0),
        (["rare" if i % 20 == 0 else "common" for i in range(600)], 2.0),
        ([str(i % 2) for i in range(90)], 0.0),  # too few to tell
        ([f"item {i}" for i in range(19)], 0.0),
        ([f"pair {i // 2}" for i in range(200)], 3.0),
    ],
)
def test_classes_are_not_doubted(tmp_path: Path, labels: list[str], apart: float) -> None:
    assert doubt(tmp_path, rows_of(labels, apart), labels) == ""


def test_items_without_labels_are_no_matter(tmp_path: Path) -> None:
    labels = [str(i % 2) for i in range(200)]
    rows = rows_of(labels, 2.0)
    assert doubt(tmp_path, rows, [None] * 200) == ""
    (other := tmp_path / "other").mkdir()
    assert doubt(other, rows, [None if i % 3 else x for i, x in enumerate(labels)]) == ""


def test_accuracy_by_labels_that_are_no_classes_is_not_measured(tmp_path: Path) -> None:
    labels = [f"item {i}" for i in range(40)]
    items = tmp_path / "items.parquet"
    pq.write_table(pa.table({"label": labels}), items)
    corpus = Index.from_vectors(rows_of(labels, 1).astype(np.float32), items=items).corpus
    queries = QuerySet.of_corpus(corpus)
    assert queries.doubt == "The labels are no classes: 40 of 40 stand on one item alone."
    assert len(queries.labelled) == 0
    record = about(corpus, queries, BenchSettings(k=5, neighbours=5))
    assert record["queries"]["doubt"] == queries.doubt and record["queries"]["labelled"] == 0
