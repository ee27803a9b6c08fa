"""Tensors through messages and back: every datatype, both forms, and whatever a client may send instead."""

from __future__ import annotations

from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from inferloop.core.datatypes import DataType
from inferloop.core.errors import InvalidInput
from inferloop.serving.grpc import contents, wire
from inferloop.serving.grpc.answers import Answers
from inferloop.serving.grpc.messages import message_class
from inferloop.serving.grpc.requests import Requests

REQUEST = message_class("inference.ModelInferRequest")
RESPONSE = message_class("inference.ModelInferResponse")
TYPED = [datatype for datatype in DataType if contents.has_field(datatype)]


def array_of(datatype: DataType, values: list[float], shape: tuple[int, ...]) -> np.ndarray:
    if datatype is DataType.BYTES:
        array = np.empty(len(values), dtype=object)
        array[:] = [str(value).encode() for value in values]
        return array.reshape(shape)
    return np.array(values).astype(datatype.numpy).reshape(shape)


@st.composite
def tensors(draw, datatypes=tuple(DataType)):
    datatype = draw(st.sampled_from(datatypes))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    if datatype is DataType.BYTES:
        values = draw(st.lists(st.binary(max_size=9), min_size=int(np.prod(shape)), max_size=int(np.prod(shape))))
        array = np.empty(len(values), dtype=object)
        array[:] = values
        return datatype, array.reshape(shape)
    if datatype is DataType.BF16:
        return datatype, draw(arrays.arrays(np.float32, shape, elements=st.floats(-8, 8, width=16))).astype(ml_dtypes.bfloat16)
    return datatype, draw(arrays.arrays(datatype.numpy, shape))


def answered(array: np.ndarray, *, is_raw: bool, request_id: bytes = b"") -> bytes:
    outputs = {"y": array}
    if is_raw:
        return Answers().raw("m", 3, request_id, outputs)
    return Answers().full("m", 3, request_id, outputs, parameters={}, is_raw=False)


def asked(answer: bytes, request_id: str = "") -> bytes:
    """The tensors of an answer as a request."""
    message = RESPONSE.FromString(answer)
    request = REQUEST(model_name="m", id=request_id)
    for tensor in message.outputs:
        request.inputs.add().ParseFromString(tensor.SerializeToString())
    request.raw_input_contents.extend(message.raw_output_contents)
    return request.SerializeToString()


def same(one: np.ndarray, other: np.ndarray) -> bool:
    if one.dtype == object:
        return one.shape == other.shape and one.ravel().tolist() == other.ravel().tolist()
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(tensors(), st.text(max_size=200))
def test_raw_tensors_come_back_as_they_were(tensor, request_id):
    datatype, array = tensor
    request = Requests().read(asked(answered(array, is_raw=True), request_id))
    assert (request.plan.inputs[0].datatype, request.id.decode()) == (datatype, request_id)
    assert same(request.tensors["y"], array)


@given(tensors(datatypes=tuple(TYPED)))
def test_typed_tensors_come_back_as_they_were(tensor):
    _, array = tensor
    encoded = answered(array, is_raw=False)
    assert not RESPONSE.FromString(encoded).raw_output_contents
    if RESPONSE.FromString(encoded).outputs[0].HasField("contents"):
        request = Requests().read(asked(encoded))
        assert not request.is_raw
        if array.dtype.kind == "f":  # NaN may lose its payload between float and double
            np.testing.assert_array_equal(request.tensors["y"], array)
        else:
            assert same(request.tensors["y"], array)


@pytest.mark.parametrize("datatype", [DataType.FP16, DataType.BF16])
def test_half_floats_go_raw_even_to_those_who_sent_typed_contents(datatype):
    array = array_of(datatype, [0.5, -2.0], (1, 2))
    message = RESPONSE.FromString(answered(array, is_raw=False))
    assert message.raw_output_contents[0] == array.tobytes()
    assert not message.outputs[0].HasField("contents")


@given(st.binary(max_size=300))
@example(b"\x0a")
@example(b"\x3a\x85")
@example(b"\x3a" + b"\xff" * 9 + b"\x01")
def test_any_bytes_are_a_request_or_invalid(data):
    with suppress(InvalidInput):
        Requests().read(data)


@given(tensors(), st.data())
def test_a_request_with_damage_is_read_or_invalid(tensor, data):
    whole = asked(answered(tensor[1], is_raw=True), "id")
    position = data.draw(st.integers(0, len(whole) - 1))
    damaged = whole[:position] + data.draw(st.binary(max_size=3)) + whole[position + data.draw(st.integers(0, 3)) :]
    with suppress(InvalidInput):
        Requests().read(damaged)


@given(tensors(), st.text(max_size=20))
def test_both_readers_see_the_same_request(tensor, request_id):
    whole = asked(answered(tensor[1], is_raw=True), request_id)
    unusual = whole + b"\xba\x3e\x01x"  # a field that nobody knows, with a tag of two bytes
    assert wire.split(unusual) is None
    fast, slow = Requests().read(whole), Requests().read(unusual)
    assert (fast.id, fast.plan.model, fast.is_raw) == (slow.id, slow.plan.model, slow.is_raw)
    assert same(fast.tensors["y"], slow.tensors["y"])


def test_a_plan_that_was_met_is_not_parsed_again():
    requests = Requests()
    first = requests.read(asked(answered(np.ones((1, 4), np.float32), is_raw=True), "one"))
    second = requests.read(asked(answered(np.zeros((1, 4), np.float32), is_raw=True), "two"))
    assert second.plan is first.plan
    assert (second.id, second.tensors["y"].tolist()) == (b"two", [[0, 0, 0, 0]])


def test_a_tensor_is_a_view_of_the_message():
    data = asked(answered(np.ones((1, 4), np.float32), is_raw=True))
    array = Requests().read(data).tensors["y"]
    assert array.base is data
    assert not array.flags.writeable


def request(*inputs: dict, raw: tuple[bytes, ...] = (), **fields) -> bytes:
    message = REQUEST(model_name="m", **fields)
    for tensor in inputs:
        message.inputs.add(**{"name": "x", "datatype": "FP32", "shape": [2], **tensor})
    message.raw_input_contents.extend(raw)
    return message.SerializeToString()


EIGHT = b"\0" * 8
INVALID = {
    "too few raw bytes": (request({}, raw=(b"\0" * 7,)), r"input 'x' has 7 bytes, FP32\[2\] takes 8"),
    "too many raw bytes": (request({}, raw=(b"\0" * 9,)), r"input 'x' has 9 bytes, FP32\[2\] takes 8"),
    "a raw entry too many": (request({}, raw=(EIGHT, EIGHT)), "raw_input_contents has 2 entries for 1 inputs"),
    "a raw entry too few": (request({}, {"name": "z"}, raw=(EIGHT,)), "raw_input_contents has 1 entries for 2 inputs"),
    "an input twice": (request({}, {}, raw=(EIGHT, EIGHT)), "input 'x' is given twice"),
    "no such datatype": (request({"datatype": "FP31"}, raw=(EIGHT,)), "invalid datatype for input 'x': 'FP31'"),
    "a negative size": (request({"shape": [-1, 2]}, raw=(EIGHT,)), "no size may be negative"),
    "too many axes": (request({"shape": [1] * 33}, raw=(EIGHT,)), "has 33 axes"),
    "too large to exist": (request({"shape": [0, 2**62, 2**62]}, raw=(b"",)), "no array has shape"),
    "typed and raw": (request({"contents": {"fp32_contents": [1, 2]}}, raw=(EIGHT,)), "contents must be empty"),
    "typed, too few": (request({"contents": {"fp32_contents": [1]}}), r"has 1 elements, shape \[2\] takes 2"),
    "no data at all": (request({}), r"input 'x' has 0 elements, shape \[2\] takes 2"),
    "another typed field": (request({"contents": {"int_contents": [1, 2]}}), "travels in fp32_contents, not in int_contents"),
    "a number too large": (
        request({"datatype": "INT8", "contents": {"int_contents": [1, 128]}}),
        "a number that INT8 cannot hold",
    ),
    "typed half floats": (request({"datatype": "FP16", "contents": {"fp32_contents": [1, 2]}}), "FP16 has no typed contents"),
    "a BOOL of 2": (request({"datatype": "BOOL"}, raw=(b"\x01\x02",)), "neither 0 nor 1"),
    "BYTES cut short": (request({"datatype": "BYTES"}, raw=(b"\x05\0\0\0ab",)), "end in the middle of an element"),
    "a version in words": (request({}, raw=(EIGHT,), model_version="new"), "model version 'new' is no number"),
    "a parameter without a value": (request({}, raw=(EIGHT,), parameters={"a": {}}), "parameter 'a' has no value"),
    "an id that is no text": (request({}, raw=(EIGHT,)) + b"\x1a\x01\xff", "the request id is not UTF-8"),
}


@pytest.mark.parametrize("name", INVALID)
def test_what_is_wrong_with_a_request_is_said(name):
    data, message = INVALID[name]
    with pytest.raises(InvalidInput, match=message):
        Requests().read(data)


def test_parameters_keep_their_types():
    values = {"b": {"bool_param": True}, "i": {"int64_param": -1}, "u": {"uint64_param": 2**63}, "s": {"string_param": "x"}}
    read = Requests().read(request({}, raw=(EIGHT,), parameters={**values, "d": {"double_param": 0.5}})).plan.parameters
    assert dict(read) == {"b": True, "i": -1, "u": 2**63, "s": "x", "d": 0.5}
    answer = Answers().full("m", 1, b"", {}, parameters=read, is_raw=True)
    assert RESPONSE.FromString(answer).parameters["u"].uint64_param == 2**63
    assert RESPONSE.FromString(answer).parameters["b"].bool_param is True


def test_an_answer_is_what_the_generated_class_would_have_written():
    array = np.arange(30_000, dtype=np.float32).reshape(2, -1)
    message = RESPONSE(model_name="m", model_version="3", id="ä")
    message.outputs.add(name="y", datatype="FP32", shape=[2, 15_000])
    message.raw_output_contents.append(array.tobytes())
    assert RESPONSE.FromString(answered(array, is_raw=True, request_id="ä".encode())) == message


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, 2**21 - 1, 2**21, 2**28, 2**32])
def test_lengths_are_written_as_protobuf_does(number):
    from google.protobuf.internal.encoder import _VarintBytes

    assert wire.varint(number) == _VarintBytes(number)
