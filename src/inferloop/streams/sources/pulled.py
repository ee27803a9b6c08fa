"""What sources have in common that ask a broker for messages: one task fetches, one keeps alive what is held.

broker -> _fetch() -> deque -> read()          ack() -> _confirm() -> broker
             ^-- as many as in_flight leaves room for
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Hashable, Sequence

from inferloop.core.errors import Unavailable
from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.delivery.reaching import reached

log = logging.getLogger(__name__)

_GOODBYE_S = 2.0


class PulledSource(Source, abc.ABC):
    """Connects again for ever until it is closed; a cancelled `read` loses nothing, for another task fetches.

    A message's token is hashable, and names one delivery of it.

    Args:
        name: of the source in the pipeline.
        url: of the broker, for the log.
        in_flight: messages that may be unacknowledged at a time.
        keep_s: seconds after which what is held must be touched, so that the broker gives it to nobody else; 0 for never.
    """

    durable = True
    replayable = True
    ordered = True
    finishes_fetch = False
    """Whether a fetch that is cancelled leaves a request at the broker, which goes on taking messages."""

    def __init__(self, name: str, url: str, *, in_flight: int, keep_s: float = 0.0) -> None:
        self.in_flight = in_flight
        self._name = name
        self._url = url
        self._keep_s = keep_s
        self._arrived: deque[Message] = deque()
        self._held: dict[Hashable, Message] = {}
        self._readable = asyncio.Event()
        self._has_room = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: BaseException | None = None
        self._closing = False
        self._ended = False
        """Set by a source that has nothing more to fetch."""

    async def open(self) -> None:
        """See `Source.open`."""
        try:
            await self._reach()
        except BaseException:
            self._closing = True
            await self._disconnect()
            raise
        self._start()

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                return ()
            self._readable.clear()
            await self._readable.wait()
        messages = list(self._arrived)
        self._arrived.clear()
        return messages

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`. What cannot be told to the broker now comes again."""
        mine = [message for message in messages if self._held.pop(message.token, None) is not None]
        self._has_room.set()
        try:
            await self._confirm(mine)
        except Unavailable as error:
            log.warning(
                "not acknowledged, comes again", extra={"source": self._name, "reason": error.message, "messages": len(mine)}
            )

    async def close(self) -> None:
        """See `Source.close`."""
        tasks, self._tasks = self._tasks, []
        if not tasks:
            return
        self._closing = True
        if self.finishes_fetch:
            self._has_room.set()
            await asyncio.wait(tasks[:1], timeout=_GOODBYE_S)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await self._give_back(list(self._held.values()))
        self._held.clear()
        await self._disconnect()

    @abc.abstractmethod
    async def _connect(self) -> None:
        """Connect anew; Unavailable if the other side is not there."""

    @abc.abstractmethod
    async def _fetch(self, most: int) -> Sequence[Message]:
        """Wait a moment for up to `most` messages; Unavailable if the connection is lost."""

    @abc.abstractmethod
    async def _confirm(self, messages: Sequence[Message]) -> None:
        """Acknowledge, in the order in which they were read."""

    @abc.abstractmethod
    async def _disconnect(self) -> None:
        """Write what is queued and disconnect; the connection may be broken already."""

    async def _keep(self, messages: Sequence[Message]) -> None:
        """Tell the broker that these are still worked on."""

    async def _give_back(self, messages: Sequence[Message]) -> None:
        """Tell the broker that these are not worked on any more."""

    async def _reach(self) -> None:
        await reached(self._connect, part=f"source {self._name}", url=self._url)

    def _start(self) -> None:
        works = [self._fetch_for_ever()] + ([self._keep_for_ever()] if self._keep_s else [])
        self._tasks = [asyncio.create_task(work, name=f"source-{self._name}") for work in works]
        for task in self._tasks:
            task.add_done_callback(self._on_ended)

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """Wake whoever reads, so that a defect here does not look like silence of the broker."""
        if not task.cancelled() and not self._closing:
            self._failure = task.exception()
            self._readable.set()

    async def _fetch_for_ever(self) -> None:
        while not self._closing and not self._ended:
            room = self.in_flight - len(self._held)
            if room <= 0:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            try:
                messages = await self._fetch(room)
            except Unavailable as error:
                log.warning("connection lost", extra={"source": self._name, "reason": error.message})
                await self._disconnect()
                await self._reach()
                continue
            if messages:
                self._held.update((message.token, message) for message in messages if isinstance(message.token, Hashable))
                self._arrived.extend(messages)
            if messages or self._ended:
                self._readable.set()

    async def _keep_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._keep_s)
            try:
                await self._keep(list(self._held.values()))
            except Unavailable as error:
                log.warning("not kept alive", extra={"source": self._name, "reason": error.message, "messages": len(self._held)})
