"""Acknowledge in the order of reading: a message only after everything that was read before it from the same source."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from inferloop.core.protocols import Source
from inferloop.streams.work import Arrival

MOST_WAITING = 16_384
"""Unacknowledged messages of one source from which on nothing more is read from it."""


class AckSequencer:
    """The unacknowledged messages of one source, in read order."""

    def __init__(self, source: Source, acknowledged: Callable[[Arrival], None]) -> None:
        self._source = source
        self._acknowledged = acknowledged
        self._waiting: deque[Arrival] = deque()
        self._advance = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    @property
    def unacknowledged(self) -> int:
        """Messages read and not acknowledged yet."""
        return len(self._waiting)

    def expect(self, arrival: Arrival) -> None:
        """A message was read."""
        self._waiting.append(arrival)
        if len(self._waiting) >= MOST_WAITING:
            self._room.clear()

    async def room(self) -> None:
        """Wait while too much is unacknowledged: behind one delivery that hangs, messages that need none must not pile up."""
        await self._room.wait()

    def settle(self, arrival: Arrival) -> None:
        """A message is done; it is acknowledged as soon as its predecessors are."""
        arrival.settled = True
        if self._waiting and self._waiting[0].settled:
            self._advance.set()

    async def run(self) -> None:
        """Acknowledge for ever; cancel it to stop."""
        while True:
            await self._advance.wait()
            self._advance.clear()
            await self.flush()

    async def flush(self) -> None:
        """Acknowledge what may be."""
        done: list[Arrival] = []
        while self._waiting and self._waiting[0].settled:
            done.append(self._waiting.popleft())
        if len(self._waiting) < MOST_WAITING:
            self._room.set()
        if done:
            await self._source.ack([arrival.message for arrival in done])
            for arrival in done:
                self._acknowledged(arrival)
