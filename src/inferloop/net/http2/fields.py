"""One header field, judged once: what it is to a gRPC request, and its value in the form that a call hands out.

Fields live in HPACK's table, so that a field that a client repeats costs one look-up.
"""

from __future__ import annotations

import base64
import binascii
import re
from enum import IntEnum

from inferloop.net.grpc_call import Metadata


class Kind(IntEnum):
    """What a field is to a request."""

    METADATA = 0
    RESERVED = 1
    BROKEN = 2
    METHOD = 3
    SCHEME = 4
    PATH = 5
    AUTHORITY = 6
    CONTENT_TYPE = 7
    TIMEOUT = 8
    ENCODING = 9

    __hash__ = int.__hash__  # Enum's is slow


_KINDS = {
    b":method": Kind.METHOD,
    b":scheme": Kind.SCHEME,
    b":path": Kind.PATH,
    b":authority": Kind.AUTHORITY,
    b"content-type": Kind.CONTENT_TYPE,
    b"grpc-timeout": Kind.TIMEOUT,
    b"grpc-encoding": Kind.ENCODING,
    b"te": Kind.RESERVED,
    b"host": Kind.RESERVED,
    b"content-length": Kind.RESERVED,
    b"grpc-accept-encoding": Kind.RESERVED,
    b"grpc-message-type": Kind.RESERVED,
    b"connection": Kind.BROKEN,
    b"keep-alive": Kind.BROKEN,
    b"proxy-connection": Kind.BROKEN,
    b"transfer-encoding": Kind.BROKEN,
    b"upgrade": Kind.BROKEN,
}
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+\Z")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff]|[\x21-\x7e\x80-\xff][\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?\Z")
"""Any bytes but controls; no blanks at either end."""

_OVERHEAD = 32


class Field:
    """Name and value as sent; `size` as HPACK counts it; `metadata` what of it a call hands out.

    `kind` is `Kind.BROKEN` for a field that makes its request malformed.
    """

    __slots__ = ("kind", "metadata", "name", "size", "value")

    def __init__(self, name: bytes, value: bytes) -> None:
        self.name = name
        self.value = value
        self.size = len(name) + len(value) + _OVERHEAD
        kind = _KINDS.get(name, Kind.METADATA)
        self.metadata: Metadata = ()
        if not _VALUE.match(value):
            kind = Kind.BROKEN
        elif kind is Kind.METADATA:
            kind, self.metadata = _judge(name, value)
        elif name == b"te" and value.lower() != b"trailers":
            kind = Kind.BROKEN
        self.kind = kind


def _judge(name: bytes, value: bytes) -> tuple[Kind, Metadata]:
    if not _NAME.match(name):
        return Kind.BROKEN, ()
    text = name.decode("ascii")
    if not name.endswith(b"-bin"):
        return Kind.METADATA, ((text, value.decode("latin-1")),)
    try:
        return Kind.METADATA, tuple((text, _unbase64(part)) for part in value.split(b","))
    except binascii.Error:
        return Kind.BROKEN, ()


def _unbase64(value: bytes) -> bytes:
    """Base64 with or without padding."""
    plain = value.strip().rstrip(b"=")
    return base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True)
