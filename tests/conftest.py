"""Small corpora with vectors that can be checked by hand, built by the real functions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mrl_search.engines import IndexSpec
from mrl_search.index import Index, write_indexes
from mrl_search.progress import silent
from mrl_search.store.collection import Heads
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.manifest import Manifest
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import l2_normalize

DIMS = (8, 16, 64)
CLASSES = ("bird", "cat", "dog")


def energy_first(rng: np.random.Generator, n: int, dim: int = 64) -> np.ndarray:
    """(n, dim) float32 rows whose first numbers weigh most, as those of a Matryoshka model do."""
    return (rng.standard_normal((n, dim)) * np.linspace(2.0, 0.2, dim) ** 2).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Rows:
    """What an index folder is written from."""

    vectors: np.ndarray
    items: pa.Table
    manifest: Manifest
    heads: Heads

    @property
    def labels(self) -> np.ndarray:
        return np.array(self.items["label"].to_pylist(), dtype=object)


def embedding_set(
    raw: np.ndarray,
    labels: list[str | None],
    hashes: list[str] | None = None,
    dtype: str = "float16",
) -> Rows:
    """`raw` (n, dim) embeddings, with a linear head a prefix that scores by class means."""
    n, dim = raw.shape
    dims = tuple(d for d in DIMS if d <= dim)
    items = pa.table(
        {
            "id": range(n),
            "path": [f"pictures/{i}.jpg" for i in range(n)],
            "label": labels,
            "hash": hashes or [f"{i:032x}" for i in range(n)],
            "width": [320] * n,
            "height": [240] * n,
            "norm": np.linalg.norm(raw, axis=1),
        },
        schema=ITEMS_SCHEMA,
    )
    heads = {}
    if all(labels):
        means = np.stack([raw[[label == c for label in labels]].mean(axis=0) for c in CLASSES])
        heads = {
            d: (np.ascontiguousarray(means[:, :d]), -(means[:, :d] ** 2).sum(axis=1) / 2)
            for d in dims
        }
    manifest = Manifest(
        encoder="counting", fingerprint="f00d" * 8, dim=dim, dims=dims, count=n, dtype=dtype,
        source="pictures", model="bundled", classes=CLASSES if heads else (),
    )  # fmt: skip
    return Rows(l2_normalize(raw).astype(dtype), items, manifest, heads)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Reset accelerate, which keeps its settings for the life of a process."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="session")
def small_set() -> Rows:
    """500 items in three classes, 64 dims."""
    rng = np.random.default_rng(7)
    labels = [CLASSES[i % 3] for i in range(500)]
    centres = np.zeros((3, 64), dtype=np.float32)
    centres[[0, 1, 2], [0, 1, 2]] = 9
    return embedding_set(energy_first(rng, 500) + np.tile(centres, (167, 1))[:500], labels)


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., Index]:
    """Saves a set as an index folder and opens it."""

    def make(
        rows: Rows, dims: tuple[int, ...] = DIMS, factory: str = "Flat", name: str = "made"
    ) -> Index:
        dim, dtype, spec = rows.manifest.dim, rows.manifest.dtype, IndexSpec(dims, factory)
        with CollectionWriter.open(tmp_path / name, dim, dtype) as writer:
            store = writer.write_vectors(len(rows.vectors), [rows.vectors])
            writer.write_items(rows.items)
            writer.write_heads(rows.heads)
            kinds = write_indexes(writer, store, spec, silent)
            writer.publish(replace(rows.manifest, factory=kinds))
        return Index.open(tmp_path / name)

    return make


@pytest.fixture
def small_index(small_set: Rows, make_index: Callable[..., Index]) -> Index:
    """`small_set` on disk, with flat indexes at 8, 16 and 64 dims."""
    return make_index(small_set, name="small")


@pytest.fixture
def queries() -> np.ndarray:
    """40 queries for `small_index`, of various lengths."""
    return energy_first(np.random.default_rng(8), 40) + np.float32(0.5)
