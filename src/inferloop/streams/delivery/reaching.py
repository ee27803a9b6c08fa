"""Getting through to the other side of a source or sink, for as long as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.parse import urlsplit

from inferloop.core.errors import Unavailable
from inferloop.streams.delivery.backoff import Backoff

log = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_S = 0.1
_LONGEST_S = 5.0


async def reached(connect: Callable[[], Awaitable[T]], *, part: str, url: str) -> T:
    """Call `connect` until it does not raise Unavailable, with growing pauses and a line in the log for each failure.

    Args:
        connect: makes one try.
        part: who wants to connect, e.g. `source chat`.
        url: the address, for the log; it may hold a password.
    """
    backoff = Backoff(_FIRST_S, _LONGEST_S)
    while True:
        try:
            return await connect()
        except Unavailable as error:
            delay_s = backoff.failed()
            facts = {"part": part, "url": without_secrets(url), "reason": error.message, "retry_s": delay_s}
            log.warning("other side not there", extra=facts)
            await asyncio.sleep(delay_s)


def without_secrets(url: str) -> str:
    """An address for logs: no user, password, path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}"
