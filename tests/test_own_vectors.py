"""Vectors of a user's own: stored exactly, with their columns; bad input writes nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from command_line import ok, run
from fakes import write_corpus
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrl_search.engines.spec import IndexSpec
from mrl_search.errors import ConfigError, DataError, IndexFolderError
from mrl_search.files import PROGRESS, building_folder
from mrl_search.index import Index
from mrl_search.search.plan import Plan
from mrl_search.search.run import search
from mrl_search.store.items import ITEMS_SCHEMA
from mrl_search.store.source_kind import holds_vectors
from mrl_search.store.transform import Transform, principal_axes, principal_axes_of
from mrl_search.vectors import default_dims, l2_normalize


def hidden(n: int = 60, dim: int = 24, seed: int = 0) -> np.ndarray:
    """(n, dim) float64 rows with most energy along a few directions, none of them an axis."""
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
    n=st.integers(1, 30), dim=st.integers(1, 40),
    given_as=st.sampled_from(["float16", "float32", "float64"]),
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
    index = Index.from_vectors(
        folder / "x.npy", folder / "i", spec=IndexSpec(default_dims(dim), dtype=stored)
    )
    exactly = x.astype(np.float64)
    norms = np.linalg.norm(exactly, axis=1, keepdims=True)
    is_unit = np.abs(norms - 1) <= 4 * np.finfo(given_as).eps  # such rows stay bit for bit
    assert is_unit.all() or not unit
    exactly = np.where(is_unit, exactly, exactly / norms)
    assert index.corpus.vectors.rows().dtype == stored
    np.testing.assert_array_equal(index.corpus.vectors.rows(), exactly.astype(stored))
    np.testing.assert_allclose(
        index.corpus.collection.norms, np.linalg.norm(x.astype(np.float64), axis=1), rtol=1e-6
    )
    assert list(index.corpus.collection.hashes) == [
        xxhash.xxh3_128_hexdigest(row.tobytes()) for row in x
    ]
    assert index.dims == default_dims(dim)


def test_shards_and_a_column_hold_what_one_file_holds(tmp_path: Path, vectors: Path) -> None:
    x = np.load(vectors)
    (tmp_path / "s").mkdir()
    for i, part in enumerate(np.array_split(x, 4)):
        np.save(tmp_path / "s" / f"{i}.npy", part)
    pq.write_table(
        pa.table(
            {"emb": list(x), "label": ["a", "b"] * 30, "blob": [b"\xff"] * 60, "n": range(60)}
        ),
        tmp_path / "x.parquet",
    )
    one, many, column = (
        Index.from_vectors(w, tmp_path / f"i{i}")
        for i, w in enumerate([vectors, tmp_path / "s", tmp_path / "x.parquet"])
    )
    np.testing.assert_array_equal(one.corpus.vectors.rows(), many.corpus.vectors.rows())
    np.testing.assert_array_equal(one.corpus.vectors.rows(), column.corpus.vectors.rows())
    assert one.manifest.fingerprint == many.manifest.fingerprint == column.manifest.fingerprint
    assert column.items.column_names == [
        *ITEMS_SCHEMA.names,
        "n",
    ]  # its own columns, but no lists and no bytes
    assert list(column.corpus.collection.labels[:3]) == ["a", "b", "a"]
    assert column.manifest.source == f"{tmp_path / 'x.parquet'}#emb"
    assert (one.manifest.encoder, one.manifest.model, one.manifest.own_vectors) == (
        "own vectors",
        "",
        True,
    )
    assert one.corpus.collection.paths[0] is None


def test_items_are_used_by_name_and_others_kept(tmp_path: Path, vectors: Path) -> None:
    own = pa.table({
        "id": [f"sku{i}" for i in range(60)], "path": [f"p{i}" for i in range(60)],
        "labels": range(60),
        "width": [7] * 60,
        "price": np.linspace(0, 1, 60), "tags": [["a", "b"]] * 60,
    })  # fmt: skip
    pq.write_table(own, tmp_path / "items.parquet")
    index = Index.from_vectors(vectors, tmp_path / "i", items=tmp_path / "items.parquet")
    assert index.items.column_names == [*ITEMS_SCHEMA.names, "item_id", "price", "tags"]
    row = index.items.table().slice(3, 1).to_pylist()[0]
    assert (row["id"], row["item_id"], row["path"], row["label"], row["width"], row["height"]) == (
        3,
        "sku3",
        "p3",
        "3",
        7,
        None,
    )
    assert row["price"] == pytest.approx(3 / 59) and row["tags"] == ["a", "b"]
    assert Index.open(tmp_path / "i").items.table().equals(index.items.table())


BAD_ITEMS = [
    (pa.table({"path": ["a"] * 59}), "items.parquet has 59 rows; there are 60 vectors"),
    (pa.table({"width": ["wide"] * 60}), "Column 'width' of .*items.parquet is string, not int32"),
    (pa.table({"label": [["a"]] * 60}), "Column 'label' of .*items.parquet is list"),
    (pa.table({"id": range(60), "item_id": range(60)}), "items.parquet has two columns 'item_id'"),
]


@pytest.mark.parametrize(("own", "said"), BAD_ITEMS)
def test_items_that_cannot_be_used(tmp_path: Path, vectors: Path, own: pa.Table, said: str) -> None:
    pq.write_table(own, tmp_path / "items.parquet")
    with pytest.raises(DataError, match=said) as error:
        Index.from_vectors(vectors, tmp_path / "i", items=tmp_path / "items.parquet")
    assert error.value.hint and nothing_written(tmp_path)


def test_a_rotation_keeps_cosines_and_moves_energy_forward(tmp_path: Path, vectors: Path) -> None:
    plain = Index.from_vectors(
        vectors, tmp_path / "plain", spec=IndexSpec((8, 24), dtype="float32")
    )
    turned = Index.from_vectors(
        vectors, tmp_path / "turned", spec=IndexSpec((8, 24), dtype="float32"), rotate="pca"
    )
    x, y = plain.corpus.vectors.prefix(24), turned.corpus.vectors.prefix(24)
    np.testing.assert_allclose(x @ x.T, y @ y.T, atol=1e-6)
    energy = (y**2).mean(axis=0)
    assert (np.diff(energy) <= 1e-6).all() and energy[:8].sum() > 0.9 > 0.6 > (x[:, :8] ** 2).sum(
        axis=1
    ).mean()
    rotation = turned.corpus.collection.transform.rotation
    assert (
        rotation is not None
        and "rotation.npy" in turned.manifest.files
        and plain.corpus.collection.transform.rotation is None
    )
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(24), atol=1e-6)
    queries = hidden(5, seed=1)
    np.testing.assert_allclose(
        turned.corpus.to_space(queries), l2_normalize(queries) @ rotation.T, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(plain.corpus.to_space(queries), queries.astype(np.float32))
    same = [
        search(i.corpus, i.corpus.to_space(queries), Plan.single(24), 5).ids
        for i in (plain, turned)
    ]
    np.testing.assert_array_equal(*same)
    short = [
        search(i.corpus, i.corpus.to_space(queries), Plan.single(8), 5).ids for i in (plain, turned)
    ]
    assert (short[0] != short[1]).any()


@pytest.mark.parametrize("n", [3, 30])
def test_principal_axes_of_few_rows_are_those_of_their_moment(n: int) -> None:
    rows = np.random.default_rng(0).standard_normal((n, 16)) * np.linspace(3, 1, 16)
    axes, expected = principal_axes_of(rows), principal_axes(rows.T @ rows)
    known = min(n, 16)  # the others are any of those on which the rows are 0
    np.testing.assert_allclose(axes[:known], expected[:known], atol=1e-6)
    np.testing.assert_allclose(axes @ axes.T, np.eye(16), atol=1e-6)
    assert abs(rows @ axes[known:].T).max(initial=0) < 1e-6


def test_principal_axes_of_a_known_matrix() -> None:
    axes = principal_axes(np.diag([1.0, 9.0, 4.0]))
    np.testing.assert_allclose(axes, [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-7)
    np.testing.assert_allclose(
        Transform(3, 3, axes)(np.array([[1.0, 2.0, 2.0]])) * 3, [[2, 2, 1]], rtol=1e-6
    )
    cut = Transform(3, 3, axes).cut(2)(np.array([[1.0, 2.0, 2.0]]))
    np.testing.assert_allclose(cut * 3, [[2, 2]], rtol=1e-6)
    assert Transform(3, 2)(np.array([[1.0, 2.0, 3.0]])).tolist() == [[1, 2]]


def test_queries_of_another_length(tmp_path: Path, vectors: Path, small_index: Index) -> None:
    index = Index.from_vectors(vectors, tmp_path / "i")
    with pytest.raises(DataError, match=r"The query has 7 dims; .*i takes 24.") as error:
        index.corpus.to_space(np.ones(7))
    assert error.value.hint == "Embed queries with the model that made these vectors."
    with pytest.raises(DataError, match=r"takes 64.") as error:
        small_index.corpus.to_space(np.ones((2, 24)))
    assert "model" in error.value.hint
    with pytest.raises(IndexFolderError, match="your own vectors") as refused:
        index.corpus.check_encoder("f00d")
    assert "--vector" in refused.value.hint
    assert "build-index" in index.manifest.rebuild(
        tmp_path / "i"
    ) and "--model" not in index.manifest.rebuild(tmp_path / "i")


def bad_row(x: np.ndarray) -> None:
    x[50] = np.nan


def zero_row(x: np.ndarray) -> None:
    x[50] = 0


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(bad_row, "Row 50 of .* has NaN or infinity"), (zero_row, "Row 50 of .* is all zeros")],
)
def test_nothing_is_written_when_a_row_is_bad(
    tmp_path: Path, spoil: Callable[[np.ndarray], None], said: str
) -> None:
    x = hidden()
    spoil(x)
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=said):
        Index.from_vectors(tmp_path / "x.npy", tmp_path / "i")
    assert nothing_written(tmp_path)


def test_a_failed_or_killed_build_leaves_nothing_that_counts(tmp_path: Path, vectors: Path) -> None:
    with pytest.raises(ConfigError, match="FAISS has no index"):
        Index.from_vectors(vectors, tmp_path / "i", spec=IndexSpec((8,), factory="Nonsense"))
    assert nothing_written(tmp_path)
    left = building_folder(tmp_path / "i")  # as a killed build of rotated vectors would
    np.save(left / "rotation.npy", np.eye(24, dtype=np.float32))
    (left / "prefix-0016.faiss").write_bytes(b"half")
    index = Index.from_vectors(vectors, tmp_path / "i", spec=IndexSpec((8,)))
    assert sorted(index.manifest.files) == [
        "items.parquet", "prefix-0008.faiss", "prefix-0024.faiss", "vectors.npy",
    ]  # fmt: skip
    with pytest.raises(IndexFolderError, match="exists already"):
        Index.from_vectors(vectors, tmp_path / "i")
    (building_folder(tmp_path / "j") / PROGRESS).write_text("{}")
    with pytest.raises(IndexFolderError, match="unfinished build of pictures"):
        Index.from_vectors(vectors, tmp_path / "j")


def test_what_holds_vectors(tmp_path: Path, vectors: Path) -> None:
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "0.npy", hidden())
    pq.write_table(pa.table({"emb": [[1.0]]}), tmp_path / "v.parquet")
    pq.write_table(
        pa.table({"emb": [[1.0]], "image": [{"bytes": b"x", "path": ""}]}),
        tmp_path / "damaged.parquet",
    )
    pq.write_table(pa.table({"image": [b"x"], "label": ["a"]}), tmp_path / "images.parquet")
    (tmp_path / "nothing").mkdir()
    yes = [
        vectors,
        tmp_path / "s",
        tmp_path / "v.parquet",
        f"{tmp_path / 'images.parquet'}#emb",
        tmp_path / "damaged.parquet",
    ]
    no = [
        tmp_path / "images.parquet",
        tmp_path / "nothing",
        tmp_path / "none.parquet",
        "hub:owner/name",
    ]
    assert [holds_vectors(str(w)) for w in yes + no] == [True] * 5 + [False] * 4


@pytest.mark.parametrize("more", [{}, {"tags": [["a"]] * 60}, {"digest": [b"\xff"] * 60}])
def test_a_table_of_vectors_alone_has_its_rows(tmp_path: Path, more: dict) -> None:
    x = hidden().astype(np.float32)
    pq.write_table(pa.table({"emb": list(x), **more}), tmp_path / "x.parquet")
    index = Index.from_vectors(tmp_path / "x.parquet", tmp_path / "i")
    assert len(index) == 60 and index.items.column_names == ITEMS_SCHEMA.names


def test_items_of_parts_come_in_the_order_of_the_parts(tmp_path: Path) -> None:
    x = hidden(12).astype(np.float32)
    (tmp_path / "items").mkdir()
    for i in range(12):
        own = {"path": [f"{i}.jpg".encode()], "kind": pa.array(["ab"[i % 2]]).dictionary_encode()}
        if i % 3:
            own["year"] = pa.array([i], pa.int32() if i % 2 else pa.int64())
        pq.write_table(pa.table(own), tmp_path / "items" / f"m_{i}.parquet")
        part = tmp_path / "parts" / f"label={'xy'[i // 6]}" / f"part-{i}.parquet"
        part.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"emb": list(x[i : i + 1]), **own}), part)
    np.save(tmp_path / "x.npy", x)
    given = Index.from_vectors(tmp_path / "x.npy", tmp_path / "i", items=tmp_path / "items")
    inside = Index.from_vectors(tmp_path / "parts", tmp_path / "j")
    np.testing.assert_array_equal(given.corpus.vectors.prefix(24), inside.corpus.vectors.prefix(24))
    for index, labels in ((given, [None] * 12), (inside, ["x"] * 6 + ["y"] * 6)):
        assert index.items["path"].to_pylist() == [f"{i}.jpg" for i in range(12)]
        assert index.items["kind"].to_pylist() == ["a", "b"] * 6
        assert index.items["year"].to_pylist()[:4] == [None, 1, 2, None]
        assert index.items["label"].to_pylist() == labels


def test_columns_become_plain(tmp_path: Path, vectors: Path) -> None:
    own = pa.table({
        "label": [1.0, np.nan, None] * 20,
        "key": pa.array([bytes([i]) * 16 for i in range(60)], pa.uuid()),
        "sha": pa.array([bytes([i]) * 32 for i in range(60)], pa.binary(32)),
    })  # fmt: skip
    pq.write_table(own, tmp_path / "items.parquet")
    items = Index.from_vectors(vectors, tmp_path / "i", items=tmp_path / "items.parquet").items
    assert items["label"].to_pylist()[:3] == ["1", None, None]
    assert items["key"][1].as_py() == "01010101-0101-0101-0101-010101010101"
    assert items["sha"][1].as_py() == bytes([1]) * 32  # a digest is no text


def test_what_cannot_be_used_decides_nothing(tmp_path: Path) -> None:
    x = hidden(6, 16).astype(np.float32)
    write_corpus(tmp_path / "pictures", 7, size=32)
    picture = next((tmp_path / "pictures").rglob("*.*")).read_bytes()
    tables = {
        "digest": ({"emb": list(x), "sha": [b"\xff"] * 6}, True),
        "boxes": ({"image": [picture] * 6, "box": [[1.0, 2.0, 3.0, 4.0]] * 6}, False),
        "ragged": ({"image": [picture] * 6, "s": [[1.0] * (9 + i) for i in range(6)]}, False),
        "integers": ({"emb": [[1, 2]] * 6, "sha": [b"\xff"] * 6}, True),
    }
    for name, (columns, vectors) in tables.items():
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
        assert holds_vectors(f"{tmp_path}/{name}.parquet") is vectors, name
    shards = tmp_path / "shards"
    shards.mkdir()
    np.save(shards / "0.npy", x)
    np.save(shards / "labels.npy", np.arange(6))
    (shards / "README.md").write_text("six")
    (shards / "umap.png").write_bytes(picture)
    assert holds_vectors(str(shards))
    np.save(tmp_path / "pictures" / "labels.npy", np.arange(7))
    assert not holds_vectors(str(tmp_path / "pictures"))
    pq.write_table(pa.table({"id": [1], "sha": [b"\xff"]}), tmp_path / "neither.parquet")
    with pytest.raises(DataError, match=r"neither vectors nor pictures.*sha \(binary\)") as error:
        holds_vectors(f"{tmp_path}/neither.parquet")
    assert "neither.parquet#COLUMN" in error.value.hint
    own = pa.table({"emb": list(x)})
    with pa.ipc.new_stream(f"{tmp_path}/x.arrow", own.schema) as stream:
        stream.write_table(own)
    with pytest.raises(DataError, match="vectors in Arrow files") as error:
        holds_vectors(f"{tmp_path}/x.arrow")
    assert "pyarrow.ipc.open_stream(OLD)" in error.value.hint


def test_two_kinds_are_asked_about_and_the_hints_work(tmp_path: Path) -> None:
    x = hidden(10, 16).astype(np.float32)
    write_corpus(tmp_path / "pictures", 5, size=32)
    found = [path.read_bytes() for path in (tmp_path / "pictures").rglob("*.*")]
    own = {"emb": list(x), "image": [{"bytes": b, "path": None} for b in found]}
    pq.write_table(pa.table(own), tmp_path / "both.parquet")
    np.save(tmp_path / "pictures" / "emb.npy", x)
    for where, vectors, option in (
        (tmp_path / "both.parquet", f"{tmp_path}/both.parquet#emb", "--column image"),
        (tmp_path / "pictures", f"{tmp_path}/pictures/emb.npy", "--model bundled"),
    ):
        result = run("build-index", where, "--out", tmp_path / "i")
        assert result.exit_code == 1 and "holds vectors and" in result.stderr
        assert vectors in result.stderr and f"add {option}" in result.stderr
        assert holds_vectors(vectors) and not holds_vectors(str(where), "pictures")
        assert holds_vectors(str(where), "vectors")
    both = tmp_path / "parts"
    both.mkdir()
    pq.write_table(pa.table({"emb": list(x), "more": list(x)}), both / "emb.parquet")
    pq.write_table(pa.table({"image": found}), both / "pictures.parquet")
    with pytest.raises(ConfigError, match="vectors and pictures in column image") as error:
        holds_vectors(str(both))
    assert f"'{both}#emb'" in error.value.hint and holds_vectors(f"{both}#emb")
    (both / "pictures.parquet").unlink()
    for i, picture in enumerate(found):
        (both / f"{i}.png").write_bytes(picture)
    with pytest.raises(ConfigError, match="vectors and 10 pictures") as error:
        holds_vectors(str(both))
    assert f"'{both}#emb'" in error.value.hint
    np.save(tmp_path / "pictures" / "emb2.npy", x)
    result = run("build-index", tmp_path / "pictures", "--out", tmp_path / "i")
    assert f"'{tmp_path}/pictures/*.npy'" in result.stderr
    shown = ok("build-index", f"{tmp_path}/pictures/*.npy", "--out", tmp_path / "i").stderr
    assert "20 vectors of 16 dims" in shown and "Shards in the order emb.npy, emb2.npy" in shown
    shown = ok("query", "--vector", f"{tmp_path}/pictures/*.npy", "--index", tmp_path / "i").stderr
    assert "Shards in the order emb.npy, emb2.npy" in shown


def test_the_command_builds_and_each_option_matters(
    tmp_path: Path, vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = ok("build-index", vectors)
    assert (
        "60 vectors of 24 dims (float32)" in result.stderr
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
    assert (
        index.dims,
        index.manifest.dtype,
        index.corpus.collection.transform.rotation is not None,
    ) == ((4, 8, 24), "float32", True)
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
        (["build-index", vectors, "--model", "bundled"], "--model is for pictures; "),
        (["build-index", vectors, "--split", "train"], "--split is for pictures; "),
        (["build-index", pictures, "--items", vectors], "--items is for vectors; "),
        (["build-index", pictures, "--rotate", "pca"], "--rotate is for vectors; "),
        (["build-index", vectors, "--rotate", "ica"], "There is no rotation 'ica'."),
        (["build-index", vectors, "--dims", "25"], "Vectors of 24 dims have no prefix of 25."),
        (
            ["build-index", vectors, "--dtype", "int8"],
            "dtype is 'int8'; it must be float16 or float32",
        ),
        (["build-index", vectors, "--items", tmp_path / "none"], "There is no file"),
        (["build-index", vectors, "--items", vectors], "cannot be read as Parquet"),
    ]
    for args, said in table:
        result = run(*args, "--out", out)
        assert result.exit_code == 1 and said in result.stderr, result.output
        assert nothing_written(tmp_path), args
    result = run("evaluate", pictures, "--index", tmp_path / "own")
    assert (
        result.exit_code == 1
        and "holds your own vectors" in result.stderr
        and "--vector" in result.stderr
    )


def test_no_torch_is_needed(vectors: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from mrl_search.cli.app import app\n"
        "app(['build-index', sys.argv[1], '--out', sys.argv[2]], standalone_mode=False)\n"
        "app(['info', sys.argv[2], '--check'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(vectors), str(tmp_path / "i")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "False"
