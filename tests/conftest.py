"""Small corpora with vectors that can be checked by hand, built by the real functions."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mrl_search.engines import Index, add_prefix_indexes
from mrl_search.engines.spec import IndexSpec
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.manifest import Manifest
from mrl_search.store.rows import EmbeddingSet
from mrl_search.vectors import l2_normalize

DIMS = (8, 16, 64)
CLASSES = ("bird", "cat", "dog")


def energy_first(rng: np.random.Generator, n: int, dim: int = 64) -> np.ndarray:
    """(n, dim) float32 rows whose first numbers weigh most, as those of a Matryoshka model do."""
    return (rng.standard_normal((n, dim)) * np.linspace(2.0, 0.2, dim) ** 2).astype(np.float32)


def embedding_set(
    raw: np.ndarray,
    labels: list[str | None],
    hashes: list[str] | None = None,
    dtype: str = "float16",
) -> EmbeddingSet:
    """The set of `raw` (n, dim) embeddings, with a linear head a prefix that scores by the mean of each class."""
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
        encoder="counting", fingerprint="f00d" * 8, dim=dim, dims=dims, count=n, dtype=dtype, source="pictures", model="bundled",
        classes=CLASSES if heads else (),
    )  # fmt: skip
    return EmbeddingSet(l2_normalize(raw).astype(dtype), items, manifest, heads)


@pytest.fixture
def fresh_accelerate() -> Iterator[None]:
    """Forget the settings that accelerate keeps in a process; train in one thread.

    Networks this small are ten times slower in several threads that share two busy cores.
    """
    import torch
    from accelerate.state import AcceleratorState, GradientState

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def small_set() -> EmbeddingSet:
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
        embeddings: EmbeddingSet,
        dims: tuple[int, ...] = DIMS,
        factory: str = "Flat",
        name: str = "made",
    ) -> Index:
        embeddings.save(tmp_path / name)
        add_prefix_indexes(tmp_path / name, IndexSpec(dims, factory))
        return Index.open(tmp_path / name)

    return make


@pytest.fixture
def small_index(small_set: EmbeddingSet, make_index: Callable[..., Index]) -> Index:
    """`small_set` on disk, with flat indexes at 8, 16 and 64 dims."""
    return make_index(small_set, name="small")


@pytest.fixture
def queries() -> np.ndarray:
    """40 queries for `small_index`, of various lengths."""
    return energy_first(np.random.default_rng(8), 40) + np.float32(0.5)
