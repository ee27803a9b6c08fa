"""Tensors between two processes: small ones inside the message, large ones in shared memory.

message = size of the table (4 bytes, little endian) | table (MessagePack) | arrays, where they are small
"""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import msgspec
import numpy as np

from inferloop.core.datatypes import Array, DataType, Tensors
from inferloop.prediction.isolation.region import Region

INSIDE_BELOW = 1 << 12
"""Bytes of arrays that travel inside the message; measured: from here on shared memory is not slower."""

_ALIGN = 64
_PREFIX = struct.Struct("<I")


class Entry(msgspec.Struct, array_like=True):
    """One tensor of a message.

    Attributes:
        at: where its bytes start among the arrays.
        items: the elements of a BYTES tensor, which has no bytes there.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    at: int
    items: list[bytes] | None = None


class Table(msgspec.Struct, array_like=True):
    """What a message says of its tensors; `shared` tells whether the arrays are in the region."""

    shared: bool
    size_bytes: int
    entries: list[Entry]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Table).decode


def pack(tensors: Tensors, region: Region) -> bytes:
    """The message for these tensors; the arrays of a large one are written to `region`."""
    entries, arrays, end = [], [], 0
    for name, array in tensors.items():
        if array.dtype == object:
            entries.append(Entry(name, DataType.BYTES, array.shape, 0, [_bytes(item) for item in array.ravel()]))
            continue
        entries.append(Entry(name, _datatype(array.dtype), array.shape, end))
        arrays.append((end, array))
        end += -(-array.nbytes // _ALIGN) * _ALIGN
    shared = end > INSIDE_BELOW
    table = _encode(Table(shared, end, entries))
    head = _PREFIX.pack(len(table)) + table
    if shared:
        _copy(arrays, region.view(end))
        return head
    inside = bytearray(end)
    _copy(arrays, inside)
    return head + inside


def unpack(message: bytes, region: Region, *, own: bool) -> Tensors:
    """The tensors of a message.

    With `own` the arrays belong to the caller; else those of a large message are valid until the next one only.

    Raises:
        ValueError: the message is cut off, or says what cannot be.
    """
    (size,) = _PREFIX.unpack_from(message)
    start = _PREFIX.size + size
    table = _decode(memoryview(message)[_PREFIX.size : start])
    buffer: Any = region.view(table.size_bytes) if table.shared else memoryview(message)[start:]
    return {entry.name: _array(entry, buffer, copy=own or not table.shared) for entry in table.entries}


def _array(entry: Entry, buffer: Any, *, copy: bool) -> Array:
    if entry.items is not None:
        texts = np.empty(len(entry.items), dtype=object)
        texts[:] = entry.items
        return texts.reshape(entry.shape)
    dtype = DataType(entry.datatype).numpy
    found = np.ndarray(entry.shape, dtype, buffer, entry.at)
    return found.copy() if copy else found


def _copy(arrays: list[tuple[int, Array]], buffer: Any) -> None:
    for start, array in arrays:
        np.ndarray(array.shape, array.dtype, buffer, start)[...] = array


def _bytes(item: object) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


@cache
def _datatype(dtype: np.dtype[Any]) -> str:
    return DataType.of(np.empty(0, dtype)).value
