"""The wire format of Sparkplug B payloads: the protobuf message of the specification, and metrics as plain values."""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.content import describe

DataType = IntEnum(
    "DataType",
    "Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float Double Boolean String DateTime Text UUID DataSet Bytes File Template"
    " PropertySet PropertySetList Int8Array Int16Array Int32Array Int64Array UInt8Array UInt16Array UInt32Array UInt64Array"
    " FloatArray DoubleArray BooleanArray StringArray DateTimeArray",
)
"""The datatypes of the specification, from 1."""

_PAYLOAD = {"timestamp": 1, "metrics": 2, "seq": 3, "uuid": 4, "body": 5}
_METRIC = {
    "name": 1, "alias": 2, "timestamp": 3, "datatype": 4, "is_null": 7, "int_value": 10, "long_value": 11, "float_value": 12,
    "double_value": 13, "boolean_value": 14, "string_value": 15, "bytes_value": 16,
}  # fmt: skip
_FORMS = {
    "datatype": "UINT32", "is_null": "BOOL", "int_value": "UINT32", "float_value": "FLOAT", "double_value": "DOUBLE",
    "boolean_value": "BOOL", "name": "BYTES", "string_value": "BYTES", "uuid": "BYTES", "bytes_value": "BYTES", "body": "BYTES",
}  # fmt: skip
"""What is not UINT64. Text is declared as bytes, so that we say ourselves what is not UTF-8."""

_VALUES = ("int_value", "long_value", "float_value", "double_value", "boolean_value", "string_value", "bytes_value")
_BITS = {DataType.Int8: 8, DataType.Int16: 16, DataType.Int32: 32, DataType.Int64: 64}
_ARRAYS = {
    DataType.Int8Array: "<i1", DataType.Int16Array: "<i2", DataType.Int32Array: "<i4", DataType.Int64Array: "<i8",
    DataType.UInt8Array: "<u1", DataType.UInt16Array: "<u2", DataType.UInt32Array: "<u4", DataType.UInt64Array: "<u8",
    DataType.FloatArray: "<f4", DataType.DoubleArray: "<f8", DataType.DateTimeArray: "<u8",
}  # fmt: skip
_NOT_READ = (DataType.DataSet, DataType.Template, DataType.PropertySet, DataType.PropertySetList, DataType.StringArray)
_COMPRESSED = b"SPBV1.0_COMPRESSED"


def parse_payload(payload: bytes) -> Any:
    """The protobuf message; its text is bytes still.

    Raises:
        InvalidInput: no such message, or a compressed one.
    """
    parsed = _payload_class()()
    try:
        parsed.ParseFromString(payload)
    except DecodeError as error:
        raise InvalidInput(f"the payload is no protobuf message of Sparkplug B ({describe(payload)})") from error
    if parsed.uuid == _COMPRESSED:
        raise InvalidInput("the payload is compressed, which is not read", hint="turn compression off at the edge node")
    return parsed


def metric_name(metric: Any) -> str:
    """The name of a metric; empty where it has only an alias."""
    return _text(metric.name, "the name of a metric")


def metric_value(metric: Any, name: str, datatype: DataType | None) -> Any:
    """The value of a metric as float, str, bool, bytes or float64 array; None if it is null.

    Args:
        metric: of a parsed payload.
        name: of the field, for messages.
        datatype: for a metric that does not bring its own, as data messages may. Whole numbers without either are signed.

    Raises:
        InvalidInput: a datatype that is not read, or bytes that are not what it says.
    """
    said = _datatype(metric.datatype, name) if metric.datatype else datatype
    if said in _NOT_READ and not metric.is_null:
        raise InvalidInput(f"field {name!r} has a value of the datatype {said.name}, which is not read")
    form = next((form for form in _VALUES if metric.HasField(form)), None)
    if form is None or metric.is_null:
        return None
    value = getattr(metric, form)
    if form in ("int_value", "long_value"):
        return float(_whole(value, said, 32 if form == "int_value" else 64))
    if form == "string_value":
        return _text(value, f"field {name!r}")
    if form == "bytes_value":
        return _of_bytes(value, said, name)
    return value if form == "boolean_value" else _finite(value, name)


def _datatype(number: int, name: str) -> DataType:
    try:
        return DataType(number)
    except ValueError:
        raise InvalidInput(f"field {name!r} has the datatype {number}, which Sparkplug B does not know") from None


def _whole(value: int, datatype: DataType | None, bits: int) -> int:
    """Undo two's complement; encoders differ in whether a short number is extended to 32 bits."""
    if datatype is not None and datatype not in _BITS:
        return value
    width = _BITS[datatype] if datatype is not None else bits
    value &= (1 << width) - 1
    return value - (1 << width) if value >> (width - 1) else value


def _finite(value: float, name: str) -> float | None:
    if value in (float("inf"), float("-inf")):
        raise InvalidInput(f"field {name!r} is an infinite number")
    return None if value != value else value


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{what} is not utf-8 at byte {error.start}") from error


def _of_bytes(value: bytes, datatype: DataType | None, name: str) -> Any:
    if datatype is DataType.BooleanArray:
        return _bits(value, name)
    if datatype not in _ARRAYS:
        return value
    dtype = np.dtype(_ARRAYS[datatype])
    if len(value) % dtype.itemsize:
        raise InvalidInput(f"field {name!r} has {len(value):,} bytes, {datatype.name} takes {dtype.itemsize} for each number")
    return np.frombuffer(value, dtype).astype(np.float64)


def _bits(value: bytes, name: str) -> Any:
    count = int.from_bytes(value[:4], "little")
    if len(value) != 4 + (count + 7) // 8:
        raise InvalidInput(f"field {name!r} is no BooleanArray: its length and its count do not fit")
    return np.unpackbits(np.frombuffer(value, np.uint8, offset=4), count=count).astype(np.float64)


@cache
def _payload_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="inferloop/sparkplug_b.proto", package="inferloop.sparkplug", syntax="proto2")
    _declare(file.message_type.add(name="Metric"), _METRIC)
    _declare(file.message_type.add(name="Payload"), _PAYLOAD)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inferloop.sparkplug.Payload"))


def _declare(message: Any, fields: dict[str, int]) -> None:
    kinds = descriptor_pb2.FieldDescriptorProto
    for name, number in fields.items():
        if name == "metrics":
            message.field.add(
                name=name,
                number=number,
                label=kinds.LABEL_REPEATED,
                type=kinds.TYPE_MESSAGE,
                type_name=".inferloop.sparkplug.Metric",
            )
        else:
            form = getattr(kinds, f"TYPE_{_FORMS.get(name, 'UINT64')}")
            message.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL, type=form)
