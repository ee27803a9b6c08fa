"""What may be left out of a live stream: messages beyond a rate, and the oldest of those that nobody could take yet.

source ──> rate ──> buffer ──> read()
             └─────────┴── left out: counted, and acknowledged at once
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence

from inferloop.core.clock import SYSTEM, Clock
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.data.units import RateLimit
from inferloop.streams.config import SourceCommon

BUFFER = 256
"""Messages that wait where the file says only what to do when there are too many."""
_AT_ONCE = 16
Dropped = Callable[[str, int], None]


def thinned(source: Source, common: SourceCommon, dropped: Dropped, clock: Clock = SYSTEM) -> Source:
    """The source itself, or one that leaves messages out where its entry in the file says so."""
    if common.rate is None and common.buffer is None and common.when_full == "block":
        return source
    return ThinnedSource(source, common, dropped, clock)


class ThinnedSource(Source):
    """A live source between a rate and a bounded buffer; of one that is acknowledged in any order.

    Args:
        dropped: told the reason, `rate` or `full`, and how many.
    """

    durable = False
    replayable = False

    def __init__(self, source: Source, common: SourceCommon, dropped: Dropped, clock: Clock = SYSTEM) -> None:
        self.ordered = source.ordered
        self._source = source
        self._pace = _Pace(common.rate, clock) if common.rate is not None else None
        self._most = common.buffer or BUFFER
        self._drops = common.when_full == "drop_oldest"
        self._dropped = dropped
        self._waiting: deque[Message] = deque()
        self._readable = asyncio.Event()
        self._room = asyncio.Event()
        self._taking: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """See `Source.open`."""
        await self._source.open()
        self._taking = asyncio.create_task(self._take_for_ever())
        self._taking.add_done_callback(lambda _: self._readable.set())

    async def read(self) -> Sequence[Message]:
        """See `Source.read`; few at a time, so that what waits stays where it may be left out."""
        while not self._waiting:
            if self._taking is None:
                return ()
            if self._taking.done():
                self._taking.result()
                return ()
            self._readable.clear()
            await self._readable.wait()
        messages = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
        self._room.set()
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        await self._source.ack(messages)

    async def close(self) -> None:
        """See `Source.close`."""
        taking, self._taking = self._taking, None
        if taking is not None:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)
        await self._source.close()

    async def _take_for_ever(self) -> None:
        while messages := await self._source.read():
            for message in messages:
                await self._keep(message)

    async def _keep(self, message: Message) -> None:
        if self._pace is not None and not self._pace.is_due():
            await self._leave_out(message, "rate")
            return
        while len(self._waiting) >= self._most:
            if self._drops:
                await self._leave_out(self._waiting.popleft(), "full")
                continue
            self._room.clear()
            await self._room.wait()
        self._waiting.append(message)
        self._readable.set()

    async def _leave_out(self, message: Message, reason: str) -> None:
        self._dropped(reason, 1)
        await self._source.ack([message])


class _Pace:
    """Evenly spaced: of 5 in a second, one every 200 ms."""

    def __init__(self, limit: RateLimit, clock: Clock) -> None:
        self._gap_s = limit.per_s / limit.count
        self._clock = clock
        self._next = clock.monotonic()

    def is_due(self) -> bool:
        """Whether a message may pass now; if so, the next one may a gap later."""
        now = self._clock.monotonic()
        if now < self._next:
            return False
        self._next = max(self._next + self._gap_s, now)
        return True
