"""Tensors <-> bytes, as every wire has them: little-endian, row-major, BYTES with a length before each element.

REST (binary data), gRPC (raw contents), shared memory and the clients all use this.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from inferloop.core.datatypes import Array, DataType
from inferloop.core.errors import InvalidInput

_LENGTH = struct.Struct("<I")
_IS_BIG_ENDIAN = sys.byteorder == "big"
_FIXED: dict[DataType, np.dtype[Any]] = {
    datatype: datatype.numpy for datatype in DataType if datatype not in (DataType.BF16, DataType.BYTES)
}
_NAMES = {datatype.numpy.char: datatype.value for datatype in DataType if datatype is not DataType.BF16}


def read(name: str, datatype: DataType, shape: Sequence[int], data: memoryview) -> Array:
    """Make an array of a tensor's bytes, without a copy where the elements have a fixed size.

    Args:
        name: of the tensor, for messages.
        datatype: of its elements.
        shape: row-major.
        data: all of its bytes.

    Returns:
        A read-only, possibly unaligned view of `data`; BYTES as an object array of `bytes`.

    Raises:
        InvalidInput: there are more or fewer bytes than `datatype` and `shape` say, or they are no such elements.
    """
    if datatype is DataType.BYTES:
        return _read_bytes(name, shape, data)
    dtype = _FIXED.get(datatype)
    if dtype is None:
        dtype = datatype.numpy
    expected = prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise InvalidInput(f"input {name!r} has {len(data)} bytes, {datatype}{list(shape)} takes {expected}")
    if datatype is DataType.BOOL and expected and np.frombuffer(data, np.uint8).max() > 1:
        raise InvalidInput(f"input {name!r} has a byte that is neither 0 nor 1, BOOL takes no other")
    array: Array = np.ndarray(shape, dtype, data)
    return array.byteswap() if _IS_BIG_ENDIAN else array


def write(array: Array) -> bytes:
    """The bytes of an array as they go over the wire; texts of BYTES as UTF-8."""
    if array.dtype.kind in "OSU":
        elements = [value.encode() if isinstance(value, str) else bytes(value) for value in array.ravel()]
        return b"".join(part for element in elements for part in (_LENGTH.pack(len(element)), element))
    return array.byteswap().tobytes() if _IS_BIG_ENDIAN else array.tobytes()


def datatype_name(array: Array) -> str:
    """The datatype of an array by its name on the wire. Raises `InvalidInput` if there is none."""
    return _NAMES.get(array.dtype.char) or DataType.of(array).value


def one_element(data: bytes, shape: Sequence[int]) -> Array:
    """A BYTES tensor whose only element is `data`. Raises `InvalidInput` if `shape` takes another number."""
    array: Array = np.empty(1, dtype=object)
    array[0] = data
    if prod(shape) != 1:
        raise InvalidInput(f"a raw body is one element, shape {list(shape)} takes {prod(shape)}")
    return array.reshape(shape)


def objects(values: Sequence[bytes], shape: Sequence[int]) -> Array:
    """A BYTES tensor of as many elements as `shape` takes."""
    array: Array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape(shape)


def _read_bytes(name: str, shape: Sequence[int], data: memoryview) -> Array:
    values: list[bytes] = []
    position = 0
    while position + 4 <= len(data):
        (size,) = _LENGTH.unpack_from(data, position)
        position += 4
        if position + size > len(data):
            break
        values.append(bytes(data[position : position + size]))
        position += size
    if position != len(data):
        raise InvalidInput(f"input {name!r}: its BYTES end in the middle of an element")
    if len(values) != prod(shape):
        raise InvalidInput(f"input {name!r} has {len(values)} elements, shape {list(shape)} takes {prod(shape)}")
    return objects(values, shape)
