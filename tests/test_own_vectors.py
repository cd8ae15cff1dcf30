"""An index of own vectors: stored exactly, with the user's columns, searched with rows as they come; nothing is written on bad input."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from mrl_search.cli.app import app
from mrl_search.engines import Index
from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, IndexFolderError
from mrl_search.files import PROGRESS, building_folder
from mrl_search.images.drawn import write_corpus
from mrl_search.search import exact
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.store.items import ITEMS_SCHEMA, as_table
from mrl_search.store.own_vectors import index_vectors
from mrl_search.store.rows import EmbeddingSet
from mrl_search.store.transform import principal_axes, rotate
from mrl_search.store.vector_files import holds_vectors
from mrl_search.vectors import default_dims


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def ok(*args: str | Path) -> Result:
    result = run(*args)
    assert result.exit_code == 0, result.output
    return result


def hidden(n: int = 60, dim: int = 24, seed: int = 0) -> np.ndarray:
    """(n, dim) float64 rows with most of their energy along a few directions, none of them an axis."""
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.standard_normal((dim, dim)))
    return rng.standard_normal((n, dim)) * np.geomspace(4, 0.05, dim) @ basis


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", hidden().astype(np.float32))
    return tmp_path / "x.npy"


def nothing_written(folder: Path) -> bool:
    return not (folder / "i").exists() and not (folder / ".i.building").exists()


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    n=st.integers(1, 30), dim=st.integers(1, 40), given_as=st.sampled_from(["float16", "float32", "float64"]),
    stored=st.sampled_from(["float16", "float32"]), unit=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_round_trip_is_exact_to_the_dtype(
    tmp_path_factory: pytest.TempPathFactory,
    n: int,
    dim: int,
    given_as: str,
    stored: str,
    unit: bool,
    seed: int,
) -> None:
    folder = tmp_path_factory.mktemp("trip")
    x = np.random.default_rng(seed).standard_normal((n, dim)) + 0.01
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    x = (x / lengths if unit else x).astype(given_as)
    np.save(folder / "x.npy", x)
    index = index_vectors(
        folder / "x.npy", folder / "i", IndexSpec(default_dims(dim), dtype=stored)
    )
    exactly = x.astype(np.float64)
    if not unit:
        exactly = exactly / np.linalg.norm(exactly, axis=1, keepdims=True)
    assert index.embeddings.vectors.dtype == stored
    np.testing.assert_array_equal(index.embeddings.vectors, exactly.astype(stored))
    np.testing.assert_allclose(
        index.embeddings.norms, np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-6
    )
    assert list(index.embeddings.hashes) == [xxhash.xxh3_128_hexdigest(row.tobytes()) for row in x]
    assert index.dims == default_dims(dim)


@pytest.mark.parametrize(
    ("dim", "dims"),
    [(5, (5,)), (8, (8,)), (24, (8, 16, 24)), (768, (8, 16, 32, 64, 128, 256, 512, 768))],
)
def test_default_dims(dim: int, dims: tuple[int, ...]) -> None:
    assert default_dims(dim) == dims


def test_shards_and_a_column_hold_what_one_file_holds(tmp_path: Path, vectors: Path) -> None:
    x = np.load(vectors)
    (tmp_path / "s").mkdir()
    for i, part in enumerate(np.array_split(x, 4)):
        np.save(tmp_path / "s" / f"{i}.npy", part)
    pq.write_table(
        pa.table({"emb": list(x), "label": ["a", "b"] * 30, "blob": [b"x"] * 60, "n": range(60)}),
        tmp_path / "x.parquet",
    )
    one, many, column = (
        index_vectors(w, tmp_path / f"i{i}")
        for i, w in enumerate([vectors, tmp_path / "s", tmp_path / "x.parquet"])
    )
    np.testing.assert_array_equal(one.embeddings.vectors, many.embeddings.vectors)
    np.testing.assert_array_equal(one.embeddings.vectors, column.embeddings.vectors)
    assert one.manifest.fingerprint == many.manifest.fingerprint == column.manifest.fingerprint
    assert column.items.column_names == [
        *ITEMS_SCHEMA.names,
        "n",
    ]  # its own columns, but no lists and no bytes
    assert list(column.embeddings.labels[:3]) == ["a", "b", "a"]
    assert column.manifest.source == f"{tmp_path / 'x.parquet'}#emb"
    assert (one.manifest.encoder, one.manifest.model, one.manifest.own_vectors) == (
        "own vectors",
        "",
        True,
    )
    assert one.embeddings.paths[0] is None


def test_items_are_used_by_name_and_others_kept(tmp_path: Path, vectors: Path) -> None:
    own = pa.table({
        "id": [f"sku{i}" for i in range(60)], "path": [f"p{i}" for i in range(60)], "labels": range(60), "width": [7] * 60,
        "price": np.linspace(0, 1, 60), "tags": [["a", "b"]] * 60,
    })  # fmt: skip
    pq.write_table(own, tmp_path / "items.parquet")
    index = index_vectors(vectors, tmp_path / "i", items=tmp_path / "items.parquet")
    assert index.items.column_names == [*ITEMS_SCHEMA.names, "item_id", "price", "tags"]
    row = as_table(index.items).slice(3, 1).to_pylist()[0]
    assert (row["id"], row["item_id"], row["path"], row["label"], row["width"], row["height"]) == (
        3,
        "sku3",
        "p3",
        "3",
        7,
        None,
    )
    assert row["price"] == pytest.approx(3 / 59) and row["tags"] == ["a", "b"]
    index.embeddings.save(tmp_path / "again")
    assert as_table(EmbeddingSet.open(tmp_path / "again").items).equals(as_table(index.items))


BAD_ITEMS = [
    (pa.table({"path": ["a"] * 59}), "items.parquet has 59 rows; there are 60 vectors"),
    (
        pa.table({"width": ["wide"] * 60}),
        "Column 'width' of .*items.parquet holds string, which is no int32",
    ),
    (pa.table({"label": [["a"]] * 60}), "Column 'label' of .*items.parquet holds list"),
    (pa.table({"id": range(60), "item_id": range(60)}), "items.parquet has two columns 'item_id'"),
]


@pytest.mark.parametrize(("own", "said"), BAD_ITEMS)
def test_items_that_cannot_be_used(tmp_path: Path, vectors: Path, own: pa.Table, said: str) -> None:
    pq.write_table(own, tmp_path / "items.parquet")
    with pytest.raises(DataError, match=said) as error:
        index_vectors(vectors, tmp_path / "i", items=tmp_path / "items.parquet")
    assert error.value.hint and nothing_written(tmp_path)


def test_a_rotation_keeps_cosines_and_moves_energy_forward(tmp_path: Path, vectors: Path) -> None:
    plain = index_vectors(vectors, tmp_path / "plain", IndexSpec((8, 24), dtype="float32"))
    turned = index_vectors(
        vectors, tmp_path / "turned", IndexSpec((8, 24), dtype="float32"), rotation="pca"
    )
    x, y = plain.embeddings.prefix(24), turned.embeddings.prefix(24)
    np.testing.assert_allclose(x @ x.T, y @ y.T, atol=1e-6)
    energy = (y**2).mean(axis=0)
    assert (np.diff(energy) <= 1e-6).all() and energy[:8].sum() > 0.9 > 0.6 > (x[:, :8] ** 2).sum(
        axis=1
    ).mean()
    rotation = turned.embeddings.rotation
    assert (
        rotation is not None
        and "rotation.npy" in turned.manifest.files
        and plain.embeddings.rotation is None
    )
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(24), atol=1e-6)
    queries = hidden(5, seed=1)
    np.testing.assert_allclose(turned.to_space(queries), queries @ rotation.T, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(plain.to_space(queries), queries.astype(np.float32))
    same = [search(i, i.to_space(queries), Plan.single(24, 5)).ids for i in (plain, turned)]
    np.testing.assert_array_equal(*same)
    short = [exact(i, i.to_space(queries), 5, 8).ids for i in (plain, turned)]
    assert (short[0] != short[1]).any()


def test_principal_axes_of_a_known_matrix() -> None:
    axes = principal_axes(np.diag([1.0, 9.0, 4.0]))
    np.testing.assert_allclose(axes, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(rotate(np.array([[1.0, 2.0, 3.0]]), axes[:2]), [[2, 3]])


def test_queries_of_another_length(tmp_path: Path, vectors: Path, small_index: Index) -> None:
    index = index_vectors(vectors, tmp_path / "i")
    with pytest.raises(DataError, match=r"The query has 7 numbers; .*i takes 24.") as error:
        index.to_space(np.ones(7))
    assert error.value.hint == "Queries must come from what made these vectors."
    with pytest.raises(DataError, match=r"takes 64.") as error:
        small_index.to_space(np.ones((2, 24)))
    assert "model" in error.value.hint
    with pytest.raises(IndexFolderError, match="vectors of your own") as refused:
        index.check_encoder("f00d")
    assert "--vector" in refused.value.hint
    assert "build-index" in index.manifest.rebuild(
        tmp_path / "i"
    ) and "--model" not in index.manifest.rebuild(tmp_path / "i")


def bad_row(x: np.ndarray) -> None:
    x[50] = np.nan


def zero_row(x: np.ndarray) -> None:
    x[50] = 0


@pytest.mark.parametrize(
    ("spoil", "said"), [(bad_row, "Row 50 of .* is not finite"), (zero_row, "Row 50 of .* is zero")]
)
def test_nothing_is_written_when_a_row_is_bad(
    tmp_path: Path, spoil: Callable[[np.ndarray], None], said: str
) -> None:
    x = hidden()
    spoil(x)
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=said):
        index_vectors(tmp_path / "x.npy", tmp_path / "i")
    assert nothing_written(tmp_path)


def test_a_failed_or_killed_build_leaves_nothing_that_counts(tmp_path: Path, vectors: Path) -> None:
    with pytest.raises(ConfigError, match="FAISS makes no index"):
        index_vectors(vectors, tmp_path / "i", IndexSpec((8,), factory="Nonsense"))
    assert nothing_written(tmp_path)
    left = building_folder(tmp_path / "i")  # as a killed build of rotated vectors would
    np.save(left / "rotation.npy", np.eye(24, dtype=np.float32))
    (left / "prefix-0016.faiss").write_bytes(b"half")
    index = index_vectors(vectors, tmp_path / "i", IndexSpec((8,)))
    assert sorted(index.manifest.files) == [
        "items.parquet", "prefix-0008.faiss", "prefix-0024.faiss", "sieve-codes.npy", "sieve-steps.npy", "suffix-norms.npy", "vectors.npy",
    ]  # fmt: skip
    with pytest.raises(IndexFolderError, match="exists already"):
        index_vectors(vectors, tmp_path / "i")
    (building_folder(tmp_path / "j") / PROGRESS).write_text("{}")
    with pytest.raises(IndexFolderError, match="unfinished build of images"):
        index_vectors(vectors, tmp_path / "j")


def test_what_holds_vectors(tmp_path: Path, vectors: Path) -> None:
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "0.npy", hidden())
    pq.write_table(pa.table({"emb": [[1.0]]}), tmp_path / "v.parquet")
    pq.write_table(
        pa.table({"emb": [[1.0]], "image": [{"bytes": b"x", "path": ""}]}),
        tmp_path / "both.parquet",
    )
    pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), tmp_path / "images.parquet")
    (tmp_path / "nothing").mkdir()
    yes = [vectors, tmp_path / "s", tmp_path / "v.parquet", f"{tmp_path / 'both.parquet'}#emb"]
    no = [
        tmp_path / "both.parquet",
        tmp_path / "images.parquet",
        tmp_path / "nothing",
        tmp_path / "none.parquet",
        "hub:owner/name",
    ]
    assert [holds_vectors(str(w)) for w in yes + no] == [True] * 4 + [False] * 5
    write_corpus(tmp_path / "s", 1, size=32)
    assert not holds_vectors(str(tmp_path / "s"))


def test_the_command_builds_and_each_option_matters(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ok("build-index", vectors)
    assert (
        "60 vectors of 24 numbers (float32)" in result.stderr
        and "mrl-search info indexes/x --check" in result.stderr
    )
    told = json.loads(ok("info", "indexes/x", "--json").stdout)
    assert (told["dims"], told["dtype"], told["model"], told["count"]) == (
        [8, 16, 24],
        "float16",
        "",
        60,
    )
    pq.write_table(
        pa.table({"label": ["a", "b"] * 30, "price": range(60)}), tmp_path / "items.parquet"
    )
    ok(
        "build-index",
        vectors,
        "--out",
        "j",
        "--dims",
        "4,8",
        "--dtype",
        "float32",
        "--items",
        "items.parquet",
        "--rotate",
        "pca",
    )
    index = Index.open(tmp_path / "j")
    assert (index.dims, index.manifest.dtype, index.embeddings.rotation is not None) == (
        (4, 8, 24),
        "float32",
        True,
    )
    shown = ok("info", "j", "--verify").stdout
    for said in ("a 30, b 30", "price", "own vectors (", "rotated by PCA", "items"):
        assert said in shown
    assert "images" not in shown


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path, vectors: Path) -> None:
    pictures = tmp_path / "pictures"
    write_corpus(pictures, 1, size=32)
    out = tmp_path / "i"
    ok("build-index", vectors, "--out", tmp_path / "own")
    table = [
        (
            ["build-index", vectors, "--model", "bundled"],
            "x.npy holds vectors; --model is for images.",
        ),
        (["build-index", vectors, "--split", "train"], "--split is for images."),
        (
            ["build-index", pictures, "--items", vectors],
            "pictures holds images; --items is for vectors of your own.",
        ),
        (["build-index", pictures, "--rotate", "pca"], "--rotate is for vectors of your own."),
        (["build-index", vectors, "--rotate", "ica"], "There is no rotation 'ica'."),
        (
            ["build-index", vectors, "--dims", "25"],
            "There is no prefix of 25 dims in vectors of 24.",
        ),
        (["build-index", vectors, "--dtype", "int8"], "float16 or float32, not 'int8'"),
        (["build-index", vectors, "--items", tmp_path / "none"], "There is no file"),
        (["build-index", vectors, "--items", vectors], "cannot be read as Parquet"),
    ]
    for args, said in table:
        result = run(*args, "--out", out)
        assert result.exit_code == 1 and said in result.stderr and "hint: " in result.stderr, (
            result.output
        )
        assert nothing_written(tmp_path), args
    result = run("evaluate", pictures, "--index", tmp_path / "own")
    assert (
        result.exit_code == 1
        and "holds vectors of your own" in result.stderr
        and "--vector" in result.stderr
    )


def test_no_torch_is_needed(vectors: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mrl_search.cli.app import app\n"
        "app(['build-index', sys.argv[1], '--out', sys.argv[2]], standalone_mode=False)\n"
        "app(['info', sys.argv[2], '--check'], standalone_mode=False); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(vectors), str(tmp_path / "i")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"


def test_a_rotation_of_another_shape_is_refused(tmp_path: Path, vectors: Path) -> None:
    own = index_vectors(vectors, tmp_path / "i", rotation="pca").embeddings
    assert own.rotation is not None
    with pytest.raises(
        DataError, match=r"The rotation has shape \(23, 24\); wanted is \(24, 24\)."
    ):
        replace(own, rotation=own.rotation[:23])
