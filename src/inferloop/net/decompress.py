"""Undoes `Content-Encoding` with a bound on what comes out, so that a small body cannot fill the memory."""

from __future__ import annotations

import asyncio
import zlib

from inferloop.core.errors import InferloopError, InvalidInput, TooLarge

_STEP = 256 * 1024
_INLINE = 1024
"""Below this many bytes the worst case (a thousandfold) takes less than a millisecond."""


class UnknownEncoding(InferloopError):
    """A `Content-Encoding` that we do not undo."""

    status = 415
    grpc_code = "INVALID_ARGUMENT"
    exit_code = 2


async def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """Decode a body; a large one in a thread.

    Args:
        body: as sent.
        encoding: the value of `Content-Encoding`.
        limit: the most bytes that may come out.

    Raises:
        TooLarge: more than `limit` bytes would come out.
        InvalidInput: the body is not what its encoding says.
        UnknownEncoding: neither gzip, deflate nor identity.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in ("gzip", "x-gzip", "deflate"):
        raise UnknownEncoding(f"content encoding {name!r} is not known", hint="known: gzip, deflate, identity")
    if len(body) <= _INLINE:
        return inflate(body, name, limit=limit)
    return await asyncio.to_thread(inflate, body, name, limit=limit)


def inflate(body: bytes, name: str, *, limit: int) -> bytes:
    """See `decompress`; `deflate` means zlib, as RFC 9110 says, with or without its header."""
    try:
        return _inflate(body, zlib.MAX_WBITS | (0 if name == "deflate" else 16), name, limit)
    except zlib.error as error:
        if name == "deflate":
            return _raw(body, limit)
        raise InvalidInput(f"the body is not {name}: {error}") from error


def _raw(body: bytes, limit: int) -> bytes:
    try:
        return _inflate(body, -zlib.MAX_WBITS, "deflate", limit)
    except zlib.error as error:
        raise InvalidInput(f"the body is not deflate: {error}") from error


def _inflate(body: bytes, window: int, name: str, limit: int) -> bytes:
    """All members of a gzip body, or the one stream of a deflate body."""
    parts: list[bytes] = []
    size = 0
    rest = body
    while rest:
        stream = zlib.decompressobj(window)
        while rest and not stream.eof:
            part = stream.decompress(rest, min(_STEP, limit - size + 1))
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body is more than {limit} bytes when decompressed", hint="send it in smaller requests")
            parts.append(part)
            rest = stream.unconsumed_tail
            if not rest and not part:
                break
        if not stream.eof:
            raise InvalidInput(f"the {name} body ends too early")
        rest = stream.unused_data if window > zlib.MAX_WBITS else b""
    return b"".join(parts)
