"""Messages from a list: the reference source for tests and measurements, with every promise that a source can keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

from pydantic import BaseModel

from inferloop.core.protocols import Source
from inferloop.core.sample import Message
from inferloop.streams.contexts import SourceContext


class MemorySource(Source):
    """Yields the given payloads in chunks; what was not acknowledged comes again after `open`.

    Attributes:
        acked: the payloads acknowledged so far, in that order.
    """

    class Config(BaseModel):
        """None."""

    durable = True
    replayable = False
    ordered = True

    def __init__(self, payloads: Iterable[bytes], context: SourceContext, *, chunk: int = 64, live: bool = False) -> None:
        self._waiting = list(payloads)
        self._name = context.name
        self._chunk = chunk
        self._live = live
        self._read: list[bytes] = []
        self.acked: list[bytes] = []

    async def open(self) -> None:
        """See `Source.open`."""
        self._waiting = self._read + self._waiting
        self._read = []

    async def read(self) -> Sequence[Message]:
        """See `Source.read`."""
        while self._live and not self._waiting:  # noqa: ASYNC110  # a stand-in for a broker, which wakes up by itself
            await asyncio.sleep(0.01)
        await asyncio.sleep(0)
        chunk, self._waiting = self._waiting[: self._chunk], self._waiting[self._chunk :]
        self._read += chunk
        now = time.time()
        return [Message(payload, self._name, now, token=payload) for payload in chunk]

    async def ack(self, messages: Sequence[Message]) -> None:
        """See `Source.ack`."""
        for message in messages:
            self._read.remove(message.payload)
            self.acked.append(message.payload)

    async def close(self) -> None:
        """See `Source.close`."""
