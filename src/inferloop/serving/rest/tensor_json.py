"""JSON tensor data <-> arrays: by datatype, strict, without a detour through generic objects.

`data` may be flat or nested as `shape` says. Refused: ragged nesting, null, strings for numbers, fractions for integers,
numbers that the datatype cannot hold, a wrong count. Bare NaN and Infinity are no JSON, but clients send them and expect
them back: they are accepted for FP32 and FP64.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from itertools import chain
from math import prod
from typing import Any, NamedTuple

import msgspec
import numpy as np

from inferloop.core.datatypes import Array, DataType
from inferloop.core.errors import InvalidInput

_BEGINNING = re.compile(rb"[\[ \t\r\n]*")


class _Form(NamedTuple):
    """How one datatype is read.

    Attributes:
        element: the JSON type.
        flat: reads a list of it.
        letter: of `struct`; empty for BYTES.
        few: packs so many elements, for the counts that are small.
        dtype: the NumPy type.
    """

    element: type
    flat: Callable[[Any], list[Any]]
    letter: str
    few: tuple[Callable[..., bytes], ...]
    dtype: np.dtype[Any]


_LETTERS: dict[DataType, tuple[type, str]] = {
    DataType.BOOL: (bool, "?"),
    DataType.UINT8: (int, "B"),
    DataType.UINT16: (int, "H"),
    DataType.UINT32: (int, "I"),
    DataType.UINT64: (int, "Q"),
    DataType.INT8: (int, "b"),
    DataType.INT16: (int, "h"),
    DataType.INT32: (int, "i"),
    DataType.INT64: (int, "q"),
    DataType.FP32: (float, "f"),
    DataType.FP64: (float, "d"),
    DataType.BYTES: (str, ""),
}
_FEW = 33


def _form(datatype: DataType, element: type, letter: str) -> _Form:
    flat = msgspec.json.Decoder(list[element])  # type: ignore[valid-type]  # one decoder an element type
    # the portable form: the native one lets values of FP32 overflow to infinity
    few = tuple(struct.Struct(f"<{count}{letter}").pack for count in range(_FEW)) if letter else ()
    return _Form(element, flat.decode, letter, few, datatype.numpy)


_FORMS = {datatype: _form(datatype, *letters) for datatype, letters in _LETTERS.items()}


def takes(datatype: DataType) -> bool:
    """Whether tensors of a datatype travel as JSON; FP16 and BF16 do not."""
    return datatype in _FORMS


def read(name: str, datatype: DataType, shape: Sequence[int], data: msgspec.Raw | list[Any]) -> Array:
    """Make an array of JSON data.

    Args:
        name: of the input, for messages.
        datatype: as sent.
        shape: as sent.
        data: the raw text, or, where the text is no strict JSON, what a lenient parser made of it.

    Returns:
        A read-only array of `shape`; BYTES as an object array of `bytes`.

    Raises:
        InvalidInput: the data is not what `datatype` and `shape` say; the message names the input.
    """
    form = _FORMS.get(datatype)
    if form is None:
        hint = "send it as a binary tensor, or as FP32 where the model takes that"
        raise InvalidInput(f"input {name!r}: {datatype} cannot be sent as JSON", hint=hint)
    try:
        values = form.flat(data)  # as most is
    except (msgspec.ValidationError, TypeError):
        values = _values(name, form, shape, data)
    count = len(values)
    if count != prod(shape):
        raise InvalidInput(f"input {name!r} has {count} values, shape {list(shape)} takes {prod(shape)}")
    if form.element is str:
        return _objects([value.encode() for value in values]).reshape(shape)
    try:
        packed = form.few[count](*values) if count < _FEW else struct.pack(f"<{count}{form.letter}", *values)
    except (struct.error, OverflowError) as error:
        raise InvalidInput(f"input {name!r} has a value out of the range of {datatype}") from error
    return np.ndarray(shape, form.dtype, packed)


def write(array: Array) -> list[Any]:
    """The elements of an array, flat and row-major, as JSON takes them; BYTES must be UTF-8.

    Raises:
        InvalidInput: an element of BYTES is no text.
    """
    if array.dtype.kind != "O":
        values: list[Any] = array.ravel().tolist()
        return values
    try:
        return [value if isinstance(value, str) else bytes(value).decode() for value in array.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInput("an output holds bytes that are no text", hint="ask for it with binary_data: true") from error


def reason(error: Exception) -> str:
    """What a parser said, for the middle of a message: its first letter small unless it begins an abbreviation."""
    text = str(error)
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def _values(name: str, form: _Form, shape: Sequence[int], data: msgspec.Raw | list[Any]) -> list[Any]:
    """The elements as Python objects of one type, flat, of data that is not flat text, or not as it should be."""
    try:
        if isinstance(data, msgspec.Raw) and _depth(data) < 2:
            return form.flat(data)
        return _nested(name, form.element, shape, data)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"input {name!r}: data: {reason(error)}") from error


def _nested(name: str, element: type, shape: Sequence[int], data: msgspec.Raw | list[Any]) -> list[Any]:
    depth = _depth(data)
    if depth not in (1, len(shape)):
        hint = "data is flat, or nested as shape says"
        raise InvalidInput(f"input {name!r}: data is nested {depth} deep, shape {list(shape)} has {len(shape)} axes", hint=hint)
    kind: Any = element
    for _ in range(depth):
        kind = list[kind]
    values: list[Any] = _decode(data, kind)
    for axis in range(depth - 1):
        _check_length(name, axis, values, shape)
        if any(len(row) != shape[axis + 1] for row in values):
            raise InvalidInput(f"input {name!r}: the rows of data differ from shape {list(shape)} in axis {axis + 1}")
        values = list(chain.from_iterable(values))
    return values


def _check_length(name: str, axis: int, values: list[Any], shape: Sequence[int]) -> None:
    if axis == 0 and len(values) != shape[0]:
        raise InvalidInput(f"input {name!r}: data has {len(values)} rows, shape {list(shape)} takes {shape[0]}")


def _decode(data: msgspec.Raw | list[Any], kind: Any) -> list[Any]:
    if isinstance(data, msgspec.Raw):
        decoded: list[Any] = msgspec.json.decode(data, type=kind)
        return decoded
    converted: list[Any] = msgspec.convert(data, kind)
    return converted


def _depth(data: msgspec.Raw | list[Any]) -> int:
    """How many lists the first element stands in."""
    if isinstance(data, msgspec.Raw):
        return _BEGINNING.match(memoryview(data))[0].count(b"[")  # type: ignore[index]  # it matches any text
    depth = 0
    inner: Any = data
    while isinstance(inner, list):
        depth += 1
        inner = inner[0] if inner else None
    return depth


def _objects(values: list[bytes]) -> Array:
    array: Array = np.empty(len(values), dtype=object)
    array[:] = values
    return array
