"""An index in a file of Milvus Lite, and the same searched by FAISS, for tests of Milvus."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import energy_first

from mrl_search.engines.milvus import Remote
from mrl_search.engines.milvus_client import Place
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import EngineError
from mrl_search.index import Index
from mrl_search.mirror import copy_to

ROWS, DIM, DIMS = 1200, 32, (8, 16, 32)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return energy_first(np.random.default_rng(0), ROWS, DIM)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return energy_first(np.random.default_rng(1), 6, DIM)


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("items") / "items.parquet"
    moments = pa.array([i * 1_000_000 for i in range(ROWS)], pa.timestamp("us"))
    pq.write_table(
        pa.table({
            "path": [f"p/{i}.jpg" for i in range(ROWS)],
            "label": ["cat" if i % 3 else None for i in range(ROWS)],
            "width": list(range(ROWS)), "share": [i / ROWS for i in range(ROWS)],
            "taken": moments,
        }),
        path,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, items: Path) -> Index:
    out = tmp_path_factory.mktemp("flat") / "index"
    return Index.from_vectors(rows, out, items=str(items), spec=IndexSpec(DIMS, "Flat"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"milvus:{tmp_path_factory.mktemp('lite') / 'lite.db'}"


@pytest.fixture(scope="module")
def index(
    tmp_path_factory: pytest.TempPathFactory, rows: np.ndarray, items: Path, place: str
) -> Index:
    out = tmp_path_factory.mktemp("milvus") / "index"
    spec = IndexSpec(DIMS, engine=f"{place}#flat")
    return Index.from_vectors(rows, out, items=str(items), spec=spec)


def copy_at_once(folders: Sequence[Path], place: str) -> list[EngineError]:
    """Copy indexes to one place that each of them sees free; the errors of those refused."""
    begun, owner, errors = threading.Barrier(len(folders)), Remote.owner, list[EngineError]()

    def free(place: Place) -> str | None:
        found = owner(place)
        begun.wait(60)
        return found

    def copy(folder: Path) -> None:
        try:
            copy_to(folder, place)
        except EngineError as error:
            errors.append(error)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "owner", staticmethod(free))
        every = [threading.Thread(target=copy, args=[folder]) for folder in folders]
        for one in every:
            one.start()
        for one in every:
            one.join()
    return errors
