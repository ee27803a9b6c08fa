"""A sink that several tasks use, one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from inferloop.core.protocols import Delivery, Sink


class TakingTurns(Sink):
    """Keeps the contract of a sink for every one of its callers."""

    def __init__(self, sink: Sink) -> None:
        self.idempotent = sink.idempotent
        self.batched = sink.batched
        self._sink = sink
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """See `Sink.open`."""
        await self._sink.open()

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See `Sink.send`."""
        async with self._turn:
            await self._sink.send(deliveries)

    async def close(self) -> None:
        """See `Sink.close`."""
        await self._sink.close()
