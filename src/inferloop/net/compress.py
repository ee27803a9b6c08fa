"""Compresses answers for clients that ask: gzip or deflate, never small ones, large ones off the event loop."""

from __future__ import annotations

import asyncio
import zlib
from functools import lru_cache

from inferloop.net.http import Response

SMALLEST = 1024
"""Bytes; a smaller body stays as it is: it leaves in one packet anyway."""

_INLINE = 64 * 1024
"""Above this many bytes it takes longer than a millisecond, so a thread does it."""

_LEVEL = 1
_WINDOWS = {"gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


async def compress(response: Response, accepted: bytes) -> Response:
    """The answer as the client wants it; unchanged if it is small, has a coding already or does not shrink.

    Args:
        response: changed in place where it is compressed.
        accepted: the value of `Accept-Encoding`.
    """
    body = response.body
    if len(body) < SMALLEST or any(name.lower() == "content-encoding" for name, _ in response.headers):
        return response
    coding = choose(accepted)
    if coding:
        packed = pack(body, coding) if len(body) <= _INLINE else await asyncio.to_thread(pack, body, coding)
        if len(packed) < len(body):
            response.body = packed
            response.headers = (*response.headers, ("Content-Encoding", coding))
    response.headers = (*response.headers, ("Vary", "Accept-Encoding"))
    return response


def pack(body: bytes, coding: str) -> bytes:
    """Compress at once; `deflate` is zlib's format, as RFC 9110 says."""
    stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOWS[coding])
    return stream.compress(body) + stream.flush()


@lru_cache(maxsize=256)
def choose(accepted: bytes) -> str:
    """The coding that a client likes best of those that we have; empty for none."""
    weights: dict[str, float] = {}
    for part in accepted.decode("latin-1").lower().split(","):
        name, _, parameter = part.partition(";")
        weights[name.strip()] = _weight(parameter)
    rest = weights.get("*", 0.0)
    known = {coding: weights.get("x-gzip" if coding == "gzip" and "gzip" not in weights else coding, rest) for coding in _WINDOWS}
    best = max(known, key=lambda coding: known[coding])
    return best if known[best] > 0 and known[best] >= weights.get("identity", 0.0) else ""


def _weight(parameter: str) -> float:
    name, _, value = parameter.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return min(max(float(value), 0.0), 1.0)
    except ValueError:
        return 0.0
