"""Small corpora with vectors that can be checked by hand, built by the real functions."""

import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before any import: tests are small, cores are few

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from command_line import write_pictures
from fakes import FakeEncoder

from mrl_search.building import write_indexes
from mrl_search.engines import kernels
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import Skipped
from mrl_search.images import decode
from mrl_search.index import Index
from mrl_search.progress import silent
from mrl_search.store.collection import Heads
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.manifest import Manifest
from mrl_search.store.transform import Transform
from mrl_search.store.writer import CollectionWriter
from mrl_search.vectors import l2_normalize

os.fsync = os.fstat  # checks the handle; what tests write need not survive a loss of power

DIMS = (8, 16, 64)
CLASSES = ("bird", "cat", "dog")
INSTRUCTIONS = ["plain", "AVX2", "AVX-512"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, the torture before all, so that workers end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, item.path.parent.name != "torture"))


@dataclass(frozen=True, eq=False)
class Rows:
    """What goes into a collection; `save` writes it as an index folder."""

    vectors: np.ndarray  # (n, dim) of unit norm, in the stored dtype
    items: pa.Table
    manifest: Manifest
    heads: Heads = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    rotation: np.ndarray | None = None

    def save(self, out: Path, dims: tuple[int, ...] = (), factory: str = "Flat") -> None:
        n, dim = self.vectors.shape
        with CollectionWriter.open(out, dim, str(self.vectors.dtype)) as writer:
            store = writer.write_vectors(n, [self.vectors])
            writer.write_items(self.items)
            writer.write_heads(self.heads)
            writer.write_skipped(self.skipped)
            writer.write_transform(Transform(dim, dim, self.rotation))
            made = {}
            if dims:
                spec = IndexSpec(dims, factory, dtype=str(self.vectors.dtype))
                made = write_indexes(writer, store, spec, silent)
            every = tuple(sorted({*self.manifest.dims, *dims}))
            writer.publish(replace(self.manifest, factory=made, dims=every))


def energy_first(rng: np.random.Generator, n: int, dim: int = 64) -> np.ndarray:
    """(n, dim) float32 rows whose first dims weigh most, as those of a Matryoshka model do."""
    return (rng.standard_normal((n, dim)) * np.linspace(2.0, 0.2, dim) ** 2).astype(np.float32)


def made_of(
    raw: np.ndarray,
    labels: list[str | None],
    hashes: list[str] | None = None,
    dtype: str = "float16",
) -> Rows:
    """`raw` (n, dim) vectors with items, and linear heads that score by the mean of each class."""
    n, dim = raw.shape
    dims = tuple(d for d in DIMS if d <= dim)
    columns = {
        "id": range(n), "path": [f"pictures/{i}.jpg" for i in range(n)], "label": labels,
        "hash": hashes or [f"{i:032x}" for i in range(n)], "width": [320] * n, "height": [240] * n,
        "norm": np.linalg.norm(raw, axis=1),
    }  # fmt: skip
    items = pa.table(columns, schema=ITEMS_SCHEMA)
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
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if `pillow-heif` were not installed."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    for known in (decode.formats, decode.suffixes):
        known.cache_clear()
    yield
    for known in (decode.formats, decode.suffixes):
        known.cache_clear()


@contextmanager
def computing_with(name: str) -> Iterator[None]:
    """Compiled code uses these instructions meanwhile; skips where the processor lacks them."""
    assert kernels.native is not None, "build it: python -m pip install -e ."
    usual = kernels.instructions()
    try:
        kernels.native.instructions(name)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        kernels.native.instructions(usual)


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
def small_set() -> Rows:
    """500 items in three classes, 64 dims."""
    rng = np.random.default_rng(7)
    labels = [CLASSES[i % 3] for i in range(500)]
    centres = np.zeros((3, 64), dtype=np.float32)
    centres[[0, 1, 2], [0, 1, 2]] = 9
    return made_of(energy_first(rng, 500) + np.tile(centres, (167, 1))[:500], labels)


@pytest.fixture
def make_index(tmp_path: Path) -> Callable[..., Index]:
    """Saves rows as an index folder and opens it."""

    def make(
        rows: Rows, dims: tuple[int, ...] = DIMS, factory: str = "Flat", name: str = "made"
    ) -> Index:
        rows.save(tmp_path / name, dims, factory)
        return Index.open(tmp_path / name)

    return make


@pytest.fixture
def small_index(small_set: Rows, make_index: Callable[..., Index]) -> Index:
    """`small_set` on disk, with flat indexes at 8, 16 and 64 dims."""
    return make_index(small_set, name="small")


@pytest.fixture
def queries() -> np.ndarray:
    """40 queries for `small_index`, of various norms."""
    return energy_first(np.random.default_rng(8), 40) + np.float32(0.5)


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pictures` of cats and dogs, one of them broken, and an `index` of them.

    Commands that open the index need `fake_model`.
    """
    folder = tmp_path_factory.mktemp("gallery")
    write_pictures(folder / "pictures", 20)
    write_pictures(folder / "fresh", 2, seed=9)
    (folder / "pictures" / "cat" / "broken.jpg").write_bytes(b"not a picture")
    Index.build(folder / "pictures", folder / "index", model=FakeEncoder())
    return folder


@pytest.fixture
def fake_model(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """The encoder that every name of a model opens."""
    encoder = FakeEncoder()
    monkeypatch.setattr("mrl_search.encoders.registry.load_encoder", lambda model, *_: encoder)
    return encoder
