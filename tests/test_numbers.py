"""Lists of numbers in JSON, read by compiled code: what Python and numpy read."""

import json

import numpy as np
import pytest

from mrl_search.engines import kernels
from mrl_search.engines.kernels import numbers

pytestmark = pytest.mark.skipif(kernels.native is None, reason="no compiled code")


def expected(text: str) -> np.ndarray:
    return np.array([float(x) for x in json.loads(text, parse_int=str)]).astype(np.float32)


def same(text: str) -> bool:
    found = numbers(text.encode())
    return found is not None and found.tobytes() == expected(text).tobytes()


def test_numbers_of_every_size_and_form_are_rounded_as_python_rounds_them() -> None:
    rng = np.random.default_rng(0)
    for scale in range(-48, 38):
        values = np.clip(rng.standard_normal(300) * 10.0**scale, -3e38, 3e38)
        halves = values.astype(np.float32).astype(float)
        for some in (values, halves, values.round(6), values.round(3)):
            assert same(json.dumps(some.tolist()))
            assert same("[" + ", ".join(f"{x:.9g}" for x in some) + "]")
            assert same("[" + ",".join(f"{x:.25e}" for x in some) + "]")
    assert same(json.dumps(rng.integers(-(2**62), 2**62, 300).tolist()))


def test_numbers_between_two_floats_are_rounded_right() -> None:
    low = np.abs(np.random.default_rng(1).standard_normal(5_000)).astype(np.float32)
    middle = (low.astype(float) + np.nextafter(low, np.float32(9)).astype(float)) / 2
    for values in (middle, np.nextafter(middle, 0), np.nextafter(middle, 9)):
        assert same(json.dumps(values.tolist()))
        assert same("[" + ",".join(f"{x:.18f}" for x in values) + "]")


@pytest.mark.parametrize(
    "text",
    [
        "[0]", "[-0]", "[-0.0]", "[0.0e5]", "[1E5]", "[1e-400]", "[ 1 ,\n2\t]", "[1e+5]", "[10]",
        "[123456789012345678901234567890]", "[0.000000000000000000000000000000000000000000001]",
        "[1.17549435e-38]", "[3.4028235e38]", "[0e99999]", "[1.00000000000000000000000000000001]",
        "[12345678]", "[1234567.12345678]", "[0.12345678,0.123456789]", "[0.00000001]",
        "[100000000]",
    ],
)  # fmt: skip
def test_forms_of_a_number(text: str) -> None:
    assert same(text)


@pytest.mark.parametrize(
    "text",
    [
        "[]", "[1,]", "[,1]", "[01]", "[00]", "[1 2]", "[+1]", "[.5]", "[1.]", "[1.e5]", "[1e]",
        "[1e+]", "[-]", "[--1]", "[NaN]", "[Infinity]", "[1e39]", "[-1e39]", "[1", "1]", "1",
        "[[1]]", "[true]", '["1"]', "[1]x", "[1]\0", "[0x1]", "[1_0]", "[1,,2]", "", "[",
        "[1e999999999999]", "[1\0,2]", "[null]", "{1}", "[1234567:]", "[1234567/,1]",
    ],
)  # fmt: skip
def test_anything_else_is_left_to_others(text: str) -> None:
    assert numbers(text.encode()) is None


def test_only_bytes_are_read() -> None:
    with pytest.raises(TypeError):
        numbers("[1]")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="numbers takes a text"):
        kernels.native.numbers()
