"""Typed tensor contents <-> arrays: the numbers of a tensor as a repeated field of the message, flat and row-major."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from inferloop.core.datatypes import Array, DataType
from inferloop.core.errors import InvalidInput

_FIELDS = {
    DataType.BOOL: "bool_contents",
    DataType.INT8: "int_contents",
    DataType.INT16: "int_contents",
    DataType.INT32: "int_contents",
    DataType.INT64: "int64_contents",
    DataType.UINT8: "uint_contents",
    DataType.UINT16: "uint_contents",
    DataType.UINT32: "uint_contents",
    DataType.UINT64: "uint64_contents",
    DataType.FP32: "fp32_contents",
    DataType.FP64: "fp64_contents",
    DataType.BYTES: "bytes_contents",
}
_NARROW = {DataType.INT8: np.int32, DataType.INT16: np.int32, DataType.UINT8: np.uint32, DataType.UINT16: np.uint32}
"""Datatypes whose numbers travel in a wider field, by the type of that field."""


def has_field(datatype: DataType) -> bool:
    """Whether a tensor of this type can travel as typed contents; FP16 and BF16 cannot."""
    return datatype in _FIELDS


def read(name: str, datatype: DataType, shape: tuple[int, ...], contents: Any) -> Array:
    """Make an array of an `InferTensorContents`.

    Raises:
        InvalidInput: the datatype has no typed contents, another field is set, or the count or a number does not fit.
    """
    wanted = _FIELDS.get(datatype)
    if wanted is None:
        hint = "send it in raw_input_contents"
        raise InvalidInput(f"input {name!r}: {datatype} has no typed contents", hint=hint)
    for descriptor, _ in contents.ListFields():
        if descriptor.name != wanted:
            raise InvalidInput(f"input {name!r} is {datatype}, which travels in {wanted}, not in {descriptor.name}")
    values = getattr(contents, wanted)
    if len(values) != prod(shape):
        raise InvalidInput(f"input {name!r} has {len(values)} elements, shape {list(shape)} takes {prod(shape)}")
    return _flat(name, datatype, values).reshape(shape)


def write(array: Array, contents: Any) -> None:
    """Fill an `InferTensorContents` with an array; its datatype has a field, see `has_field`."""
    values = array.ravel().tolist()
    if array.dtype.kind in "OSU":
        values = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    getattr(contents, _FIELDS[DataType.of(array)]).extend(values)


def _flat(name: str, datatype: DataType, values: Any) -> Array:
    array: Array
    if datatype is DataType.BYTES:
        array = np.empty(len(values), dtype=object)
        array[:] = list(values)
        return array
    if datatype not in _NARROW:
        return np.fromiter(values, datatype.numpy, len(values))
    array = np.fromiter(values, _NARROW[datatype], len(values))
    bounds = np.iinfo(datatype.numpy)
    if len(array) and (array.min() < bounds.min or array.max() > bounds.max):
        raise InvalidInput(f"input {name!r} has a number that {datatype} cannot hold")
    return array.astype(datatype.numpy)
