"""Undoes `Content-Encoding` with a bound on what comes out, so that a small body cannot fill the memory."""

from __future__ import annotations

import asyncio
import zlib

from inferloop.core.errors import InferloopError, InvalidInput, TooLarge

_STEP = 256 * 1024
_FIRST_STEP = 1024
"""What follows a member is copied; one that is small costs little then, however many there are."""
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
    view = memoryview(body)
    parts: list[bytes] = []
    size = at = 0
    while at < len(body):
        stream, step = zlib.decompressobj(window), _FIRST_STEP
        while not stream.eof:
            piece = view[at : at + step]
            part = stream.decompress(piece, min(_STEP, limit - size + 1))
            at += len(piece) - len(stream.unconsumed_tail) - len(stream.unused_data)
            if not piece and not part:
                raise InvalidInput(f"the {name} body ends too early")
            size += len(part)
            if size > limit:
                raise TooLarge(f"the body is more than {limit} bytes when decompressed", hint="send it in smaller requests")
            if part:
                parts.append(part)
            step = min(2 * step, _STEP)
        if window <= zlib.MAX_WBITS:  # deflate has no members
            break
    return b"".join(parts)
