"""Long arrays of numbers: cut out of a request and read at once, or left to the common way; never anything in between."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.serving.rest import long_arrays, messages
from inferloop.serving.rest.long_arrays import LONG_BYTES, LongArray
from inferloop.serving.rest.messages import NotJson

pytest.importorskip("simdjson", reason="pysimdjson has no wheel here")

NOTHING = memoryview(b"")
BLANKS = " " * LONG_BYTES
NUMBERS = np.random.default_rng(0).normal(size=2000)
ROW = json.dumps(NUMBERS.tolist())
LARGE = '{{"name": "{}", "shape": [2000], "datatype": "FP64", "data": {}}}'


def body(*inputs: str, rest: str = "") -> bytes:
    return f'{{"inputs": [{", ".join(inputs)}]{rest}}}'.encode()


def given_data(text: bytes) -> list[Any]:
    request = messages.parse(text)
    assert request is not None
    return [tensor.data for tensor in request.inputs]


def arrays(text: bytes) -> dict[str, np.ndarray]:
    request = messages.parse(text)
    assert request is not None
    return messages.tensors(request, NOTHING)


def is_taken(data: str, datatype: str, shape: list[int]) -> bool:
    text = data.encode()
    return long_arrays.read(LongArray(memoryview(text), text.count(b"[") == 1), DataType(datatype), shape) is not None


def test_a_long_array_is_read_at_once_and_is_the_same() -> None:
    text = body(LARGE.format("x", ROW))
    assert isinstance(given_data(text)[0], np.ndarray)
    np.testing.assert_array_equal(arrays(text)["x"], NUMBERS)
    assert not arrays(text)["x"].flags.writeable


def test_long_and_short_inputs_stand_beside_each_other() -> None:
    short = '{"name": "mask", "shape": [2], "datatype": "BOOL", "data": [true, false]}'
    got = arrays(body(LARGE.format("a", ROW), short, LARGE.format("b", ROW.replace("-", ""))))
    np.testing.assert_array_equal(got["a"], NUMBERS)
    np.testing.assert_array_equal(got["b"], np.abs(NUMBERS))
    assert got["mask"].tolist() == [True, False]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_numbers_are_rounded_as_json_rounds_them(values: list[float]) -> None:
    text = json.dumps(values).replace("[", "[" + BLANKS)
    for datatype in ("FP64", "FP32"):
        request = body(f'{{"name": "x", "shape": [{len(values)}], "datatype": "{datatype}", "data": {text}}}')
        with np.errstate(over="ignore"):
            expected = np.array(json.loads(text), np.float64).astype(DataType(datatype).numpy)
        if np.isinf(expected).any():
            with pytest.raises(InvalidInput, match="out of the range of FP32"):
                arrays(request)
        else:
            assert arrays(request)["x"].tobytes() == expected.tobytes()


def test_bare_nan_and_infinity_are_read_however_long_the_array_is() -> None:
    text = body(LARGE.format("x", ROW.replace("[", "[NaN, -Infinity, ")))
    got = arrays(text.replace(b'"shape": [2000]', b'"shape": [2002]'))
    assert np.isnan(got["x"][0])
    assert got["x"][1] == -np.inf
    np.testing.assert_array_equal(got["x"][2:], NUMBERS)


@pytest.mark.parametrize(
    "text",
    [
        body(LARGE.format("x", ROW), rest=f', "data": {ROW}'),
        body(LARGE.format("x", f'"long array 0", "note": {ROW}')),
        body(LARGE.format("long array 0", ROW)),
        body(LARGE.format("x", ROW[:-1])),
        body(LARGE.format("x", ROW + "]")),
        body(LARGE.format("x", ROW.replace(", ", " ", 1))),
        body(LARGE.format("x", f'{ROW}, "data": [1]')),
    ],
    ids=["data elsewhere", "a placeholder as data", "a placeholder as name", "no end", "two ends", "no comma", "data twice"],
)
def test_what_is_not_plain_is_read_the_common_way(text: bytes) -> None:
    with contextlib.suppress(NotJson):
        assert not any(isinstance(data, np.ndarray) for data in given_data(text))


def test_of_data_given_twice_the_last_counts() -> None:
    assert arrays(body(LARGE.format("x", f'{ROW}, "data": {ROW.replace("-", "")}')))["x"].min() >= 0


def test_a_key_in_a_text_is_no_key() -> None:
    text = body(LARGE.format("x", ROW), rest=f', "id": "\\"data\\": [1, 2]{BLANKS}"')
    np.testing.assert_array_equal(arrays(text)["x"], NUMBERS)


@pytest.mark.parametrize(
    ("data", "datatype", "shape", "taken"),
    [
        ("[1, 2.5]", "FP32", [2], True),
        ("[[1, 2], [3, 4]]", "FP32", [2, 2], True),
        ("[[1, 2, 3], [4]]", "FP32", [2, 2], False),
        ("[[1, 2], [3, 4]]", "FP32", [4], False),
        ("[[1, 2, 3, 4]]", "FP32", [2, 2], False),
        ("[1, 2]", "FP32", [3], False),
        ("[1e39]", "FP32", [1], False),
        ("[1e400]", "FP64", [1], False),
        ("[true]", "FP32", [1], False),
        ("[null]", "FP32", [1], False),
        ("[1, 2]", "UINT8", [2], True),
        ("[256]", "UINT8", [1], False),
        ("[-1]", "UINT64", [1], False),
        ("[128]", "INT8", [1], False),
        ("[1.0]", "INT64", [1], False),
        ("[9223372036854775807]", "INT64", [1], True),
        ("[9223372036854775808]", "INT64", [1], False),
        ("[18446744073709551615]", "UINT64", [1], True),
        ("[18446744073709551616]", "UINT64", [1], False),
        ("[-9223372036854775808]", "INT64", [1], True),
        ("[-9223372036854775809]", "INT64", [1], False),
        ("[18446744073709551616]", "FP64", [1], False),
        ("[-9223372036854775809]", "FP64", [1], False),
        ("[]", "FP32", [1 << 40, 0], False),
        ("[true]", "BOOL", [1], False),
        ("[1]", "BYTES", [1], False),
        ("5", "FP32", [1], False),
    ],
)
def test_only_what_is_plainly_right_is_taken(data: str, datatype: str, shape: list[int], taken: bool) -> None:
    assert is_taken(data, datatype, shape) is taken
