"""Messages between the sources and the model: bounded, taken in micro-batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from inferloop.streams.work import Arrival


class Intake:
    """A queue that gives what is at hand, up to a batch. Used on one event loop; several may put, one takes.

    Args:
        bound: messages from which on `put` waits; a burst that a source hands over at once may exceed it.
    """

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._waiting: deque[Arrival] = deque()
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._closed = False

    async def put(self, arrivals: Sequence[Arrival]) -> None:
        """Add messages, then wait until there is room for more."""
        self._waiting.extend(arrivals)
        self._filled.set()
        while len(self._waiting) >= self._bound and not self._closed:
            self._emptied.clear()
            await self._emptied.wait()

    async def take(self, enough: int, *, delay_s: float, most: int) -> list[Arrival]:
        """Wait for a message, then up to `delay_s` seconds until there are `enough`; nothing once closed and empty.

        Args:
            enough: messages that are not waited for any longer.
            delay_s: seconds.
            most: messages that are taken at once where so many wait already.
        """
        while not self._waiting:
            if self._closed:
                return []
            self._filled.clear()
            await self._filled.wait()
        if delay_s and len(self._waiting) < enough and not self._closed:
            await self._linger(enough, delay_s)
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._emptied.set()
        return taken

    def close(self) -> None:
        """No more will come; what waits is still taken."""
        self._closed = True
        self._filled.set()
        self._emptied.set()

    async def _linger(self, most: int, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                while len(self._waiting) < most and not self._closed:
                    self._filled.clear()
                    await self._filled.wait()
        except TimeoutError:
            return
