"""The JSON of an inference request and its answer, as the Open Inference Protocol v2 writes them."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any

import msgspec
import numpy as np

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidInput
from inferloop.data.codecs import tensor_bytes
from inferloop.serving.operations.inference import Wanted
from inferloop.serving.operations.shared_memory import Region, Regions
from inferloop.serving.rest import long_arrays, tensor_json
from inferloop.serving.rest.long_arrays import LONG_BYTES

Parameters = dict[str, str | int | float | bool | None]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**62)]

_MOST_AXES = 32
_NOTHING = memoryview(b"")
_ONE_OF = (
    "Input must set only one of the following fields: 'data', 'binary_data_size' in 'parameters', "
    "'shared_memory_region' in 'parameters'."
)


class NotJson(InvalidInput):
    """A body that should be JSON and is not."""


class InputTensor(msgspec.Struct):
    """One input; its data stays raw text until the datatype says how to read it."""

    name: str
    shape: list[Size]
    datatype: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    parameters: Parameters | None = None


class RequestedOutput(msgspec.Struct):
    """An output that the client wants."""

    name: str
    parameters: Parameters | None = None


class InferRequest(msgspec.Struct):
    """The body of an inference request."""

    inputs: list[InputTensor]
    id: str = ""
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class ReadInput(msgspec.Struct):
    """The same input where its data is read already: by a lenient parser, as it holds NaN or Infinity, or as a long array."""

    name: str
    shape: list[Size]
    datatype: str
    data: Any = msgspec.UNSET
    parameters: Parameters | None = None


class ReadRequest(msgspec.Struct):
    """The same request with such inputs."""

    inputs: list[ReadInput]
    id: str = ""
    parameters: Parameters | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct, omit_defaults=True):
    """One output of an answer."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    parameters: dict[str, str | int] | None = None
    data: list[Any] | None = None


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The body of an answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


class Probe(msgspec.Struct):
    """Any JSON object; its values are passed over unread."""

    inputs: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


AnyRequest = InferRequest | ReadRequest

_decoder = msgspec.json.Decoder(InferRequest)
_probe = msgspec.json.Decoder(Probe)
_encoder = msgspec.json.Encoder()
_DATATYPES: dict[str, DataType] = {datatype.value: datatype for datatype in DataType}


def parse(text: bytes | memoryview) -> AnyRequest | None:
    """Read the JSON of a request.

    Returns:
        None for a JSON object without `inputs`, which is no request of the protocol.

    Raises:
        InvalidInput: not JSON, or `inputs` are not as the protocol says.
    """
    if len(text) >= LONG_BYTES and (request := _parse_long(text)) is not None:
        return request
    try:
        return _decoder.decode(text)
    except msgspec.ValidationError as error:
        if _lacks_inputs(text):
            return None
        raise InvalidInput(f"the request is not as the protocol says: {tensor_json.reason(error)}") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        lenient = _parse_lenient(bytes(text))
        if lenient is not None:
            return lenient
        raise NotJson(f"the body is not JSON: {tensor_json.reason(error)}") from error


def tensors(request: AnyRequest, blobs: memoryview, regions: Regions | None = None) -> Tensors:
    """The arrays of a request.

    Args:
        request: as `parse` read it.
        blobs: the bytes after the JSON, one blob for each binary input, in their order; empty if there is none.
        regions: where inputs in shared memory lie.

    Raises:
        Forbidden: an input lies in shared memory, which is off.
        InvalidInput: a datatype, shape, count, size or value is wrong; the message names the input.
    """
    arrays: Tensors = {}
    position = 0
    for tensor in request.inputs:
        if tensor.name in arrays:
            raise InvalidInput(f"input {tensor.name!r} is given twice")
        if not tensor.parameters and tensor.data is not msgspec.UNSET:  # as most are
            arrays[tensor.name] = _array(tensor, _NOTHING)
            continue
        region = region_of(tensor.name, tensor.parameters) if tensor.parameters else None
        if region is not None:
            arrays[tensor.name] = _array(tensor, _shared(tensor, region, regions))
            continue
        size = _binary_size(tensor) or 0
        if size > len(blobs) - position:
            missing = size - (len(blobs) - position)
            raise InvalidInput(f"unexpected size for input {tensor.name!r}, expecting {missing} additional bytes")
        arrays[tensor.name] = _array(tensor, blobs[position : position + size])
        position += size
    if position != len(blobs):
        raise InvalidInput(f"unexpected additional input data: {len(blobs) - position} bytes after the last tensor")
    return arrays


def _shared(tensor: InputTensor | ReadInput, region: Region, regions: Regions | None) -> memoryview:
    if tensor.data is not msgspec.UNSET or (tensor.parameters and "binary_data_size" in tensor.parameters):
        raise InvalidInput(f"{_ONE_OF} But input {tensor.name!r} has several")
    return (regions or Regions()).read(region)


def _array(tensor: InputTensor | ReadInput, blob: memoryview) -> Array:
    datatype = _DATATYPES.get(tensor.datatype)
    if datatype is None:
        hint = f"known: {', '.join(_DATATYPES)}"
        raise InvalidInput(f"invalid datatype for input {tensor.name!r}: {tensor.datatype!r}", hint=hint)
    if len(tensor.shape) > _MOST_AXES:
        raise InvalidInput(f"input {tensor.name!r} has {len(tensor.shape)} axes, at most {_MOST_AXES} are read")
    data = tensor.data
    try:
        if type(data) is msgspec.Raw or isinstance(data, list):
            return tensor_json.read(tensor.name, datatype, tensor.shape, data)
        if data is msgspec.UNSET:
            return tensor_bytes.read(tensor.name, datatype, tensor.shape, blob)
        if isinstance(data, np.ndarray):
            return data
    except ValueError as error:  # an empty tensor whose other axes are too large to exist
        raise InvalidInput(f"input {tensor.name!r}: no array has shape {tensor.shape}") from error
    raise InvalidInput(f"input {tensor.name!r}: data must be a list")


def wanted(output: RequestedOutput) -> Wanted:
    """How the client wants an output.

    Raises:
        InvalidInput: a parameter that is understood has the wrong type.
    """
    parameters = output.parameters
    if not parameters:
        return Wanted(output.name)
    binary, count = parameters.get("binary_data"), parameters.get("classification", 0)
    if binary is not None and not isinstance(binary, bool):
        raise InvalidInput(f"output {output.name!r}: binary_data must be true or false, got {binary!r}")
    if type(count) is not int or count < 0:
        raise InvalidInput(f"output {output.name!r}: classification must be a number of classes, got {count!r}")
    return Wanted(output.name, binary, count, region_of(output.name, parameters))


def region_of(name: str, parameters: Parameters) -> Region | None:
    """The part of shared memory that a tensor's parameters name; None if they name none.

    Raises:
        InvalidInput: they are of another form.
    """
    region = parameters.get("shared_memory_region")
    if region is None:
        return None
    size, offset = parameters.get("shared_memory_byte_size"), parameters.get("shared_memory_offset", 0)
    if not isinstance(region, str) or type(size) is not int or type(offset) is not int or size < 0 or offset < 0:
        hint = "shared_memory_region: a text; shared_memory_byte_size: a count; shared_memory_offset: a count"
        raise InvalidInput(f"tensor {name!r}: its parameters name no part of shared memory", hint=hint)
    return Region(region, size, offset)


def encode(response: InferResponse) -> bytes:
    """The JSON of an answer; NaN and Infinity stand in it bare, as clients of the protocol expect."""
    body = _encoder.encode(response)
    if b"null" in body and not all(map(_finite, response.outputs)):
        return json.dumps(msgspec.to_builtins(response), separators=(",", ":")).encode()
    return body


def _finite(tensor: OutputTensor) -> bool:
    return all(not isinstance(value, float) or math.isfinite(value) for value in tensor.data or ())


def _binary_size(tensor: InputTensor | ReadInput) -> int | None:
    if not tensor.parameters or "binary_data_size" not in tensor.parameters:
        if tensor.data is msgspec.UNSET:
            raise InvalidInput(f"{_ONE_OF} But no field is set", hint=f"input {tensor.name!r} has no data")
        return None
    size = tensor.parameters["binary_data_size"]
    if tensor.data is not msgspec.UNSET:
        raise InvalidInput(f"{_ONE_OF} But input {tensor.name!r} has both 'data' and 'binary_data_size'")
    if type(size) is not int or size < 0:
        raise InvalidInput(f"input {tensor.name!r}: binary_data_size must be a count of bytes, got {size!r}")
    return size


def _lacks_inputs(text: bytes | memoryview) -> bool:
    try:
        return _probe.decode(text).inputs is msgspec.UNSET
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False


def _parse_lenient(text: bytes) -> ReadRequest | None:
    if b"NaN" not in text and b"Infinity" not in text:
        return None
    try:
        return msgspec.convert(json.loads(text), ReadRequest)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _parse_long(text: bytes | memoryview) -> ReadRequest | None:
    """A request with long arrays of numbers; None for one that is to be read the common way."""
    found = long_arrays.cut(text)
    if found is None:
        return None
    try:
        request = _decoder.decode(found.text)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    inputs: list[ReadInput] = []
    for tensor in request.inputs:
        data: Any = tensor.data
        if isinstance(data, msgspec.Raw) and (numbers := found.arrays.pop(bytes(data), None)) is not None:
            data = _long_array(numbers, tensor)
            if data is None:
                return None
        inputs.append(ReadInput(tensor.name, tensor.shape, tensor.datatype, data, tensor.parameters))
    if found.arrays:  # one was no data of an input
        return None
    return ReadRequest(inputs, request.id, request.parameters, request.outputs)


def _long_array(numbers: long_arrays.LongArray, tensor: InputTensor) -> Array | None:
    datatype = _DATATYPES.get(tensor.datatype)
    if datatype is None or len(tensor.shape) > _MOST_AXES:
        return None
    return long_arrays.read(numbers, datatype, tensor.shape)
