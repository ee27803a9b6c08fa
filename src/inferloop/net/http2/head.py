"""A request's header list as a gRPC transport needs it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from inferloop.net.grpc_call import Metadata
from inferloop.net.http2.fields import Field, Kind
from inferloop.net.http2.violation import Malformed

ENCODINGS = ("identity", "gzip", "deflate")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_TIMEOUT_DIGITS = 8
_PSEUDO = frozenset({Kind.METHOD, Kind.SCHEME, Kind.PATH, Kind.AUTHORITY})


class Head(NamedTuple):
    """What the header list says.

    Attributes:
        path: `/package.Service/Method`.
        timeout_s: from `grpc-timeout`; None without one.
        encoding: of messages that are flagged as compressed; `identity` without one.
        refusal: a header block that answers the request at once, since it is no gRPC call: 405, 415.
        bad_timeout: `grpc-timeout` could not be read.
    """

    path: str
    metadata: Metadata
    timeout_s: float | None
    encoding: str
    refusal: int
    bad_timeout: bool


def read(fields: Iterable[Field]) -> Head:
    """Judge a request's header list.

    Raises:
        Malformed: fields that HTTP/2 forbids, pseudo-headers that are missing, repeated or out of place.
    """
    found: dict[Kind, bytes] = {}
    metadata: list[tuple[str, str | bytes]] = []
    regular = False
    for field in fields:
        kind = field.kind
        if kind is Kind.METADATA:
            metadata += field.metadata
            regular = True
        elif kind is Kind.RESERVED:
            regular = True
        elif kind in found or kind is Kind.BROKEN:
            raise Malformed(f"header {field.name!r} is repeated or broken")
        else:
            if kind not in _PSEUDO:
                regular = True
            elif regular:
                raise Malformed(f"{field.name!r} stands behind other headers")
            found[kind] = field.value
    return _head(found, tuple(metadata))


def check_trailers(fields: Iterable[Field]) -> None:
    """Judge the header list that ends a request; what it says is not used.

    Raises:
        Malformed: it holds pseudo-headers or broken fields.
    """
    for field in fields:
        if field.kind is Kind.BROKEN or field.kind in _PSEUDO:
            raise Malformed(f"header {field.name!r} may not stand in trailers")


def _head(found: dict[Kind, bytes], metadata: Metadata) -> Head:
    path = found.get(Kind.PATH, b"")
    method = found.get(Kind.METHOD)
    if method is None or found.get(Kind.SCHEME) is None or not path:
        raise Malformed("a request needs :method, :scheme and :path")
    timeout = found.get(Kind.TIMEOUT)
    timeout_s = None if timeout is None else parse_timeout(timeout)
    return Head(
        path.decode("latin-1"),
        metadata,
        timeout_s,
        found.get(Kind.ENCODING, b"identity").decode("latin-1"),
        _refusal(method, found.get(Kind.CONTENT_TYPE, b"")),
        timeout is not None and timeout_s is None,
    )


def _refusal(method: bytes, content_type: bytes) -> int:
    """The HTTP status for what is no gRPC request; 0 if it is one."""
    if method != b"POST":
        return 405
    if content_type == b"application/grpc":
        return 0
    plain = content_type.lower()
    return 0 if plain.startswith(b"application/grpc") and plain[16:17] in (b"", b"+", b";") else 415


def parse_timeout(value: bytes) -> float | None:
    """`grpc-timeout` in seconds: at most eight digits and a unit; None if it is anything else."""
    unit = _UNITS.get(value[-1:])
    digits = value[:-1]
    if unit is None or not digits.isdigit() or len(digits) > _TIMEOUT_DIGITS:
        return None
    return int(digits) * unit
