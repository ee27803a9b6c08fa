"""Header blocks that we send. They hold static indexes and literals without indexing only, so that the encoder has no state."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import quote

from inferloop.core.errors import InferloopError, InvalidInput
from inferloop.net.grpc_call import Status
from inferloop.net.http import header_text
from inferloop.net.http2.fields import Field, Kind

_STATUS_200 = b"\x88"
_CONTENT_TYPE = 31
_STATUS = 8
_MESSAGE_BYTES = 2000
_SHORT = 127
_MOST_NAMES = 64
_NAMES: dict[str, bytes] = {}
"""Names that were found right, as they begin a literal. A service has a handful."""

_UNESCAPED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


def integer(value: int, bits: int, pattern: int = 0) -> bytes:
    """A prefixed integer (RFC 7541, 5.1) in the lower `bits` of a byte whose upper ones are `pattern`."""
    most = (1 << bits) - 1
    if value < most:
        return bytes((pattern | value,))
    out = bytearray((pattern | most,))
    value -= most
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes | int, value: bytes) -> bytes:
    """A field that enters no table; its name is text, or the index of one in the static table."""
    head = integer(name, 4) if isinstance(name, int) else b"\0" + integer(len(name), 7) + name
    return head + integer(len(value), 7) + value


HEADERS_OK = _STATUS_200 + literal(_CONTENT_TYPE, b"application/grpc")
"""What stands before the first message."""

TRAILERS_OK = literal(b"grpc-status", b"0")

ACCEPTED = literal(b"grpc-accept-encoding", b"identity,gzip,deflate")


def trailers(status: Status, message: str = "", metadata: Mapping[str, str] | None = None) -> bytes:
    """`grpc-status`, and what goes with it; the caller sends `HEADERS_OK` before it."""
    block = literal(b"grpc-status", b"%d" % status) if status else TRAILERS_OK
    if message:
        cut = message.encode("utf-8", "replace")[:_MESSAGE_BYTES].decode("utf-8", "ignore")
        block += literal(b"grpc-message", quote(cut, safe=_UNESCAPED).encode("ascii"))
    for name, value in metadata.items() if metadata else ():
        block += _field(name, value)
    return block


def error(failure: BaseException, metadata: Mapping[str, str] | None = None) -> bytes:
    """Trailers that tell an error: ours with its message and hint, any other as INTERNAL without detail."""
    if not isinstance(failure, InferloopError):
        return trailers(Status.INTERNAL, "internal error", metadata)
    more = dict(metadata or {})
    if failure.hint:
        more["inferloop-hint"] = failure.hint
    return trailers(Status[failure.grpc_code], failure.message, more)


def refusal(http_status: int) -> bytes:
    """The whole answer to a request that is no gRPC call."""
    block = literal(_STATUS, b"%d" % http_status)
    if http_status == 405:
        block += literal(b"allow", b"POST")
    return block + literal(b"grpc-status", b"%d" % Status.UNKNOWN)


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Refuse names that HTTP/2 or gRPC would.

    Raises:
        InvalidInput: not lower case, a pseudo-header, or reserved for gRPC.
    """
    for name in metadata:
        if name in _NAMES:
            continue
        field = Field(name.encode("utf-8"), b"")
        if field.kind is not Kind.METADATA or name.startswith("grpc-"):
            raise InvalidInput(f"{name!r} is no name of metadata", hint="lower-case letters, digits, '_', '-' and '.'")
        if len(_NAMES) < _MOST_NAMES:
            _NAMES[name] = b"\0" + integer(len(name), 7) + name.encode("ascii")


def _field(name: str, value: str) -> bytes:
    if value.isalnum() and value.isascii() and len(value) < _SHORT and name in _NAMES and not name.endswith("-bin"):
        return b"%b%c%b" % (_NAMES[name], len(value), value.encode())
    return literal(name.encode("ascii"), _value(name, value))


def _value(name: str, value: str) -> bytes:
    if name.endswith("-bin"):
        return base64.b64encode(value.encode("utf-8")).rstrip(b"=")
    return header_text(value).encode("ascii")
