"""Requests of the protocol: JSON, binary and mixed."""

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
from inferloop.data.codecs import tensor_bytes
from inferloop.serving.operations.inference import Wanted
from inferloop.serving.operations.shared_memory import Region
from inferloop.serving.rest import messages
from inferloop.serving.rest.messages import InferResponse, OutputTensor

NONE = memoryview(b"")


def body(**changes: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2], **changes}
    return json.dumps({"inputs": [{key: value for key, value in tensor.items() if value is not ...}]}).encode()


def arrays_of(text: bytes, blobs: bytes = b"") -> dict[str, Any]:
    request = messages.parse(text)
    assert request is not None
    return messages.tensors(request, memoryview(blobs))


def test_a_request_becomes_arrays() -> None:
    assert arrays_of(body())["x"].tolist() == [[1.0, 2.0]]


def test_an_object_without_inputs_is_no_request() -> None:
    assert messages.parse(b'{"text": "hello"}') is None
    assert messages.parse(b'{"number": 1e400}') is None


def test_nan_and_infinity_are_accepted_bare() -> None:
    text = b'{"id": "7", "inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [[NaN, -Infinity, 1]]}]}'
    np.testing.assert_array_equal(arrays_of(text)["x"], np.array([[np.nan, -np.inf, 1]], np.float32))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"{", "not JSON"),
        (b'{"inputs": 5}', "expected `array`, got `int`"),
        (b'{"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}', "missing required field `name`"),
        (body(shape=...), "missing required field `shape`"),
        (body(shape=[-1, 2]), ">= 0"),
        (body(shape=[1, 2.5]), "expected `int`, got `float`"),
        (body(shape=None), "expected `array`, got `null`"),
        (body(datatype="FLOAT"), "invalid datatype for input 'x': 'FLOAT'"),
        (body(data=...), "must set only one of the following fields: 'data'"),
        (body(parameters={"binary_data_size": 8}), "both 'data' and 'binary_data_size'"),
        (body(data=..., parameters={"binary_data_size": -1}), "count of bytes, got -1"),
        (body(data=..., parameters={"binary_data_size": True}), "count of bytes, got True"),
        (body(data=..., parameters={"binary_data_size": 8}), "expecting 8 additional bytes"),
        (b'{"inputs": [{"name": "x", "data": ' + b"[" * 100_000, "not JSON"),
        (body(shape=[1] * 33), "has 33 axes"),
        (body(shape=[0, 2**62, 2**62], data=[]), "no array has shape"),
        (b'{"inputs": [], "id": "\xff"}', "not JSON"),
        (b'{"id": "\\ud800", "inputs": []}', "not JSON: JSON is malformed"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [NaN, null]}]}', "expected `float`, got `null`"),
        (b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": NaN}]}', "data must be a list"),
    ],
)
def test_what_is_not_as_the_protocol_says_is_refused(text: bytes, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        arrays_of(text)


def test_an_input_given_twice_is_refused() -> None:
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}
    with pytest.raises(InvalidInput, match="given twice"):
        arrays_of(json.dumps({"inputs": [tensor, tensor]}).encode())


def test_binary_inputs_are_taken_in_their_order_between_json_ones() -> None:
    inputs = [
        {"name": "a", "shape": [2], "datatype": "INT16", "parameters": {"binary_data_size": 4}},
        {"name": "b", "shape": [1], "datatype": "FP32", "data": [5]},
        {"name": "c", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 11}},
        {"name": "d", "shape": [0, 3], "datatype": "FP64", "parameters": {"binary_data_size": 0}},
    ]
    blobs = np.array([1, -2], "<i2").tobytes() + b"\x03\x00\x00\x00abc\x00\x00\x00\x00"
    got = arrays_of(json.dumps({"inputs": inputs}).encode(), blobs)
    assert {name: array.tolist() for name, array in got.items()} == {"a": [1, -2], "b": [5.0], "c": [b"abc", b""], "d": []}


def test_bytes_after_the_last_tensor_are_refused() -> None:
    with pytest.raises(InvalidInput, match="unexpected additional input data"):
        arrays_of(body(), b"x")


@given(datatype=st.sampled_from([d for d in DataType if d is not DataType.BYTES]), values=st.lists(st.integers(0, 1), max_size=9))
def test_every_datatype_survives_the_binary_way(datatype: DataType, values: list[int]) -> None:
    array = np.array(values).astype(datatype.numpy)
    blob = tensor_bytes.write(array)
    got = tensor_bytes.read("x", datatype, [len(values)], memoryview(blob))
    assert got.dtype == datatype.numpy
    np.testing.assert_array_equal(got.astype(float), array.astype(float))


@given(values=st.lists(st.binary(max_size=9), max_size=5))
def test_bytes_survive_the_binary_way(values: list[bytes]) -> None:
    array = np.empty(len(values), object)
    array[:] = values
    blob = tensor_bytes.write(array)
    assert tensor_bytes.read("x", DataType.BYTES, [len(values)], memoryview(blob)).tolist() == values


@given(blob=st.binary(max_size=40), count=st.integers(0, 4))
def test_no_blob_of_bytes_does_worse_than_be_refused(blob: bytes, count: int) -> None:
    with contextlib.suppress(InvalidInput):
        assert len(tensor_bytes.read("x", DataType.BYTES, [count], memoryview(blob))) == count


def test_a_boolean_byte_is_zero_or_one() -> None:
    with pytest.raises(InvalidInput, match="neither 0 nor 1"):
        tensor_bytes.read("x", DataType.BOOL, [2], memoryview(b"\x01\x02"))


def test_an_output_says_how_it_is_wanted() -> None:
    text = b"""{"inputs": [], "outputs": [
        {"name": "a", "parameters": {"binary_data": false}},
        {"name": "b", "parameters": {"classification": 3}},
        {"name": "c", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 16}}]}"""
    request = messages.parse(text)
    assert request is not None
    assert [messages.wanted(output) for output in request.outputs or ()] == [
        Wanted("a", binary=False),
        Wanted("b", classification=3),
        Wanted("c", region=Region("r", 8, 16)),
    ]


@pytest.mark.parametrize(
    "parameters",
    [
        {"binary_data": "yes"},
        {"classification": -1},
        {"classification": True},
        {"shared_memory_region": "r"},
        {"shared_memory_region": 5, "shared_memory_byte_size": 8},
        {"shared_memory_region": "r", "shared_memory_byte_size": -8},
        {"shared_memory_region": "r", "shared_memory_byte_size": 8, "shared_memory_offset": 1.5},
    ],
)
def test_a_parameter_of_an_output_of_the_wrong_type_is_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        messages.wanted(messages.RequestedOutput("y", parameters))


def test_an_answer_names_the_id_only_if_there_is_one() -> None:
    output = OutputTensor("y", "FP32", (1,), None, [0.5])
    assert json.loads(messages.encode(InferResponse("m", "1", [output]))) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": [0.5]}],
    }
    assert json.loads(messages.encode(InferResponse("m", "1", [], 'a"b')))["id"] == 'a"b'


def test_nan_stands_bare_in_an_answer_and_the_word_null_stays_text() -> None:
    numbers = OutputTensor("y", "FP32", (2,), None, [float("nan"), float("inf")])
    assert b'"data":[NaN,Infinity]' in messages.encode(InferResponse("m", "1", [numbers]))
    words = OutputTensor("y", "BYTES", (1,), None, ["null"])
    assert b'"data":["null"]' in messages.encode(InferResponse("m", "1", [words]))
