"""Vectors that a user brings: every kind of file, and faults named with row and file."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrl_search.errors import DataError, FileError
from mrl_search.store.numbered_files import natural, split_column
from mrl_search.store.vector_files import VectorSource, open_vectors, read_queries

DTYPES = ["float16", "float32", "float64"]


def rows(n: int = 20, dim: int = 6, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, dim)).astype(dtype)


def table(x: np.ndarray, kind: str, name: str = "emb") -> pa.Table:
    flat = pa.array(x.reshape(-1))
    if kind == "fixed":
        return pa.table({name: pa.FixedSizeListArray.from_arrays(flat, x.shape[1])})
    offsets = pa.array(
        np.arange(len(x) + 1) * x.shape[1], pa.int32() if kind == "list" else pa.int64()
    )
    return pa.table(
        {name: (pa.ListArray if kind == "list" else pa.LargeListArray).from_arrays(offsets, flat)}
    )


def all_rows(source: VectorSource) -> np.ndarray:
    return np.concatenate(list(source.read()))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    n=st.integers(1, 40), dim=st.integers(1, 17), dtype=st.sampled_from(DTYPES),
    kind=st.sampled_from(["npy", "shards", "list", "large", "fixed"]), order=st.sampled_from("CF"),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_rows_come_back_as_they_were(
    tmp_path: Path, n: int, dim: int, dtype: str, kind: str, order: str, seed: int
) -> None:
    x = rows(n, dim, dtype, seed) + np.asarray(0.01, dtype)
    x[x == 0] = 1
    if kind == "npy":
        where = tmp_path / "x.npy"
        np.save(where, np.asarray(x, order=order))
    elif kind == "shards":
        where = tmp_path / f"shards-{n}-{dim}-{dtype}-{seed}"
        where.mkdir(exist_ok=True)
        for i, part in enumerate(np.array_split(x, 3)):  # some may be empty
            np.save(where / f"{i}.npy", part)
    else:
        where = tmp_path / "x.parquet"
        pq.write_table(table(x, kind), where, row_group_size=7)
    source = open_vectors(where)
    assert (source.count, source.dim, source.dtypes) == (n, dim, dtype)
    back = all_rows(source)
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("kind", ["list", "fixed"])
def test_small_batches_and_slices_keep_the_rows_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 18)
    pq.write_table(table(rows(), kind), tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", rows())
    for name in ("x.parquet", "x.npy"):
        parts = list(open_vectors(tmp_path / name).read())
        assert [len(p) for p in parts] == [3] * 6 + [2]
        np.testing.assert_array_equal(np.concatenate(parts), rows())
    bad = rows().tolist()
    bad[10] = bad[10][:5]
    pq.write_table(pa.table({"emb": bad}), tmp_path / "bad.parquet")
    with pytest.raises(DataError, match=r"Row 10 of .*bad.parquet#emb has 5 dims; the first has 6"):
        all_rows(open_vectors(tmp_path / "bad.parquet"))
    broken = rows()
    broken[11, 2] = np.nan
    np.save(tmp_path / "bad.npy", broken)
    with pytest.raises(DataError, match=r"Row 11 of .*bad.npy has NaN or infinity"):
        all_rows(open_vectors(tmp_path / "bad.npy"))


def test_a_column_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"title": ["a"] * 20, "one": list(rows()), "two": list(rows(dim=4, seed=1))}), path
    )
    np.testing.assert_array_equal(all_rows(open_vectors(f"{path}#two")), rows(dim=4, seed=1))
    with pytest.raises(DataError, match="several columns of vectors: one, two") as error:
        open_vectors(path)
    assert error.value.hint == f"Name one: {path}#one"


def test_shards_are_read_by_number(tmp_path: Path) -> None:
    names = ["img_10", "img_9", "img_2b", "Img_2a", "img_100", "img", "img_007", "part-1-x2"]
    in_order = sorted((Path(f"{name}.npy") for name in names), key=natural)
    assert [path.stem for path in in_order] == [
        "img", "Img_2a", "img_2b", "img_007", "img_9", "img_10", "img_100", "part-1-x2",
    ]  # fmt: skip
    x = rows(12)
    for i in range(12):
        np.save(tmp_path / f"emb-{i}.npy", x[i : i + 1])
    source = open_vectors(tmp_path)
    np.testing.assert_array_equal(all_rows(source), x)
    assert source.notes == ("Shards in the order emb-0.npy, emb-1.npy, emb-2.npy, … emb-11.npy",)
    np.testing.assert_array_equal(all_rows(open_vectors(tmp_path / "emb-1*.npy")), x[[1, 10, 11]])
    np.testing.assert_allclose(read_queries(tmp_path)[10], x[10] / np.linalg.norm(x[10]), rtol=1e-6)


def test_a_folder_of_tables_is_one_column(tmp_path: Path) -> None:
    x = rows(12)
    for i in range(12):
        pq.write_table(table(x[i : i + 1], "list"), tmp_path / f"part-{i}.parquet")
    pq.write_table(table(x[:0], "list"), tmp_path / "part-12.parquet")
    for name in ("_SUCCESS", "_metadata", ".part-0.parquet.crc", "README.md"):
        (tmp_path / name).write_text("")
    source = open_vectors(tmp_path)
    assert source.name == f"{tmp_path}#emb" and source.notes[1] == "not read as vectors: README.md"
    np.testing.assert_array_equal(all_rows(source), x)
    np.testing.assert_array_equal(all_rows(open_vectors(f"{tmp_path}#emb")), x)
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(DataError, match=r"has vectors in x\.npy and in part-0") as error:
        open_vectors(tmp_path)
    assert f"{tmp_path}#emb, or '{tmp_path}/*.npy'" in error.value.hint
    np.testing.assert_array_equal(all_rows(open_vectors(f"{tmp_path}/*.npy")), x)


def test_tables_of_other_things_are_not_read(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"] * 20}), tmp_path / "items.parquet")
    pq.write_table(table(rows(), "list", "part"), tmp_path / "part.parquet")
    source = open_vectors(tmp_path)
    assert (source.count, source.notes) == (20, ("not read as vectors: items.parquet",))
    both = pa.table({"a": list(rows()), "b": list(rows())})
    pq.write_table(both, tmp_path / "0.parquet")
    with pytest.raises(DataError, match="several columns of vectors: a, b") as error:
        open_vectors(tmp_path)
    assert error.value.hint == f"Name one: {tmp_path}#a"
    assert open_vectors(f"{tmp_path}#a").count == 20


def test_labels_beside_shards_are_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", rows())
    np.save(tmp_path / "labels.npy", np.arange(20))
    np.save(tmp_path / "norms.npy", np.ones(20))
    source = open_vectors(tmp_path)
    assert (source.count, source.notes) == (20, ("not read as vectors: labels.npy, norms.npy",))
    (tmp_path / "1.npy").write_bytes(b"half")
    with pytest.raises(DataError, match=r"1\.npy cannot be read as \.npy"):
        open_vectors(tmp_path)


def test_a_file_that_shrinks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mrl_search.vectors.BLOCK", 18)
    np.save(tmp_path / "x.npy", rows())
    parts = open_vectors(tmp_path / "x.npy").read()
    next(parts)
    os.truncate(tmp_path / "x.npy", 200)
    with pytest.raises(DataError, match=r"x\.npy changed while it was read"):
        list(parts)


def views(x: np.ndarray, kind: pa.DataType) -> pa.Array:
    return pa.array(x.tolist(), kind(pa.float32()))


LIKE_LISTS = [
    lambda x: views(x, pa.list_view),
    lambda x: views(x, pa.large_list_view),
    pa.FixedShapeTensorArray.from_numpy_ndarray,
    lambda x: pa.FixedShapeTensorArray.from_numpy_ndarray(x.reshape(len(x), 1, -1)),
    lambda x: pa.array(x[:, None].tolist(), pa.list_(pa.list_(pa.float32()))),
    lambda x: pa.array([{"n": 1, "values": row} for row in x.tolist()], SPARK),
]
SPARK = pa.struct({"n": pa.int8(), "values": pa.list_(pa.float32())})


@pytest.mark.parametrize("convert", LIKE_LISTS)
def test_columns_like_lists_are_vectors(
    tmp_path: Path, convert: Callable[[np.ndarray], pa.Array]
) -> None:
    columns = {"id": range(20), "tokens": [[1]] * 20, "scores": [[0.5]] * 19 + [[0.5, 1]]}
    pq.write_table(
        pa.table({**columns, "emb": convert(rows())}), tmp_path / "x.parquet", row_group_size=7
    )
    np.testing.assert_array_equal(all_rows(open_vectors(tmp_path / "x.parquet")), rows())


def test_bfloat16_is_read_exactly(tmp_path: Path) -> None:
    x = np.array([[1.0, -2.5, 3.140625], [1e30, 0.0, 2**-100]], np.float32)
    bits = (x.view("<u4") >> 16).astype("<u2")
    np.save(tmp_path / "x.npy", bits.view("V2"))  # as ml_dtypes saves it
    source = open_vectors(tmp_path / "x.npy")
    assert source.dtypes == "float32"
    np.testing.assert_array_equal(all_rows(source)[0], x[0])
    np.save(tmp_path / "q.npy", bits[0].view("V2"))
    np.testing.assert_allclose(
        read_queries(tmp_path / "q.npy"), x[:1] / np.linalg.norm(x[0]), rtol=1e-6
    )


def test_a_column_is_found_in_any_name(tmp_path: Path) -> None:
    for name, where in {
        "a#b.parquet": "a#b.parquet#c",
        "t.parquet": "t.parquet#a#b",
        "noending": "noending#c",
    }.items():
        (tmp_path / name).touch()
        path, column = split_column(f"{tmp_path}/{where}")
        assert (path.name, f"{name}#{column}") == (name, where)
    pq.write_table(table(rows(), "list"), tmp_path / "noending")
    np.testing.assert_array_equal(all_rows(open_vectors(tmp_path / "noending")), rows())
    pq.write_table(table(rows(), "list"), tmp_path / "t.parquet")
    odd = tmp_path / os.fsdecode(b"\xff.parquet")
    (tmp_path / "t.parquet").rename(odd)
    np.testing.assert_array_equal(all_rows(open_vectors(odd)), rows())


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_errors_of_the_system_are_not_told_as_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    np.save(tmp_path / "x.npy", rows())
    pq.write_table(table(rows(), "list"), tmp_path / "x.parquet")
    source = open_vectors(tmp_path / name)

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(FileError, match="too many open files"):
        all_rows(source)
    with pytest.raises(FileError, match="too many open files"):
        open_vectors(tmp_path / name)


def save(x: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.save(folder / "x.npy", x)
        return folder / "x.npy"

    return write


def shards(*parts: np.ndarray) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "s").mkdir()
        for i, part in enumerate(parts):
            np.save(folder / "s" / f"{i}.npy", part)
        return folder / "s"

    return write


def column(
    values: list, name: str = "emb", ask: str = "", kind: pa.DataType | None = None
) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        pq.write_table(pa.table({name: pa.array(values, kind)}), folder / "x.parquet")
        return f"{folder / 'x.parquet'}{ask}"

    return write


def raw(name: str, data: bytes) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return write


def archive(folder: Path) -> Path:
    np.savez(folder / "x.npz", a=rows())
    return folder / "x.npz"


def matrices(folder: Path) -> Path:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(rows().reshape(20, 2, 3))
    pq.write_table(pa.table({"emb": tensors}), folder / "x.parquet")
    return folder / "x.parquet"


def cut_short(folder: Path) -> Path:
    np.save(folder / "x.npy", rows())
    (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes()[:-9])
    return folder / "x.npy"


def changed(row: int, value: float, dtype: str = "float32") -> np.ndarray:
    x = rows(dtype=dtype)
    x[row, :] = value
    return x


BAD = [
    (save(changed(7, np.nan)), "Row 7 of .*x.npy has NaN or infinity", "Remove such rows"),
    (
        save(changed(3, np.inf, "float16")),
        "Row 3 of .*x.npy has NaN or infinity",
        "Remove such rows",
    ),
    (save(changed(4, 0)), "Row 4 of .*x.npy is all zeros", "Remove such rows"),
    (
        save(changed(5, 1e200, "float64")),
        r"Row 5 of .*x.npy has values up to 1e\+200",
        "Multiply all rows",
    ),
    (
        save(changed(6, 1e-60, "float64")),
        r"Row 6 of .*x.npy has values up to 1e-60",
        "Multiply all rows",
    ),
    (
        shards(rows(), changed(2, np.nan)),
        "Row 2 of .*1.npy has NaN or infinity",
        "Remove such rows",
    ),
    (shards(rows(), rows(dim=7)), "1.npy has 7 dims; 0.npy has 6", "one model"),
    (shards(), "There is no .npy file in", "Shards"),
    (save(rows().astype(">f4")), "byte order of another machine", "astype"),
    (save(np.ones((4, 3), dtype=np.int8)), "x.npy holds int8; vectors are float16", "astype"),
    (
        save(np.ones((4, 3), dtype=np.longdouble)),
        "vectors are float16, float32, float64 or bfloat16",
        "astype",
    ),
    (save(np.ones((4, 3), dtype=complex)), "holds complex128", "astype"),
    (save(np.ones(4, dtype=np.float32)), r"has shape \(4,\)", "one row a vector"),
    (save(np.ones((4, 0), dtype=np.float32)), r"has shape \(4, 0\)", "one row a vector"),
    (save(np.ones((0, 4), dtype=np.float32)), "holds no vector", ""),
    (
        save(np.array([[{}]], dtype=object)),
        "x.npy cannot be read as .npy: damaged, or not an array of numbers",
        "np.save",
    ),
    (raw("x.npy", b"no array"), "x.npy cannot be read as .npy", "np.save"),
    (raw("x.npy", b""), "x.npy cannot be read as .npy", "np.save"),
    (cut_short, "x.npy cannot be read as .npy", "np.save"),
    (archive, "x.npz is an archive of arrays", "np.save"),
    (lambda folder: folder / "none.npy", "There is nothing at .*none.npy", "Name a"),
    (lambda folder: f"{folder}/none.parquet#emb", "There is nothing at .*none.parquet", "Name a"),
    (raw("x.parquet", b"no table"), "x.parquet cannot be read as Parquet", "again"),
    (column(["a"]), "x.parquet has no column of vectors", "It has: emb"),
    (column([[1.0]], ask="#nix"), "has no column 'nix'", "It has: emb"),
    (column(["a"], ask="#emb"), "Column 'emb' of .* holds string", "json.loads"),
    (column([b"a"], ask="#emb"), "Column 'emb' of .* holds binary", "np.frombuffer"),
    (column([[1]], kind=pa.list_(pa.uint16())), "holds uint16; vectors are", "bfloat16"),
    (column([[[1.0], [2.0]]]), "Row 0 of .*#emb holds 2 lists", "one list a row"),
    (column([[[1.0]], [[1.0], [2.0]]]), "Row 1 of .*#emb holds 2 lists", "one list a row"),
    (matrices, r"Column 'emb' of .* holds .*shape=\[2,3\].*, not vectors", "float32"),
    (save(np.zeros((4, 3), "V1")), r"x.npy holds \|V1", "ml_dtypes"),
    (column([[1, 2]]), "Column 'emb' of .* holds int64; vectors are", "float32"),
    (
        column([[1.0, 2.0], [1.0]]),
        "Row 1 of .*#emb has 1 dims; the first has 2",
        "same dims; remove that row",
    ),
    (column([[1.0, 2.0], None]), "Row 1 of .*#emb is null", "same dims; remove that row"),
    (column([None, [1.0, 2.0]]), "Row 0 of .*#emb is empty", "same dims; remove that row"),
    (column([[1.0, 2.0], [1.0, None]]), "Row 1 of .*#emb holds a null", "fill the gap"),
    (column([[1.0, 2.0], [0.0, 0.0]]), "Row 1 of .*x.parquet is all zeros", "Remove such rows"),
    (
        column([[1.0, 2.0], None], kind=pa.list_(pa.float32(), 2)),
        "Row 1 of .*#emb is null",
        "same dims; remove that row",
    ),
    (column([], kind=pa.list_(pa.float32())), "x.parquet holds no vector", ""),
]


@pytest.mark.parametrize(("write", "message", "hint"), BAD)
def test_what_cannot_be_used_is_named(
    tmp_path: Path, write: Callable[[Path], Path | str], message: str, hint: str
) -> None:
    where = write(tmp_path)
    with pytest.raises(DataError, match=message) as error:
        all_rows(open_vectors(where))
    assert hint in error.value.hint


def test_queries_are_one_or_many_of_unit_norm(tmp_path: Path) -> None:
    x = rows(3, 4, "float64") * 1e30
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    np.save(tmp_path / "one.npy", x[1])
    np.save(tmp_path / "many.npy", x)
    pq.write_table(pa.table({"emb": list(x)}), tmp_path / "x.parquet")
    assert read_queries(tmp_path / "one.npy").dtype == np.float32
    np.testing.assert_array_equal(read_queries(tmp_path / "one.npy"), unit[1:2])
    np.testing.assert_array_equal(read_queries(tmp_path / "many.npy"), unit)
    np.testing.assert_array_equal(read_queries(f"{tmp_path / 'x.parquet'}#emb"), unit)
    for bad, said in (
        (np.zeros(4), "Row 0 of .* is all zeros"),
        (np.array(["a"]), "holds <U1"),
        (np.ones((2, 2, 2)), "has shape"),
        (np.empty(0), "shape"),
    ):
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(DataError, match=said):
            read_queries(tmp_path / "bad.npy")
