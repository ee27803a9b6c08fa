"""JSON tensor data: the same array or the same refusal, flat, nested, ragged, empty, of a wrong type, out of range."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.serving.rest import tensor_json

INTEGERS = [DataType(name) for name in ("UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64")]
FLOATS = [DataType.FP32, DataType.FP64]
FIXED = [DataType.BOOL, *INTEGERS, *FLOATS]


def read(datatype: DataType, shape: list[int], data: Any) -> Any:
    text = data if isinstance(data, str) else json.dumps(data)
    return tensor_json.read("x", datatype, shape, msgspec.Raw(text.encode()))


@st.composite
def tensors(draw: st.DrawFn) -> tuple[DataType, np.ndarray[Any, Any]]:
    datatype = draw(st.sampled_from(FIXED))
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4))
    finite = {"allow_nan": False, "allow_infinity": False} if datatype in FLOATS else {}
    return datatype, draw(arrays.arrays(datatype.numpy, shape, elements=arrays.from_dtype(datatype.numpy, **finite)))


@given(given=tensors())
def test_flat_and_nested_data_give_the_array_back(given: tuple[DataType, np.ndarray[Any, Any]]) -> None:
    datatype, array = given
    forms = [array.ravel().tolist()] if array.size == 0 else [array.ravel().tolist(), array.tolist()]
    for form in forms:
        got = read(datatype, list(array.shape), form)
        assert got.dtype == array.dtype
        np.testing.assert_array_equal(got, array)


def test_text_becomes_bytes_and_comes_back() -> None:
    got = read(DataType.BYTES, [2, 1], [["häß"], [""]])
    assert got.tolist() == [["häß".encode()], [b""]]
    assert tensor_json.write(got) == ["häß", ""]


def test_large_integers_stay_exact() -> None:
    assert read(DataType.INT64, [2], [2**63 - 1, -(2**63)]).tolist() == [2**63 - 1, -(2**63)]
    assert read(DataType.UINT64, [1], [2**64 - 1]).tolist() == [2**64 - 1]


def test_integers_may_stand_for_floats() -> None:
    assert read(DataType.FP32, [3], "[1, 2.5, -3e2]").tolist() == [1.0, 2.5, -300.0]


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "message"),
    [
        (DataType.FP32, [2, 2], "[[1,2],[3]]", r"rows of data differ from shape \[2, 2\] in axis 1"),
        (DataType.FP32, [2, 2], "[[1,2]]", r"data has 1 rows, shape \[2, 2\] takes 2"),
        (DataType.FP32, [2, 2], "[[1,2],[3,[4]]]", "expected `float`, got `array`"),
        (DataType.FP32, [2, 2], "[1,2,3]", r"has 3 values, shape \[2, 2\] takes 4"),
        (DataType.FP32, [4], "[[1,2],[3,4]]", "nested 2 deep"),
        (DataType.FP32, [1], "[null]", "expected `float`, got `null`"),
        (DataType.FP32, [1], '["1"]', "expected `float`, got `str`"),
        (DataType.FP32, [1], "[true]", "expected `float`, got `bool`"),
        (DataType.FP32, [1], "[1e39]", "out of the range of FP32"),
        (DataType.FP64, [1], "[1e400]", "out of range"),
        (DataType.INT64, [1], "[1.7]", "expected `int`, got `float`"),
        (DataType.INT64, [1], "[9223372036854775808]", "out of the range of INT64"),
        (DataType.UINT8, [1], "[256]", "out of the range of UINT8"),
        (DataType.UINT8, [1], "[-1]", "out of the range of UINT8"),
        (DataType.INT8, [1], "[true]", "expected `int`, got `bool`"),
        (DataType.BOOL, [1], "[1]", "expected `bool`, got `int`"),
        (DataType.BYTES, [1], "[1]", "expected `str`, got `int`"),
        (DataType.FP32, [1], "5", "expected `array`, got `int`"),
        (DataType.FP32, [1], '{"a": 1}', "expected `array`, got `object`"),
        (DataType.FP16, [1], "[1]", "FP16 cannot be sent as JSON"),
        (DataType.BF16, [1], "[1]", "BF16 cannot be sent as JSON"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(datatype: DataType, shape: list[int], data: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        read(datatype, shape, data)
    assert "'x'" in caught.value.message


def test_bytes_that_are_no_text_cannot_be_written_as_json() -> None:
    array = np.empty(1, object)
    array[0] = b"\xff"
    with pytest.raises(InvalidInput, match="no text"):
        tensor_json.write(array)
