"""`ModelInferRequest` messages to arrays.

What most requests of one client share, all but id and tensors, is parsed once and recognized by its bytes afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

import numpy as np

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.core.errors import InvalidInput
from inferloop.data.codecs import tensor_bytes
from inferloop.serving.grpc import contents, wire
from inferloop.serving.grpc.messages import message_class, parse
from inferloop.serving.operations.shared_memory import Region

Parameter = str | int | float | bool
Parameters = Mapping[str, Parameter]

_DATATYPES: dict[str, DataType] = {datatype.value: datatype for datatype in DataType}
_MOST_AXES = 32
_MOST_PLANS = 1024
_PLAN_BYTES = 2048
_REGION = "shared_memory_region"
_REGION_SIZE = "shared_memory_byte_size"
_REGION_OFFSET = "shared_memory_offset"
_NONE: Parameters = {}


class AskedOutput(NamedTuple):
    """An output that the client named."""

    name: str
    parameters: Parameters


class AskedInput(NamedTuple):
    """An input as it is declared.

    Attributes:
        dtype: its NumPy form, asked for at every request.
        size: the bytes that it takes raw; -1 if that does not make it valid: BYTES, and BOOL, whose bytes are checked.
    """

    name: str
    datatype: DataType
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    size: int
    parameters: Parameters


@dataclass(frozen=True, slots=True)
class Plan:
    """All of a request but its id and its tensors.

    Attributes:
        version: None for the one that the server chooses.
        outputs: None for all.
        is_plain: no parameters, no outputs, no shared memory: nothing but tensors.
    """

    model: str
    version: int | None
    parameters: Parameters
    inputs: tuple[AskedInput, ...]
    outputs: tuple[AskedOutput, ...] | None
    is_plain: bool


class InferRequest(NamedTuple):
    """One request, its tensors checked against their declarations, not yet against the model.

    Attributes:
        id: UTF-8; sent back as it came.
        tensors: read-only views of the message where the elements have a fixed size; without inputs in shared memory.
        is_raw: whether the tensors came raw, so that the answer goes raw.
    """

    plan: Plan
    id: bytes
    tensors: Tensors
    is_raw: bool


class Requests:
    """Reads requests; remembers the plans that it has met."""

    def __init__(self) -> None:
        self._kind = message_class("inference.ModelInferRequest")
        self._plans: dict[bytes, Plan] = {}

    def read(self, data: bytes) -> InferRequest:
        """The request of a serialized `ModelInferRequest`.

        Raises:
            InvalidInput: it is no such message, or a name, datatype, shape, count, size or value is wrong.
        """
        parts = wire.split(data)
        if parts is None:
            return self._read_unusual(data)
        plan = self._plans.get(parts.head)
        if plan is not None:
            return InferRequest(plan, _text(parts.id), _raw_tensors(plan, data, parts.places), is_raw=True)
        return self._read_new(parts.head, parts.id, data, parts.places)

    def _read_unusual(self, data: bytes) -> InferRequest:
        """Fields in a form that `wire` leaves to the parser, or no message at all."""
        message = parse(self._kind, data)
        blobs, places, position = list(message.raw_input_contents), [], 0
        for blob in blobs:
            places.append((position, position + len(blob)))
            position += len(blob)
        request_id = message.id.encode()
        message.ClearField("raw_input_contents")
        message.ClearField("id")
        return self._read_new(message.SerializeToString(), request_id, b"".join(blobs), places)

    def _read_new(self, head: bytes, request_id: bytes, data: bytes, places: list[tuple[int, int]]) -> InferRequest:
        message = parse(self._kind, head)
        plan = _plan(message)
        is_typed = any(tensor.HasField("contents") for tensor in message.inputs)
        if is_typed and places:
            raise InvalidInput("contents must be empty where raw_input_contents is used", hint="send all tensors in one form")
        if is_typed or not (places or _is_complete(plan)):
            return InferRequest(plan, _text(request_id), _typed_tensors(plan, message), is_raw=False)
        if plan.is_plain and len(head) <= _PLAN_BYTES:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            self._plans[head] = plan
        return InferRequest(plan, _text(request_id), _raw_tensors(plan, data, places), is_raw=True)


def region_of(parameters: Parameters) -> Region | None:
    """The shared memory that a tensor lies in; None if it travels in the message.

    Raises:
        InvalidInput: its name, size or offset is of the wrong type.
    """
    if _REGION not in parameters:
        return None
    name, size, offset = parameters[_REGION], parameters.get(_REGION_SIZE), parameters.get(_REGION_OFFSET, 0)
    if not isinstance(name, str) or type(size) is not int or type(offset) is not int:
        hint = f"{_REGION} is a text, {_REGION_SIZE} and {_REGION_OFFSET} are numbers"
        raise InvalidInput(f"the parameters of shared memory region {name!r} are not as the protocol says", hint=hint)
    return Region(name, size, offset)


def _text(data: bytes) -> bytes:
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise InvalidInput("the request id is not UTF-8") from error
    return data


def _is_complete(plan: Plan) -> bool:
    """Whether the message need carry no tensor: all inputs are elsewhere, or there are none."""
    return all(region_of(tensor.parameters) is not None for tensor in plan.inputs)


def _raw_tensors(plan: Plan, data: bytes, places: list[tuple[int, int]]) -> Tensors:
    inputs = plan.inputs if plan.is_plain else [tensor for tensor in plan.inputs if region_of(tensor.parameters) is None]
    if len(places) != len(inputs):
        raise InvalidInput(f"raw_input_contents has {len(places)} entries for {len(inputs)} inputs")
    tensors: Tensors = {}
    for tensor, (start, stop) in zip(inputs, places, strict=True):
        if tensor.size == stop - start:
            tensors[tensor.name] = np.ndarray(tensor.shape, tensor.dtype, data, start)
        else:
            tensors[tensor.name] = _checked(tensor, memoryview(data)[start:stop])
    return tensors


def _checked(tensor: AskedInput, blob: memoryview) -> Array:
    try:
        return tensor_bytes.read(tensor.name, tensor.datatype, tensor.shape, blob)
    except ValueError as error:  # an empty tensor whose other axes are too large to exist
        raise _no_array(tensor) from error


def _typed_tensors(plan: Plan, message: Any) -> Tensors:
    tensors: Tensors = {}
    for tensor, sent in zip(plan.inputs, message.inputs, strict=True):
        if region_of(tensor.parameters) is None:
            tensors[tensor.name] = contents.read(tensor.name, tensor.datatype, tensor.shape, sent.contents)
    return tensors


def _plan(message: Any) -> Plan:
    inputs = tuple(_input(tensor) for tensor in message.inputs)
    names = [tensor.name for tensor in inputs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"input {twice!r} is given twice")
    outputs = tuple(AskedOutput(output.name, parameters(output.parameters)) for output in message.outputs) or None
    if outputs is not None and len({output.name for output in outputs}) < len(outputs):
        raise InvalidInput("an output is asked for twice")
    named = parameters(message.parameters)
    is_plain = not named and outputs is None and not any(tensor.parameters for tensor in inputs)
    return Plan(message.model_name, version_of(message.model_version), named, inputs, outputs, is_plain)


def _input(message: Any) -> AskedInput:
    name, shape = message.name, tuple(message.shape)
    datatype = _DATATYPES.get(message.datatype)
    if datatype is None:
        hint = f"known: {', '.join(_DATATYPES)}"
        raise InvalidInput(f"invalid datatype for input {name!r}: {message.datatype!r}", hint=hint)
    if len(shape) > _MOST_AXES:
        raise InvalidInput(f"input {name!r} has {len(shape)} axes, at most {_MOST_AXES} are read")
    if any(size < 0 for size in shape):
        raise InvalidInput(f"input {name!r} has shape {list(shape)}, no size may be negative")
    is_checked = datatype in (DataType.BOOL, DataType.BYTES)
    size = -1 if is_checked else prod(shape) * datatype.size_bytes
    tensor = AskedInput(name, datatype, shape, datatype.numpy, size, parameters(message.parameters))
    if 0 in shape:
        _exists(tensor)
    return tensor


def _exists(tensor: AskedInput) -> None:
    try:
        np.empty(tensor.shape, tensor.dtype)
    except ValueError as error:
        raise _no_array(tensor) from error


def _no_array(tensor: AskedInput) -> InvalidInput:
    return InvalidInput(f"input {tensor.name!r}: no array has shape {list(tensor.shape)}")


def version_of(text: str) -> int | None:
    """A version as messages carry it; empty is None, the one that the server chooses.

    Raises:
        InvalidInput: it is no number.
    """
    if not text:
        return None
    if not text.isdecimal() or not text.isascii() or len(text) > 18:
        raise InvalidInput(f"model version {text!r} is no number")
    return int(text)


def parameters(entries: Mapping[str, Any]) -> Parameters:
    """The values of a map of `InferParameter` messages.

    Raises:
        InvalidInput: one has no value.
    """
    if not entries:
        return _NONE
    found: dict[str, Parameter] = {}
    for name, parameter in entries.items():
        choice = parameter.WhichOneof("parameter_choice")
        if choice is None:
            raise InvalidInput(f"parameter {name!r} has no value")
        found[name] = getattr(parameter, choice)
    return found
