"""The outermost layer of a protobuf message, read and written by hand: tensors stay where they are in the request.

A generated class copies each `raw_input_contents` twice. `split` leaves them in place and cuts out what changes from request to
request, so that the rest can be recognized and need not be parsed again.

    message   model_name · model_version · id · parameters · inputs · outputs · raw_input_contents ...
    Parts          head                   id              head                      places
"""

from __future__ import annotations

from typing import NamedTuple

_LENGTH_DELIMITED = 2
_ONE_BYTE = 0x80
_ID = 3 << 3 | _LENGTH_DELIMITED
_RAW = 7 << 3 | _LENGTH_DELIMITED
_CUT = (_ID, _RAW)
_HEAD = frozenset(number << 3 | _LENGTH_DELIMITED for number in (1, 2, 4, 5, 6))


class Parts(NamedTuple):
    """A `ModelInferRequest` in parts.

    Attributes:
        head: the message without its id and tensors; still a valid message.
        id: the request id, not checked for UTF-8.
        places: start and end of each entry of `raw_input_contents` in the message.
    """

    head: bytes
    id: bytes
    places: list[tuple[int, int]]


def split(data: bytes) -> Parts | None:
    """Take a serialized `ModelInferRequest` apart; None for one that only a real parser can judge."""
    parts: list[bytes] = []
    places: list[tuple[int, int]] = []
    request_id = b""
    position, kept, end = 0, 0, len(data)
    try:
        while position < end:
            tag, size, start = data[position], data[position + 1], position + 2
            if size >= _ONE_BYTE:
                size, start = _varint(data, start - 1)
            stop = start + size
            if tag in _CUT:
                if kept < position:
                    parts.append(data[kept:position])
                kept = stop
                if tag == _RAW:
                    places.append((start, stop))
                else:
                    request_id = data[start:stop]
            elif tag not in _HEAD:
                return None
            position = stop
    except IndexError:  # it ends in the middle of a field
        return None
    if position != end:
        return None
    if kept < end:
        parts.append(data[kept:])
    return Parts(parts[0] if len(parts) == 1 else b"".join(parts), request_id, places)


def field(number: int, size: int) -> bytes:
    """What stands before a length-delimited field of `size` bytes; `number` is below 16."""
    return bytes((number << 3 | _LENGTH_DELIMITED,)) + varint(size)


def varint(value: int) -> bytes:
    """A number of at least 0, seven bits a byte, the low ones first."""
    if value < _ONE_BYTE:
        return _SMALL[value]
    out = bytearray()
    while value >= _ONE_BYTE:
        out.append(value & 0x7F | _ONE_BYTE)
        value >>= 7
    out.append(value)
    return bytes(out)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """The number at `position`, and where it ends; larger than any message if it is not one."""
    value = shift = 0
    while shift < 35:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < _ONE_BYTE:
            return value, position
        shift += 7
    return 1 << 62, position


_SMALL = tuple(bytes((value,)) for value in range(_ONE_BYTE))
