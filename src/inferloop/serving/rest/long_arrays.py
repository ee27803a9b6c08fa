"""Long arrays of numbers in the JSON of a request, read at once by simdjson where it is installed.

    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [0.1, 0.2, 0.3]}]}
                                                                           └── cut out ──┘

What is left is short and read as any request; the numbers become an array without a Python object for each. It is only a
faster way for what is plainly right: whatever it does not take is read the common way, which also says what is wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from typing import Any, Literal, NamedTuple

import numpy as np

from inferloop.core.datatypes import Array, DataType

LONG_BYTES = 16 * 1024
"""Shorter text is read as fast the common way."""

_HAS_SIMDJSON = find_spec("simdjson") is not None
_KEY = b'"data"'
_VALUE = re.compile(rb'"data"[ \t\r\n]*:[ \t\r\n]*(?=\[)')
_PLACEHOLDER = b'"long array '
_NUMBERS = b"0123456789+-.eE \t\r\n"
_FLOATS = frozenset({DataType.FP32, DataType.FP64})
_SIGNED = frozenset({DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64})
_UNSIGNED = frozenset({DataType.UINT8, DataType.UINT16, DataType.UINT32, DataType.UINT64})


class LongArray(NamedTuple):
    """The text of one value of `data`; not known to be JSON.

    Attributes:
        is_flat: whether it has no list but itself.
    """

    text: memoryview
    is_flat: bool


class Cut(NamedTuple):
    """A request without its long arrays.

    Attributes:
        text: the JSON with a placeholder, a JSON string, where each of them stood.
        arrays: what stood there, by the placeholder.
    """

    text: bytes
    arrays: dict[bytes, LongArray]


def cut(text: bytes | memoryview) -> Cut | None:
    """Take out the values of `data` that are long and have neither quotes nor braces; None if there is no such value."""
    if not _HAS_SIMDJSON:
        return None
    text = bytes(text)
    pieces: list[bytes] = []
    arrays: dict[bytes, LongArray] = {}
    done = position = 0
    while (position := text.find(_KEY, position)) >= 0:
        value = _VALUE.match(text, position)
        if value is None:
            position += len(_KEY)
            continue
        start, position = value.end(), _end(text, value.end())
        stop = text.rfind(b"]", start, position) + 1
        if stop - start >= LONG_BYTES:
            placeholder = b'%s%d"' % (_PLACEHOLDER, len(arrays))
            arrays[placeholder] = LongArray(memoryview(text)[start:stop], text.find(b"[", start + 1, stop) < 0)
            pieces += text[done:start], placeholder
            done = stop
    pieces.append(text[done:])
    if not arrays or any(_PLACEHOLDER in piece for piece in pieces[::2]):
        return None
    return Cut(b"".join(pieces), arrays)


def read(array: LongArray, datatype: DataType, shape: Sequence[int]) -> Array | None:
    """The numbers of a JSON list, flat or nested as `shape` says, as a read-only array; None if they are anything else."""
    try:
        if datatype in _FLOATS:
            found = _floats(_buffer(array.text, "d"), datatype)
        elif datatype in _SIGNED:
            found = _integers(_buffer(array.text, "i"), datatype)
        elif datatype in _UNSIGNED:
            found = _integers(_buffer(array.text, "u"), datatype)
        else:
            return None
    except (ValueError, TypeError, AttributeError, RuntimeError):  # no JSON, another type of element, no list, a huge integer
        return None
    if found is None or not found.size or found.size != prod(shape) or not (array.is_flat or _is_nested_as(array.text, shape)):
        return None
    found.flags.writeable = False
    return found.reshape(shape)


def _end(text: bytes, start: int) -> int:
    """Where the value that begins at `start` has ended for certain: at a quote, a brace or the end of the text."""
    quote = text.find(b'"', start)
    quote = len(text) if quote < 0 else quote
    brace = text.find(b"}", start, quote)
    return quote if brace < 0 else brace


def _buffer(text: memoryview, letter: Literal["d", "i", "u"]) -> Array:
    """All numbers of a JSON list, whatever its nesting, in 8 bytes each.

    A parser's objects are views of it, so each call has a parser of its own.
    """
    import simdjson  # what most servers are never sent

    parsed: Any = simdjson.Parser().parse(text)
    numbers: bytes = parsed.as_buffer(of_type=letter)
    return np.frombuffer(numbers, f"{letter.replace('d', 'f')}8")


def _floats(values: Array, datatype: DataType) -> Array | None:
    if datatype is DataType.FP64:
        return values
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    return None if np.isinf(narrow).any() else narrow


def _integers(values: Array, datatype: DataType) -> Array | None:
    narrow: Array = values.astype(datatype.numpy, copy=False)
    return narrow if narrow is values or np.array_equal(narrow, values) else None


def _is_nested_as(text: memoryview, shape: Sequence[int]) -> bool:
    rows = b""
    for size in reversed(shape):
        rows = b"[" + b",".join([rows] * size) + b"]"
    return bytes(text).translate(None, _NUMBERS) == rows
