"""Arrays to `ModelInferResponse` messages: raw, and typed for those who asked with typed contents.

A raw answer is the part that names model and tensors, remembered by their datatypes and shapes, then the id, then the bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.data.codecs import tensor_bytes
from inferloop.serving.grpc import contents, wire
from inferloop.serving.grpc.messages import message_class
from inferloop.serving.grpc.requests import Parameter, Parameters

_MOST_HEADS = 1024
_ID = 3
_RAW = 6
_VIEWED_BYTES = 1 << 16
_PARAMETER_FIELDS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}


class Answers:
    """Writes answers; remembers the heads that it has written."""

    def __init__(self) -> None:
        self._kind = message_class("inference.ModelInferResponse")
        self._heads: dict[object, bytes] = {}

    def raw(self, model: str, version: int | str, request_id: bytes, outputs: Tensors) -> bytes:
        """The serialized message of an answer without parameters, its tensors raw."""
        key = (model, version, *[(name, array.dtype, array.shape) for name, array in outputs.items()])
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            head = self._heads[key] = self._head(model, version, outputs).SerializeToString()
        return _joined(head, request_id, outputs)

    def full(
        self,
        model: str,
        version: int | str,
        request_id: bytes,
        outputs: Tensors,
        *,
        parameters: Parameters,
        is_raw: bool,
        regions: Mapping[str, Parameters] = {},
    ) -> bytes:
        """The serialized message of any answer.

        Args:
            model: its name.
            version: its version.
            request_id: UTF-8; empty for none.
            outputs: the tensors by name, in order.
            parameters: of the answer as a whole.
            is_raw: false for typed contents; where a datatype has none, all tensors go raw.
            regions: for outputs that were written to shared memory, the parameters that say where; they are not sent.
        """
        message = self._head(model, version, outputs)
        set_parameters(message.parameters, parameters)
        sent = {name: array for name, array in outputs.items() if name not in regions}
        for tensor in message.outputs:
            if tensor.name in regions:
                set_parameters(tensor.parameters, regions[tensor.name])
        if is_raw or not all(contents.has_field(DataType.of(array)) for array in sent.values()):
            return _joined(message.SerializeToString(), request_id, sent)
        for tensor in message.outputs:
            if tensor.name in sent:
                contents.write(sent[tensor.name], tensor.contents)
        return _joined(message.SerializeToString(), request_id, {})

    def _head(self, model: str, version: int | str, outputs: Tensors) -> Any:
        message = self._kind(model_name=model, model_version=str(version))
        for name, array in outputs.items():
            message.outputs.add(name=name, datatype=DataType.of(array).value, shape=array.shape)
        return message


def set_parameters(entries: Any, parameters: Mapping[str, Parameter]) -> None:
    """Fill a map of `InferParameter` messages."""
    for name, value in parameters.items():
        field = _PARAMETER_FIELDS[type(value)]
        if type(value) is int and value >= 1 << 63:
            field = "uint64_param"
        setattr(entries[name], field, value)


def _joined(head: bytes, request_id: bytes, outputs: Tensors) -> bytes:
    """The parts of a message in one piece; a field may stand after others of a higher number."""
    parts: list[Any] = [head]
    if request_id:
        parts += (wire.field(_ID, len(request_id)), request_id)
    for array in outputs.values():
        blob = _bytes(array)
        parts += (wire.field(_RAW, len(blob) if isinstance(blob, bytes) else blob.nbytes), blob)
    return b"".join(parts)


def _bytes(array: Array) -> bytes | Array:
    """What `bytes.join` takes: a large array itself, which saves a copy."""
    if array.nbytes >= _VIEWED_BYTES and array.dtype.kind in "iufb" and array.flags.c_contiguous:
        return array
    return tensor_bytes.write(array)
