""".npy files: all plain arrays come back, and no damage gets past a sentence."""

import ast
import io
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mrl_search
from mrl_search.arrays import open_array
from mrl_search.errors import DataError, FileError

X = np.arange(12, dtype="<f4").reshape(3, 4)
PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"


def with_header(text: str, data: bytes = X.tobytes(), version: int = 1) -> bytes:
    header = text.encode("utf-8", errors="surrogatepass") + b"\n"
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + data


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f8", "|i1", "<u8", "|b1", "<c8", "<U2", "|S3"])
@pytest.mark.parametrize("shape", [(3, 4), (12,), (), (0, 4), (4, 0), (0,), (2, 1, 3)])
def test_plain_arrays_come_back(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, order: str
) -> None:
    x = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape, order=order)
    np.save(tmp_path / "x.npy", x)
    back = open_array(tmp_path / "x.npy")
    assert (back.dtype, back.shape) == (x.dtype, x.shape)
    assert back.flags.f_contiguous == x.flags.f_contiguous and not back.flags.writeable
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize(
    "header",
    [
        PLAIN,
        PLAIN + " " * 70,
        PLAIN.replace("'", '"'),
        "{'descr': '<f4', 'fortran_order': False, 'shape': (3L, 4L)}",
        "{'shape':(3,4),'descr':'<f4','fortran_order':False}",
        "{'fortran_order': False, 'descr': '=f4', 'shape': (3, 4,),}",
    ],
)
def test_headers_of_other_writers_are_read(tmp_path: Path, header: str, version: int) -> None:
    (tmp_path / "x.npy").write_bytes(with_header(header, version=version))
    np.testing.assert_array_equal(open_array(tmp_path / "x.npy"), X)


ODD = "damaged, or not an array of numbers"
BAD = [
    (b"", ODD),
    (b"\x93NUMPY", ODD),
    (b"\x93NUMPY\x09\x00" + with_header(PLAIN)[8:], ODD),
    (b"\x93NUMPY\x02\x00\xff\xff\xff\xff{", ODD),
    (with_header(PLAIN)[:-1], "it has 117 bytes; its header promises 118"),
    (with_header(PLAIN) + b"\0", "it has 119 bytes; its header promises 118"),
    (2 * with_header(PLAIN), "it has 236 bytes; its header promises 118"),
    (with_header(PLAIN, version=9), ODD),
    *(
        (with_header(PLAIN.replace(old, new)), ODD)
        for old, new in [
            ("<f4", "|O"), ("<f4", "<f3"), ("<f4", "<V99999"), ("'<f4'", "[('a', '<f4')]"),
            ("<f4", "M8[s]"), ("'<f4'", "None"), ("False", "0"), ("False", "no"),
            ("(3, 4)", "[3, 4]"), ("(3, 4)", "(-3, -4)"), ("(3, 4)", "(3.0, 4)"),
            ("(3, 4)", "(True, 4)"), ("(3, 4)", "(3, 4"), ("(3, 4)", "(3, 4))"),
            ("(3, 4)", "((3), 4)"), ("(3, 4)", "(0x3, 4)"), ("(3, 4)", "(3 if 1 else 3, 4)"),
            ("(3, 4)", "9" * 5000), ("(3, 4)", "(" * 4000), ("(3, 4)", "-" * 4000 + "1"),
            ("(3, 4)", "(" + "1, " * 40 + ")"), ("'shape'", "'descr'"), ("'shape'", "shape"),
            ("{", ""), ("}", ""), ("'fortran_order': False, ", ""), ("<f4", "\udcff"),
            ("'fortran_order'", "'x': 1, 'fortran_order'"), (", }", ", **{}}"), ("'", "'''"),
            ("}", "}#"),
        ]
    ),
    (with_header("{'a':" * 1500), ODD),
    (with_header(PLAIN + " " * 20_000), ODD),
    (
        with_header(PLAIN.replace("(3, 4)", "(100000000000000000, 4)")),
        "it has 135 bytes; its header promises 1,600,000,000,000,000,087",
    ),
    (with_header(PLAIN.replace("(3, 4)", f"(0, {10**17}, {10**17})"), b""), ODD),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), BAD)
def test_damage_is_a_sentence(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(DataError, match=re.escape(reason)) as error:
        open_array(path)
    assert error.value.message == f"{path} cannot be read as .npy: {reason}."
    assert error.value.hint == "Save the array again: np.save(PATH, x.astype('float32'))"


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    at=st.lists(st.integers(0, 127), min_size=1, max_size=4), new=st.binary(min_size=4, max_size=4),
    cut=st.integers(0, 3),
)  # fmt: skip
def test_a_damaged_header_is_refused_or_describes_the_file(
    tmp_path: Path, at: list[int], new: bytes, cut: int
) -> None:
    file = io.BytesIO()
    np.save(file, X)
    data = bytearray(file.getvalue())
    for i, byte in zip(at, new, strict=False):
        data[i] = byte
    data = data[: len(data) - cut]
    (tmp_path / "x.npy").write_bytes(data)
    try:
        back = open_array(tmp_path / "x.npy")
    except DataError:
        return
    assert bytes(data).endswith(back.tobytes(order="A"))


def test_archives_folders_and_pipes_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=X)
    with pytest.raises(DataError, match=r"x.npz is an archive of arrays.") as error:
        open_array(tmp_path / "x.npz")
    assert error.value.hint == "Save one of them with np.save, as .npy."
    with pytest.raises(FileError, match="it is a folder"):
        open_array(tmp_path)
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe.npy")
        with pytest.raises(DataError, match=r"pipe.npy cannot be read: it is not a regular file"):
            open_array(tmp_path / "pipe.npy")
    with pytest.raises(FileError, match="no such file"):
        open_array(tmp_path / "none.npy")


def test_dtype_and_shape_are_compared(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, X)
    for dtype, shape in (("float32", (3, 4)), ("", (None, 4)), ("float32", None)):
        np.testing.assert_array_equal(open_array(path, dtype, shape), X)
    for dtype, shape, wanted in (
        ("float16", None, "float16 of shape (3, 4)"),
        ("", (3, 5), "float32 of shape (3, 5)"),
        ("int8", (None, None, 4), "int8 of shape (n, n, 4)"),
    ):
        with pytest.raises(DataError) as error:
            open_array(path, dtype, shape)
        assert error.value.message == f"{path} holds float32 of shape (3, 4), not {wanted}."


def test_no_other_module_reads_arrays() -> None:
    readers = {f"np.{name}" for name in ("load", "loadtxt", "fromfile", "memmap")}
    found = set()
    for path in Path(mrl_search.__file__).parent.rglob("*.py"):
        names = {ast.unparse(n) for n in ast.walk(ast.parse(path.read_text()))
                 if isinstance(n, ast.Attribute)}  # fmt: skip
        if readers & names or any("open_memmap" in name for name in names):
            found.add(path.name)
    assert found == {"arrays.py"}
