"""A CBOR document (RFC 8949) to a Sample, with the typed arrays of RFC 8746."""

from __future__ import annotations

import io
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from uuid import UUID

import cbor2
import numpy as np

from inferloop.core.errors import InvalidInput
from inferloop.data.codecs.content import describe
from inferloop.data.codecs.document import DocumentCodec, document
from inferloop.data.codecs.plain import plain

_ARRAYS = {
    64: "u1", 65: ">u2", 66: ">u4", 67: ">u8", 68: "u1", 69: "<u2", 70: "<u4", 71: "<u8",
    72: "i1", 73: ">i2", 74: ">i4", 75: ">i8", 77: "<i2", 78: "<i4", 79: "<i8",
    80: ">f2", 81: ">f4", 82: ">f8", 84: "<f2", 85: "<f4", 86: "<f8",
}  # fmt: skip

_REFUSALS = (cbor2.CBORError, RecursionError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError, MemoryError)
"""What cbor2 raises for hostile bytes: its own errors, and those of the types that it builds for tags."""


class CborCodec(DocumentCodec):
    """See `Codec`.

    A key that is a whole number is found by its digits (`$['1']`). Times are seconds, typed arrays lists; NaN and `undefined`
    count as missing. Of a tag that is not known only the content is read.
    """

    def parse(self, payload: bytes) -> Any:
        """See `DocumentCodec.parse`."""
        return parse_cbor(payload)

    def encode(self, content: Any) -> bytes:
        """A document in the form that it reads."""
        return cbor2.dumps(content)


def parse_cbor(payload: bytes) -> Any:
    """Decode a CBOR map or array.

    Raises:
        InvalidInput: not CBOR, bytes after its end, nested too deep, or a single value; says what came, never the content.
    """
    stream = io.BytesIO(payload)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except _REFUSALS as error:
        reason = str(error).partition("\n")[0].lower() or "a value is broken"
        raise InvalidInput(f"the payload is no CBOR: {reason} ({describe(payload)})") from error
    rest = len(stream.read())
    if rest:
        raise InvalidInput(f"the payload is no CBOR: {rest:,} bytes after its end ({describe(payload)})")
    return document(plain(value, len(payload), _foreign), "CBOR")


def _foreign(value: Any) -> Any:
    if isinstance(value, cbor2.CBORTag):
        return _numbers(value.tag, value.value) if value.tag in _ARRAYS else value.value
    try:
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, Decimal | Fraction):
            return float(value)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("a number or time of the payload is out of range") from error
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, UUID | IPv4Address | IPv6Address):
        return str(value)
    if value is cbor2.undefined:
        return None
    raise InvalidInput(f"the payload has a value of the type {type(value).__name__}, which is not read")


def _numbers(tag: int, content: Any) -> list[Any]:
    dtype = np.dtype(_ARRAYS[tag])
    if not isinstance(content, bytes) or len(content) % dtype.itemsize:
        raise InvalidInput(f"the typed array (tag {tag}) must be bytes, {dtype.itemsize} for each number")
    numbers: list[Any] = np.frombuffer(content, dtype).tolist()
    return numbers
